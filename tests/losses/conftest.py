import pytest
import torch

from apdet.losses.ranking.binning import backend as routes
from apdet.losses.ranking.binning import compiled, grid
from apdet.losses.ranking.binning import numba_backend as native

ROUTES = ["searched", "gridded", "compiled"]


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    """Each of the ways the passes can be done, however few scores there are."""
    monkeypatch.setattr(routes, "SMALL", 1 << 62 if request.param == "searched" else 0)
    monkeypatch.setenv("APDET_NATIVE", str(int(request.param == "compiled")))
    if request.param == "compiled":
        assert native.is_available(), "the tests need numba: pip install -e '.[dev]'"
    return request.param


@pytest.fixture
def in_parts(monkeypatch):
    """Even few scores are split into chunks, and into the parts of three threads."""
    monkeypatch.setattr(grid, "CPU_CHUNK", 7)
    monkeypatch.setattr(compiled, "MIN_PART", 5)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)
