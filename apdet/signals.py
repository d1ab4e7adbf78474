"""Ends a command on SIGTERM or Ctrl-C with one line, at once or after the current work."""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Programs such as `timeout` signal a process and then its group, so one request may arrive twice.
_SAME_REQUEST = 1.0  # in seconds


class Stopped(BaseException):
    """A signal asked the process to end. ``except Exception`` lets it pass.

    Attributes:
        signum: the number of the signal.
        note: what the user should know, such as how to go on.
        agreed: whether all processes of the training stop at the same step.
    """

    def __init__(self, signum: int, note: str = "", *, agreed: bool = False):
        self.signum, self.note, self.agreed = signum, note, agreed
        super().__init__(signum)

    @property
    def exit_code(self) -> int:
        """The exit code by which shells and supervisors recognise the signal: 130 or 143."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}{self.note}"


class StopRequest:
    """Whether a signal asked the process to end. It receives signals inside `stop_signals`.

    A signal raises `Stopped` at once. Inside `deferred` the first signal only sets ``signum``.

    Attributes:
        signum: the number of the first signal; 0: there was none.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._time_of_first = 0.0
        self._is_deferred = False
        self._process = os.getpid()

    def deferred(self) -> AbstractContextManager[None]:
        """In this context, the first signal waits until the context ends."""
        return self._mode(is_deferred=True)

    def at_once(self) -> AbstractContextManager[None]:
        """In this context, which may be inside `deferred`, a signal raises `Stopped` at once."""
        return self._mode(is_deferred=False)

    @contextmanager
    def _mode(self, *, is_deferred: bool) -> Iterator[None]:
        before = self._is_deferred
        self._is_deferred = is_deferred
        try:
            self._raise_if_due()
            yield
        finally:
            self._is_deferred = before
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self.signum and not self._is_deferred:
            raise Stopped(self.signum)

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if os.getpid() != self._process:  # a data-loader worker, which inherits the handler
            _receive_in_worker(signum)
            return
        # The same signal may end the workers. torch would raise an error of its own about that.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        now = time.monotonic()
        if not self.signum:
            self.signum, self._time_of_first = signum, now
            self._raise_if_due()
        elif now - self._time_of_first > _SAME_REQUEST:
            raise Stopped(self.signum)


def _receive_in_worker(signum: int) -> None:
    """Leave Ctrl-C to the main process, which ends its workers. It may do so by SIGTERM."""
    if signum == signal.SIGTERM:
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


def obey_main_process_alone() -> None:
    """In a data-loader worker, pass over a SIGTERM that is not from the main process.

    A supervisor may send the signal to all processes. But the main process finishes its step, for
    which it may need the worker.
    """
    if hasattr(signal, "sigwaitinfo"):  # macOS does not have it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_main_process, daemon=True).start()


def _wait_for_main_process() -> None:
    sender = 0
    while sender != os.getppid():
        sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
    os._exit(0)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """In this context, signals wait. A thread or process that starts here never sees them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """In this context, SIGTERM and SIGINT set the request, or raise `Stopped`.

    A signal that the process was started to ignore, as by ``nohup``, is still ignored. Only the
    main thread can receive signals. In another thread the request is never set.
    """
    request = StopRequest()
    with _handled_by(request.receive):
        yield request


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        signum: signal.signal(signum, handler)
        for signum in SIGNALS
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for signum, former in before.items():
            signal.signal(signum, former)


@contextmanager
def ending_on_signals() -> Iterator[StopRequest]:
    """In this context, `Stopped` ends the process with one line and exit code 130 or 143."""
    try:
        with stop_signals() as request:
            yield request
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        end_process(stopped.exit_code)


def ending_imports_on_signals() -> AbstractContextManager[None]:
    """While modules are imported, a signal ends the process at once, with the same line and code.

    C++ code that runs while torch is imported would abort the process at an exception.
    """
    return _handled_by(_end_at_once)


def _end_at_once(signum: int, frame: FrameType | None) -> None:
    stopped = Stopped(signum)
    os.write(2, f"{stopped}\n".encode())
    os._exit(stopped.exit_code)


def end_process(exit_code: int) -> NoReturn:
    """End the process. A signal that arrives meanwhile leaves no traceback and no other exit code.

    Raises:
        SystemExit: always.
    """
    _end_at_signals(exit_code)
    sys.exit(exit_code)


def _end_at_signals(exit_code: int) -> None:
    """From now on, a signal ends the process at once, with this exit code."""
    for signum in SIGNALS:
        signal.signal(signum, lambda *_: os._exit(exit_code))


@contextmanager
def ending_without_teardown() -> Iterator[None]:
    """In this context, `SystemExit` ends the process before Python and C++ free what is left.

    Threads of torch.distributed may outlive its process groups. Then the teardown aborts the
    process now and then, and a training that has succeeded would look like one that has crashed.
    """
    try:
        yield
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        _end_at_signals(code)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        atexit._run_exitfuncs()  # such as those that end data-loader workers
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
