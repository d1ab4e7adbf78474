"""The arguments of `apdet train` on processes and machines."""

import argparse
import os

import torch

from apdet.engine.launch import CONNECT_TIMEOUT, parse_address
from apdet.engine.world import World, world_of_environment
from apdet.errors import UserError

# {argument: its value if it is not given}
_DEFAULTS = {
    "num_gpus": 1,
    "num_processes": 1,
    "num_machines": 1,
    "machine_rank": 0,
    "dist_url": "auto",  # a free port: several trainings may run side by side
}


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that Detectron2's parser does not have."""
    parser.add_argument(
        "--num-processes", type=int, help="number of CPU processes that share each batch"
    )
    parser.add_argument(
        "--connect-timeout",
        type=float,
        default=CONNECT_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for the other processes and machines; default: %(default)g",
    )
    # None tells a default from a value that is given.
    parser.set_defaults(**dict.fromkeys(_DEFAULTS))


def check_process_arguments(args: argparse.Namespace) -> World | None:
    """Check the arguments on processes, and fill in their defaults.

    Args:
        args: the arguments, which are changed.

    Returns:
        The processes that torchrun or srun started; None: it started none.

    Raises:
        UserError: the arguments cannot be, or do not fit the machine.
    """
    world = world_of_environment(os.environ)
    given = [name for name in _DEFAULTS if getattr(args, name) is not None]
    for name in set(_DEFAULTS) - set(given):
        setattr(args, name, _DEFAULTS[name])
    if not args.connect_timeout > 0:
        raise UserError(f"--connect-timeout {args.connect_timeout:g}: give a number above 0")
    if world:
        if given:
            options = ", ".join(map(_option, given))
            raise UserError(
                f"{world.launcher} has started {world.size} processes, so leave out {options}"
            )
        return world
    for name in ("num_gpus", "num_processes", "num_machines"):
        if getattr(args, name) < 1:
            raise UserError(f"{_option(name)} {getattr(args, name)}: give a number from 1 on")
    _check_machines(args)
    _check_devices(args)
    return None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_machines(args: argparse.Namespace) -> None:
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank {args.machine_rank}, but --num-machines is {args.num_machines}: "
            f"number the machines from 0 to {args.num_machines - 1}"
        )
    if args.dist_url != "auto":
        parse_address(args.dist_url)
    elif args.num_machines > 1:
        raise UserError("--num-machines needs --dist-url, e.g. tcp://<address of machine 0>:50000")


def _check_devices(args: argparse.Namespace) -> None:
    num_gpus = torch.cuda.device_count()
    if args.num_processes > 1:
        if args.device != "cpu" and (args.device or num_gpus):
            raise UserError("--num-processes is for --device cpu; GPUs are asked for by --num-gpus")
        args.device = "cpu"
    elif args.num_gpus > max(num_gpus, 1):
        raise UserError(
            f"--num-gpus {args.num_gpus}, but torch sees {num_gpus} here "
            "(for several processes on the CPU: --device cpu --num-processes N)"
        )
