import math

import pytest

from apdet.evaluation.expected import compare_with_expected, read_expected

ROWS = [["bbox", "AP", 40.0, 0.5], ("te/bbox", "AP50", 60, 1)]


def test_results_within_their_tolerances_are_as_expected():
    expected = read_expected(ROWS)
    assert [result.key for result in expected] == ["bbox/AP", "te/bbox/AP50"]
    assert compare_with_expected(expected, {"bbox/AP": 40.5, "te/bbox/AP50": 59.0}) is None


@pytest.mark.parametrize("ap", [39.4, 41, math.nan, None])
def test_a_result_that_differs_or_is_missing_is_named(ap):
    results = {"te/bbox/AP50": 60.0} | ({} if ap is None else {"bbox/AP": ap})
    wrong = compare_with_expected(read_expected(ROWS), results)
    assert wrong == f"bbox/AP {math.nan if ap is None else ap}, not 40 ± 0.5"


@pytest.mark.parametrize(
    "rows",
    [
        "bbox",
        {"bbox": 40},
        ["bbox", "AP", 40.0, 0.5],  # a row in place of a list of rows
        [["bbox", "AP", 40.0]],
        [["bbox", "AP", "40", 0.5]],
        [["bbox", "AP", 40.0, math.nan]],
        [["bbox", "AP", True, 0.5]],
        [["bbox", "AP", 40.0, -0.5]],
        [["bbox", 50, 40.0, 0.5]],
    ],
)
def test_another_form_is_refused(rows):
    with pytest.raises(ValueError, match="bbox"):
        read_expected(rows)
