"""Sets up the log, whose file may be on a full disk."""

import logging
import os
import sys
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
            if isinstance(handler, StreamHandler) and _is_log_file(handler):
                handler.handleError = _LogFileErrors(handler)  # type: ignore[method-assign]


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


class _LogFileErrors:
    """Raises the first error of a log file, and writes no more to the file."""

    def __init__(self, handler: StreamHandler):
        self.handler = handler

    def __call__(self, record: LogRecord) -> None:
        error, file = sys.exc_info()[1], self.handler.stream
        if not isinstance(error, OSError):
            StreamHandler.handleError(self.handler, record)
            return
        # What the file has in its buffer goes nowhere, else it would fail again at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)
        raise storage_error(error, file.name) from error
