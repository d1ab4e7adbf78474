"""Kills the process as soon as it says that it has saved a better model."""

import logging
import os
import re
import signal

_handle = logging.Logger.handle


def _handle_and_die(self: logging.Logger, record: logging.LogRecord) -> None:
    _handle(self, record)
    if re.search("Saved best model.*better than", record.getMessage()):
        os.kill(os.getpid(), signal.SIGKILL)


logging.Logger.handle = _handle_and_die  # type: ignore[method-assign]
