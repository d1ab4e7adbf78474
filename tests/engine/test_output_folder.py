import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from apdet.engine.output_folder import check_output_dir, owning
from apdet.errors import UserError


def test_a_second_training_is_refused_by_the_name_of_the_first(tmp_path):
    with owning(str(tmp_path), may_hold_a_run=True):
        with (
            pytest.raises(UserError, match=rf"in use by .*, process {os.getpid()} on .+: wait"),
            owning(str(tmp_path), may_hold_a_run=True),
        ):
            pytest.fail("both own the folder")
        with pytest.raises(UserError, match=f"process {os.getpid()}"):  # the first still owns it
            owning(str(tmp_path), may_hold_a_run=True).__enter__()
    with owning(str(tmp_path), may_hold_a_run=True):
        pass


def test_the_folder_of_a_killed_training_is_free_though_its_workers_live(tmp_path):
    code = f"""
import os, signal, time
from apdet.engine.output_folder import owning
with owning({str(tmp_path)!r}, may_hold_a_run=True):
    worker = os.fork()
    if not worker:
        time.sleep(60)
    print(worker, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    try:
        process.wait()
        os.kill(worker, 0)  # it lives
        with owning(str(tmp_path), may_hold_a_run=True):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


def test_a_file_system_without_locks_gives_one_warning(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with owning(str(tmp_path), may_hold_a_run=True):
        pass
    (record,) = caplog.records
    assert "cannot be locked" in record.message


@pytest.mark.parametrize(
    "name", ["last_checkpoint", "model_0000003.pth", "model_final.pth", "model_best.pth"]
)
def test_a_folder_with_any_checkpoint_is_a_training(tmp_path, name):
    (tmp_path / name).touch()
    with (
        pytest.raises(UserError, match="holds a training already: go on with it by --resume"),
        owning(str(tmp_path), may_hold_a_run=False),
    ):
        pytest.fail("it would be overwritten")


def test_what_a_killed_training_left_incomplete_is_removed_by_the_owner_alone(tmp_path):
    check_output_dir(str(tmp_path), create=True)
    with owning(str(tmp_path), may_hold_a_run=False):
        stale = tmp_path / "model_0000003.pth.tmp"
        stale.touch()
        with pytest.raises(UserError), owning(str(tmp_path), may_hold_a_run=True):
            pytest.fail("both own the folder")
        assert stale.exists()
    with owning(str(tmp_path), may_hold_a_run=False):
        assert not stale.exists()


def attempt(folder, monkeypatch, *, restarts, run_id="job 1", train=False):
    """Whether a process of torchrun goes on from the folder; an error if it may not begin."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", run_id)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))
    with owning(str(folder), may_hold_a_run=False) as goes_on:
        if train:
            (folder / "last_checkpoint").touch()
        return goes_on


@pytest.mark.parametrize("run_id", ["job 1", "none"])
def test_a_restart_by_torchrun_goes_on_from_the_training_that_it_began(
    tmp_path, monkeypatch, run_id
):
    assert not attempt(tmp_path, monkeypatch, restarts=0, run_id=run_id, train=True)
    assert attempt(tmp_path, monkeypatch, restarts=1, run_id=run_id)
    assert attempt(tmp_path, monkeypatch, restarts=2, run_id=run_id)


def test_a_restart_by_torchrun_does_not_go_on_from_an_earlier_training(tmp_path, monkeypatch):
    attempt(tmp_path, monkeypatch, restarts=0, train=True)
    for restarts in range(3):  # torchrun makes every attempt that fails again
        with pytest.raises(UserError, match="holds a training already"):
            attempt(tmp_path, monkeypatch, restarts=restarts)


def test_a_restart_does_not_go_on_from_the_training_of_another_torchrun(tmp_path, monkeypatch):
    attempt(tmp_path, monkeypatch, restarts=0, train=True)
    with pytest.raises(UserError, match="holds a training already"):
        attempt(tmp_path, monkeypatch, restarts=1, run_id="job 2")


def test_a_folder_that_cannot_be_written_to_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"output_dir {tmp_path}/file cannot .*: Not a directory;"):
        check_output_dir(str(tmp_path / "file"), create=True)


def test_a_folder_that_the_locale_has_no_letters_for_is_refused(tmp_path):
    folder = f"{tmp_path}/\udcc3\udca4"  # Python's form of what it cannot decode
    with pytest.raises(UserError, match=r"\\udca4' cannot be written in this locale; set PYTHON"):
        check_output_dir(folder, create=True)
