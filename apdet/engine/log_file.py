"""Sets up the log, whose file may be on a full disk."""

import os
import sys
from logging import LogRecord, StreamHandler

from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from apdet.files import storage_error


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
    for logger in loggers:
        for handler in logger.handlers:
            if isinstance(handler, StreamHandler) and _is_log_file(handler):
                handler.handleError = _LogFileErrors(handler)  # type: ignore[method-assign]
                handler.stream.reconfigure(errors="backslashreplace")  # as on an ASCII terminal


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
