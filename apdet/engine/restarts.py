"""Tells whether torchrun has restarted the processes of a training."""

import os

from detectron2.utils import comm


def launch_name() -> str:
    """What tells one call of torchrun from another one; empty without torchrun."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if run_id == "none":  # without --rdzv-id and --standalone
        return f"process {os.getppid()} of torchrun"
    return f"torchrun {run_id}" if run_id else ""


def is_restart() -> bool:
    """Whether torchrun has restarted processes. All processes must call this function.

    torchrun counts the restarts of each machine alone, so a machine may not know of them.
    """
    return any(comm.all_gather(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0))
