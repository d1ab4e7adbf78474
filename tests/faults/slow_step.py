"""Makes a step of the training sleep, so that a signal comes in the middle of it."""

import time
from typing import Any

from apdet.engine import Trainer

_run_step = Trainer.run_step


def _sleep_in_step(self: Any) -> None:
    _run_step(self)
    print(f"sleeping in iteration {self.iter}", flush=True)
    # Python goes on with a sleep that a signal has interrupted.
    time.sleep(600)


Trainer.run_step = _sleep_in_step  # type: ignore[method-assign]
