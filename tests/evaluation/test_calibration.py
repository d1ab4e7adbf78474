"""Calibration: probabilities that hold, in the order of the scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apdet.evaluation.calibration import (
    BetaMap,
    Judged,
    cross_calibrate,
    detection_ece,
    fit_calibration,
    judge,
)
from apdet.evaluation.matching import Detections, Objects


def drawn(num, *, a=2.0, b=0.5, c=-1.0, seed=0, num_images=100, classes=1):
    """Detections that are right with the probability of a known map."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.01, 0.99, num)
    right = rng.uniform(size=num) < BetaMap(a, b, c)(scores)
    return Judged(
        scores, rng.integers(classes, size=num), right, rng.integers(num_images, size=num)
    )


def test_the_map_is_the_formula():
    found = BetaMap(2.0, 0.5, -1.0)(np.array([0.2, 0.7]))
    odds = [np.exp(-1.0) * s**2 / (1 - s) ** 0.5 for s in (0.2, 0.7)]
    expected = [o / (1 + o) for o in odds]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    small = 1e-6 * (np.array([0.2, 0.7]) - expected)
    np.testing.assert_allclose(found - expected, small, rtol=1e-6)


def test_the_map_that_the_detections_were_drawn_with_is_found():
    fitted = fit_calibration(drawn(200_000)).overall
    assert (fitted.a, fitted.b, fitted.c) == pytest.approx((2.0, 0.5, -1.0), abs=0.06)


@pytest.mark.parametrize(("a", "b"), [(-1.0, 2.0), (2.0, -0.5)])
def test_no_slope_is_negative(a, b):
    fitted = fit_calibration(drawn(20_000, a=a, b=b, c=0.0)).overall
    assert min(fitted.a, fitted.b) == 0
    assert max(fitted.a, fitted.b) > 0


def test_scores_that_say_the_contrary_have_no_map():
    judged = drawn(5000)
    assert fit_calibration(judged._replace(scores=1 - judged.scores)) is None


@pytest.mark.parametrize("value", [True, False])
def test_detections_that_are_all_right_or_all_wrong_have_no_map(value):
    judged = drawn(500)
    assert fit_calibration(judged._replace(right=np.full(500, value))) is None
    assert fit_calibration(Judged(*(values[:0] for values in judged))) is None


@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=50),
    st.floats(0.01, 5),
    st.floats(0.01, 5),
    st.floats(-5, 5),
)
def test_the_order_of_the_scores_stays(scores, a, b, c):
    scores = np.unique(np.array(scores, dtype=np.float64))
    probabilities = BetaMap(a, b, c)(scores)
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (probabilities[1:] >= probabilities[:-1]).all()
    is_shown = scores[1:] > 0.01  # below, some maps give one number to scores that hardly differ
    assert (probabilities[1:] > probabilities[:-1])[is_shown].all()


def test_scores_that_are_all_near_one_keep_their_order():
    scores = np.arange(1000, dtype=np.float32) * np.finfo(np.float32).epsneg
    scores = (np.float32(1) - scores).astype(np.float64)
    probabilities = BetaMap(0.0, 10.0, 5.0)(scores)
    assert (probabilities[1:] < probabilities[:-1]).all()
    assert probabilities.max() <= 1


def test_a_class_with_enough_detections_has_a_map_of_its_own():
    common, rare = drawn(20_000, c=-3.0, seed=1), drawn(60, c=2.0, seed=2)
    other = drawn(20_000, c=1.0, seed=3)
    judged = Judged(
        *(
            np.concatenate([x, y, z])
            for x, y, z in zip(
                common,
                rare._replace(classes=np.full(60, 7)),
                other._replace(classes=np.full(20_000, 2)),
                strict=True,
            )
        )
    )
    fitted = fit_calibration(judged)
    assert fitted.of_classes.keys() == {0, 2}
    assert fitted.of_classes[0].c == pytest.approx(-3.0, abs=0.3)
    scores = np.array([0.3, 0.3, 0.3])
    found = fitted(scores, np.array([0, 7, 2]))
    expected = [
        m(scores[:1])[0] for m in (fitted.of_classes[0], fitted.overall, fitted.of_classes[2])
    ]
    np.testing.assert_array_equal(found, expected)


def test_calibration_makes_the_error_small_on_images_that_it_was_not_fitted_on():
    judged = drawn(20_000, classes=3)
    before = detection_ece(judged.scores, judged.right)
    after = detection_ece(cross_calibrate(judged), judged.right)
    assert before > 0.1
    assert after < 0.02


def test_a_probability_does_not_depend_on_the_images_of_its_own_fold():
    judged = drawn(5000, num_images=20)
    before = cross_calibrate(judged)
    changed = judged.images == 3
    after = cross_calibrate(judged._replace(right=np.where(changed, ~judged.right, judged.right)))
    np.testing.assert_array_equal(before[changed], after[changed])
    assert (before[~changed] != after[~changed]).any()


def test_the_error_is_the_mean_gap_of_the_bins():
    probabilities = np.array([0.01, 0.04, 0.52, 0.54, 1.0])
    right = np.array([False, True, True, True, False])
    # Three bins: |0.05 - 1|, |1.06 - 2| and |1 - 0|, over five detections.
    assert detection_ece(probabilities, right) == pytest.approx((0.95 + 0.94 + 1.0) / 5)
    assert detection_ece(probabilities[:0], right[:0]) == 0


def test_each_detection_is_judged_alone():
    box = [0.0, 0.0, 10.0, 10.0]
    shifted, far = [0.0, 0.0, 10.0, 5.0], [20.0, 20.0, 30.0, 30.0]  # IoU 0.5 and 0
    found = Detections(
        np.array([box, shifted, far, box, far]),
        np.array([0.9, 0.8, 0.7, 0.6, 0.5]),
        np.array([1, 1, 1, 2, 2]),
    )
    truth = Objects(np.array([box, far]), np.array([1, 2]), np.array([False, True]))
    judged = judge({"a": found}, {"a": truth, "b": truth})
    # The last one shows an ignored object, so it does not count.
    np.testing.assert_array_equal(judged.scores, [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_array_equal(judged.right, [True, True, False, False])
    np.testing.assert_array_equal(judged.classes, [1, 1, 1, 2])
    assert len(judge({}, {"a": truth}).scores) == 0
