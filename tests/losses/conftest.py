import pytest
import torch

from apdet.losses.ranking.binning import backends, compiled, gridded, numba_backend

BACKENDS = ["search", "gridded", "compiled"]


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Each backend of the passes over the scores, however few scores there are."""
    never = 1 << 62
    monkeypatch.setattr(backends, "MIN_SCORES_FOR_GRID", never if request.param == "search" else 0)
    monkeypatch.setenv("APDET_NATIVE", str(int(request.param == "compiled")))
    if request.param == "compiled":
        assert numba_backend.is_available(), "the tests need numba: pip install -e '.[dev]'"
    return request.param


@pytest.fixture
def in_parts(monkeypatch):
    """Even few scores are split into chunks, and into the parts of three threads."""
    monkeypatch.setattr(gridded, "CPU_CHUNK", 7)
    monkeypatch.setattr(compiled, "MIN_PART", 5)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)
