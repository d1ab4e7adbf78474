"""What all ranking losses share: one ranking, and an update that is set by hand."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup

from apdet.losses.checks import check_shapes, fault_of, total
from apdet.losses.ranking import distributed
from apdet.losses.ranking.binning.backend import bin_scores
from apdet.losses.ranking.binning.searched import BinnedScores, Searched
from apdet.losses.ranking.nonzero import nonzero
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
    """A loss that ranks all positives against all negatives, with its error-driven update.

    The positives P come in ascending order of their scores s_i. With the step H,

        rank_pos_i = 1 + sum_{k in P, k != i} H(s_k - s_i)
        rank_neg_i = sum_{j in N} H(s_j - s_i)
        loss       = 1/|P| sum_i losses_i
        g_j        = 1/|P| sum_i weights_i H(s_j - s_i)     (j in N)
        g_i        = -1/|P| weights_i rank_neg_i            (i in P)

    where g is the gradient, which need not be the derivative of the loss. It sums to zero.

    Args:
        logits: (*) float. All entries compete in one ranking.
        targets: (*) any dtype. 1 positive, 0 negative, -1 ignored.
        criterion: ``(rank_pos, rank_neg, num_neg) -> (losses, weights)``, a function of the ranks
            alone: (P,) float64 each, but for num_neg, the number of negatives.
        step: what "above" is counted with.
        group: the processes to rank over; None: this one alone. All of them have to call, and all
            get the loss of the whole. The gradient of each is multiplied by the number of
            processes, so that DistributedDataParallel's average over them is the gradient of the
            whole.

    Returns:
        () float32 (float64 for float64 logits). Without a positive, or without a negative, it is 0
        and its gradient is all zeros.

    Raises:
        ValueError: shapes that differ, or a target above 1.
        FloatingPointError: logits that are NaN or infinite, in any of the processes.
    """
    return _ErrorDriven.apply(logits, targets, criterion, step, group)


class _ErrorDriven(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, criterion, step, group):
        with torch.autocast(logits.device.type, enabled=False):
            loss, ctx.update = _rank(_find_entries(logits, targets, group), criterion, step, group)
        ctx.save_for_backward(logits)  # so that autograd notices if they are overwritten
        return loss.to(torch.promote_types(logits.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        (logits,) = ctx.saved_tensors
        grad = torch.empty(logits.numel(), dtype=logits.dtype, device=logits.device)
        ctx.update.write(grad, grad_loss)
        return grad.view(logits.shape), None, None, None, None


class _Entries(NamedTuple):
    """The scores of a batch, and which of them are not negatives."""

    scores: Tensor  # (N,) float
    pos_index: Tensor  # (P,) int64
    ignored_index: Tensor  # (I,) int64
    num_pos: list[int]  # of each process
    num_neg: int  # of all processes


def _find_entries(logits: Tensor, targets: Tensor, group: ProcessGroup | None) -> _Entries:
    check_shapes(logits, targets)
    scores, targets = logits.detach().reshape(-1), targets.reshape(-1)
    index = nonzero(targets)
    labels = targets[index]
    facts = [total(scores), (labels > 0).sum(), (labels > 1).sum()]
    # One look at the device for all that the host has to know.
    sum_of_scores, num_pos, num_above_one = torch.stack([x.double() for x in facts]).tolist()
    fault = fault_of(scores, sum_of_scores, labels, int(num_above_one))

    counts = [int(num_pos), len(scores) - len(index), int(fault is not None)]
    counts = distributed.share(counts, scores.device, group)
    if fault is not None:
        raise fault
    num_pos_of_each, num_neg_of_each, faults = zip(*counts, strict=True)
    if any(faults):  # then none may wait for the others in vain
        where = ", ".join(str(rank) for rank, failed in enumerate(faults) if failed)
        raise FloatingPointError(f"the logits or targets of process {where} are at fault")

    pos_index, ignored_index = _split(index, labels > 0, int(num_pos))
    return _Entries(scores, pos_index, ignored_index, list(num_pos_of_each), sum(num_neg_of_each))


def _split(x: Tensor, first: Tensor, num_first: int) -> tuple[Tensor, Tensor]:
    """The entries of ``x`` (n,) where ``first`` (n,) holds, and the others, in order.

    As boolean indices would, but they make the host wait for the device.
    """
    num_so_far = first.cumsum(0)
    others_so_far = torch.arange(1, len(x) + 1, device=x.device) - num_so_far
    place = torch.where(first, num_so_far, num_first + others_so_far) - 1
    split = torch.empty_like(x).scatter_(0, place, x)
    return split[:num_first], split[num_first:]


class _Update(NamedTuple):
    """The gradient of a ranking, ready to be written once its factor is known."""

    binned: BinnedScores
    lines: Tensor  # (2, E + 1) blame as a function of the score
    grad_pos: Tensor  # (P,)
    entries: _Entries

    def write(self, grad: Tensor, scale: Tensor) -> None:
        """Write the gradient, times ``scale`` (), to ``grad`` (N,)."""
        # Scaled before it is rounded: a loss scale keeps small float16 gradients alive.
        self.binned.evaluate(self.lines * scale.double(), grad)
        grad[self.entries.ignored_index] = 0
        grad[self.entries.pos_index] = (self.grad_pos * scale).to(grad.dtype)


def _rank(
    entries: _Entries, criterion: Criterion, step: Step, group: ProcessGroup | None
) -> tuple[Tensor, _Update]:
    pos = entries.scores[entries.pos_index].double()
    pos, own = distributed.concatenate(pos, entries.num_pos, group)
    pos, order = pos.sort()  # (P,) ascending
    windows = Windows(pos, step)
    binned = bin_scores(entries.scores, windows.edges)

    positives, negatives = _histograms(binned, entries, windows.edges, group)
    rank_pos = windows.rank_sums(positives) + 0.5  # the self term counts 1, H(0) only half
    rank_neg = windows.rank_sums(negatives)
    losses, weights = criterion(rank_pos, rank_neg, entries.num_neg)

    num_pos = max(len(pos), 1)
    weights = weights / num_pos
    grad_pos = torch.empty_like(pos).scatter_(0, order, -weights * rank_neg)[own]
    # DistributedDataParallel divides by the number of processes.
    scale = distributed.world_size(group)
    update = _Update(binned, scale * windows.blame_lines(weights), scale * grad_pos, entries)
    return losses.sum() / num_pos, update


def _histograms(
    binned: BinnedScores, entries: _Entries, edges: Tensor, group: ProcessGroup | None
) -> Tensor:
    """Histograms (2, 2, E + 1) of the positives and the negatives of all processes."""
    positives = Searched(entries.scores[entries.pos_index], edges).histogram()
    ignored = Searched(entries.scores[entries.ignored_index], edges).histogram()
    # All scores went in, without a mask; the few that are no negatives are taken out again.
    count, offset = binned.histogram() - positives - ignored
    # Where nothing is left, nothing must be left of rounding either.
    negatives = torch.stack([count, torch.where(count > 0, offset.clamp(min=0), 0)])
    return distributed.add_up(torch.stack([positives, negatives]), group)
