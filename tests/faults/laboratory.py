"""Runs rows, and keeps what several of them need: a trained detector, runs, flawless twins."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faults.checks import assert_same_weights, results_of
from faults.row import Expected, Row
from faults.running import Outcome, Running, command_line, run
from faults.setup import Setup


class Laboratory:
    """Makes set-ups and runs commands on them.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._trained: Path | None = None
        self._runs: dict[str, Path] = {}
        self._twins: dict[tuple, Outcome] = {}

    def new_setup(self, layout: str = "coco", *, trained: bool = True) -> Setup:
        """Make a flawless set-up in a folder of its own.

        Args:
            layout: "coco" or "voc".
            trained: whether it starts from the trained detector, or from scratch.
        """
        weights = self.trained() if trained else ""
        self._count += 1
        folder = self._folder / f"setup_{self._count:03}"
        folder.mkdir()
        return Setup(folder, layout, weights, self)

    def trained(self) -> Path:
        """A checkpoint that detects all objects: its AP50 is 100."""
        if self._trained is None:
            output = self.run_of(
                {
                    "SOLVER.MAX_ITER": 60,
                    "SOLVER.BASE_LR": 0.1,
                    "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
                    "SOLVER.WARMUP_ITERS": 10,
                }
            )
            self._trained = output / "model_final.pth"
        return self._trained

    def run_of(self, keys: Mapping[str, Any]) -> Path:
        """The output folder of a training from scratch, with the given keys of the config."""
        name = json.dumps(dict(keys))
        if name not in self._runs:
            setup = self.new_setup(trained=False)
            for key, value in keys.items():
                setup.set(key, value)
            outcome = run(setup)
            if outcome.exit_code != 0:
                raise RuntimeError(f"the training of {name} failed:\n{outcome.printed}")
            self._runs[name] = setup.output
        return self._runs[name]

    @contextmanager
    def outcome_of(self, row: Row) -> Iterator[Outcome]:
        """Do the fault of a row to a set-up, and run its command. The files stay until the end."""
        setup = self.new_setup(row.layout)
        with setup.at_the_end:
            row.fault(setup)
            yield self._run(row, setup)

    def _run(self, row: Row, setup: Setup) -> Outcome:
        running = Running(
            setup,
            command_line(setup, row.command, row.program),
            limit=row.limit,
            new_interpreter=row.new_interpreter,
            file_size=row.file_size,
        )
        try:
            if row.during is not None:
                with suppress(TimeoutError):  # what did not happen shows in the outcome
                    row.during(running)
            return running.end()
        finally:
            running.kill()

    def compare_with_twin(self, row: Row, expected: Expected, outcome: Outcome) -> None:
        """Compare the results, and the weights after the training, with those of the twin.

        Raises:
            AssertionError: they differ.
        """
        twin = self._twin(row, expected.twin)
        assert results_of(outcome.output), "there are no results"
        _assert_same_results(results_of(outcome.output), results_of(twin.output))
        if expected.twin_weights:
            name = "model_final.pth"
            assert_same_weights(outcome.output / name, twin.output / name)

    def _twin(self, row: Row, make: Callable[[Setup], None]) -> Outcome:
        key = (row.layout, row.command, make)
        if key not in self._twins:
            setup = self.new_setup(row.layout)
            make(setup)
            self._twins[key] = outcome = run(setup, *row.command)
            if outcome.exit_code != 0:
                raise RuntimeError(f"the twin failed:\n{outcome.printed}")
        return self._twins[key]


def _assert_same_results(mine: Mapping, theirs: Mapping, where: str = "") -> None:
    assert mine.keys() == theirs.keys(), f"{where} {sorted(mine)} for the twin's {sorted(theirs)}"
    for key, value in theirs.items():
        name = f"{where}/{key}".strip("/")
        if isinstance(value, Mapping):
            _assert_same_results(mine[key], value, name)
        else:
            same = value == mine[key] or math.isclose(mine[key] or -1, value or -1, rel_tol=1e-6)
            assert same, f"{name} is {mine[key]}, the twin's {value}"
