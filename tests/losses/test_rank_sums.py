import pytest
import torch
from oracles import piecewise_step

from apdet.losses import rank_sums as module
from apdet.losses.rank_sums import blame_sums, rank_sums


@pytest.fixture(params=[1 << 20, 7], ids=["one chunk", "many chunks"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 1e4])
@pytest.mark.parametrize(("num_pos", "num_scores"), [(1, 1), (1, 50), (40, 0), (40, 300)])
def test_both_sums_are_their_definition(num_pos, num_scores, spread):
    pos = spread * torch.randn(num_pos, dtype=torch.float64)
    scores = spread * torch.randn(num_scores, dtype=torch.float64)
    weights = torch.rand(num_pos, dtype=torch.float64)
    steps = piecewise_step(scores[None] - pos[:, None], delta=1.0)  # (P, N)
    torch.testing.assert_close(rank_sums(pos, scores, 1.0), steps.sum(1), rtol=0, atol=1e-8)
    torch.testing.assert_close(
        blame_sums(pos, weights, scores, 1.0), weights @ steps, rtol=0, atol=1e-8
    )


def test_a_score_far_above_narrow_windows_gets_the_sum_of_the_weights():
    pos = torch.randn(1000, dtype=torch.float64)
    weights = torch.rand(1000, dtype=torch.float64)
    scores = torch.tensor([1e4, -1e4], dtype=torch.float64)
    blame = blame_sums(pos, weights, scores, delta=1e-6)
    torch.testing.assert_close(blame, torch.stack([weights.sum(), weights.sum() * 0]))
