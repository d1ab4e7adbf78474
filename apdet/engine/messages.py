"""What a training says when it ends early, and how to go on."""

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
