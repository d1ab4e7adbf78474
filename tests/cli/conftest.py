import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

TOOL = ROOT / "tools" / "train_net.py"


@pytest.fixture
def start_training(config):
    """A function that starts a training; what still runs at the end of the test is killed."""
    started = []

    def start(*arguments, launcher=(sys.executable,), **options):
        command = [*launcher, TOOL, "--config-file", config, "--device", "cpu", *arguments]
        process = subprocess.Popen(list(map(str, command)), start_new_session=True, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
