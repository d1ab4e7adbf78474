"""Locks files, so that no two processes write to one folder."""

import fcntl
import os
from typing import IO


def lock(file: IO) -> None:
    """Lock an open file until it is closed, or until this process dies.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: the file system has no locks.
    """
    # A data-loader worker must not keep the lock when its main process is killed.
    os.register_at_fork(after_in_child=file.close)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
