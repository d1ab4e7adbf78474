import os
import signal
import sys
import time
from functools import partial

import pytest

from apdet.engine.child_processes import LOST_CONNECTION, run_to_end, start
from apdet.signals import StopRequest


def one_dies(number, dying, how):
    """One process ends as asked, the others as if they had lost the connection to it."""
    if number != dying:
        time.sleep(0.2)
        sys.exit(LOST_CONNECTION)
    if how > 0:
        os.kill(os.getpid(), how)
    time.sleep(1)
    sys.exit("error: the disk is full")


def end_message(dying, how, first_rank=0):
    """How a training of two processes ends."""
    with pytest.raises(SystemExit) as caught:
        run_to_end(
            partial(start, one_dies, (dying, how), num_processes=2),
            StopRequest(),
            first_rank=first_rank,
        )
    return caught.value.code


@pytest.mark.parametrize("dying", [0, 1])
def test_the_process_that_was_killed_is_named_with_its_rank(dying):
    message = end_message(dying, signal.SIGKILL, first_rank=4)
    name = f"process {4 + dying} of the training was killed by SIGKILL: out of memory?"
    assert message == f"error: {name} Call again with --resume"


def test_the_process_that_failed_later_is_to_blame_if_the_other_only_lost_it(capfd, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # the command line hides those of torch
    assert end_message(1, how=0) == 1
    assert capfd.readouterr().err == "error: the disk is full\n"


def test_a_process_that_was_lost_on_another_machine_is_said_to_be_there():
    message = end_message(dying=-1, how=0)
    assert message.startswith("error: the connection to a process on another machine was lost")
