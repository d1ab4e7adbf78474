"""Detectron2's training sampler, started anywhere in its stream."""

from collections.abc import Iterator
from itertools import islice

from detectron2.data.samplers import TrainingSampler


class ResumableSampler(TrainingSampler):
    """An endless shuffled stream of indices that a resumed training picks up where it was left."""

    def __init__(self, size: int, *, seed: int, start: int = 0):
        """Args: ``size`` of the data set, ``seed`` of the shuffle, ``start``: indices to skip."""
        super().__init__(size, seed=seed)
        self._start = start

    def __iter__(self) -> Iterator[int]:
        yield from islice(
            self._infinite_indices(), self._start + self._rank, None, self._world_size
        )
