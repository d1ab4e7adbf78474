"""Finds out whether numba can be used, and loads the code that it compiles.

numba comes with the extra ``apdet[fast]``. If the environment variable ``APDET_NATIVE`` is 0, it is
not used, and the losses run in plain torch.
"""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch


def is_available() -> bool:
    """Whether numba can be used, and ``APDET_NATIVE`` is not 0."""
    return os.environ.get("APDET_NATIVE", "1") != "0" and _import_kernels() is not None


def kernels() -> ModuleType:
    """The module of the compiled kernels. Call this only if :func:`is_available` is true."""
    found = _import_kernels()
    assert found is not None
    return found


@cache
def _import_kernels() -> ModuleType | None:
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        from apdet.losses.ranking.binning import numba_kernels
    except Exception as error:  # such as a numpy that is too new for this numba
        logging.getLogger(__name__).warning(
            "numba is installed but cannot be used, so the losses run in plain torch: %s", error
        )
        return None
    return numba_kernels


@contextmanager
def threads_of_torch() -> Iterator[None]:
    """In this context, numba uses as many threads as torch. Torch's number does not change."""
    import numba

    of_torch, of_numba = torch.get_num_threads(), numba.get_num_threads()
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at run time
    numba.set_num_threads(min(of_torch, most))
    try:
        yield
    finally:
        numba.set_num_threads(of_numba)
        # If both share an OpenMP library, numba has also changed the number of torch's threads.
        if torch.get_num_threads() != of_torch:
            torch.set_num_threads(of_torch)
