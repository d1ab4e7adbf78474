"""The processes of a training, and the number of this one, as torchrun or Slurm tell it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from apdet.errors import UserError

_TORCHRUN = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them.

    Attributes:
        rank: the number of this process, from 0 on.
        size: the number of processes on all machines.
        local_rank: the number of this process on its machine, from 0 on.
        local_size: the number of processes on each machine.
        address: the host name or IP address at which the processes meet.
        port: the port of ``address``.
        hosts_store: whether this process listens at the address. If not, another one does.
        launcher: the program that started the processes.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    hosts_store: bool = False
    launcher: str = "apdet"

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UserError: they cannot be.
        """
        if not 0 <= self.rank < self.size:
            raise UserError(
                f"{self.launcher} gives this process the rank {self.rank}, but there are "
                f"{self.size} processes"
            )
        size = self.local_size
        if size < 1 or self.size % size or self.rank % size != self.local_rank:
            raise UserError(
                f"{self.launcher} started {self.size} processes with {self.local_size} on this "
                f"machine, where process {self.rank} is number {self.local_rank}. Start the same "
                "number on each machine, with consecutive ranks"
            )
        if not 0 < self.port < 2**16:
            raise UserError(f"{self.launcher}: {self.port} is not a port; choose from 1 to 65535")


def world_of_environment(environment: Mapping[str, str]) -> World | None:
    """The world in which torchrun or Slurm's srun started this process.

    Args:
        environment: the environment variables of the process.

    Returns:
        None: neither program started the process, or it is the only one.

    Raises:
        UserError: the variables are incomplete or contradict each other.
    """
    if environment.get("RANK") and _number(environment, "WORLD_SIZE", default=1) > 1:
        return _torchrun_world(environment)
    if "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment:
        return _slurm_world(environment)
    return None


def _torchrun_world(environment: Mapping[str, str]) -> World:
    missing = [name for name in _TORCHRUN if not environment.get(name)]
    if missing:
        raise UserError(
            f"the environment variables RANK and WORLD_SIZE are set, but not {', '.join(missing)}: "
            "start the processes by torchrun, or unset WORLD_SIZE to train alone"
        )
    rank, size, local_rank, local_size, port = (
        _number(environment, name) for name in _TORCHRUN if name != "MASTER_ADDR"
    )
    return World(
        rank,
        size,
        local_rank,
        local_size,
        environment["MASTER_ADDR"],
        port,
        # torchrun itself listens, unless it is told not to.
        hosts_store=rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        launcher="torchrun",
    )


def _slurm_world(environment: Mapping[str, str]) -> World | None:
    size = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if size == 1:
        return None
    rank = _number(environment, "SLURM_PROCID")
    job = _number(environment, "SLURM_JOB_ID", "SLURM_JOBID")
    step = _number(environment, "SLURM_STEP_ID", "SLURM_STEPID", default=0)
    return World(
        rank,
        size,
        _number(environment, "SLURM_LOCALID"),
        _tasks_per_node(environment, size),
        environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"]),
        # Below the ports that Linux gives to outgoing connections.
        _number(environment, "MASTER_PORT", default=15_000 + (job + step) % 15_000),
        hosts_store=rank == 0,
        launcher="srun",
    )


def _tasks_per_node(environment: Mapping[str, str], size: int) -> int:
    """The number of processes on each node, from a value such as "2(x3)", "2,2" or "2"."""
    names = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    value = next((environment[name] for name in names if environment.get(name)), "")
    counts = {int(count) for count in re.findall(r"(?:^|,)(\d+)", value)}
    if len(counts) > 1:
        raise UserError(
            f"srun started different numbers of processes on the nodes, {value}; set "
            "--ntasks-per-node"
        )
    nodes = _number(environment, "SLURM_STEP_NUM_NODES", "SLURM_NNODES", default=1)
    return counts.pop() if counts else max(size // nodes, 1)


def first_host(node_list: str) -> str:
    """The first host of a list as Slurm writes it: "gpu03" for "gpu[03-05,09],login1"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", node_list)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0]) if first else node_list


def _number(environment: Mapping[str, str], *names: str, default: int | None = None) -> int:
    """The value of the first variable that is set."""
    name = next((name for name in names if environment.get(name)), None)
    if name is None and default is not None:
        return default
    value = environment[name] if name else ""
    if not value.isdecimal():
        raise UserError(
            f"the environment variable {name or names[0]} is {value!r}, but a number from 0 on is "
            "needed: start the processes by torchrun or srun"
        )
    return int(value)
