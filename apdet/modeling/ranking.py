"""Makes the targets of a ranking over anchors and classes, and records its AP in the log."""

import torch
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor

from apdet.losses import ap_loss

# The ranking is recorded every 20th iteration, which is when Detectron2's writers print.
LOG_PERIOD = 20


def ranking_targets(gt_labels: Tensor, num_classes: int) -> Tensor:
    """Make a target for each anchor and class, as in Fig. 3 of the AP-loss paper.

    No shape depends on the values of the labels, so the host does not wait for the device.

    Args:
        gt_labels: (*) int64. -1 ignored, 0 to K-1 the class of a positive, K background.
        num_classes: K.

    Returns:
        (*, K) int8. 1 for the class of a positive, -1 for all classes of an ignored anchor, and 0
        everywhere else, also for the other classes of a positive. A label above K gives a target of
        2, which the losses of :mod:`apdet.losses` refuse.
    """
    # (*) The target of one class of each anchor: the class of a positive, else any class.
    target = torch.where(gt_labels < num_classes, 1, 2 * (gt_labels > num_classes))
    target = torch.where(gt_labels < 0, -1, target).to(torch.int8)
    targets = target.clamp(max=0)[..., None].expand(*gt_labels.shape, num_classes)
    classes = gt_labels.clamp(0, num_classes - 1).long()
    return targets.scatter(-1, classes[..., None], target[..., None])


def check_classes(gt_labels: Tensor, num_classes: int) -> None:
    """Raise a ValueError if ``gt_labels`` (*) has a label above ``num_classes``."""
    if (gt_labels > num_classes).any():
        raise ValueError(
            f"a ground truth has class {gt_labels.max().item()}, but the model has only "
            f"{num_classes} classes: set NUM_CLASSES to those of the data set"
        )


def logs_now() -> bool:
    """Whether the ranking is recorded in this iteration of Detectron2's training loop."""
    return has_event_storage() and (get_event_storage().iter + 1) % LOG_PERIOD == 0


@torch.no_grad()
def log_ranking(logits: Tensor, targets: Tensor) -> None:
    """Record the AP of the ranking and its numbers of positives and relevant negatives.

    The values go to Detectron2's event storage. The AP is one minus the AP-loss with delta 1, in
    percent, whatever loss is trained. A negative is relevant if this AP-loss pushes it down, which
    means that its logit is above the lowest positive minus 1.

    Args:
        logits: (*) float.
        targets: (*) of the same shape. 1 positive, 0 negative, -1 ignored.
    """
    pos = logits[targets > 0]
    relevant = (targets == 0) & (logits > pos.min() - 1) if len(pos) else targets.new_zeros(1)
    storage = get_event_storage()
    storage.put_scalar("ranking/num_positives", len(pos), smoothing_hint=False)
    storage.put_scalar("ranking/num_relevant_negatives", relevant.sum(), smoothing_hint=False)
    if len(pos):
        storage.put_scalar("ranking/AP", 100 * (1 - ap_loss(logits, targets)), smoothing_hint=False)
