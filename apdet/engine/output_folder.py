"""Checks the folder that a training writes to."""

import os
import tempfile

from apdet.errors import ArgumentError


def check_output_dir(folder: str, *, may_hold_a_run: bool, create: bool) -> None:
    """Check that a folder is writable, and that no earlier training would be overwritten.

    Args:
        folder: the folder, which need not exist.
        may_hold_a_run: whether the folder may hold a training already.
        create: whether to make the folder.

    Raises:
        ArgumentError: the folder is not writable, or it holds a training and must not.
    """
    try:
        existing = os.path.abspath(folder)
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        tempfile.TemporaryFile(dir=existing).close()
        if create:
            os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise ArgumentError(
            "TrainingPlan",
            "{output_dir} {folder} cannot be written to: {error}",
            folder=folder,
            error=error,
        ) from error
    if not may_hold_a_run and os.path.exists(os.path.join(folder, "last_checkpoint")):
        raise ArgumentError(
            "TrainingPlan",
            "{output_dir} {folder} holds a training already: go on with it by --resume, "
            "or set {output_dir} to another folder",
            folder=folder,
        )
