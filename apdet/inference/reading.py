"""Reads images ahead in worker processes. An image that cannot be read ends nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from apdet.data.worker_errors import report_unsent_batches
from apdet.errors import UserError
from apdet.signals import obey_main_process_alone


@dataclass(frozen=True)
class ReadImage:
    """An image that was read, or why it was not.

    Attributes:
        index: its position in the list of all images.
        inputs: the input of the model; None if the image cannot be read.
        error: why it cannot be read.
    """

    index: int
    inputs: dict[str, Any] | None
    error: str = ""


def read_ahead(
    paths: Sequence[str],
    indices: Sequence[int],
    mapper: Callable[[dict], dict],
    *,
    workers: int,
    bits: int | None = None,
) -> Iterator[ReadImage]:
    """Read some of the images, in order. Each worker is at most two images ahead.

    Args:
        paths: the files of all images.
        indices: the positions of those to read.
        mapper: maps a dataset dict to the input of the model.
        workers: the number of processes that read; 0: this process reads.
        bits: number of bits that pixels of 16-bit images use; None: all, see `read_image`.
    """
    return iter(
        DataLoader(
            _Images(paths, mapper, bits),
            batch_size=None,
            sampler=indices,
            num_workers=min(workers, len(indices)),
            collate_fn=_unchanged,
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # else the loader draws from the global generator
        )
    )


class _Images(Dataset):
    def __init__(self, paths: Sequence[str], mapper: Callable[[dict], dict], bits: int | None):
        self.paths, self.mapper, self.bits = paths, mapper, bits

    def __getitem__(self, index: int) -> ReadImage:
        path = self.paths[index]
        try:
            inputs = self.mapper({"file_name": path, "bits": self.bits})
        except UserError as error:
            return ReadImage(index, None, str(error).removeprefix(f"{path}: "))
        except Exception as error:  # a broken file may raise any exception of a decoder
            return ReadImage(index, None, f"{type(error).__name__}: {error}")
        return ReadImage(index, inputs)


def _unchanged(read: Any) -> Any:
    return read


def _prepare_worker(_: int) -> None:
    obey_main_process_alone()
    report_unsent_batches()  # a worker that was not forked, as on macOS, inherits nothing
