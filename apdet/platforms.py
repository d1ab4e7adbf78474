"""On which operating systems apdet runs."""

import sys


def require_posix() -> None:
    """Check that the system has POSIX's signals and file locks, which training needs.

    Raises:
        ImportError: it is Windows.
    """
    if sys.platform == "win32":
        raise ImportError(
            "apdet runs on Linux and macOS; on Windows, use WSL 2 (apdet.losses works there too)"
        )
