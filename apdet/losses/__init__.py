"""Classification losses for detectors, in plain torch: Detectron2 is not needed here.

Each is a function ``(logits, targets, *, hyper-parameters) -> ()``, where ``targets`` has the shape
of ``logits`` and holds 1 for a positive, 0 for a negative and -1 for an ignored entry. Those named
in ``SOFTMAX`` are over classes instead: ``logits`` (*, K+1), the last one the background, and
``labels`` (*), the class or -1.
"""

from apdet.losses.ap import ap_loss
from apdet.losses.auc import auc_loss
from apdet.losses.dr import dr_loss
from apdet.losses.focal import focal_loss
from apdet.losses.ghm import ghm_loss
from apdet.losses.ohem import ohem_loss
from apdet.losses.pnp import pnp_loss

SOFTMAX = ("ohem_loss",)

__all__ = ["ap_loss", "auc_loss", "dr_loss", "focal_loss", "ghm_loss", "ohem_loss", "pnp_loss"]
