"""`apdet train` as processes that torchrun starts, and starts again."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import weights_in

TOOL = Path(__file__).parents[2] / "tools" / "train_net.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def start(config, output):
    """A function that starts a training of two processes by a launcher, and logs to a file."""
    started = []

    def start(launcher, *arguments):
        command = [*launcher, TOOL, "--config-file", config, "--device", "cpu", *arguments]
        log = output.with_suffix(".log").open("wb")
        process = subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def worker(launcher, rank):
    """The process that torchrun has started with a rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if parent == launcher.pid and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    raise AssertionError("no such process")


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_weights_are_as_if_it_had_lived(start, output):
    options = ["SOLVER.MAX_ITER", 30, "SOLVER.CHECKPOINT_PERIOD", 10, "SEED", 1]
    whole, killed = output / "whole", output / "killed"
    assert start([sys.executable], "--num-processes", 2, *options, "OUTPUT_DIR", whole).wait() == 0

    process = start([*TORCHRUN, "--max-restarts", "1"], *options, "OUTPUT_DIR", killed)
    wait_for((killed / "last_checkpoint").exists, process)
    os.kill(worker(process, rank=1), signal.SIGKILL)
    assert process.wait() == 0
    log = output.with_suffix(".log").read_text()
    assert "exitcode: -9" in log
    assert re.findall("Starting training from iteration (.*)", log) == ["0", "10"]
    # The other process loses the connection, and at the same time torchrun sends it a signal.
    assert len(re.findall("^(error: process 0 lost the|stopped by SIGTERM)", log, re.M)) == 1
    assert "Traceback" not in log
    weights = weights_in(killed / "model_final.pth")
    for name, weight in weights_in(whole / "model_final.pth").items():
        assert weight.equal(weights[name]), name
