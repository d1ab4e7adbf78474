"""Reads the sizes of many images: in threads, and once on each machine."""

import socket
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool

from detectron2.utils import comm

from apdet.data.image_header import image_size
from apdet.errors import UserError

Size = tuple[int, int]  # (width, height) in pixels

# Threads wait for the disk at the same time. More of them than processors are of use on disks of a
# network, and cost little on fast ones.
_NUM_THREADS = 8
_NUM_FILES = 256  # files that a thread reads in a row


def image_sizes(file_names: Sequence[str]) -> list[Size]:
    """Read the (width, height) of images; see `image_size`.

    Raises:
        UserError: a file is missing or is not an image. If there are several, the first is named.
    """
    if len(file_names) <= _NUM_FILES:
        return [image_size(file_name) for file_name in file_names]
    with ThreadPool(_NUM_THREADS) as pool:
        return list(pool.imap(image_size, file_names, chunksize=_NUM_FILES))


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
