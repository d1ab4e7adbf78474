"""The targets of a ranking over anchors and classes, and what is recorded of it."""

import torch
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor

from apdet.losses import ap_loss

# Detectron2's writers print every 20th iteration; the ranking is looked at as often.
LOG_PERIOD = 20


def ranking_targets(gt_labels: Tensor, num_classes: int) -> Tensor:
    """Replicate the label of each anchor for every class, as the AP-loss paper does (Fig. 3).

    Args:
        gt_labels: (*) int64. -1 ignored, 0 to K-1 the class of a positive, K background.
        num_classes: K.

    Returns:
        (*, K) int8. 1 for the class of a positive, -1 where the anchor is ignored, else 0: a
        positive is a negative for the other classes.

    Raises:
        ValueError: a label above K.
    """
    check_classes(gt_labels, num_classes)
    targets = torch.zeros(*gt_labels.shape, num_classes, dtype=torch.int8, device=gt_labels.device)
    targets[gt_labels < 0] = -1
    positives = ((gt_labels >= 0) & (gt_labels != num_classes)).nonzero(as_tuple=True)
    targets[*positives, gt_labels[positives]] = 1
    return targets


def check_classes(gt_labels: Tensor, num_classes: int) -> None:
    """Raise a ValueError if ``gt_labels`` (*) has a label above ``num_classes``."""
    if (gt_labels > num_classes).any():
        raise ValueError(
            f"a ground truth has class {gt_labels.max().item()}, but the model has only "
            f"{num_classes} classes: set NUM_CLASSES to those of the data set"
        )


def logs_now() -> bool:
    """Whether this is an iteration of Detectron2's training loop of which the ranking is logged."""
    return has_event_storage() and (get_event_storage().iter + 1) % LOG_PERIOD == 0


@torch.no_grad()
def log_ranking(logits: Tensor, targets: Tensor) -> None:
    """Record the ranking's AP, and its positives and relevant negatives, in the event storage.

    A negative is relevant if it stands less than 1 below the lowest positive or above it; it is
    one that the AP-loss with delta 1 pushes down. The AP is the one of that loss, in percent,
    whatever loss is trained.

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
