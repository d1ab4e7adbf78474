import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from apdet import signals
from apdet.signals import Stopped, ending_on_signals, stop_signals


def test_a_signal_stops_at_once_and_the_former_handler_returns():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped, stop_signals():
        signal.raise_signal(signal.SIGTERM)
    assert (stopped.value.exit_code, str(stopped.value)) == (143, "stopped by SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before


def stopped_in(work):
    """What stops ``work``, which is called with the request in deferred mode."""
    with pytest.raises(Stopped) as stopped, stop_signals() as stop, stop.deferred():
        work(stop)
    return stopped.value


def test_a_deferred_signal_waits_for_the_end_of_the_work():
    done = []

    def work(stop):
        signal.raise_signal(signal.SIGINT)
        done.append(stop.signum)

    assert stopped_in(work).exit_code == 130
    assert done == [signal.SIGINT]


def test_inside_deferred_work_some_may_be_stopped_at_once():
    done = []

    def work(stop):
        with stop.at_once():
            done.append("before the signal")
        signal.raise_signal(signal.SIGTERM)
        with stop.at_once():
            done.append("after the signal")

    stopped_in(work)
    assert done == ["before the signal"]


def test_a_second_signal_does_not_wait_but_one_that_is_sent_twice_does(monkeypatch):
    monkeypatch.setattr(signals, "_SAME_REQUEST", 0.05)
    done = []

    def work(stop):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # as `timeout` does
        done.append("the same request")
        time.sleep(0.06)
        signal.raise_signal(signal.SIGTERM)
        done.append("another request")

    stopped_in(work)
    assert done == ["the same request"]


def test_a_data_loader_worker_ignores_ctrl_c_but_ends_on_sigterm():
    with stop_signals():
        worker = os.fork()
        if not worker:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(worker, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_receives_no_signals():
    seen = []

    def work():
        with ending_on_signals() as stop:
            seen.append(stop.signum)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_ends_with_one_line_and_the_code_of_the_signal(signum, exit_code):
    code = f"""
import signal
from apdet.signals import ending_on_signals
with ending_on_signals():
    try:
        signal.raise_signal({int(signum)})
    except Exception:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == exit_code
    assert done.stderr == f"stopped by {signal.Signals(signum).name}\n"


def test_no_exception_passes_through_imports():
    code = """
import signal
from apdet.signals import ending_imports_on_signals
try:
    with ending_imports_on_signals():
        signal.raise_signal(signal.SIGTERM)
finally:
    print("an exception")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "stopped by SIGTERM\n")


@pytest.mark.parametrize(
    ("ended", "exit_code", "stderr"),
    [("3", 3, ""), ("0", 0, ""), ("", 0, ""), ("'error: no'", 1, "error: no\n")],
)
def test_a_process_can_end_as_by_sys_exit_without_teardown(ended, exit_code, stderr):
    code = f"""
import atexit, ctypes, os, sys
from apdet.signals import ending_without_teardown
libc = ctypes.CDLL(None)
abort = ctypes.CFUNCTYPE(None)(os.abort)
libc.__cxa_atexit(abort, None, None)  # a destructor of C++
atexit.register(lambda: print("cleaned up"))
with ending_without_teardown():
    sys.exit({ended})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "cleaned up\n", stderr)
