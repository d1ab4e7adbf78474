"""Runs the trainings of a comparison as subprocesses, which can be interrupted and resumed."""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from apdet.checkpoint.run_folder import holds_run
from apdet.engine.comparison_outcome import (
    Outcome,
    Run,
    Variant,
    best_base_lr,
    read_outcome,
    summarise,
)
from apdet.errors import UserError
from apdet.report.results import write_json
from apdet.signals import SIGNALS, Stopped

__all__ = [
    "Comparison",
    "Outcome",
    "Run",
    "Variant",
    "best_base_lr",
    "read_outcome",
    "summarise",
]

logger = logging.getLogger(__name__)


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
