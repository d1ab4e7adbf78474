"""Disks and folders that fail while a training writes to them."""

import shutil
import subprocess
from functools import cache

from faults.fault import both
from faults.row import Row, refused
from faults.run_folders import FINISHED, endless, interrupted
from faults.running import Outcome, Running
from faults.setup import Setup
from faults.signals import many_test_images

# A checkpoint has 2.6 MB, and all else together less than 2.
NO_CHECKPOINT = 2_000_000
CANNOT_WRITE = r"output[\s\S]*(space|full|large|limit|write|written)"


@cache
def cannot_mount() -> str:
    """Why no file system can be mounted here; "" if one can."""
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no mount here: {probe.stderr.strip()}" if probe.returncode else ""


def small_disk(size: int):
    """The output folder is a disk of so many bytes, which may hold a training already."""

    def fault(setup: Setup) -> None:
        before = setup.folder / "before"
        if setup.output.exists():
            setup.output.rename(before)
        setup.output.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(setup.output)]
        subprocess.run(mount, check=True)
        setup.at_the_end.callback(subprocess.run, ["umount", "-l", str(setup.output)], check=True)
        if before.exists():
            shutil.copytree(before, setup.output, dirs_exist_ok=True)

    return fault


def no_byte_left(setup: Setup) -> None:
    """Fill the disk of the output folder."""
    try:
        with open(setup.output / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return


def no_checkpoint(outcome: Outcome) -> None:
    """Nothing of a checkpoint that could not be written is left."""
    left = [path.name for path in outcome.output.glob("*.pth*")]
    assert not left, f"there is {left}"


def keeps_the_earlier(outcome: Outcome) -> None:
    """The earlier checkpoint is whole, and is the one to resume from."""
    tag = (outcome.output / "last_checkpoint").read_text()
    assert tag == "model_0000003.pth", f"last_checkpoint is {tag}"
    theirs = outcome.setup.lab.run_of(FINISHED) / tag
    assert (outcome.output / tag).read_bytes() == theirs.read_bytes(), f"{tag} has changed"
    left = [path.name for path in outcome.output.glob("*.tmp*")]
    assert not left, f"there is {left}"


def remove_output(running: Running) -> None:
    running.wait_for("iter: 39 ")  # all files are open now
    # Not by rmtree, which a file that is written meanwhile would stop.
    running.setup.output.rename(running.setup.folder / "removed")


def remove_output_in_evaluation(running: Running) -> None:
    running.wait_for("Start inference on")
    running.setup.output.rename(running.setup.folder / "removed")


def often_evaluated(setup: Setup) -> None:
    endless(setup)
    many_test_images(setup, 250)
    setup.set("TEST.EVAL_PERIOD", 3)


def checkpoint_at_100(setup: Setup) -> None:
    endless(setup)
    setup.set("SOLVER.CHECKPOINT_PERIOD", 100)


ROWS = (
    Row(
        name="the first checkpoint exceeds the limit of file sizes",
        file_size=NO_CHECKPOINT,
        expect=(refused(CANNOT_WRITE, holds=no_checkpoint),),
    ),
    Row(
        name="a later checkpoint exceeds the limit of file sizes",
        fault=interrupted,
        command=("--resume",),
        file_size=NO_CHECKPOINT,
        expect=(refused(CANNOT_WRITE, holds=keeps_the_earlier),),
    ),
    Row(
        name="the disk is full when a later checkpoint is written",
        fault=both(interrupted, small_disk(7_000_000)),
        command=("--resume",),
        skip=cannot_mount,
        expect=(refused(CANNOT_WRITE, holds=keeps_the_earlier),),
    ),
    Row(
        name="no byte is left on the disk, --resume",
        fault=both(interrupted, small_disk(9_000_000), no_byte_left),
        command=("--resume",),
        skip=cannot_mount,
        expect=(refused(CANNOT_WRITE, holds=keeps_the_earlier),),
    ),
    Row(
        name="the disk is full from the start",
        fault=small_disk(65536),
        skip=cannot_mount,
        expect=(refused(CANNOT_WRITE, holds=no_checkpoint),),
    ),
    Row(
        name="OUTPUT_DIR is removed while the training runs",
        fault=checkpoint_at_100,
        during=remove_output,
        expect=(refused("output"),),
    ),
    Row(
        name="OUTPUT_DIR is removed in an evaluation, which makes it anew",
        fault=often_evaluated,
        during=remove_output_in_evaluation,
        expect=(refused("output: it was removed"),),
        limit=120,  # the evaluation of many images takes 20 s on an idle machine
        slow=True,
    ),
)
