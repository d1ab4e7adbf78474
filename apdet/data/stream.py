"""The endless stream of training images, which may be picked up anywhere."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from detectron2.data.samplers import TrainingSampler
from torch.utils.data import Dataset


def derived_seed(*numbers: int) -> int:
    """A seed of 31 bits for what ``numbers`` tell apart, say the seed of a training and a step."""
    # Not negative: -1 stands for no seed in configs.
    sequence = np.random.SeedSequence([number % 2**64 for number in numbers])
    return int(sequence.generate_state(1)[0] >> 1)


class ResumableSampler(TrainingSampler):
    """Detectron2's shuffled stream, for a resumed training to go on in where it was left.

    Yields (position in the stream, index of the image); images of one group come in whole batches.
    """

    def __init__(self, groups: Sequence[int], *, batch_size: int, seed: int, start_iter: int = 0):
        """Set it up.

        Args:
            groups: of each image, any number; a batch is of one group.
            batch_size: of a process.
            seed: of the shuffle.
            start_iter: how many batches to skip.
        """
        super().__init__(len(groups), seed=seed)
        self._groups, self._batch_size = groups, batch_size
        self._start_iter = start_iter

    def __iter__(self) -> Iterator[tuple[int, int]]:
        stream = islice(enumerate(self._infinite_indices()), self._rank, None, self._world_size)
        yield from islice(self._batches(stream), self._start_iter * self._batch_size, None)

    def _batches(self, stream: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        waiting = defaultdict(list)
        for position, index in stream:
            batch = waiting[self._groups[index]]
            batch.append((position, index))
            if len(batch) == self._batch_size:
                yield from batch
                batch.clear()


class StreamDataset(Dataset):
    """The images of a stream, each of its positions with random numbers of its own."""

    def __init__(self, images: Sequence[dict], mapper: Callable[[dict], dict], *, seed: int):
        """Args: ``images`` as dataset dicts, what maps one, and the ``seed`` of the training."""
        self.images, self.mapper, self.seed = images, mapper, seed

    def __getitem__(self, drawn: tuple[int, int]) -> dict:
        position, index = drawn
        seed = derived_seed(self.seed, position, -1)  # of no process, unlike those of steps
        random.seed(seed)
        np.random.seed(seed)
        # Without workers, this process draws for the model, too.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.mapper(self.images[index])
