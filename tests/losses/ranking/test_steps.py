import numpy as np
import pytest

from apdet.losses.ranking.steps import SIGMOID_ERROR, build_step


def evaluate(step, x):
    return np.interp(x, step.knots, step.values)


@pytest.mark.parametrize("delta", [1e-3, 1.0, 50.0])
def test_the_piecewise_step_is_eq_21(delta):
    x = np.linspace(-2 * delta, 2 * delta, 1001)
    step = build_step("piecewise", delta=delta, k=1.0)
    np.testing.assert_allclose(evaluate(step, x), np.clip(x / (2 * delta) + 0.5, 0, 1), atol=1e-12)


@pytest.mark.parametrize("k", [1e-3, 0.5, 30.0])
def test_the_sigmoid_step_is_eq_54_to_its_stated_error(k):
    x = np.linspace(-25 * k, 25 * k, 1_000_001)
    step = build_step("sigmoid", delta=1.0, k=k)
    error = np.abs(evaluate(step, x) - 1 / (1 + np.exp(-x / k))).max()
    assert error <= SIGMOID_ERROR == 1e-4


@pytest.mark.parametrize("name", ["piecewise", "sigmoid"])
def test_a_step_rises_from_0_to_1_and_treats_above_as_below(name):
    step = build_step(name, delta=0.7, k=0.7)
    assert (step.values[0], step.values[-1]) == (0, 1)
    assert (np.diff(step.knots) > 0).all()
    assert (np.diff(step.values) > 0).all()
    x = np.linspace(-9, 9, 1001)
    np.testing.assert_allclose(evaluate(step, x) + evaluate(step, -x), 1, atol=1e-15)


@pytest.mark.parametrize("width", [0, -1, float("nan"), float("inf")])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match="delta must be > 0"):
        build_step("piecewise", delta=width, k=1.0)
    with pytest.raises(ValueError, match="k must be > 0"):
        build_step("sigmoid", delta=1.0, k=width)
