"""Compares results with those that are expected, Detectron2's ``TEST.EXPECTED_RESULTS``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class ExpectedResult(NamedTuple):
    """A result that is expected. Nothing in it is checked."""

    task: str  # such as "bbox"; with several data sets "<data set>/bbox"
    metric: str  # such as "AP"
    value: float  # in percent
    tolerance: float  # the largest difference that is accepted

    @property
    def key(self) -> str:
        """The key of the result, such as "bbox/AP"."""
        return f"{self.task}/{self.metric}"


def read_expected(rows: Any) -> list[ExpectedResult]:
    """Check the form of expected results.

    Args:
        rows: a sequence of [task, metric, value, tolerance].

    Raises:
        ValueError: the form is another one. The message is the first wrong row.
    """
    if not isinstance(rows, list | tuple):
        raise ValueError(f"{rows!r}")
    for row in rows:
        is_row = isinstance(row, list | tuple) and len(row) == 4
        if not is_row or not all(isinstance(name, str) for name in row[:2]):
            raise ValueError(f"{row!r}")
        if not all(_is_number(number) for number in row[2:]) or row[3] < 0:
            raise ValueError(f"{row!r}")
    return [ExpectedResult(*row) for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def compare_with_expected(
    expected: Sequence[ExpectedResult], results: Mapping[str, float]
) -> str | None:
    """Compare results with those that are expected.

    Args:
        expected: what is expected. A result that is missing or nan is not the expected one.
        results: {key: value}.

    Returns:
        None if all are within their tolerances; else the others, on one line.
    """
    wrong = []
    for result in expected:
        found = results.get(result.key, math.nan)
        if not abs(found - result.value) <= result.tolerance:
            wrong.append(f"{result.key} {found:.4g}, not {result.value:g} ± {result.tolerance:g}")
    return "; ".join(wrong) or None
