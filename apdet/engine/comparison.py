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

from apdet.checkpoint.run_folder import holds_run
from apdet.errors import UserError
from apdet.report.comparison import METRICS
from apdet.report.curves import Curve, read_curves
from apdet.report.results import write_json
from apdet.signals import SIGNALS, Stopped

logger = logging.getLogger(__name__)


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
        self._running: list[subprocess.Popen] = []
        self._is_stopped = False

    def log_file(self, run: Run) -> Path:
        """The file with the output of a training."""
        return run.folder(self.out) / "comparison.log"

    def train(self, runs: Iterable[Run], *, jobs: int) -> Iterator[tuple[Run, Outcome]]:
        """Run trainings, ``jobs`` at a time, and yield each outcome when its training ends.

        Raises:
            UserError: a folder holds a training with other arguments, or a training was killed.
            Stopped: a signal asked this process to end. The trainings have ended with a checkpoint.
        """
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(self._train, run): run for run in runs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, Stopped):
                    self._stop_trainings(error)
                raise

    def _stop_trainings(self, stopped: Stopped) -> None:
        """Let the trainings that run now end with a checkpoint. Ctrl-C has reached them already."""
        self._is_stopped, stopped.note = True, "; call again to go on"
        for process in list(self._running):
            process.terminate()

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
            outcome = read_outcome(folder, state["seconds"])
            if outcome.metrics:
                return outcome._replace(finished_before=True)
            logger.warning(f"{folder}/results.json is missing or broken, so {run} is resumed")
        # A training that was interrupted before its first checkpoint starts from the beginning.
        is_resumed = holds_run(folder)
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
            process = subprocess.Popen(command, stdout=log, stderr=log)
            self._running.append(process)
            if self._is_stopped:
                process.terminate()
            return_code = process.wait()
            self._running.remove(process)
        signum = -return_code if return_code < 0 else return_code - 128
        if return_code < 0 or signum in SIGNALS:
            raise UserError(f"{run} was killed (signal {signum}); call again to go on")


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
