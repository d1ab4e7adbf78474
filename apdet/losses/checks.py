"""What scores and targets have to be, and how the errors say that they are not."""

import math

import torch
from torch import Tensor


def check_shapes(logits: Tensor, targets: Tensor) -> None:
    """Raise a ValueError if the shapes differ."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ")


def check_scores(logits: Tensor, targets: Tensor) -> None:
    """Refuse scores and targets that no loss can be computed from.

    Raises:
        ValueError: shapes that differ, or a target above 1.
        FloatingPointError: scores that are NaN or infinite; the message counts them.
    """
    check_shapes(logits, targets)
    fault = fault_of(logits, total(logits).item(), targets, int((targets > 1).sum()))
    if fault is not None:
        raise fault


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Refuse scores of classes, (*, K+1), and labels, (*), that no loss can be computed from.

    Raises:
        ValueError: shapes that do not fit, or a label above K.
        FloatingPointError: scores that are NaN or infinite; the message counts them.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} must have the shape of labels {tuple(labels.shape)} "
            "and one dimension more, the classes"
        )
    fault = fault_of(logits, total(logits).item(), labels, 0)
    if fault is not None:
        raise fault
    background = logits.shape[-1] - 1
    if labels.numel() and labels.max() > background:
        raise ValueError(f"labels lie in -1 to {background}, got {labels.max().item()}")


def total(scores: Tensor) -> Tensor:
    """The sum of all scores, (): the cheapest look at all. If it is finite, every score is."""
    return scores.sum(dtype=torch.promote_types(scores.dtype, torch.float32))


def fault_of(scores: Tensor, total: float, labels: Tensor, num_above_one: int) -> Exception | None:
    """The error to raise, if there is one.

    Args:
        scores: (*) float.
        total: their sum, not finite if one of them is not.
        labels: (*) targets of all scores, or at least of all positives.
        num_above_one: how many of these are above 1.
    """
    if not math.isfinite(total):
        num_nan, num_inf = int(torch.isnan(scores).sum()), int(torch.isinf(scores).sum())
        if num_nan + num_inf > 0:  # else the sum overflowed
            return FloatingPointError(
                f"{num_nan} of {scores.numel()} logits are NaN and {num_inf} are infinite: "
                "training has diverged (try a lower learning rate) or the input is not finite"
            )
    if num_above_one:
        return ValueError(f"targets lie in {{-1, 0, 1}}, got {labels.max().item()}")
    return None
