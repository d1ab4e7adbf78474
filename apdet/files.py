"""Tells regular files from others, writes files whole, and makes errors that say what to do."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from apdet.errors import UserError

_REMEDIES = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space in your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.ENOENT: "restore the folder",
    errno.EEXIST: "remove the file that has the name of a folder",
    errno.ENOTDIR: "remove the file that has the name of a folder",
    errno.EISDIR: "remove the folder that has the name of a file",
    errno.EROFS: "make the file system writable",
    errno.EACCES: "make it writable and readable for you",
}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# No file is to blame for these.
_REMEDIES_ELSEWHERE = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close files of other programs",
    errno.ENOMEM: "free memory, or use fewer processes",
    errno.EAGAIN: "raise the limit of processes (ulimit -u)",
    errno.EPIPE: "keep open what reads the output",
    errno.ECONNRESET: "see why the process at the other end has ended",
}

_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
}


def check_regular_file(path: str | os.PathLike, *, missing: str = "no such file") -> None:
    """Check that a path, or the link there, leads to a file. A pipe or a device may never end.

    Args:
        path: the file that is about to be read.
        missing: what the error says if there is nothing.

    Raises:
        UserError: there is nothing or something else, or the path cannot be followed.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (FileNotFoundError, ValueError) as error:  # ValueError: a name with the character 0
        raise UserError(f"{os.fspath(path)}: {missing}") from error
    except OSError as error:
        raise unreadable_file(path, error) from error
    if kind != stat.S_IFREG:
        raise UserError(
            f"{os.fspath(path)}: a {_KINDS.get(kind, 'special file')}, not a regular file; "
            "correct the path, or put a file there"
        )


def unreadable_file(path: str | os.PathLike, error: OSError) -> UserError:
    """The error of a file or folder that the operating system does not let us read."""
    return UserError(
        f"{os.fspath(path)}: cannot be read ({error.strerror or error}); make it readable for you, "
        "or correct the path"
    )


def storage_error(error: OSError, path: str | os.PathLike) -> UserError:
    """The error of a file or folder as one line: its path, the reason, and what to do.

    The path is left out if the error is not one of files, such as too little memory.
    """
    number = error.errno or 0
    place = "" if number in _REMEDIES_ELSEWHERE else f"{os.fspath(path)}: "
    remedy = {**_REMEDIES, **_REMEDIES_ELSEWHERE}.get(number, "mend that")
    return UserError(
        f"{place}{error.strerror or error}; {remedy}, then call again, a training with --resume. "
        "What was written before is whole"
    )


@contextmanager
def naming_file(path: str | os.PathLike, *, is_guess: bool = False) -> Iterator[None]:
    """In this context, turn an OSError into a UserError that names a file.

    Args:
        path: the file or folder that is named if the OSError names none.
        is_guess: whether the OSError may well be of another file than ``path``. If it names none,
            and is no error of writing such as a full disk, it then passes.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        if isinstance(reason.filename, str | bytes):
            path = os.fsdecode(reason.filename)
        elif is_guess and reason.errno not in {*_REMEDIES, *_REMEDIES_ELSEWHERE}:
            raise
        raise storage_error(reason, path) from error


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` when the context ends without an error.

    Another process never reads half a file. After an interruption or an error the previous file
    remains. The content is written to ``<path>.<process>.tmp`` first: an evaluation beside a
    training may write the same file.

    Raises:
        UserError: the file cannot be written.
    """
    temporary = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # some file systems report only now that the disk is full
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        reason = _reason(error)
        if reason is None:
            raise
        raise storage_error(reason, path) from error


def _reason(error: BaseException) -> OSError | None:
    """The error of the operating system. On a full disk torch.save raises a RuntimeError."""
    if isinstance(error, OSError):
        return error
    behind = error.__context__ if isinstance(error, RuntimeError) else None
    return behind if isinstance(behind, OSError) and behind.errno in _NO_SPACE else None
