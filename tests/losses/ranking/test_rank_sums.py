from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import piecewise_step

from apdet.losses.ranking.binning import bin_scores
from apdet.losses.ranking.rank_sums import Windows
from apdet.losses.ranking.steps import Step
from apdet.losses.ranking.steps import piecewise_step as fast_step


def rank_sums(pos, scores, step):
    windows = Windows(pos, step)
    return windows.rank_sums(bin_scores(scores, windows.edges).histogram())


def negative_gradients(pos, weights, scores, step):
    windows = Windows(pos, step)
    lines = windows.gradient_lines(weights)
    return bin_scores(scores, windows.edges).evaluate(lines, torch.empty_like(scores))


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 1e4])
@pytest.mark.parametrize(("num_pos", "num_scores"), [(1, 1), (1, 50), (40, 0), (40, 300), (0, 5)])
def test_both_sums_are_their_definition(backend, num_pos, num_scores, spread):
    pos = spread * torch.randn(num_pos, dtype=torch.float64)
    scores = spread * torch.randn(num_scores, dtype=torch.float64)
    weights = torch.rand(num_pos, dtype=torch.float64)
    steps = piecewise_step(scores[None] - pos[:, None], delta=1.0)  # (P, N)
    step = fast_step(1.0)
    torch.testing.assert_close(rank_sums(pos, scores, step), steps.sum(1), rtol=0, atol=1e-8)
    torch.testing.assert_close(
        negative_gradients(pos, weights, scores, step), weights @ steps, rtol=0, atol=1e-8
    )


numbers = st.floats(-1e4, 1e4, width=32) | st.sampled_from([-1.0, 0.0, 1.0, 2.0, 1e4])


@pytest.mark.usefixtures("in_parts")
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), delta=st.sampled_from([1e-3, 0.5, 1.0, 3.0, 2e4]))
def test_both_sums_hold_with_ties_at_the_corners_and_far_apart(backend, data, delta):
    draw = lambda size: torch.from_numpy(  # noqa: E731
        data.draw(hnp.arrays("float32", st.integers(1, size), elements=numbers))
    ).double()
    pos, scores = draw(8), draw(40)
    weights = torch.linspace(1, 2, len(pos), dtype=torch.float64)
    steps = piecewise_step(scores[None] - pos[:, None], delta)
    step = fast_step(delta)
    # Distances of 2e4 from windows of 2e-3 are known to 1e-16 of the former: 1e-9 of the latter.
    close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-8)
    close(rank_sums(pos, scores, step), steps.sum(1))
    close(negative_gradients(pos, weights, scores, step), weights @ steps)


def test_any_rising_polygon_can_be_the_step(backend):
    step = Step((-2.0, -0.5, 0.0, 0.5, 2.0), (0.0, 0.1, 0.5, 0.9, 1.0))
    pos = torch.randn(30, dtype=torch.float64)
    scores = 2 * torch.randn(500, dtype=torch.float64)
    weights = torch.rand(30, dtype=torch.float64)
    x = scores[None] - pos[:, None]
    knots, values = torch.tensor(step.knots).double(), torch.tensor(step.values).double()
    above = torch.bucketize(x, knots).clamp(1, 4)
    share = (x - knots[above - 1]) / (knots[above] - knots[above - 1])
    steps = (values[above - 1] + share * (values[above] - values[above - 1])).clamp(0, 1)
    torch.testing.assert_close(rank_sums(pos, scores, step), steps.sum(1))
    torch.testing.assert_close(negative_gradients(pos, weights, scores, step), weights @ steps)


def test_a_score_far_above_narrow_windows_gets_the_sum_of_the_weights(backend):
    pos = torch.randn(1000, dtype=torch.float64)
    weights = torch.rand(1000, dtype=torch.float64)
    scores = torch.tensor([1e4, -1e4], dtype=torch.float64)
    gradients = negative_gradients(pos, weights, scores, fast_step(1e-6))
    torch.testing.assert_close(gradients, torch.stack([weights.sum(), weights.sum() * 0]))


def test_scores_too_large_to_tell_from_their_neighbours_still_rank(backend):
    # At 1e30 a score and the same plus or minus 1 are one float64.
    pos = torch.tensor([1e30], dtype=torch.float64)
    scores = torch.tensor([3e30, -3e30, 5.0], dtype=torch.float64)
    step = fast_step(1.0)
    assert rank_sums(pos, scores, step).tolist() == [1]
    weights = torch.tensor([2.0], dtype=torch.float64)
    assert negative_gradients(pos, weights, scores, step).tolist() == [2, 0, 0]
