"""Reads the sizes of many images: in several processes, and once on each machine."""

import itertools
import os
import socket
import sys
from collections.abc import Sequence

import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from apdet.data.image_header import image_size
from apdet.data.worker_errors import errors_of_workers
from apdet.errors import UserError

Size = tuple[int, int]  # (width, height) in pixels

_NUM_FEW = 2000  # images that are read sooner than workers start
_NUM_IN_A_ROW = 256  # images that a worker reads before it returns their sizes
_MAX_WORKERS = 8


def image_sizes(file_names: Sequence[str]) -> list[Size]:
    """Read the (width, height) of images; see `image_size`.

    Raises:
        UserError: a file is missing or is not an image. If there are several, the first is named.
    """
    # On other systems than Linux, each worker would first import torch, which takes seconds.
    if len(file_names) <= _NUM_FEW or sys.platform != "linux":
        return [image_size(file_name) for file_name in file_names]
    # Threads would take longer than one process: they wait for each other to run Python.
    loader = DataLoader(
        _Sizes(file_names),
        batch_size=_NUM_IN_A_ROW,
        num_workers=min(len(os.sched_getaffinity(0)), _MAX_WORKERS),
        collate_fn=list,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # else the loader draws from the generator of the training
    )
    with errors_of_workers():
        return list(itertools.chain.from_iterable(loader))


class _Sizes(Dataset):
    """The sizes of images, each of which is read when it is asked for."""

    def __init__(self, file_names: Sequence[str]):
        self._file_names = file_names

    def __len__(self) -> int:
        return len(self._file_names)

    def __getitem__(self, index: int) -> Size:
        return image_size(self._file_names[index])


def image_sizes_of_machine(file_names: Sequence[str]) -> list[Size]:
    """Like `image_sizes`, but one process of each machine reads the files for the others.

    All processes of a training must call this function with the same files.
    """
    if comm.get_world_size() == 1:
        return image_sizes(file_names)
    host = socket.gethostname()
    reader = comm.all_gather(host).index(host)
    outcomes = comm.all_gather(_outcome(file_names) if comm.get_rank() == reader else None)
    if isinstance(outcomes[reader], UserError):
        raise outcomes[reader]
    return outcomes[reader]


def _outcome(file_names: Sequence[str]) -> list[Size] | UserError:
    try:
        return image_sizes(file_names)
    except UserError as error:
        return error
