import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "check_gpu.py"


@pytest.mark.slow
def test_its_checks_pass_without_a_gpu_where_they_apply():
    command = [sys.executable, TOOL, "--device", "cpu", "--no-benchmarks"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.rpartition("what was seen")[2]
    assert table.count("  ok  ") == 4
    assert table.count("not here") == 2
