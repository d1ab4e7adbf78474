"""Imported once by the server from which the processes of the tests are forked. Saves seconds."""

import importlib

from numba.core.registry import cpu_target

for _name in (
    "apdet.cli.compare",
    "apdet.cli.train",
    "apdet.losses.ranking.binning.numba_kernels",
    "cv2",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "numba.typed",
    "torch.utils.cpp_extension",
):
    importlib.import_module(_name)
cpu_target.target_context.refresh()  # numba's own imports, which it else makes at the first call
