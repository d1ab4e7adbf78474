"""Runs the command line in a process of its own, and does things to it while it runs."""

import importlib
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.setup import Setup

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What Detectron2 prints of the command line, the config and the model. A test that looks for a word
# must not find it there.
_ECHO = re.compile(
    r"^\[\d\d/\d\d [^]]*\]: (Command line arg|Contents of|Running with full|Model:)"
    r".*?(?=^\[\d\d/\d\d |^WARNING|^error: |\Z)",
    re.MULTILINE | re.DOTALL,
)

# The processes are forked from a server that has imported all modules, which saves seconds.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.faults.preloaded"])  # found in the current folder


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        setup: what it worked on.
        exit_code: 128 + the number of the signal if a signal ended it; None if it had to be killed
            because it did not end.
        printed: all that it printed.
    """

    setup: Setup
    exit_code: int | None
    printed: str

    @property
    def said(self) -> str:
        """What it printed, without colours and without the config."""
        return _ECHO.sub("", _COLOUR.sub("", self.printed))

    @property
    def output(self) -> Path:
        """The output folder."""
        return self.setup.output


class Running:
    """A command that runs.

    Args:
        setup: its config is written now.
        command: the arguments, as in the command line.
        limit: seconds after which it counts as hanging.
        new_interpreter: whether to start Python anew, which is needed for signals at the start and
            for several processes.
        file_size: the largest file in bytes that the process may write; 0: any.
    """

    def __init__(
        self,
        setup: Setup,
        command: Sequence[str],
        *,
        limit: float = 60,
        new_interpreter: bool = False,
        file_size: int = 0,
    ) -> None:
        self.setup, self._deadline = setup, time.monotonic() + limit
        self._log = setup.folder / f"printed_{time.monotonic_ns()}.txt"
        self._log.touch()
        if new_interpreter:
            self._process: Any = _start_interpreter(list(command), self._log)
        else:
            self._process = _fork(list(command), self._log, setup.plug_in, file_size)

    @property
    def printed(self) -> str:
        """What the process has printed so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> None:
        """Wait until the process has printed a text.

        Raises:
            TimeoutError: the process ended first, or its time is over.
        """
        self.wait_until(lambda: re.search(pattern, self.printed), pattern)

    def wait_for_file(self, path: Path) -> None:
        """Wait until a file exists."""
        self.wait_until(path.exists, str(path))

    def wait_until(self, condition: Any, what: str) -> None:
        while not condition():
            if not self.is_alive() and not condition():
                raise TimeoutError(f"no {what} in:\n{self.printed}")
            time.sleep(0.01)

    def is_alive(self) -> bool:
        """Whether the process runs, and has time left."""
        return self._exit_code() is None and time.monotonic() < self._deadline

    def signal_all(self, number: int) -> None:
        """Send a signal to the process and its children, as a terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        os.kill(self._process.pid, number)

    def end(self) -> Outcome:
        """Wait for the end, and kill the process if it does not come."""
        while self.is_alive():
            time.sleep(0.01)
        code = self._exit_code()
        self.kill()
        if code is not None and code < 0:
            code = 128 - code
        return Outcome(self.setup, code, self.printed)

    def kill(self) -> None:
        """Kill the process and its children, if any of them still runs."""
        self.signal_all(signal.SIGKILL)  # also the children of a process that has ended
        while self._exit_code() is None:
            time.sleep(0.01)
            self.signal_all(signal.SIGKILL)  # a new process has no group of its own at first

    def _exit_code(self) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode


def run(setup: Setup, *command: str, **options: Any) -> Outcome:
    """Run ``apdet train`` with the config of a set-up, and wait for the end."""
    return Running(setup, command_line(setup, command), **options).end()


def command_line(setup: Setup, arguments: Sequence[str], program: str = "train") -> list[str]:
    """The arguments of ``apdet``. ``{output}`` stands for the output folder."""
    config = str(setup.write_config())
    given = [argument.replace("{output}", str(setup.output)) for argument in arguments]
    return [program, "--config-file", config, *given]


def _start_interpreter(command: list[str], log: Path) -> subprocess.Popen:
    with open(log, "w") as file:
        return subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "apdet.cli", *command],
            stdout=file,
            stderr=file,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def _fork(command: list[str], log: Path, plug_in: str, file_size: int) -> Any:
    arguments = (command, str(log), plug_in, file_size)
    process = _SERVER.Process(target=_run_in_child, args=arguments)
    process.start()
    return process


def _run_in_child(command: list[str], log: str, plug_in: str, file_size: int) -> None:
    import torch

    from apdet.cli import main

    # As in a command of its own: data-loader workers are not started by a server.
    multiprocessing.set_start_method(None, force=True)
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    if plug_in:
        importlib.import_module(plug_in)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    main(command)
