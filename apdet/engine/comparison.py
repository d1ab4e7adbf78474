"""Runs the trainings of a comparison as subprocesses, which can be interrupted and resumed."""

import json
import logging
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from apdet.errors import UserError
from apdet.report.comparison import METRICS
from apdet.report.curves import Curve, read_curves
from apdet.report.results import write_json

logger = logging.getLogger(__name__)


class Variant(NamedTuple):
    """A variant to compare: its name, and alternating config keys and values that it sets."""

    name: str
    overrides: tuple[str, ...]


class Run(NamedTuple):
    """One training of a variant."""

    variant: Variant
    base_lr: float
    seed: int

    def folder(self, out: Path) -> Path:
        """The folder of the training, where ``out`` is the folder of the comparison."""
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in self.variant.name)
        return out / name / f"lr_{self.base_lr:g}" / f"seed_{self.seed}"

    def __str__(self) -> str:
        return f"{self.variant.name}, lr {self.base_lr:g}, seed {self.seed}"


class Outcome(NamedTuple):
    """The outcome of a training."""

    metrics: dict[str, float]  # in percent, by the names in METRICS; empty if the training failed
    curve: Curve  # AP over iterations
    seconds: float | None  # None if the training was resumed
    finished_before: bool = False  # whether an earlier call ran the training


class Comparison:
    """Runs the trainings of a comparison that are not finished yet.

    In the folder of each training, ``comparison.log`` holds what the training printed, and
    ``comparison.json`` its arguments and, once it is finished, its time in seconds.
    """

    def __init__(self, out: Path, train_arguments: Callable[[Run], list[str]]):
        """Set up the comparison.

        Args:
            out: the folder of the comparison.
            train_arguments: the arguments of ``apdet train`` for a run. The training must write to
                the folder of the run, and must resume if it was interrupted.
        """
        self.out, self.train_arguments = out, train_arguments

    def log_file(self, run: Run) -> Path:
        """The file with the output of a training."""
        return run.folder(self.out) / "comparison.log"

    def train(self, runs: Iterable[Run], *, jobs: int) -> Iterator[tuple[Run, Outcome]]:
        """Run trainings, ``jobs`` at a time, and yield each outcome when its training ends.

        Raises:
            UserError: a folder holds a training with other arguments, or a training was killed.
        """
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(self._train, run): run for run in runs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:  # also Ctrl-C: start no more trainings
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _train(self, run: Run) -> Outcome:
        folder, arguments = run.folder(self.out), self.train_arguments(run)
        folder.mkdir(parents=True, exist_ok=True)
        state_file = folder / "comparison.json"
        state = _read_state(state_file)
        if state and state["command"] != arguments:
            raise UserError(
                f"{folder} holds a training with other settings; name another --out, or remove it"
            )
        if "seconds" in state:
            return read_outcome(folder, state["seconds"])._replace(finished_before=True)
        # A training that was interrupted before its first checkpoint starts from the beginning.
        is_resumed = (folder / "last_checkpoint").is_file()
        write_json(state_file, {"command": arguments})
        start = time.monotonic()
        self._call_train(run, arguments)
        outcome = read_outcome(folder, None if is_resumed else time.monotonic() - start)
        if outcome.metrics:  # else the training failed, and the next call tries it again
            write_json(state_file, {"command": arguments, "seconds": outcome.seconds})
        return outcome

    def _call_train(self, run: Run, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "apdet.cli", "train", *arguments]
        with open(self.log_file(run), "a") as log:
            return_code = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        if return_code < 0:
            raise UserError(f"{run} was killed (signal {-return_code}); call again to go on")


def _read_state(state_file: Path) -> dict[str, Any]:
    """The state of a training; empty if the training has not begun.

    Returns:
        "command": the arguments of the training. "seconds", if it is finished: its time or None.
    """
    try:
        state = json.loads(state_file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        state = None
    if (
        isinstance(state, dict)
        and isinstance(state.get("command"), list)
        and isinstance(state.get("seconds"), int | float | None)
    ):
        return state
    logger.warning(
        f"{state_file} is empty or broken, so the training counts as not begun. It continues from "
        "the last checkpoint in the folder, if there is one."
    )
    return {}


def read_outcome(folder: Path, seconds: float | None) -> Outcome:
    """Read the outcome of a training from its folder. Only the first test set counts."""
    try:
        report = json.loads((folder / "results.json").read_text())
        results = report["results"]
        results = results if "bbox" in results else results[report["test_sets"][0]]
        metrics = {name: results["bbox"][name] for name in METRICS}
        curves = read_curves(folder / "metrics.json")
    except (OSError, KeyError, ValueError):
        return Outcome({}, ([], []), seconds)
    metrics = {name: math.nan if value is None else value for name, value in metrics.items()}
    keys = [key for key in curves if key == "bbox/AP" or key.endswith("/bbox/AP")]
    return Outcome(metrics, curves[keys[0]] if keys else ([], []), seconds)


def best_base_lr(variant: Variant, outcomes: dict[Run, Outcome]) -> float:
    """The learning rate of a variant with the highest AP. Failed trainings come last."""

    def ap(run: Run) -> float:
        ap = outcomes[run].metrics.get("AP", math.nan)
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
