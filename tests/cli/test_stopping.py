"""`apdet train` as a process that signals, a second training and a full disk interrupt."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import exit_message

from apdet.cli.train import main

LONG = ["SOLVER.MAX_ITER", 10_000, "SOLVER.CHECKPOINT_PERIOD", 3]


@pytest.fixture
def start(start_training):
    """A function that starts a training whose errors are read."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return lambda *arguments, **options: start_training(*arguments, **streams, **options)


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def told(process):
    """The one line that a process printed to stderr, torch's warnings aside."""
    _, stderr = process.communicate(timeout=60)
    lines = [line for line in stderr.splitlines() if "CUDA" not in line]
    assert len(lines) == 1, stderr
    return lines[0]


def living(group):
    """The processes of a group that have not ended, a second after its leader."""
    time.sleep(1)  # the helper of Python's multiprocessing ends a little later
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stats.append(path.read_text().rpartition(")")[2].split())
    return [stat for stat in stats if stat[2] == str(group) and stat[0] != "Z"]


def assert_stopped(process, output, exit_code):
    line = told(process)
    last = (output / "last_checkpoint").read_text()
    iteration = int(last.removeprefix("model_").removesuffix(".pth"))
    name = signal.Signals(exit_code - 128).name
    assert line == f"stopped by {name} after iteration {iteration}; go on with --resume"
    assert process.returncode == exit_code
    content = torch.load(output / last, weights_only=True)
    assert content["iteration"] == iteration
    assert not living(process.pid)


def test_a_training_with_workers_ends_on_ctrl_c_with_a_checkpoint(start, output):
    process = start(*LONG, "DATALOADER.NUM_WORKERS", 1)
    wait_for(output / "model_0000002.pth", process)
    os.killpg(process.pid, signal.SIGINT)
    assert_stopped(process, output, 130)


def test_a_signal_during_the_imports_ends_the_process_at_once(start, output):
    process = start()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert told(process) == "stopped by SIGTERM"
    assert process.returncode == 143
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to_all", [False, True])
def test_several_processes_end_together_whoever_receives_the_signal(start, output, signum, to_all):
    process = start("--num-processes", 2, *LONG)
    wait_for(output / "model_0000002.pth", process)
    (os.killpg if to_all else os.kill)(process.pid, signum)
    assert_stopped(process, output, 128 + signum)


def test_a_second_training_in_the_folder_is_refused_but_an_evaluation_is_not(start, config, output):
    process = start(*LONG)
    wait_for(output / "model_0000002.pth", process)
    message = exit_message(main, ["--config-file", config, "--resume"])
    assert f"process {process.pid} on " in message
    assert "OUTPUT_DIR" in message
    before = (output / "lock").read_text()
    main(["--config-file", config, "--eval-only", "--resume"])
    assert json.loads((output / "results.json").read_text())["results"]
    assert (output / "lock").read_text() == before
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert_stopped(process, output, 143)


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # less than a checkpoint


def test_a_checkpoint_that_cannot_be_written_ends_the_training_with_one_line(start, output):
    process = start(preexec_fn=limit_file_size)
    line = told(process)
    assert line.startswith(f"error: {output}/model_0000001.pth: File too large; raise the limit")
    assert process.returncode == 1
    assert not list(output.glob("*.tmp"))


def test_a_full_log_ends_the_training_with_one_line(start, output, full_file):
    output.mkdir()
    (output / "log.txt").symlink_to(full_file)
    process = start()
    line = told(process)
    assert line.startswith(f"error: {output}/log.txt: No space left on device; free space")
    assert process.returncode == 1


def test_full_metrics_end_the_training_with_one_line(start, output, full_file):
    output.mkdir()
    (output / "metrics.json").symlink_to(full_file)
    process = start()
    line = told(process)
    assert line.startswith(f"error: {output}/metrics.json: No space left on device; free space")
    assert process.returncode == 1
