"""Exchanges positives and counts between the processes that rank together."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup


def world_size(group: ProcessGroup | None) -> int:
    """The number of processes that rank together; 1 without a group."""
    return 1 if group is None else dist.get_world_size(group)


def share(numbers: list[int], device: torch.device, group: ProcessGroup | None) -> list[list[int]]:
    """Gather the ``numbers`` of each process. All processes must give the same number of them."""
    if group is None:
        return [numbers]
    return _gather(torch.tensor(numbers, device=device), group).tolist()


def concatenate(x: Tensor, sizes: list[int], group: ProcessGroup | None) -> tuple[Tensor, slice]:
    """Concatenate ``x`` over the processes.

    Args:
        x: (n,) float.
        sizes: n of each process.
        group: the processes; None: only this process.

    Returns:
        (sum of sizes,) the concatenation, and the slice of it that is ``x`` of this process.
    """
    if group is None:
        return x, slice(0, len(x))
    padded = x.new_zeros(max(sizes))
    padded[: len(x)] = x
    rows = _gather(padded, group)
    begin = sum(sizes[: dist.get_rank(group)])
    everything = torch.cat([row[:size] for row, size in zip(rows, sizes, strict=True)])
    return everything, slice(begin, begin + len(x))


def add_up(x: Tensor, group: ProcessGroup | None) -> Tensor:
    """Sum ``x`` over the processes, in place."""
    if group is not None:
        dist.all_reduce(x, group=group)
    return x


def _gather(x: Tensor, group: ProcessGroup) -> Tensor:
    gathered = [torch.empty_like(x) for _ in range(world_size(group))]
    dist.all_gather(gathered, x, group=group)
    return torch.stack(gathered)
