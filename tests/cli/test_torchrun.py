"""`apdet train` as processes that torchrun starts, and starts again."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import exit_message, weights_in
from detectron2.engine.launch import _find_free_port

from apdet.cli.train import main

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def start(start_training, output):
    """A function that starts a training of two processes by a launcher, and logs to a file."""

    def start(launcher, *arguments):
        with output.with_suffix(".log").open("wb") as log:
            return start_training(*arguments, launcher=launcher, stdout=log, stderr=log)

    return start


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
@pytest.mark.skipif(sys.platform != "linux", reason="it finds the process in /proc")
def test_a_killed_process_is_started_again_and_the_weights_are_as_if_it_had_lived(start, output):
    options = ["SOLVER.MAX_ITER", 30, "SOLVER.CHECKPOINT_PERIOD", 10, "SEED", 1]
    whole, killed = output / "whole", output / "killed"
    assert start([sys.executable], "--num-processes", 2, *options, "OUTPUT_DIR", whole).wait() == 0

    process = start([*TORCHRUN, "--max-restarts", "1"], *options, "OUTPUT_DIR", killed)
    wait_for((killed / "last_checkpoint").exists, process)
    os.kill(worker(process, rank=1), signal.SIGKILL)
    assert process.wait() == 0
    log = output.with_suffix(".log").read_text()
    # It names the killed process, or the other one where that has ended before it looked.
    assert len(re.findall(r"failed \(exitcode: (?:-9|1)\)", log)) == 1
    assert re.findall("Starting training from iteration (.*)", log) == ["0", "10"]
    # The other process loses the connection, and at the same time torchrun sends it a signal.
    assert len(re.findall("^(error: process 0 lost the|stopped by SIGTERM)", log, re.M)) == 1
    assert "Traceback" not in log
    weights = weights_in(killed / "model_final.pth")
    for name, weight in weights_in(whole / "model_final.pth").items():
        assert weight.equal(weights[name]), name


def world(rank, port):
    """The environment of one of two processes, as torchrun would set it."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }


def test_processes_that_have_read_different_things_all_end_with_an_error(start_training):
    port = _find_free_port()
    processes = [
        start_training(
            "SOLVER.BASE_LR",
            learning_rate,
            env={**os.environ, **world(rank, port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, learning_rate in enumerate(["0.1", "0.2"])
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 1
        (line,) = [line for line in stderr.splitlines() if line.startswith("error:")]
        assert "differ in their config: SOLVER.BASE_LR is 0.2, not 0.1. Start all" in line
        assert "Traceback" not in stderr


@pytest.mark.parametrize("option", [["--num-processes", 2], ["--machine-rank", 0]])
def test_torchrun_alone_says_how_many_processes_there_are(config, monkeypatch, option):
    for name, value in world(0, 1234).items():
        monkeypatch.setenv(name, value)
    arguments = map(str, ["--config-file", config, *option])
    message = exit_message(main, list(arguments))
    assert message == f"error: torchrun has started 2 processes, so leave out {option[0]}"


def test_of_several_processes_one_makes_the_dry_run(config, monkeypatch, capsys):
    for rank in (1, 0):
        for name, value in world(rank, 1234).items():
            monkeypatch.setenv(name, value)
        main(["--config-file", config, "--device", "cpu", "--dry-run"])
        assert ("all is well" in capsys.readouterr().out) == (rank == 0)
