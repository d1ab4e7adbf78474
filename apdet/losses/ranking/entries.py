"""Finds the positives and the ignored entries of a batch."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from apdet.losses.checks import bounds, check_shapes, find_error, to_host, total
from apdet.losses.ranking import distributed
from apdet.losses.ranking.nonzero import (
    as_words,
    bytes_in,
    can_compile,
    nonzero_words,
    nonzero_words_of_known_number,
)


class Entries(NamedTuple):
    """The scores of a batch, and the indices of the scores that are not negatives."""

    scores: Tensor  # (N,) float
    pos_index: Tensor  # (P,) int64
    ignored_index: Tensor  # (I,) int64
    num_pos: list[int]  # number of positives in each process
    num_neg: int  # number of negatives in all processes


def find_entries(logits: Tensor, targets: Tensor, group: ProcessGroup | None) -> Entries:
    """Find the positives and the ignored entries of a batch, and check logits and targets.

    The host waits for the device only once.

    Args:
        logits: (*) float.
        targets: (*) any dtype. 1 positive, 0 negative, -1 ignored.
        group: the processes that rank together; None: only this process.

    Raises:
        ValueError: the shapes differ, or a target is above 1.
        FloatingPointError: a logit is NaN or infinite, or another process has an error.
    """
    check_shapes(logits, targets)
    scores = logits.detach().reshape(-1)
    signs = targets.reshape(-1).to(torch.int8).contiguous()
    words = as_words(signs)
    # On the CPU there is no wait, so compiled code first finds the few candidates to count.
    found = nonzero_words(words) if can_compile(words) else None
    counted = signs if found is None else signs[bytes_in(found, len(signs))]
    sum_of_scores, smallest, largest, difference, num_others, num_words = to_host(
        total(scores),
        *bounds(targets),
        _sum(counted),  # P - I
        _sum(counted.abs()),  # P + I
        torch.count_nonzero(words),
    )
    if smallest < -1:  # also ignored, but the sums above need -1
        return find_entries(logits, targets.clamp(min=-1), group)
    num_pos, num_neg = int(num_others + difference) // 2, len(scores) - int(num_others)
    error = find_error(scores, sum_of_scores, largest)
    num_pos_of_each, num_neg_of_all = _share(num_pos, num_neg, error, scores.device, group)

    if found is None:
        found = nonzero_words_of_known_number(words, int(num_words))
    pos_index, ignored_index = _split(signs, bytes_in(found, len(signs)), num_pos, int(num_others))
    return Entries(scores, pos_index, ignored_index, num_pos_of_each, num_neg_of_all)


def _sum(x: Tensor) -> Tensor:
    """The sum, (), of ``x`` (n,) int8, each of which is -1, 0 or 1.

    ``x.sum()`` is slow, because it converts each byte. A sum of 120 entries still fits a byte.
    """
    rows = x[: len(x) // 120 * 120].view(120, -1)
    return rows.sum(0, dtype=torch.int8).sum() + x[rows.numel() :].sum()


def _share(
    num_pos: int,
    num_neg: int,
    error: Exception | None,
    device: torch.device,
    group: ProcessGroup | None,
) -> tuple[list[int], int]:
    """Exchange the numbers of positives and negatives; raise an error if any process has one.

    Returns:
        The number of positives in each process, and the number of negatives in all of them.
    """
    # A process with an error takes part too, so that the others do not wait forever.
    counts = distributed.share([num_pos, num_neg, int(error is not None)], device, group)
    if error is not None:
        raise error
    num_pos_of_each, num_neg_of_each, failed = zip(*counts, strict=True)
    if any(failed):
        where = ", ".join(str(rank) for rank, has_failed in enumerate(failed) if has_failed)
        raise FloatingPointError(f"the logits or targets of process {where} are at fault")
    return list(num_pos_of_each), sum(num_neg_of_each)


def _split(
    signs: Tensor, candidates: Tensor, num_pos: int, num_others: int
) -> tuple[Tensor, Tensor]:
    """Split the ``candidates``, indices (c,) of ``signs`` (N,), by their signs.

    Boolean indices would do the same, but they make the host wait for the device.

    Returns:
        The candidates of sign 1, (num_pos,), and of sign -1, (num_others - num_pos,), in order.
    """
    sign = signs[candidates]
    is_pos, is_ignored = sign > 0, sign < 0
    place = torch.where(is_pos, is_pos.cumsum(0), num_pos + is_ignored.cumsum(0)) - 1
    # All negatives among the candidates go to one extra place at the end, which is dropped.
    place = torch.where(sign == 0, num_others, place)
    split = candidates.new_empty(num_others + 1).scatter_(0, place, candidates)
    return split[:num_pos], split[num_pos:-1]
