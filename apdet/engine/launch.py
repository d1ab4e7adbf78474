"""Starts the processes of a training, on GPUs or on the CPU, on one machine or several."""

import os
import sys
from collections.abc import Callable
from typing import Any

from detectron2.engine import launch
from torch.multiprocessing import ProcessExitedException


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

    Args:
        main: a function at the top level of a module, so that new processes can import it.
        args: the arguments of ``main``.
        num_processes: number of processes on each machine.
        on_cpu: whether the processes share the CPU. If not, each has a GPU.
        num_machines: number of machines.
        machine_rank: number of this machine, from 0 on.
        dist_url: the address at which the processes connect; "auto": a free port of this machine.
    """
    if on_cpu and num_processes > 1:
        _prepare_cpu_processes(num_processes)
    try:
        launch(
            main,
            num_processes,
            num_machines=num_machines,
            machine_rank=machine_rank,
            dist_url=dist_url,
            args=args,
        )
    except ProcessExitedException:  # the failed process has already printed its error
        sys.exit(1)


def _prepare_cpu_processes(num_processes: int) -> None:
    """Set the environment of new processes so that they use only the CPU, and share its cores."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # with a visible GPU, Detectron2 would use NCCL
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // num_processes, 1)))
