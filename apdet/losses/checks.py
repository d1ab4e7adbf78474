"""Checks scores and targets, and raises an error if a loss cannot be computed from them.

Each check makes the host wait for the device once, in `to_host`.
"""

import math

import torch
from torch import Tensor


def check_shapes(logits: Tensor, targets: Tensor) -> None:
    """Raise a ValueError if the shapes differ."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ")


def check_scores(logits: Tensor, targets: Tensor) -> None:
    """Check scores and targets of the same shape, (*).

    Raises:
        ValueError: the shapes differ, or a target is above 1.
        FloatingPointError: scores are NaN or infinite; the message counts them.
    """
    check_shapes(logits, targets)
    error = find_error(logits, *to_host(total(logits), bounds(targets)[1]))
    if error is not None:
        raise error


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Check scores of classes, (*, K+1), and labels, (*).

    Raises:
        ValueError: the shapes do not fit, or a label is above K.
        FloatingPointError: scores are NaN or infinite; the message counts them.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} must have the shape of labels {tuple(labels.shape)} "
            "and one dimension more, the classes"
        )
    sum_of_scores, largest_label = to_host(total(logits), bounds(labels)[1])
    background = logits.shape[-1] - 1
    error = find_error(logits, sum_of_scores, 0)
    if error is None and largest_label > background:
        error = ValueError(f"labels lie in -1 to {background}, got {largest_label:g}")
    if error is not None:
        raise error


def total(scores: Tensor) -> Tensor:
    """The sum of all scores, (). If the sum is finite, every score is: this is a cheap check."""
    return scores.sum(dtype=torch.promote_types(scores.dtype, torch.float32))


def bounds(targets: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest target, () each; both are 0 if there is no target."""
    if not targets.numel():
        return targets.new_zeros(()), targets.new_zeros(())
    smallest, largest = (targets.byte() if targets.dtype == torch.bool else targets).aminmax()
    return smallest, largest


def to_host(*facts: Tensor) -> list[float]:
    """Copy several numbers, () each, to the host in one step, so that it waits only once."""
    return torch.stack([fact.double() for fact in facts]).tolist()


def find_error(scores: Tensor, total: float, largest: float) -> Exception | None:
    """Find the error to raise, if there is one.

    Args:
        scores: (*) float.
        total: the sum of the scores.
        largest: the largest target.
    """
    if not math.isfinite(total):
        num_nan, num_inf = int(torch.isnan(scores).sum()), int(torch.isinf(scores).sum())
        if num_nan + num_inf > 0:  # if not, only the sum has overflowed
            return FloatingPointError(
                f"{num_nan} of {scores.numel()} logits are NaN and {num_inf} are infinite: "
                "training has diverged (try a lower learning rate) or the input is not finite"
            )
    if not largest <= 1:
        return ValueError(f"targets lie in {{-1, 0, 1}}, got {largest:g}")
    return None
