"""Sets up the log, whose file may be on a full disk and whose terminal may be closed."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from logging import LogRecord, StreamHandler

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from apdet.files import storage_error
from apdet.text import printable


def set_up_log(output_dir: str) -> None:
    """Log to the terminal and to ``log.txt``. If the file cannot be written, it is an error.

    Python's own handlers would print a traceback for each line of the log.
    """
    rank = comm.get_rank()
    loggers = [
        setup_logger(output_dir, name="apdet", distributed_rank=rank),
        # The same calls as in Detectron2's default_setup, which finds their results in a cache.
        setup_logger(output_dir, distributed_rank=rank, name="fvcore"),
        setup_logger(output_dir, distributed_rank=rank),
    ]
    for handler in loggers[0].handlers:
        handler.addFilter(_make_printable)
    for logger in loggers:
        for handler in logger.handlers:
            if not isinstance(handler, StreamHandler):
                continue
            if _is_log_file(handler):
                # Whatever the locale is, names of files and classes may have any characters.
                handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
                report = _end_training
            else:
                report = _leave_terminal
            handler.handleError = _StreamErrors(handler, report)  # type: ignore[method-assign]


def log_traceback(error: Exception) -> str | None:
    """Write the traceback of an error to the log file, and not to the terminal.

    Returns:
        The path of the file; None if there is none, or if it cannot be written to.
    """
    for handler in reversed(logging.getLogger("apdet").handlers):
        if isinstance(handler, StreamHandler) and _is_log_file(handler):
            trace = (type(error), error, error.__traceback__)
            record = LogRecord("apdet", logging.ERROR, __file__, 0, "Unexpected error", None, trace)
            try:
                handler.handle(record)
            except Exception:  # the disk may be full, which may be the reason of the error, too
                return None
            return str(handler.stream.name)
    return None


def _make_printable(record: LogRecord) -> bool:
    """Escape what a name, such as that of a file, may do to the terminal. Passes every record."""
    record.msg, record.args = printable(record.getMessage()), None
    return True


def _is_log_file(handler: StreamHandler) -> bool:
    return os.path.basename(str(getattr(handler.stream, "name", ""))).startswith("log.txt")


class _StreamErrors:
    """Handles the first error of the operating system with a stream. Later lines go nowhere."""

    def __init__(self, handler: StreamHandler, report: Callable[[OSError, str], None]):
        self.handler, self.report = handler, report

    def __call__(self, record: LogRecord) -> None:
        error, stream = sys.exc_info()[1], self.handler.stream
        if not isinstance(error, OSError):
            StreamHandler.handleError(self.handler, record)
            return
        # So does what the stream has in its buffer, else it would fail again at exit.
        _send_nowhere(stream.fileno())
        self.report(error, str(stream.name))


def _end_training(error: OSError, file: str) -> None:
    raise storage_error(error, file) from error


def _leave_terminal(error: OSError, file: str) -> None:
    """Go on without a terminal that cannot be written to, such as one that was closed."""
    with suppress(OSError):
        print(f"standard output: {error.strerror}; the log goes on in log.txt", file=sys.stderr)


def _send_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
