"""What must hold after a command. Each check raises an AssertionError that names the value."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults.running import Outcome

Check = Callable[[Outcome], None]


def results_of(output: Path) -> dict[str, Any]:
    """The results in ``results.json``."""
    return json.loads((output / "results.json").read_text())["results"]


def assert_same_weights(mine: Path, theirs: Path) -> None:
    """Two checkpoints hold the same bits."""
    ours, expected = (torch.load(path, weights_only=True)["model"] for path in (mine, theirs))
    assert ours.keys() == expected.keys(), "the weights have other names"
    wrong = [key for key, weight in expected.items() if not torch.equal(weight, ours[key])]
    assert not wrong, f"{len(wrong)} of {len(expected)} weights differ in {mine.name}"


def ends_like(keys: dict[str, Any], name: str = "model_final.pth") -> Check:
    """A checkpoint has the weights of an uninterrupted training from scratch with these keys."""

    def holds(outcome: Outcome) -> None:
        assert_same_weights(outcome.output / name, outcome.setup.lab.run_of(keys) / name)

    return holds


def has_files(*names: str) -> Check:
    """The output folder has these files."""

    def holds(outcome: Outcome) -> None:
        missing = [name for name in names if not (outcome.output / name).is_file()]
        assert not missing, f"there is no {missing}"

    return holds


def finds_all(outcome: Outcome) -> None:
    """The results are those of a detector that knows all objects by name."""
    ap50 = results_of(outcome.output)["bbox"]["AP50"]
    assert ap50 > 90, f"AP50 is {ap50}"


def logged(outcome: Outcome, name: str) -> list[float]:
    """All values of a metric in ``metrics.json``."""
    lines = (outcome.output / "metrics.json").read_text().splitlines()
    return [line[name] for line in map(json.loads, lines) if name in line]
