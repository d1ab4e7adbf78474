"""What a training says when it is resumed, or ends early."""

from collections.abc import Iterator
from pathlib import Path

from apdet.config.plan import TrainingPlan
from apdet.errors import ArgumentError


def divergence(error: FloatingPointError, *, iteration: int, checkpoint: str) -> ArgumentError:
    """The error of a training whose loss or weights became NaN or infinite.

    Args:
        error: what became so.
        iteration: the iteration of the step.
        checkpoint: the checkpoint from which ``--resume`` goes on; empty: there is none.
    """
    return ArgumentError(
        "TrainingPlan",
        "iteration {iteration}: {error}. Last good checkpoint: {last}. "
        "Try a lower {base_lr}, or {clip_gradients}, and call again with --resume",
        iteration=iteration,
        error=error,
        last=checkpoint or "none yet",
    )


def how_to_go_on(*, finished: int, saved: int) -> str:
    """The note on a training that a signal stopped.

    Args:
        finished: the last iteration.
        saved: the iteration of the last checkpoint; -1: there is none.
    """
    if saved < 0:
        return ""
    if saved == finished:
        return f" after iteration {saved}; go on with --resume"
    return f"; the last checkpoint is that of iteration {saved}; go on with --resume"


def how_to_use(folder: str) -> str:
    """The command that predicts with the best model of a folder, or else with the final one."""
    best, final = (Path(folder, f"model_{name}.pth") for name in ("best", "final"))
    return f"To use the model: apdet predict {best if best.exists() else final} IMAGES"


def settings_without_effect(plan: TrainingPlan, *, start_iter: int, seed: int) -> Iterator[str]:
    """Tell which settings of a plan have no effect on a training that is resumed.

    Args:
        plan: the plan.
        start_iter: the iteration that comes next.
        seed: the seed of the training.
    """
    if start_iter > plan.schedule.max_iter:
        yield (
            f"{plan.key_of('TrainingPlan', 'max_iter')} is {plan.schedule.max_iter}, but the "
            f"checkpoint was trained for {start_iter} iterations already, so no step is made"
        )
    if plan.seed >= 0 and seed != plan.seed:
        yield (
            f"{plan.key_of('TrainingPlan', 'seed')} is {plan.seed}, but a resumed training keeps "
            f"its seed, {seed}"
        )
