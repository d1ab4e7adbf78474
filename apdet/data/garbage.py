"""Keeps Python from looking for garbage while a data set is read."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """In this context, Python does not look for reference cycles that nothing uses.

    While millions of objects are made that will all be kept, looking at them again and again takes
    as long as making them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
