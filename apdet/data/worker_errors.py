"""Turns errors of data-loader workers into the errors of a loader without workers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from apdet.errors import ArgumentError, UserError

_CAUGHT = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n.*", re.DOTALL)
_DEAD = re.compile(r"DataLoader worker \(pid.*", re.DOTALL)


@contextmanager
def errors_of_workers() -> Iterator[None]:
    """In this context, an error of a data-loader worker that the user can mend has one line.

    torch adds the traceback of the worker to the message.

    Raises:
        UserError: a worker cannot read an image, or something killed it.
    """
    try:
        yield
    except (UserError, OSError) as error:
        if not _CAUGHT.fullmatch(str(error)):
            raise
        name, _, message = str(error).rstrip().rpartition("\n")[2].partition(": ")
        raise UserError(message or name) from error
    except RuntimeError as error:
        # torch first says how the worker died, and then that it did.
        reason = error.__cause__ or error
        if not _DEAD.fullmatch(str(reason)):
            raise
        raise ArgumentError(
            "errors_of_workers",
            "{reason}. The memory may not suffice: set {num_workers} lower, or make /dev/shm "
            "larger. Then call again, a training with --resume",
            reason=" ".join(str(reason).split()).rstrip(". "),
        ) from error
