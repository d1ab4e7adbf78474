"""Folders of interrupted and finished trainings, and what can be wrong with them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.fault import Fault
from faults.setup import Setup

# A training from scratch with a constant learning rate.
FINISHED = {"SOLVER.MAX_ITER": 6, "SOLVER.CHECKPOINT_PERIOD": 2}
COSINE = {**FINISHED, "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR"}
RESUME = ("--resume",)


def continue_run(keys: dict[str, Any], *, finished: bool = True) -> Fault:
    """Copy a training. If it is not finished, its last checkpoint is that of iteration 3."""

    def fault(setup: Setup) -> None:
        setup.copy_run(setup.lab.run_of(keys))
        for key, value in {**keys, "MODEL.WEIGHTS": ""}.items():
            setup.set(key, value)
        if finished:
            return
        for name in ("model_0000005", "model_final", "model_best"):
            (setup.output / f"{name}.pth").unlink(missing_ok=True)
        (setup.output / "results.json").unlink()
        (setup.output / "last_checkpoint").write_text("model_0000003.pth")

    return fault


finished = continue_run(FINISHED)
interrupted = continue_run(FINISHED, finished=False)


def in_output(name: str, damage: Callable[[Path], None]) -> Fault:
    """Do something to a file of the output folder."""
    return lambda setup: damage(setup.output / name)


def tag(text: str) -> Fault:
    """Write the file last_checkpoint."""
    return in_output("last_checkpoint", lambda path: path.write_text(text))


def without(*names: str) -> Fault:
    """Remove files of the output folder."""

    def fault(setup: Setup) -> None:
        for name in names:
            (setup.output / name).unlink()

    return fault


def keep_only(name: str) -> Fault:
    """Remove all other checkpoints, and last_checkpoint."""

    def fault(setup: Setup) -> None:
        for path in [*setup.output.glob("*.pth"), setup.output / "last_checkpoint"]:
            if path.name != name:
                path.unlink()

    return fault


def endless(setup: Setup) -> None:
    """Train from scratch, with a constant learning rate, and without checkpoints."""
    setup.set("MODEL.WEIGHTS", "")
    setup.set("SOLVER.MAX_ITER", 1_000_000)
    setup.set("SOLVER.CHECKPOINT_PERIOD", 1_000_000)
