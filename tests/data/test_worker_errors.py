import os
import queue
import resource
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from apdet.data.stream import StreamDataset
from apdet.data.worker_errors import errors_of_workers
from apdet.errors import UserError
from apdet.signals import Stopped, StopRequest


class Broken(Dataset):
    def __init__(self, fail):
        self.fail = fail

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.fail() if index == 2 else index


def truncated():
    raise UserError("a.jpg: not a readable image (truncated: 3 bytes); replace it")


def unreadable():
    raise PermissionError(13, "Permission denied", "a.jpg")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def without_files(image):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    return torch.zeros(10)


def bug():
    raise ValueError("a bug")


def read_all(fail, num_workers=1):
    with errors_of_workers():
        return list(DataLoader(Broken(fail), batch_size=None, num_workers=num_workers))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_a_worker_is_that_of_a_loader_without_workers(num_workers):
    with pytest.raises(UserError) as caught:
        read_all(truncated, num_workers)
    assert str(caught.value) == "a.jpg: not a readable image (truncated: 3 bytes); replace it"


def test_a_file_that_a_worker_cannot_read_is_named_in_one_line():
    with pytest.raises(UserError, match=r"^\[Errno 13\] Permission denied: 'a.jpg'$"):
        read_all(unreadable)


def test_a_worker_that_was_killed_is_said_with_a_remedy():
    # torch may notice the signal, or only that the worker has ended.
    message = r"^DataLoader worker .*(Killed|exited unexpectedly).*set num_workers"
    with pytest.raises(UserError, match=message) as error:
        read_all(killed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", [None, "spawn"])  # the one of this system, and that of macOS
def test_a_worker_that_cannot_send_a_batch_is_not_waited_for(method):
    loader = DataLoader(
        StreamDataset([{}], without_files, seed=0),
        sampler=[(0, 0)],
        batch_size=None,
        num_workers=1,
        multiprocessing_context=method,
    )
    message = "cannot send a batch: .*Too many open files.*ulimit -n"
    with pytest.raises(UserError, match=message), errors_of_workers():
        list(loader)


@pytest.mark.parametrize(
    "cause", [None, queue.Empty(), RuntimeError("DataLoader worker (pid 1) x")]
)
def test_a_worker_that_died_after_a_signal_is_no_error(cause):
    stop = StopRequest()
    stop.signum = signal.SIGTERM
    with pytest.raises(Stopped), errors_of_workers(stop):
        raise RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly") from cause


def test_a_worker_whose_death_torch_does_not_explain_is_one_line():
    message = r"^DataLoader worker .* exited unexpectedly\."
    with pytest.raises(UserError, match=message), errors_of_workers():
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly") from queue.Empty()


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="Traceback"):
        read_all(bug)
