"""Ends a command on an error with one line; the traceback stands in the log."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from apdet.engine.connecting import LostConnectionError
from apdet.engine.log_file import log_traceback
from apdet.errors import UserError
from apdet.text import one_line


def add_debug_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--debug`` to a command."""
    parser.add_argument(
        "--debug", action="store_true", help="print the whole traceback of an error"
    )


@contextmanager
def errors_in_one_line(*, debug: bool) -> Iterator[None]:
    """In this context, an error ends the process with one line, ``error: ...``, and exit code 1.

    The traceback of an error that the user cannot mend is written to the log file, if there is one.

    Args:
        debug: whether to let errors pass, so that Python prints their tracebacks.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a test may have put another one in its place
            stream.reconfigure(errors="backslashreplace")  # a terminal may not know all characters
    try:
        yield
    except LostConnectionError:  # the launch says why the other process ended
        raise
    except Exception as error:
        if debug:
            raise
        if isinstance(error, UserError):
            _exit(str(error))
        path = log_traceback(error)
        where = f"its traceback is in {path}" if path else "--debug prints its traceback"
        _exit(f"unexpected {type(error).__name__}: {error}; {where}")


def _exit(message: str) -> None:
    sys.exit(f"error: {one_line(message)}")
