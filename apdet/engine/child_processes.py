"""Starts processes, waits until they end, and says why one failed."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import connection, resource_tracker
from typing import Any

import torch.multiprocessing as mp

from apdet.signals import SIGNALS, Stopped, StopRequest, signals_blocked

# The exit code of a process that lost its connection to another one. The other one is to blame.
LOST_CONNECTION = 75
# How long the other processes may take to end after one ended because of a signal, in seconds.
_GRACE_PERIOD = 60
# How long to look for the process that is to blame for a lost connection, in seconds.
_SEARCH_TIME = 5


def start(
    process: Callable[..., None], arguments: tuple[Any, ...], *, num_processes: int
) -> mp.ProcessContext:
    """Call ``process(number, *arguments)`` in new processes.

    They inherit that signals are blocked, so they do not see one until they have imported torch.
    """
    resource_tracker.ensure_running()  # it would unblock the signals when it starts
    with signals_blocked():
        return mp.start_processes(process, args=arguments, nprocs=num_processes, join=False)


def run_to_end(
    start: Callable[[], mp.ProcessContext], stop: StopRequest, *, first_rank: int = 0
) -> None:
    """Start the processes and wait until all have ended.

    Args:
        start: starts them.
        stop: whether a signal asked this process to end. It is passed on to the others.
        first_rank: the rank of the first of the processes.

    Raises:
        SystemExit: one failed, or was stopped by a signal and has said so.
        Stopped: a signal ended them before they could say so.
    """
    context = None
    try:
        with stop.deferred():
            context = start()
        _wait(context, first_rank, tell_others=True)
    except Stopped as stopped:
        if context:
            _send(context, stopped.signum)
            _wait(context, first_rank, tell_others=False)
        raise
    finally:
        _kill(context)


def _wait(context: mp.ProcessContext, first_rank: int, *, tell_others: bool) -> None:
    """Wait until all processes have ended. If one fails, the others are killed.

    Args:
        context: the processes.
        first_rank: the rank of the first of them.
        tell_others: whether a signal that ended one process is sent to the others.
    """
    failed = _first_failure(context.processes)
    if failed is None:
        return
    process = context.processes[failed]
    signum = process.exitcode - 128 if process.exitcode > 0 else -process.exitcode
    if signum in SIGNALS:
        if tell_others:
            _send(context, signum)
        context._join_procs_with_timeout(_GRACE_PERIOD)  # the main one may be writing a checkpoint
        _kill(context)
        if context.processes[0].exitcode == 128 + signum:  # it has printed the line
            sys.exit(128 + signum)
        raise Stopped(signum)
    _kill(context)
    if process.exitcode == LOST_CONNECTION:
        sys.exit(
            "error: the connection to a process on another machine was lost: see what that machine "
            "says. Then call again with --resume on all machines"
        )
    context.sentinels = {process.sentinel: failed}  # torch raises the error of this process
    try:
        context.join()
    except mp.ProcessExitedException:
        if process.exitcode > 0:  # it has printed its error
            sys.exit(1)
        reason = ": out of memory?" if signum == signal.SIGKILL else "."
        sys.exit(
            f"error: process {first_rank + failed} of the training was killed by "
            f"{_signal_name(signum)}{reason} Call again with --resume"
        )


def _first_failure(processes: Sequence[mp.Process]) -> int | None:
    """Wait for a process that fails by itself; None: all have ended without an error.

    A process that only lost the connection to another one counts if no such other one is found.
    """
    timeout = None
    while True:
        codes = [process.exitcode for process in processes]
        failed = [i for i, code in enumerate(codes) if code]
        own = [i for i in failed if codes[i] != LOST_CONNECTION]
        alive = [p.sentinel for p, code in zip(processes, codes, strict=True) if code is None]
        if own or not alive:
            return next(iter(own or failed), None)
        if failed:
            timeout = _SEARCH_TIME
        if not connection.wait(alive, timeout):
            return failed[0]


def _signal_name(signum: int) -> str:
    return signal.Signals(signum).name if signum in set(signal.Signals) else f"signal {signum}"


def _send(context: mp.ProcessContext, signum: int) -> None:
    for process in context.processes:
        if process.is_alive():
            os.kill(process.pid, signum)


def _kill(context: mp.ProcessContext | None) -> None:
    for process in context.processes if context else ():
        process.kill()
        process.join()
