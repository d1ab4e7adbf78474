"""A row of the table of faults, and the verdict on what the product does."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from faults.running import Outcome, Running
from faults.setup import Setup


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must come of a fault. A traceback must never be printed.

    Attributes:
        exit_code: that of the process.
        says: a regular expression that is found in what the command says. Case does not matter.
        holds: raises an AssertionError if a value is wrong.
        twin: makes another set-up, whose training must end with the same weights and results.
        twin_weights: whether to compare the weights, too.
    """

    exit_code: int
    says: str = ""
    holds: Callable[[Outcome], None] | None = None
    twin: Callable[[Setup], None] | None = None
    twin_weights: bool = True


def flawless(setup: Setup) -> None:
    """The fault of a flawless twin."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault, and what must come of it.

    Attributes:
        name: the fault in words.
        fault: does it to a flawless set-up.
        expect: any one of these must hold.
        command: the arguments of ``apdet train`` besides --config-file.
        layout: "coco" or "voc".
        program: the subcommand of ``apdet``.
        during: what happens while the command runs.
        new_interpreter: whether Python is started anew.
        file_size: limit of the size of a file in bytes; 0: none.
        limit: seconds after which the command counts as hanging.
        slow: whether the row takes more than a few seconds.
        skip: a reason for which the row cannot be run here, or "".
    """

    name: str
    expect: tuple[Expected, ...]
    fault: Callable[[Setup], None] = flawless
    command: tuple[str, ...] = ()
    layout: str = "coco"
    program: str = "train"
    during: Callable[[Running], None] | None = None
    new_interpreter: bool = False
    file_size: int = 0
    limit: float = 60
    slow: bool = False
    skip: Callable[[], str] = lambda: ""


def refused(says: str, holds: Callable[[Outcome], None] | None = None) -> Expected:
    """The command ends with one error, in which the regular expression is found."""
    return Expected(exit_code=1, says=rf"^error: [\s\S]*({says})", holds=holds)


def works(
    *,
    says: str = "",
    warns: str = "",
    holds: Callable[[Outcome], None] | None = None,
    twin: Callable[[Setup], None] | None = None,
    twin_weights: bool = True,
) -> Expected:
    """The command succeeds; see `Expected`. ``warns`` is found in a warning."""
    if warns:
        says = rf"WARNING[^\n]*({warns})"
    return Expected(exit_code=0, says=says, holds=holds, twin=twin, twin_weights=twin_weights)


def as_flawless(*, warns: str = "", weights: bool = True) -> Expected:
    """The command succeeds, with the weights and the results of a flawless set-up."""
    return works(warns=warns, twin=flawless, twin_weights=weights)


def rarely(*rows: Row) -> tuple[Row, ...]:
    """Mark rows as slow: variants of other rows, which need not be run all the time."""
    return tuple(replace(row, slow=True) for row in rows)


def find_problems(
    expected: Expected, outcome: Outcome, check_twin: Callable[[Expected, Outcome], None]
) -> list[str]:
    """List in words what differs from what is expected."""
    problems = []
    if outcome.exit_code != expected.exit_code:
        problems.append(f"exit code {outcome.exit_code}, not {expected.exit_code}")
    if "Traceback (most recent call last)" in outcome.printed:
        problems.append("a traceback")
    if not re.search(expected.says, outcome.said, re.IGNORECASE | re.MULTILINE):
        problems.append(f"nothing says /{expected.says}/")
    if problems:
        return problems
    try:
        if expected.holds is not None:
            expected.holds(outcome)
        if expected.twin is not None:
            check_twin(expected, outcome)
    except AssertionError as error:
        problems.append(str(error).strip().splitlines()[0])
    except Exception as error:  # a missing file of results, for example
        problems.append(f"{type(error).__name__}: {error}")
    return problems


def verdict_on(outcome: Outcome, *, as_expected: bool) -> str:
    """One or two words on what the product did."""
    if outcome.exit_code is None:
        return "hang"
    if "Traceback (most recent call last)" in outcome.printed:
        return "traceback"
    if outcome.exit_code == 1:
        return "clear error" if as_expected else "unclear error"
    return "right" if as_expected else "silently wrong"
