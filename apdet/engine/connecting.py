"""Connects a process to the others of its training."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

from apdet.engine.meeting import meet
from apdet.engine.world import World
from apdet.errors import UserError

# Errors of gloo name its source file. NCCL speaks of the remote process.
_LOST = re.compile(
    r"gloo/transport|(closed|reset) by peer|remote process exited|Broken pipe", re.IGNORECASE
)


class LostConnectionError(RuntimeError):
    """Another process of the training has ended, or cannot be reached any more."""


@contextmanager
def noticing_lost_connections() -> Iterator[None]:
    """In this context, errors of gloo and NCCL on lost processes become `LostConnectionError`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, LostConnectionError) or not _LOST.search(str(error)):
            raise
        raise LostConnectionError(
            f"process {comm.get_rank()} lost the connection to another process of the training, "
            "which has ended or cannot be reached: see what that process and its machine say"
        ) from error


@contextmanager
def connected(world: World, *, on_cpu: bool, timeout: float) -> Iterator[None]:
    """In this context, the process is connected to the others.

    Args:
        world: the processes.
        on_cpu: whether the processes share the CPU. If not, each has a GPU.
        timeout: how long to wait until all processes are there, in seconds.

    Raises:
        UserError: a process did not come, or there is no GPU for this process.
        LostConnectionError: another process ended early.
    """
    with noticing_lost_connections():
        if not on_cpu:
            torch.cuda.set_device(_gpu_of(world))
        dist.init_process_group(
            "gloo" if on_cpu else "nccl",
            store=meet(world, timeout=timeout),
            rank=world.rank,
            world_size=world.size,
            timeout=DEFAULT_TIMEOUT,
        )
        try:
            comm.create_local_process_group(world.local_size)
            comm.synchronize()  # the first use may take long
            yield
            comm.synchronize()
        except BaseException:
            if on_cpu:  # NCCL would wait for the others, which may have ended
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()


def check_device(device: str) -> None:
    """Check that the processes are connected for the device of the model.

    Raises:
        UserError: they are connected for GPUs, but the model is on the CPU.
    """
    if dist.is_initialized() and dist.get_backend() == "nccl" and device == "cpu":
        raise UserError(
            "each process has a GPU, but the config asks for the CPU: give --device cpu"
        )


def _gpu_of(world: World) -> int:
    """The number of the GPU of this process. Slurm may show each process its own one only."""
    num_gpus = torch.cuda.device_count()
    if num_gpus == 1 and world.launcher == "srun":
        return 0
    if world.local_rank >= num_gpus:
        raise UserError(
            f"{world.launcher} started {world.local_size} processes on this machine, where torch "
            f"sees {num_gpus} GPUs: start one process for each GPU, or give --device cpu"
        )
    return world.local_rank
