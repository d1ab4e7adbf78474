import numpy as np
import pytest

from apdet.losses.ranking.steps import (
    SIGMOID_ERROR,
    build_step,
    choose_step,
    piecewise_step,
    sigmoid_step,
)


def evaluate(step, x):
    return np.interp(x, step.knots, step.values)


@pytest.mark.parametrize("delta", [1e-3, 1.0, 50.0])
def test_the_piecewise_step_is_eq_21(delta):
    x = np.linspace(-2 * delta, 2 * delta, 1001)
    step = choose_step("piecewise", delta=delta, k=None)
    np.testing.assert_allclose(evaluate(step, x), np.clip(x / (2 * delta) + 0.5, 0, 1), atol=1e-12)


@pytest.mark.parametrize("k", [1e-3, 0.5, 30.0])
def test_the_sigmoid_step_is_eq_54_to_its_stated_error(k):
    x = np.linspace(-25 * k, 25 * k, 1_000_001)
    step = choose_step("sigmoid", delta=None, k=k)
    error = np.abs(evaluate(step, x) - 1 / (1 + np.exp(-x / k))).max()
    assert error <= SIGMOID_ERROR == 1e-4


@pytest.mark.parametrize("step", [piecewise_step(0.7), sigmoid_step(0.7)], ids=["ramp", "sigmoid"])
def test_a_step_rises_from_0_to_1_and_treats_above_as_below(step):
    assert (step.values[0], step.values[-1]) == (0, 1)
    assert (np.diff(step.knots) > 0).all()
    assert (np.diff(step.values) > 0).all()
    x = np.linspace(-9, 9, 1001)
    np.testing.assert_allclose(evaluate(step, x) + evaluate(step, -x), 1, atol=1e-15)


@pytest.mark.parametrize("width", [0, -1, float("nan"), float("inf")])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match="delta must be > 0"):
        choose_step("piecewise", delta=width, k=None)
    with pytest.raises(ValueError, match="k must be > 0"):
        choose_step("sigmoid", delta=None, k=width)


def test_without_a_width_the_steps_are_those_of_the_paper():
    assert choose_step("piecewise", delta=None, k=None) == piecewise_step(1.0)
    assert choose_step("sigmoid", delta=None, k=None) == sigmoid_step(0.5)


@pytest.mark.parametrize("build", [choose_step, build_step])
def test_the_width_of_the_other_step_is_refused(build):
    with pytest.raises(ValueError, match=r"k=0\.3 is a width of the sigmoid step"):
        build("piecewise", delta=None, k=0.3)
    with pytest.raises(ValueError, match=r"delta=0\.3 is a width of the piecewise step"):
        build("sigmoid", delta=0.3, k=None)
    with pytest.raises(ValueError, match="must be 'piecewise' or 'sigmoid', got 'ramp'"):
        build("ramp", delta=None, k=None)


def test_a_loss_written_for_0_1_may_give_both_widths_and_is_told_to_give_one():
    with pytest.warns(DeprecationWarning, match="a step has one width"):
        assert build_step("piecewise", delta=0.7, k=0.3) == piecewise_step(0.7)
    with pytest.warns(DeprecationWarning, match="a step has one width"):
        assert build_step("sigmoid", delta=0.7, k=0.3) == sigmoid_step(0.3)
