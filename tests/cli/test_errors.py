"""An error ends a command with one line, and its traceback stands in the log."""

import logging

import pytest
from conftest import exit_message

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
    # Those of earlier tests in this process.
    monkeypatch.setattr(logging.getLogger("apdet"), "handlers", [])
    message = exit_message(main, ["--dry-run", *failing])
    assert message.endswith("; --debug prints its traceback")


def test_debug_lets_every_error_pass(failing, tmp_path):
    with pytest.raises(KeyError, match="a bug"):
        main(["--debug", *failing])
    with pytest.raises(UserError, match="no such config file"):
        main(["--debug", "--config-file", "missing.yaml"])
    with pytest.raises(UserError, match="missing.pth"):
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
