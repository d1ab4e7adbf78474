"""Starts the processes of a training, on GPUs or on the CPU, on one machine or several."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, resource_tracker
from typing import Any

import torch
import torch.multiprocessing as mp
from detectron2.engine.launch import DEFAULT_TIMEOUT, _distributed_worker, _find_free_port
from detectron2.utils import comm

from apdet.signals import (
    SIGNALS,
    Stopped,
    StopRequest,
    end_process,
    ending_on_signals,
    stop_signals,
)

# How long the other processes may take to end after one ended because of a signal, in seconds.
_GRACE_PERIOD = 60


def launch_processes(
    main: Callable[..., Any],
    args: tuple[Any, ...],
    *,
    num_processes: int,
    on_cpu: bool,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> None:
    """Call ``main(*args)`` in each process. A single process is this one.

    A signal that only this process receives is passed on to the others. A second signal kills them.

    Args:
        main: a function at the top level of a module, so that new processes can import it.
        args: the arguments of ``main``.
        num_processes: number of processes on each machine.
        on_cpu: whether the processes share the CPU. If not, each has a GPU.
        num_machines: number of machines.
        machine_rank: number of this machine, from 0 on.
        dist_url: the address at which the processes connect; "auto": a free port of this machine.
    """
    world_size = num_machines * num_processes
    if world_size == 1:
        main(*args)
        return
    if on_cpu and num_processes > 1:
        _prepare_cpu_processes(num_processes)
    if dist_url == "auto":
        dist_url = f"tcp://127.0.0.1:{_find_free_port()}"
    arguments = (main, world_size, num_processes, machine_rank, dist_url, args, DEFAULT_TIMEOUT)
    with ending_on_signals() as stop:
        _run_to_end(partial(_start, num_processes, arguments), stop)


def _prepare_cpu_processes(num_processes: int) -> None:
    """Set the environment of new processes so that they use only the CPU, and share its cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # with a visible GPU, Detectron2 would use NCCL
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // num_processes, 1)))


def _start(num_processes: int, arguments: tuple[Any, ...]) -> mp.ProcessContext:
    """Start the processes. Until they have imported torch, they do not see signals."""
    resource_tracker.ensure_running()  # it would unblock the signals when it starts
    blocked_before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return mp.start_processes(_process, args=arguments, nprocs=num_processes, join=False)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked_before)


def _process(local_rank: int, *arguments: Any) -> None:
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
    _distributed_worker(local_rank, *arguments)
    # Threads of torch.distributed that outlive the interpreter may abort the process.
    comm.synchronize()
    torch.distributed.destroy_process_group()


def _run_to_end(start: Callable[[], mp.ProcessContext], stop: StopRequest) -> None:
    """Start the processes and wait until all have ended.

    Raises:
        SystemExit: one failed, or was stopped by a signal and has said so.
        Stopped: a signal ended them before they could say so.
    """
    context = None
    try:
        with stop.deferred():
            context = start()
        _wait(context, tell_others=True)
    except Stopped as stopped:
        if context:
            _send(context, stopped.signum)
            _wait(context, tell_others=False)
        raise
    finally:
        _kill(context)


def _wait(context: mp.ProcessContext, *, tell_others: bool) -> None:
    """Wait until all processes have ended. If one fails, the others are killed.

    Args:
        context: the processes.
        tell_others: whether a signal that ended one process is sent to the others.
    """
    while alive := [process for process in context.processes if process.is_alive()]:
        connection.wait([process.sentinel for process in alive])
        if any(process.exitcode for process in context.processes):
            break
    failed = [i for i, process in enumerate(context.processes) if process.exitcode]
    if not failed:
        return
    process = context.processes[failed[0]]
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
    context.sentinels = {process.sentinel: failed[0]}  # torch raises the error of this process
    try:
        context.join()
    except mp.ProcessExitedException:
        if process.exitcode > 0:  # it has printed its error
            sys.exit(1)
        sys.exit(
            f"error: process {failed[0]} of the training was killed by {_signal_name(signum)}; the "
            "memory may not suffice. Call again with --resume"
        )


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
