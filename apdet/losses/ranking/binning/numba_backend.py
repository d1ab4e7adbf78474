"""Whether the passes over all scores run in compiled code, where numba is installed.

numba comes with the extra ``apdet[fast]``. The environment variable ``APDET_NATIVE=0`` switches
this route off, so that the losses run in plain torch.
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
    """Whether numba can be imported, and ``APDET_NATIVE`` is not 0."""
    return os.environ.get("APDET_NATIVE", "1") != "0" and kernels() is not None


@cache
def kernels() -> ModuleType | None:
    """The compiled kernels, or None where numba is missing or does not work."""
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
    """Let numba use as many threads as torch does, and leave torch's number as it is."""
    import numba

    of_torch, of_numba = torch.get_num_threads(), numba.get_num_threads()
    numba.set_num_threads(min(of_torch, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(of_numba)
        # They may share an OpenMP, in which numba then sets the number for both.
        if torch.get_num_threads() != of_torch:
            torch.set_num_threads(of_torch)
