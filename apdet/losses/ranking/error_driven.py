"""Ranking losses with an error-driven update: a gradient that is not a derivative."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from apdet.losses.ranking import distributed
from apdet.losses.ranking.binning import BinnedScores, bin_scores
from apdet.losses.ranking.binning.search import SearchedScores
from apdet.losses.ranking.entries import Entries, find_entries
from apdet.losses.ranking.rank_sums import Windows
from apdet.losses.ranking.steps import Step

# (rank_pos, rank_neg, num_neg) -> (losses, weights), see `ranking_loss`.
Criterion = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


@torch.compiler.disable
def ranking_loss(
    logits: Tensor,
    targets: Tensor,
    criterion: Criterion,
    *,
    step: Step,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Rank all positives against all negatives, with an error-driven update as the gradient.

    The positives P are in ascending order of their scores s_i. With the step H,

        rank_pos_i = 1 + sum_{k in P, k != i} H(s_k - s_i)
        rank_neg_i = sum_{j in N} H(s_j - s_i)
        loss       = 1/|P| sum_i losses_i
        g_j        = 1/|P| sum_i weights_i H(s_j - s_i)     (j in N)
        g_i        = -1/|P| weights_i rank_neg_i            (i in P)

    where g is the gradient. It sums to zero. It need not be the derivative of the loss.

    Args:
        logits: (*) float. All entries compete in one ranking.
        targets: (*) any dtype. 1 positive, 0 negative, -1 ignored.
        criterion: ``(rank_pos, rank_neg, num_neg) -> (losses, weights)``. It defines the loss as a
            function of the ranks. num_neg is the number of negatives; the others are (P,) float64.
        step: the step H, see :mod:`apdet.losses.ranking.steps`.
        group: the processes that rank together; None: only this process. All of them must call,
            and all get the loss of the joint ranking. The gradient in each process is multiplied
            by the number of processes. The average that DistributedDataParallel takes is then the
            gradient of the joint ranking.

    Returns:
        () float32 (float64 for float64 logits). Without a positive, or without a negative, it is 0
        and its gradient is all zeros.

    Raises:
        ValueError: the shapes differ, or a target is above 1.
        FloatingPointError: a logit is NaN or infinite, or another process has an error.
    """
    return _ErrorDriven.apply(logits, targets, criterion, step, group)


class _ErrorDriven(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        criterion: Criterion,
        step: Step,
        group: ProcessGroup | None,
    ) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            loss, ctx.update = _rank(find_entries(logits, targets, group), criterion, step, group)
        ctx.save_for_backward(logits)  # so that autograd notices if the logits are overwritten
        return loss.to(torch.promote_types(logits.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        (logits,) = ctx.saved_tensors
        grad = torch.empty(logits.numel(), dtype=logits.dtype, device=logits.device)
        ctx.update.write(grad, grad_loss)
        return grad.view(logits.shape), None, None, None, None


class _Update(NamedTuple):
    """The gradient of a ranking, before it is multiplied by the gradient of the loss."""

    entries: Entries
    binned: BinnedScores
    gradient_lines: Tensor  # (2, E + 1) the gradient of a negative as a function of its score
    grad_pos: Tensor  # (P,)

    def write(self, grad: Tensor, scale: Tensor) -> None:
        """Write the gradient, times ``scale`` (), to ``grad`` (N,)."""
        # Scaled before rounding, so that a loss scale keeps small float16 gradients.
        self.binned.evaluate(self.gradient_lines * scale.double(), grad)
        grad[self.entries.ignored_index] = 0
        grad[self.entries.pos_index] = (self.grad_pos * scale).to(grad.dtype)


def _rank(
    entries: Entries, criterion: Criterion, step: Step, group: ProcessGroup | None
) -> tuple[Tensor, _Update]:
    """Compute the loss, (), and its update."""
    pos = entries.scores[entries.pos_index].double()
    pos, own = distributed.concatenate(pos, entries.num_pos, group)
    pos, order = pos.sort()  # (P,) ascending
    windows = Windows(pos, step)
    binned = bin_scores(entries.scores, windows.edges)

    positives, negatives = _histograms(binned, entries, windows.edges, group)
    rank_pos = windows.rank_sums(positives) + 0.5  # a positive counts itself as 1, but H(0) = 1/2
    rank_neg = windows.rank_sums(negatives)
    losses, weights = criterion(rank_pos, rank_neg, entries.num_neg)

    num_pos = max(len(pos), 1)
    weights = weights / num_pos
    grad_pos = torch.empty_like(pos).scatter_(0, order, -weights * rank_neg)[own]
    # DistributedDataParallel divides by the number of processes.
    scale = distributed.world_size(group)
    lines = windows.gradient_lines(weights)
    return losses.sum() / num_pos, _Update(entries, binned, scale * lines, scale * grad_pos)


def _histograms(
    binned: BinnedScores, entries: Entries, edges: Tensor, group: ProcessGroup | None
) -> Tensor:
    """Compute the histograms (2, 2, E + 1) of positives and negatives in all processes."""
    positives = SearchedScores(entries.scores[entries.pos_index], edges).histogram()
    ignored = SearchedScores(entries.scores[entries.ignored_index], edges).histogram()
    # Counting all scores and subtracting the few that are not negatives is faster than a mask.
    count, offset = binned.histogram() - positives - ignored
    # Without a negative in the bin, the offset must be exactly 0 in spite of rounding.
    negatives = torch.stack([count, torch.where(count > 0, offset.clamp(min=0), 0)])
    return distributed.add_up(torch.stack([positives, negatives]), group)
