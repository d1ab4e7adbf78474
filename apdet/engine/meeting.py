"""Lets the processes of a training meet at an address, and says for whom they wait."""

import contextlib
import os
import socket
import sys
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore

from apdet.engine.world import World
from apdet.errors import UserError
from apdet.signals import signals_blocked

_ANSWER_TIME = timedelta(seconds=30)  # in which the listening process answers a request
_PAUSE = 0.1  # between two looks at who is there, in seconds
_NOTICE_PERIOD = 30.0  # between two notices on who is missing, in seconds


def listen(port: int) -> TCPStore:
    """Listen for the processes of a training.

    Args:
        port: the port; 0: any free port, which only processes of this machine can reach.

    Returns:
        A store. It listens as long as it lives.

    Raises:
        UserError: the port is in use, or may not be used.
    """
    try:
        if port and socket.has_dualstack_ipv6():
            server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            server = socket.create_server(("" if port else "127.0.0.1", port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(
            f"the processes cannot meet at port {port} of this machine: {reason}. Choose another "
            "port, or end the program that uses it"
        ) from error
    with signals_blocked():  # in its thread; the main thread handles signals
        return TCPStore(
            "127.0.0.1",
            server.getsockname()[1],
            is_master=True,
            wait_for_workers=False,
            timeout=_ANSWER_TIME,
            master_listen_fd=server.detach(),
        )


def meet(world: World, *, timeout: float) -> Store:
    """Wait until all processes are at the address.

    torchrun uses one store for all attempts of a training. So a process takes nothing for granted
    that an earlier attempt may have left there: process 0 opens a meeting under a new name, and
    invites each of the others by a name that only this process has.

    Args:
        world: the processes, and where they meet.
        timeout: how long to wait for all, in seconds.

    Returns:
        A store that is empty, which the processes share.

    Raises:
        UserError: a process did not come in time, or two have the same rank.
    """
    patience = _Patience(world, timeout)
    store = listen(world.port) if world.hosts_store else _reach(world, patience)
    if world.rank == 0:
        meeting = uuid.uuid4().hex
        _invite(store, world, meeting, patience)
    else:
        meeting = _attend(store, world, patience)
    return PrefixStore(f"{meeting}/group", store)


class _Patience:
    """Waits, says for what, and gives up in the end."""

    def __init__(self, world: World, timeout: float):
        self.world, self.timeout = world, timeout
        self.begin = self.last_notice = time.monotonic()

    def wait(self, state: str) -> None:
        """Wait a moment.

        Args:
            state: who is there, or who is not.

        Raises:
            UserError: the time is over.
        """
        now = time.monotonic()
        where = f"{self.world.address}:{self.world.port}"
        if now - self.begin > self.timeout:
            raise UserError(
                f"the training cannot begin: after {self.timeout:g} s at {where}, {state}. Start "
                "the missing processes, correct the address, or give a longer --connect-timeout"
            )
        if now - self.last_notice > _NOTICE_PERIOD:
            self.last_notice = now
            if self.world.local_rank == 0:
                waited = f"{now - self.begin:.0f} of {self.timeout:.0f} s"
                print(f"waiting at {where} ({waited}): {state}", file=sys.stderr, flush=True)
        time.sleep(_PAUSE)


def _reach(world: World, patience: _Patience) -> TCPStore:
    """Connect to the process that listens at the address, once it does."""
    while True:
        reason = "what listens there does not answer"
        try:
            # TCPStore would fill the terminal with warnings as long as nothing listens.
            socket.create_connection((world.address, world.port), timeout=5).close()
            with contextlib.suppress(RuntimeError):
                return TCPStore(world.address, world.port, is_master=False, timeout=_ANSWER_TIME)
        except OSError as error:
            reason = f"process 0 does not listen ({error.strerror or error})"
        patience.wait(reason)


def _invite(store: Store, world: World, meeting: str, patience: _Patience) -> None:
    """As process 0, invite the others until all have come."""
    missing = list(range(1, world.size))
    while True:
        for rank in range(1, world.size):  # one that comes twice is told so
            if store.check([f"here/{rank}"]):
                store.set(f"invitation/{store.get(f'here/{rank}').decode()}", meeting)
        missing = [rank for rank in missing if not store.add(f"{meeting}/came/{rank}", 0)]
        if not missing:
            store.set(f"{meeting}/complete", "")
            return
        patience.wait(_describe(missing, world))


def _describe(missing: list[int], world: World) -> str:
    """Who is there, and who is missing."""
    machines = sorted({rank // world.local_size for rank in missing})
    ranks, numbers = (", ".join(map(str, n)) for n in (missing, machines))
    return (
        f"{world.size - len(missing)} of {world.size} processes are here; of machine {numbers}, "
        f"process {ranks} is missing"
    )


def _attend(store: Store, world: World, patience: _Patience) -> str:
    """Wait for the invitation of process 0, and until all have come."""
    name = uuid.uuid4().hex
    store.set(f"here/{world.rank}", name)
    while not store.check([f"invitation/{name}"]):
        patience.wait("process 0 is missing, or has begun without this process")
    meeting = store.get(f"invitation/{name}").decode()
    if store.add(f"{meeting}/came/{world.rank}", 1) > 1:
        raise UserError(
            f"two processes have the rank {world.rank}: give each machine another --machine-rank"
        )
    while not store.check([f"{meeting}/complete"]):
        patience.wait("process 0 is here, but others are missing")
    return meeting
