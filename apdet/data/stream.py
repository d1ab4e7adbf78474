"""The endless stream of training images, which can start at any position."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

import numpy as np
import torch
from detectron2.data.samplers import TrainingSampler
from torch.utils.data import Dataset, get_worker_info

from apdet.data.worker_errors import report_unsent_batches
from apdet.signals import obey_main_process_alone


def derived_seed(*numbers: int) -> int:
    """Derive a seed of 31 bits from numbers, such as the seed of a training and an iteration."""
    # 31 bits are never negative: in configs, -1 means that no seed is set.
    sequence = np.random.SeedSequence([number % 2**64 for number in numbers])
    return int(sequence.generate_state(1)[0] >> 1)


class ResumableSampler(TrainingSampler):
    """Detectron2's endless shuffled sampler, which can start at any batch.

    It yields pairs (position in the stream, index of the image). All images of a batch belong to
    one group.
    """

    def __init__(self, groups: Sequence[int], *, batch_size: int, seed: int, start_iter: int = 0):
        """Set up the sampler.

        Args:
            groups: the group of each image.
            batch_size: number of images in a batch of one process.
            seed: seed of the shuffle.
            start_iter: how many batches to skip.
        """
        super().__init__(len(groups), seed=seed)
        self._groups, self._batch_size = groups, batch_size
        self._start_iter = start_iter

    def __iter__(self) -> Iterator[tuple[int, int]]:
        stream = islice(enumerate(self._infinite_indices()), self._rank, None, self._world_size)
        yield from islice(self._batches(stream), self._start_iter * self._batch_size, None)

    def _batches(self, stream: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        waiting: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for position, index in stream:
            batch = waiting[self._groups[index]]
            batch.append((position, index))
            if len(batch) == self._batch_size:
                yield from batch
                batch.clear()


@cache
def _prepare_worker() -> None:
    """Called for each image: Detectron2's loader takes no function that prepares its workers."""
    obey_main_process_alone()
    report_unsent_batches()  # a worker that was not forked, as on macOS, inherits nothing


class StreamDataset(Dataset):
    """Maps the images of a stream with random numbers that depend only on the position."""

    def __init__(self, images: Sequence[dict], mapper: Callable[[dict], dict], *, seed: int):
        """Set up the data set.

        Args:
            images: dataset dicts.
            mapper: maps a dataset dict to the input of the model.
            seed: seed of the training.
        """
        self.images, self.mapper, self.seed = images, mapper, seed

    def __getitem__(self, drawn: tuple[int, int]) -> dict:
        if get_worker_info() is not None:
            _prepare_worker()
        position, index = drawn
        # StepSeeder passes the rank of a process in place of -1, so the two seeds always differ.
        seed = derived_seed(self.seed, position, -1)
        random.seed(seed)
        np.random.seed(seed)
        # Without workers, the model draws from this generator, so its state must not change.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.mapper(self.images[index])
