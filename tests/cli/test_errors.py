"""An error ends a command with one line, and its traceback stands in the log."""

import contextlib
import logging
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT, exit_message

from apdet.cli.convert import main as convert
from apdet.cli.errors import errors_in_one_line
from apdet.cli.train import main
from apdet.errors import UserError

LOSS = """
import torch

def fails_in_training(logits, labels):
    if logits.numel() > 100:  # the loss is first tried on a few
        raise KeyError("a bug\\nof two lines")
    return logits.sum() * 0
"""


@pytest.fixture
def failing(config, tmp_path, monkeypatch):
    """Arguments of a training whose first step fails in the user's own code."""
    (tmp_path / "own_losses.py").write_text(LOSS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_losses:fails_in_training"
    return ["--config-file", config, "--allow-custom-code", "MODEL.CLS_LOSS.NAME", name]


def test_an_unexpected_error_leaves_its_traceback_in_the_log_alone(failing, output, capfd):
    message = exit_message(main, failing)
    assert message.startswith("error: unexpected KeyError: 'a bug")
    assert message.endswith(f"; its traceback is in {output / 'log.txt'}")
    assert "\n" not in message
    assert "Traceback" not in "".join(capfd.readouterr())
    log = (output / "log.txt").read_text()
    assert "Traceback" in log
    assert "own_losses.py" in log


def test_without_a_log_the_line_says_how_to_see_the_traceback(failing, monkeypatch):
    with monkeypatch.context() as patch:
        # Those of earlier tests in this process.
        patch.setattr(logging.getLogger("apdet"), "handlers", [])
        message = exit_message(main, ["--dry-run", *failing])
    assert message.endswith("; --debug prints its traceback")


def test_debug_lets_every_error_pass(failing, tmp_path):
    with pytest.raises(KeyError, match="a bug"):
        main(["--debug", *failing])
    with pytest.raises(UserError, match="no such config file"):
        main(["--debug", "--config-file", "missing.yaml"])
    with pytest.raises(UserError, match=r"missing\.pth"):
        convert(["--debug", "missing.pth", str(tmp_path / "out.pth")])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines", "two lines"),
        ("caf\udce9", r"caf\udce9"),
        ("é ü 猫", "é ü 猫"),
    ],
)
def test_a_message_is_one_line_that_leaves_the_terminal_alone(text, shown):
    with pytest.raises(SystemExit) as caught, errors_in_one_line(debug=False):
        raise UserError(text)
    assert caught.value.code == f"error: {shown}"


def test_a_long_message_is_cut_in_the_middle():
    with pytest.raises(SystemExit) as caught, errors_in_one_line(debug=False):
        raise UserError("key: " + "x" * 10**6 + ": remedy")
    message = str(caught.value)
    assert len(message) < 2100
    assert message.startswith("error: key: ")
    assert message.endswith(": remedy")


@pytest.mark.parametrize("error", ["No space left on device", "Broken pipe"])
def test_a_terminal_that_cannot_be_written_to_does_not_end_a_training(
    config, output, error, full_file
):
    command = [sys.executable, ROOT / "tools" / "train_net.py", "--config-file", config]
    if error == "Broken pipe":
        reader, writer = os.pipe()
        os.close(reader)
        stdout = os.fdopen(writer, "w")
    else:
        stdout = open(full_file, "w")  # noqa: SIM115  closed below
    done = subprocess.run(
        [*command, "SOLVER.MAX_ITER", "1"], stdout=stdout, stderr=subprocess.PIPE, text=True
    )
    with contextlib.suppress(OSError):
        stdout.close()
    assert done.returncode == 0
    assert f"standard output: {error}; the log goes on in log.txt" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Training is done." in (output / "log.txt").read_text()


def test_a_terminal_that_does_not_know_a_character_shows_its_code(config, tmp_path):
    command = [sys.executable, ROOT / "tools" / "train_net.py", "--config-file", config]
    overrides = ["SOLVER.MAX_ITER", "1", "OUTPUT_DIR", str(tmp_path / "猫")]
    done = subprocess.run(
        [*command, *overrides],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stdout + done.stderr
    assert rb"\u732b/results.json" in done.stdout
    assert "猫/results.json" in (tmp_path / "猫" / "log.txt").read_text(encoding="utf-8")


def test_a_command_hides_what_torch_says_of_our_calls_but_no_other_warning():
    warn = """
import warnings
for message in ("`torch.jit.script` is deprecated. Use another.", "torch.meshgrid: in a", "other"):
    warnings.warn(message, FutureWarning)
"""
    command = f"""
import subprocess, sys, types
from apdet import cli
def main(argv, prog):
    exec({warn!r})
    subprocess.run([sys.executable, "-c", {warn!r}])
sys.modules["apdet.cli.train"] = types.SimpleNamespace(main=main)
cli.run_command("train")
"""
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert re.findall("FutureWarning: (.*)", done.stderr) == ["other", "other"]
