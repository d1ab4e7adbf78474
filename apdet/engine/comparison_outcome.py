"""The trainings of a comparison, and what is read from their folders."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from apdet.report.comparison import METRICS
from apdet.report.curves import Curve, read_curves


class Variant(NamedTuple):
    """A variant to compare: its name, and alternating config keys and values that it sets."""

    name: str
    overrides: tuple[str, ...]

    @property
    def folder_name(self) -> str:
        """The name of the folder of its trainings."""
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in self.name)


class Run(NamedTuple):
    """One training of a variant."""

    variant: Variant
    base_lr: float
    seed: int

    def folder(self, out: Path) -> Path:
        """The folder of the training, where ``out`` is the folder of the comparison."""
        return out / self.variant.folder_name / f"lr_{self.base_lr:g}" / f"seed_{self.seed}"

    def __str__(self) -> str:
        return f"{self.variant.name}, lr {self.base_lr:g}, seed {self.seed}"


class Outcome(NamedTuple):
    """The outcome of a training."""

    metrics: dict[str, float]  # in percent, by the names in METRICS; empty if the training failed
    curve: Curve  # AP over iterations, on the validation set if there is one
    seconds: float | None  # None if the training was resumed
    finished_before: bool = False  # whether an earlier call ran the training
    val_ap: float | None = None  # on the validation set; None without one


def read_outcome(folder: Path, seconds: float | None) -> Outcome:
    """Read the outcome of a training from its folder: on the first test and validation set."""
    try:
        report = json.loads((folder / "results.json").read_text())
        val_sets = report.get("validation_sets", [])
        test_set, *_ = report["test_sets"] or val_sets
        metrics = {name: _result(report, test_set, name) for name in METRICS}
        val_ap = _result(report, val_sets[0], "AP") if val_sets else None
        curves = read_curves(folder / "metrics.json")
    except (OSError, KeyError, TypeError, ValueError):
        return Outcome({}, ([], []), seconds)
    names = ("bbox/AP", f"{(val_sets or [test_set])[0]}/bbox/AP")
    curve = next((curves[name] for name in names if name in curves), ([], []))
    return Outcome(metrics, curve, seconds, val_ap=val_ap)


def _result(report: dict[str, Any], data_set: str, name: str) -> float:
    """A result of a data set, whose name is in ``results.json`` only if there are several."""
    results = report["results"]
    value = results.get(data_set, results)["bbox"][name]
    return math.nan if value is None else value


def best_base_lr(variant: Variant, outcomes: dict[Run, Outcome]) -> float:
    """The learning rate of a variant with the highest AP. Failed trainings come last.

    The AP is that on the validation set. Without one, the test set serves.
    """

    def ap(run: Run) -> float:
        outcome = outcomes[run]
        ap = outcome.metrics.get("AP", math.nan) if outcome.val_ap is None else outcome.val_ap
        return -math.inf if math.isnan(ap) else ap

    return max((run for run in outcomes if run.variant == variant), key=ap).base_lr


def summarise(variant: Variant, base_lr: float, outcomes: dict[Run, Outcome]) -> dict[str, Any]:
    """A row of the comparison: a variant, trained with this learning rate and every seed.

    Returns:
        A mapping with "loss", the name of the variant; "base_lr"; "failed", the number of failed
        trainings; each of METRICS, "seconds" and "curves", with an entry for each training that
        did not fail; "AP_of_seed_1_by_base_lr".
    """
    runs = sorted((run for run in outcomes if run.variant == variant), key=lambda run: run.seed)
    with_lr = [outcomes[run] for run in runs if run.base_lr == base_lr]
    finished = [outcome for outcome in with_lr if outcome.metrics]
    return {
        "loss": variant.name,
        "base_lr": base_lr,
        "failed": len(with_lr) - len(finished),
        **{name: [outcome.metrics[name] for outcome in finished] for name in METRICS},
        "seconds": [outcome.seconds for outcome in finished],
        "curves": [outcome.curve for outcome in finished],
        "AP_of_seed_1_by_base_lr": {
            run.base_lr: outcomes[run].metrics.get("AP") for run in runs if run.seed == 1
        },
    }
