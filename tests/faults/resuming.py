"""Interrupted and finished trainings that are continued."""

import signal
from pathlib import Path

import torch
from faults.checkpoint_edits import truncate
from faults.checks import Check, ends_like, has_files, logged
from faults.fault import both
from faults.row import Row, rarely, refused, works
from faults.run_folders import (
    COSINE,
    FINISHED,
    RESUME,
    continue_run,
    finished,
    in_output,
    interrupted,
    tag,
    without,
)
from faults.running import Outcome, run
from faults.setup import Setup


def last_lr_is(expected: float) -> Check:
    """The learning rate of the last iteration, as logged."""

    def holds(outcome: Outcome) -> None:
        lr = logged(outcome, "lr")[-1]
        assert abs(lr - expected) < 1e-3 * expected, f"the learning rate is {lr}, not {expected}"

    return holds


def no_temporary_files(outcome: Outcome) -> None:
    left = [path.name for path in outcome.output.rglob("*.tmp*")]
    assert not left, f"there is still {left}"


def leave_temporary_files(setup: Setup) -> None:
    for name in ("model_0000005.pth.tmp", "model_0000099.pth.7.tmp", "last_checkpoint.7.tmp"):
        (setup.output / name).write_bytes(b"half a checkpoint")


def periodic_checkpoints_are(*iterations: int) -> Check:
    def holds(outcome: Outcome) -> None:
        found = sorted(path.name for path in outcome.output.glob("model_0*.pth"))
        expected = [f"model_{iteration:07}.pth" for iteration in iterations]
        assert found == expected, f"there are {found}"

    return holds


CONTINUED = (
    Row(
        name="a training is interrupted and resumed",
        fault=interrupted,
        command=RESUME,
        expect=(works(holds=ends_like(FINISHED)),),
    ),
    Row(
        name="a finished training is extended",
        fault=finished,
        command=("--resume", "SOLVER.MAX_ITER", "8"),
        expect=(works(holds=ends_like({**FINISHED, "SOLVER.MAX_ITER": 8})),),
    ),
    Row(
        name="a finished training with evaluations is extended",
        fault=continue_run({**FINISHED, "TEST.EVAL_PERIOD": 3}),
        command=("--resume", "SOLVER.MAX_ITER", "8"),
        expect=(works(holds=ends_like({**FINISHED, "SOLVER.MAX_ITER": 8})),),
        slow=True,
    ),
    Row(
        name="--resume with a MAX_ITER that has passed",
        fault=finished,
        command=(*RESUME, "SOLVER.MAX_ITER", "4"),
        expect=(works(holds=has_files("results.json")),),
        slow=True,
    ),
    Row(
        name="model_final.pth of a finished training is truncated, --eval-only --resume",
        fault=both(finished, tag("model_final.pth"), in_output("model_final.pth", truncate)),
        command=("--eval-only", *RESUME),
        expect=(works(warns=r"model_final\.pth"), refused(r"model_final\.pth")),
        slow=True,
    ),
    Row(
        name="--resume with a lower learning rate",
        fault=interrupted,
        command=("--resume", "SOLVER.BASE_LR", "0.0001"),
        expect=(works(holds=last_lr_is(0.0001)),),
    ),
    Row(
        name="--resume with a lower learning rate and a cosine",
        fault=continue_run(COSINE, finished=False),
        command=("--resume", "SOLVER.BASE_LR", "0.0001"),
        # The last of 6 iterations: a cosine from 1 to 0 at 5 / 6.
        expect=(works(holds=last_lr_is(0.0001 * 0.0669873)),),
    ),
    Row(
        name="temporary files of a killed process, --resume",
        fault=both(interrupted, leave_temporary_files),
        command=RESUME,
        expect=(works(holds=no_temporary_files),),
    ),
    Row(
        name="SOLVER.CHECKPOINTS_TO_KEEP",
        fault=lambda setup: [setup.set(key, value) for key, value in FINISHED.items()],
        command=("SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.CHECKPOINTS_TO_KEEP", "2"),
        expect=(works(holds=periodic_checkpoints_are(4, 5)),),
    ),
    Row(
        name="SOLVER.CHECKPOINTS_TO_KEEP of a resumed training",
        fault=interrupted,
        command=(*RESUME, "SOLVER.CHECKPOINTS_TO_KEEP", "2"),
        expect=(works(holds=periodic_checkpoints_are(3, 5)),),
    ),
)

# AP is low at iteration 30, high at 60, and between at 90: the learning rate becomes too large.
RISE_AND_FALL = {
    "SOLVER.MAX_ITER": 90,
    "SOLVER.BASE_LR": 0.1,
    "SOLVER.STEPS": [60],
    "SOLVER.GAMMA": 10.0,
    "SOLVER.WARMUP_ITERS": 5,
    "SOLVER.CHECKPOINT_PERIOD": 30,
    "TEST.EVAL_PERIOD": 30,
}


def killed_after_best(setup: Setup) -> None:
    """Train, and kill the process when it has saved the best model of iteration 60."""
    for key, value in {**RISE_AND_FALL, "MODEL.WEIGHTS": ""}.items():
        setup.set(key, value)
    setup.plug_in = "faults.kill_after_best"
    outcome = run(setup)
    if outcome.exit_code != 128 + signal.SIGKILL:
        raise RuntimeError(f"it was not killed:\n{outcome.printed}")
    setup.plug_in = ""


BEST = (
    Row(
        name="killed when it has saved the best model, then --resume",
        fault=killed_after_best,
        command=RESUME,
        expect=(works(holds=ends_like(RISE_AND_FALL, "model_best.pth")),),
        slow=True,
    ),
)


def killed_before_the_final_checkpoint(setup: Setup) -> None:
    finished(setup)
    (setup.output / "model_final.pth").unlink()
    tag("model_0000005.pth")(setup)


def replace_by_a_list(path: Path) -> None:
    torch.save([1, 2], path)


ODD = rarely(
    Row(
        name="killed between the last periodic checkpoint and the final one, then --resume",
        fault=killed_before_the_final_checkpoint,
        command=RESUME,
        expect=(works(holds=ends_like(FINISHED)),),
    ),
    Row(
        name="--resume with a MAX_ITER below that of the checkpoint",
        fault=interrupted,
        command=(*RESUME, "SOLVER.MAX_ITER", "2"),
        expect=(works(warns="MAX_ITER", holds=has_files("model_final.pth")),),
    ),
    Row(
        name="model_best.pth holds a list, --resume",
        fault=both(finished, in_output("model_best.pth", replace_by_a_list)),
        command=(*RESUME, "SOLVER.MAX_ITER", "8"),
        expect=(works(warns=r"model_best\.pth"),),
    ),
    Row(
        name="model_final.pth holds a list and last_checkpoint is gone, --resume",
        fault=both(
            interrupted,
            in_output("model_final.pth", replace_by_a_list),
            without("last_checkpoint"),
        ),
        command=RESUME,
        expect=(works(warns=r"model_0000003\.pth", holds=ends_like(FINISHED)),),
    ),
)

ROWS = (*CONTINUED, *BEST, *ODD)
