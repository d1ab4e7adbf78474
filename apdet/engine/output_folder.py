"""Checks the folder that a training writes to, and locks it against a second training."""

import errno
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from detectron2.utils import comm

from apdet.checkpoint.run_folder import holds_run, remove_stale_files
from apdet.engine import file_lock
from apdet.engine.restarts import is_restart, launch_name
from apdet.errors import ArgumentError

logger = logging.getLogger(__name__)

LOCK = "lock"  # the file in the output folder that its training has locked


def check_output_dir(folder: str, *, create: bool) -> None:
    """Check that a folder is writable.

    Args:
        folder: the folder, which need not exist.
        create: whether to make the folder.

    Raises:
        ArgumentError: the folder is not writable.
    """
    try:
        if "\0" in folder:
            raise OSError(errno.EINVAL, "a path cannot hold the character \\0")
        folder.encode()  # TensorBoard takes names in UTF-8 only
        existing = os.path.abspath(folder)
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        tempfile.TemporaryFile(dir=existing).close()
        if create:
            os.makedirs(folder, exist_ok=True)
    except UnicodeEncodeError as error:
        raise ArgumentError(
            "TrainingPlan",
            "{output_dir} {folder!a} cannot be written in this locale; set PYTHONUTF8=1 in the "
            "environment, or {output_dir} to a name in ASCII",
            folder=folder,
        ) from error
    except OSError as error:
        raise ArgumentError(
            "TrainingPlan",
            "{output_dir} {folder} cannot be written to: {reason}; mend that, or set {output_dir} "
            "to another folder",
            folder=folder,
            reason=error.strerror or error,
        ) from error


@contextmanager
def owning(folder: str, *, may_hold_a_run: bool) -> Iterator[bool]:
    """In this context, this training is the only one that writes to a folder.

    The main process holds a lock on the file `LOCK`, which the operating system releases when the
    process dies. It also removes the files that a killed training left incomplete. All processes of
    the training must enter.

    Args:
        folder: the folder, which exists.
        may_hold_a_run: whether the folder may hold checkpoints already.

    Yields:
        Whether the training may go on from checkpoints in the folder: ``may_hold_a_run``, or
        torchrun has restarted the processes of this very training.

    Raises:
        ArgumentError: another training writes to the folder, or it holds a training and must not.
    """
    lock, problem, goes_on, restarted = None, "", may_hold_a_run, is_restart()
    if comm.is_main_process():
        lock, problem = _acquire(os.path.join(folder, LOCK))
        if lock is not None:
            goes_on = goes_on or (restarted and _is_signed(lock))
            if not goes_on and holds_run(folder):
                problem = "holds a training already: go on with it by --resume"
            _sign(lock, "" if problem else _signature())
    try:
        problem, goes_on = comm.all_gather((problem, goes_on))[0]
        if problem:
            raise ArgumentError(
                "TrainingPlan",
                "{output_dir} {folder} {problem}, or set {output_dir} to another folder",
                folder=folder,
                problem=problem,
            )
        if comm.is_main_process():
            remove_stale_files(folder)
        yield goes_on
    finally:
        if lock is not None:
            lock.close()


def _acquire(path: str) -> tuple[IO[str] | None, str]:
    """Lock a file.

    Returns:
        The open file and "", or None and the reason why it could not be locked. On a file system
        without locks there is only a warning.
    """
    file = open(path, "a+")  # noqa: SIM115  it stays open as long as the training runs
    try:
        file_lock.lock(file)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        return None, f"is in use by another training, {owner}: wait until it ends"
    except OSError as error:
        logger.warning(f"{path} cannot be locked ({error}): start no second training in its folder")
    return file, ""


def _signature() -> str:
    """Names the owner of a folder, and the call of torchrun that has started the owner."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    by = launch_name()
    owner = f"process {os.getpid()} on {socket.gethostname()}, started at {now}"
    return f"{owner} by {by}" if by else owner


def _is_signed(file: IO[str]) -> bool:
    """Whether the folder was begun by the call of torchrun that has started this process."""
    file.seek(0)
    return bool(launch_name()) and file.read().rstrip("\n").endswith(f" by {launch_name()}")


def _sign(file: IO[str], signature: str) -> None:
    file.truncate(0)
    file.write(f"{signature}\n")
    file.flush()
