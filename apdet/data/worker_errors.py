"""Turns errors of data-loader workers into the errors of a loader without workers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from apdet.errors import ArgumentError, UserError
from apdet.signals import Stopped, StopRequest

_CAUGHT = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n.*", re.DOTALL)
_DEAD = re.compile(r"DataLoader worker \(pid.*", re.DOTALL)


@contextmanager
def errors_of_workers(stop: StopRequest | None = None) -> Iterator[None]:
    """In this context, an error of a data-loader worker that the user can mend has one line.

    torch adds the traceback of the worker to the message.

    Args:
        stop: whether a signal asked this process to end. The same signal may kill a worker.

    Raises:
        UserError: a worker cannot read an image, or something killed it.
        Stopped: a worker died after a signal.
    """
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
