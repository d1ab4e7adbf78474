"""Calls a function in each process of a training, on GPUs or on the CPU, on all its machines."""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Semaphore
from typing import Any, NoReturn

from detectron2.utils import comm

from apdet.engine.child_processes import LOST_CONNECTION, run_to_end, start
from apdet.engine.connecting import LostConnectionError, connected
from apdet.engine.meeting import listen
from apdet.engine.world import World
from apdet.errors import UserError
from apdet.signals import (
    SIGNALS,
    Stopped,
    StopRequest,
    end_process,
    ending_on_signals,
    ending_without_teardown,
    stop_signals,
)

# How long the processes wait for each other, in seconds.
CONNECT_TIMEOUT = 1800.0
_ADDRESS = re.compile(r"tcp://(\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:/\[\]]+)):(?P<port>\d+)/?")


def run_in_world(
    main: Callable[..., Any],
    args: tuple[Any, ...],
    world: World,
    *,
    on_cpu: bool,
    timeout: float = CONNECT_TIMEOUT,
) -> NoReturn:
    """Call ``main(*args)`` in this process, which another program started with the others.

    Args:
        main: the function.
        args: its arguments.
        world: the processes.
        on_cpu: whether the processes share the CPU. If not, each has a GPU.
        timeout: how long to wait for the other processes, in seconds.

    Returns:
        Never. The process ends, with exit code 1 and one line if another process did not come or
        was lost.
    """
    if on_cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with ending_without_teardown():
        try:
            with connected(world, on_cpu=on_cpu, timeout=timeout):
                main(*args)
        except (LostConnectionError, UserError) as error:
            sys.exit(f"error: {error}")
        sys.exit(0)


def launch_processes(
    main: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    num_processes: int,
    on_cpu: bool,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    timeout: float = CONNECT_TIMEOUT,
) -> None:
    """Start the processes of this machine, and call ``main(*args)`` in each.

    A single process is this one. A signal that only this process receives is passed on to the
    others. A second signal kills them.

    Args:
        main: a function at the top level of a module, so that new processes can import it.
        args: the arguments of ``main``.
        num_processes: number of processes on each machine.
        on_cpu: whether the processes share the CPU. If not, each has a GPU.
        num_machines: number of machines.
        machine_rank: number of this machine, from 0 on.
        dist_url: the address at which the processes meet, ``tcp://host:port``; "auto": a free port
            of this machine.
        timeout: how long the processes wait for each other, in seconds.

    Raises:
        UserError: the address cannot be, or its port is in use.
        SystemExit: a process failed.
    """
    size = num_machines * num_processes
    if size == 1:
        main(*args)
        return
    host, port = ("127.0.0.1", 0) if dist_url == "auto" else parse_address(dist_url)
    # The port is taken at once, and never given back until the training ends.
    store = listen(port) if machine_rank == 0 else None
    if on_cpu:
        _prepare_cpu_processes(num_processes)
    first = machine_rank * num_processes
    worlds = [
        World(first + i, size, i, num_processes, host, store.port if store else port)
        for i in range(num_processes)
    ]
    turn = multiprocessing.get_context("spawn").Semaphore(1)
    arguments = (worlds, turn, on_cpu, timeout, main, args)
    with ending_on_signals() as stop:
        run = partial(start, _process, arguments, num_processes=num_processes)
        run_to_end(run, stop, first_rank=first)


def parse_address(dist_url: str) -> tuple[str, int]:
    """The host and the port of ``tcp://host:port``.

    Raises:
        UserError: it is something else.
    """
    match = _ADDRESS.fullmatch(dist_url)
    if not match or not 0 < int(match["port"]) < 2**16:
        raise UserError(
            f"--dist-url is {dist_url!r}; give tcp://<address of machine 0>:<port>, with a port "
            "from 1 to 65535"
        )
    return match["ipv6"] or match["host"], int(match["port"])


def _prepare_cpu_processes(num_processes: int) -> None:
    """Set the environment of new processes so that they use only the CPU, and share its cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // num_processes, 1)))


def _process(
    local_rank: int,
    worlds: list[World],
    turn: Semaphore,
    on_cpu: bool,
    timeout: float,
    main: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    """Connect to the other processes, and call the main function.

    While a process waits for the others, it cannot handle a signal, so the signal kills it.
    """
    for signum in SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    # Start data-loader workers as a training of one process does: on Linux they are forked, so that
    # they share the handling of signals and the memory of the data sets.
    multiprocessing.set_start_method(None, force=True)
    with ending_without_teardown(), _printing_one_error(turn):
        try:
            with connected(worlds[local_rank], on_cpu=on_cpu, timeout=timeout):
                main(*args)
        except LostConnectionError:
            sys.exit(LOST_CONNECTION)  # the parent says which process has ended
        except UserError as error:
            sys.exit(f"error: {error}")
        sys.exit(0)


@contextmanager
def _printing_one_error(turn: Semaphore) -> Iterator[None]:
    """In this context, only the first process of a machine that has an error prints it.

    Most errors, such as those of a config, are the same in all processes.
    """
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.code, str) and not turn.acquire(block=False):
            time.sleep(60)  # until the first one has printed its error, which ends this process
        raise


@contextmanager
def ending_rank_on_signals() -> Iterator[StopRequest]:
    """Like `ending_on_signals`, but only the main one of several processes prints the line.

    If all agreed to stop, only the first process of each machine ends with exit code 130 or 143.
    Any other exit code than 0 makes `launch_processes` end the other processes.
    """
    try:
        with stop_signals() as stop:
            yield stop
    except Stopped as stopped:
        if comm.is_main_process():
            print(stopped, file=sys.stderr)
        end_process(0 if stopped.agreed and comm.get_local_rank() else stopped.exit_code)
