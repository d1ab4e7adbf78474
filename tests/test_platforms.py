"""What happens on systems on which apdet does not run, or not all of it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINE = "apdet runs on Linux and macOS; on Windows, use WSL 2 (apdet.losses works there too)"
NOT_ON_WINDOWS = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty"}
HIDE = f"import sys; sys.modules |= dict.fromkeys({NOT_ON_WINDOWS})\n"
BE_WINDOWS = "sys.platform = 'win32'\n"


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    "script",
    ["train_net.py", "lazyconfig_train_net.py", "compare_losses.py", "convert_weights.py"],
)
def test_on_windows_a_command_ends_with_one_line_that_says_what_to_do(script):
    # Python's own modules are those of this system.
    libraries = "import argparse, runpy, shutil\n"
    # Windows may have neither torch nor Detectron2.
    hide_more = "sys.modules |= dict.fromkeys(['torch', 'detectron2'])\n"
    code = "runpy.run_path(sys.argv[1], run_name='__main__')"
    done = run(libraries + HIDE + hide_more + BE_WINDOWS + code, ROOT / "tools" / script)
    assert (done.returncode, done.stderr) == (1, f"error: {LINE}\n")


def test_on_windows_the_losses_work_and_the_engine_says_why_it_does_not():
    use_losses = """
from apdet.losses import ap_loss
print(ap_loss(torch.tensor([[2.0], [0.0]]), torch.tensor([[0.0], [1.0]])).item())
"""
    # The libraries are those of this system, and would look for files of Windows.
    libraries = "import fvcore.nn, torch\n"
    done = run(libraries + HIDE + use_losses + BE_WINDOWS + "import apdet.engine")
    assert float(done.stdout) == 0.5  # the object stands on rank 2
    assert done.stderr.splitlines()[-1] == f"ImportError: {LINE}"


def test_only_the_engine_imports_modules_that_windows_does_not_have():
    wrong = [
        (path, name)
        for path in (ROOT / "apdet").rglob("*.py")
        if not path.is_relative_to(ROOT / "apdet" / "engine")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        if name in NOT_ON_WINDOWS
    ]
    assert not wrong
