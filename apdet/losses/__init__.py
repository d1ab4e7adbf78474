"""Classification losses for dense detectors, in plain torch: Detectron2 is not needed here.

Each is a function ``(logits, targets, *, hyper-parameters) -> ()``, where ``targets`` has the shape
of ``logits`` and holds 1 for a positive, 0 for a negative and -1 for an ignored entry.
"""

from apdet.losses.ap import ap_loss
from apdet.losses.auc import auc_loss
from apdet.losses.focal import focal_loss
from apdet.losses.pnp import pnp_loss

__all__ = ["ap_loss", "auc_loss", "focal_loss", "pnp_loss"]
