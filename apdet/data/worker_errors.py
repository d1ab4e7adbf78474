"""Turns errors of data-loader workers into the errors of a loader without workers."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from typing import Any

from torch._utils import ExceptionWrapper
from torch.utils.data import get_worker_info

from apdet.errors import ArgumentError, UserError
from apdet.signals import Stopped, StopRequest

_CAUGHT = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n.*", re.DOTALL)
_print_error = Queue._on_queue_feeder_error  # type: ignore[attr-defined]
_DEAD = re.compile(r"DataLoader worker \(pid.*", re.DOTALL)


@contextmanager
def errors_of_workers(stop: StopRequest | None = None) -> Iterator[None]:
    """In this context, an error of a data-loader worker that the user can mend has one line.

    torch adds the traceback of the worker to the message. Workers must start in this context, so
    that forked ones inherit `report_unsent_batches`.

    Args:
        stop: whether a signal asked this process to end. The same signal may kill a worker.

    Raises:
        UserError: a worker cannot read an image, or something killed it.
        Stopped: a worker died after a signal.
    """
    report_unsent_batches()
    try:
        yield
    except (UserError, OSError) as error:
        if not _CAUGHT.fullmatch(str(error)):
            raise
        name, _, message = str(error).rstrip().rpartition("\n")[2].partition(": ")
        raise UserError(message or name) from error
    except RuntimeError as error:
        # The error may have another one as its cause, which says how the worker died.
        reasons = [e for e in (error.__cause__, error) if _DEAD.fullmatch(str(e))]
        if not reasons:
            raise
        if stop and stop.signum:
            raise Stopped(stop.signum) from error
        raise ArgumentError(
            "errors_of_workers",
            "{reason}. The memory may not suffice: set {num_workers} lower, or make /dev/shm "
            "larger. Then call again, a training with --resume",
            reason=" ".join(str(reasons[0]).split()).rstrip(". "),
        ) from error
    finally:
        Queue._on_queue_feeder_error = staticmethod(_print_error)  # type: ignore[attr-defined]


def report_unsent_batches() -> None:
    """In a data-loader worker, make a batch that it cannot send an error of the main process.

    torch would print the error, and wait for the batch for ever.
    """
    Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]


def _send_error(queue: Queue, error: Exception, item: Any) -> None:
    """In a worker that cannot send an item, (number, batch), send an error in its place."""
    worker = get_worker_info()
    if worker is None:  # a queue of the main process
        _print_error(error, item)
        return
    if not isinstance(item, tuple) or isinstance(item[1], ExceptionWrapper):
        os._exit(1)  # not even an error can be sent; torch notices that the worker has ended
    problem = UserError(
        f"a data-loader worker cannot send a batch: {error}. Raise the limit of open files "
        "(ulimit -n), make /dev/shm larger, or use fewer workers"
    )
    where = f"in DataLoader worker process {worker.id}"
    queue.put((item[0], ExceptionWrapper((UserError, problem, None), where)))
