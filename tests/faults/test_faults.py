"""Every fault ends as its row says: with the right value, or with one clear error."""

from functools import partial

import pytest
from faults.faults import TABLE
from faults.row import find_problems, verdict_on

ROWS = [(kind, row) for kind, rows in TABLE.items() for row in rows]


def test_every_row_has_an_expectation():
    for _, row in ROWS:
        assert row.expect, row.name
        for expected in row.expect:
            assert isinstance(expected.exit_code, int), row.name
            assert expected.says or expected.holds or expected.twin, row.name


def test_no_two_rows_have_the_same_name():
    names = [row.name for _, row in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("number", "kind", "row"),
    [
        pytest.param(
            number, kind, row, id=f"{kind}: {row.name}", marks=[pytest.mark.slow] * row.slow
        )
        for number, (kind, row) in enumerate(ROWS)
    ],
)
def test_a_fault_ends_as_its_row_says(number, kind, row, lab, record_property):
    if reason := row.skip():
        pytest.skip(reason)
    check_twin = partial(lab.compare_with_twin, row)
    with lab.outcome_of(row) as outcome:
        problems = [find_problems(expected, outcome, check_twin) for expected in row.expect]
    as_expected = not all(problems)
    properties = {
        "number": number,
        "kind": kind,
        "name": row.name,
        "exit_code": outcome.exit_code,
        "verdict": verdict_on(outcome, as_expected=as_expected),
    }
    for name, value in properties.items():
        record_property(name, value)
    assert as_expected, f"{'; or '.join(map(', '.join, problems))}\n{outcome.printed[-3000:]}"
