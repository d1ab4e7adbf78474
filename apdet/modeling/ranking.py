"""The bridge between Detectron2's dense detectors and the losses of :mod:`apdet.losses`."""

import inspect
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage, has_event_storage
from torch import Tensor
from torch.distributed import ProcessGroup

from apdet import losses
from apdet.errors import UserError
from apdet.losses import ap_loss

# Detectron2's writers print every 20th iteration; the ranking is looked at as often.
LOG_PERIOD = 20
# Keyword arguments of a loss that are the detector's to give, not the config's.
GIVEN = ("normalizer", "group")


def build_cls_loss(cfg: CfgNode) -> Callable[..., Tensor]:
    """The loss named by ``cfg.MODEL.CLS_LOSS``, with its keyword arguments bound.

    Raises:
        UserError: a name that is no loss, or a keyword or value that the loss does not take.
    """
    name, kwargs = cfg.MODEL.CLS_LOSS.NAME, dict(cfg.MODEL.CLS_LOSS.KWARGS)
    if name not in losses.__all__:
        raise UserError(f"MODEL.CLS_LOSS.NAME is {name!r}; choose one of {losses.__all__}")
    loss = getattr(losses, name)
    # The first two are the tensors.
    accepted = [key for key in list(inspect.signature(loss).parameters)[2:] if key not in GIVEN]
    for key in kwargs:
        if key not in accepted:
            raise UserError(f"MODEL.CLS_LOSS.KWARGS has {key!r}; {name} takes {accepted}")
    loss = partial(loss, **kwargs)
    try:
        loss(torch.zeros(1), torch.zeros(1, dtype=torch.int8))
    except (TypeError, ValueError) as error:
        raise UserError(f"MODEL.CLS_LOSS.KWARGS {kwargs} of {name}: {error}") from error
    return loss


def call_cls_loss(
    loss: Callable[..., Tensor],
    logits: Tensor,
    targets: Tensor,
    *,
    normalizer: Tensor,
    group: ProcessGroup | None,
) -> Tensor:
    """Call a loss with what it takes of what the detector has to give.

    Args:
        loss: one of :mod:`apdet.losses`.
        logits: (*) float.
        targets: (*) of the same shape. 1 positive, 0 negative, -1 ignored.
        normalizer: (), for losses that are sums over anchors.
        group: the processes to rank over as one, for losses that rank.
    """
    given = {"normalizer": normalizer, "group": group}
    taken = inspect.signature(loss).parameters
    return loss(logits, targets, **{key: given[key] for key in GIVEN if key in taken})


def ranking_group(global_ranking: bool) -> ProcessGroup | None:
    """All processes, if there are several and they are to rank as one."""
    return dist.group.WORLD if global_ranking and comm.get_world_size() > 1 else None


def positives_a_process(num_positives: Tensor, group: ProcessGroup | None) -> Tensor:
    """What a sum over anchors is divided by, (): the positives, at least one.

    With a group, those of all processes over their number, so that the average of gradients over
    processes is that of one process with all images.
    """
    if group is None:
        return num_positives.clamp(min=1)
    total = num_positives.clone()
    dist.all_reduce(total, group=group)
    return total.clamp(min=1) / dist.get_world_size(group)


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
    targets = torch.zeros(*gt_labels.shape, num_classes, dtype=torch.int8, device=gt_labels.device)
    targets[gt_labels < 0] = -1
    positives = ((gt_labels >= 0) & (gt_labels != num_classes)).nonzero(as_tuple=True)
    classes = gt_labels[positives]
    if (classes > num_classes).any():
        raise ValueError(
            f"a ground truth has class {classes.max().item()}, but the model has only "
            f"{num_classes} classes: set NUM_CLASSES to those of the data set"
        )
    targets[*positives, classes] = 1
    return targets


@torch.no_grad()
def log_ranking(logits: Tensor, targets: Tensor) -> None:
    """Record the ranking's AP, and its positives and relevant negatives, every 20th iteration.

    A negative is relevant if it stands less than 1 below the lowest positive or above it; it is
    one that the AP-loss with delta 1 pushes down. The AP is the one of that loss, in percent,
    whatever loss is trained. Nothing happens outside of Detectron2's training loop.

    Args:
        logits: (*) float.
        targets: (*) of the same shape. 1 positive, 0 negative, -1 ignored.
    """
    if not has_event_storage() or (get_event_storage().iter + 1) % LOG_PERIOD:
        return
    pos = logits[targets > 0]
    relevant = (targets == 0) & (logits > pos.min() - 1) if len(pos) else targets.new_zeros(1)
    storage = get_event_storage()
    storage.put_scalar("ranking/num_positives", len(pos), smoothing_hint=False)
    storage.put_scalar("ranking/num_relevant_negatives", relevant.sum(), smoothing_hint=False)
    if len(pos):
        storage.put_scalar("ranking/AP", 100 * (1 - ap_loss(logits, targets)), smoothing_hint=False)
