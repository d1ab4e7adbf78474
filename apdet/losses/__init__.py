"""Classification losses for detectors, in plain torch: Detectron2 is not needed here.

Each loss is a function ``(logits, targets, *, hyper-parameters) -> ()`` in its own file; open
``ap.py`` first. ``targets`` has the shape of ``logits`` and holds 1 for a positive, 0 for a
negative and -1 for an ignored entry. Attributes of the function give further properties, for
example that `ohem_loss` is a softmax over classes; see :mod:`apdet.losses.interface`.

To write your own ranking loss, call `ranking_loss`, as in ``auc.py``.
"""

import warnings
from typing import Any

from apdet.losses.ap import ap_loss
from apdet.losses.auc import auc_loss
from apdet.losses.dr import dr_loss
from apdet.losses.focal import focal_loss
from apdet.losses.ghm import ghm_loss
from apdet.losses.ohem import ohem_loss
from apdet.losses.pnp import pnp_loss
from apdet.losses.ranking import ranking_loss

# The losses that a config can name. `ranking_loss` is not one: it needs a criterion.
LOSSES = ("ap_loss", "auc_loss", "dr_loss", "focal_loss", "ghm_loss", "ohem_loss", "pnp_loss")

__all__ = [
    "LOSSES",
    "ap_loss",
    "auc_loss",
    "dr_loss",
    "focal_loss",
    "ghm_loss",
    "ohem_loss",
    "pnp_loss",
    "ranking_loss",
]


def __getattr__(name: str) -> Any:
    if name == "SOFTMAX":
        message = "apdet.losses.SOFTMAX is deprecated: a loss over classes has softmax = True"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return ("ohem_loss",)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
