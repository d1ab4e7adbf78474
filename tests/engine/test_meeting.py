import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from apdet.engine import meeting
from apdet.engine.meeting import listen, meet
from apdet.engine.world import World
from apdet.errors import UserError


@pytest.fixture
def store():
    return listen(0)


def world(rank, store, *, size=2, local_size=2):
    return World(rank, size, rank % local_size, local_size, "127.0.0.1", store.port)


def meet_all(worlds, timeout=20):
    """Let processes meet, each in a thread; their stores or errors, in order."""

    def attend(world):
        try:
            return meet(world, timeout=timeout)
        except UserError as error:
            return error

    with ThreadPoolExecutor(len(worlds)) as threads:
        return list(threads.map(attend, worlds))


def test_all_get_a_store_that_they_share(store):
    first, second, third = meet_all([world(rank, store, size=3, local_size=3) for rank in range(3)])
    first.set("key", "value")
    assert second.get("key") == third.get("key") == b"value"


def test_a_second_attempt_finds_nothing_of_the_first(store):
    stores = meet_all([world(rank, store) for rank in range(2)])
    stores[0].set("key", "value")
    (missed,) = meet_all([world(1, store)], timeout=0.5)  # an attempt that was broken off
    assert "process 0 is missing" in str(missed)
    again = meet_all([world(rank, store) for rank in range(2)])
    assert not again[0].check(["key"])
    again[1].set("other key", "value")
    assert again[0].get("other key") == b"value"


def test_who_is_missing_is_said_until_the_time_is_over(store, monkeypatch, capsys):
    monkeypatch.setattr(meeting, "_NOTICE_PERIOD", 0.2)
    here = [world(rank, store, size=6) for rank in (0, 1)]
    errors = meet_all(here, timeout=1)
    state = "2 of 6 processes are here; of machine 1, 2, process 2, 3, 4, 5 is missing"
    assert state in str(errors[0])
    assert "after 1 s at 127.0.0.1" in str(errors[0])
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5
    assert all(re.fullmatch(rf"waiting at 127.*of 1 s\): {state}", line) for line in lines)


def test_a_process_that_comes_late_is_waited_for(store):
    late = threading.Timer(0.5, meet, [world(1, store)], {"timeout": 20})
    late.start()
    meet(world(0, store), timeout=20)
    late.join()


def test_nobody_who_listens_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(UserError, match=r"process 0 does not listen \(Connection refused\)"):
        meet(World(1, 2, 1, 2, "127.0.0.1", free), timeout=0.3)


def test_two_machines_of_the_same_rank_are_an_error(store):
    # The meeting stays open, because process 2 does not come.
    worlds = [world(rank, store, size=3, local_size=1) for rank in (0, 1)]
    with ThreadPoolExecutor(3) as threads:
        first = [threads.submit(meet, each, timeout=2) for each in worlds]
        time.sleep(0.5)
        with pytest.raises(UserError, match=r"two processes have the rank 1: .*--machine-rank"):
            meet(worlds[1], timeout=2)
        for attempt in first:
            assert isinstance(attempt.exception(), UserError)


def test_a_port_that_is_in_use_is_an_error_at_once():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} of this machine: Address already in"):
            listen(port)
