"""Checks that results of an earlier prediction are not overwritten."""

import os

from apdet.errors import UserError
from apdet.inference.progress import PROGRESS

_OUTPUTS = (
    *(PROGRESS, "predictions.json", "predictions.csv", "images.json", "failed.txt", "classes.txt"),
    *("pictures", "voc", "yolo"),
)


def check_folder(folder: str, *, resume: bool) -> None:
    """Check a folder that predictions are written to.

    Args:
        folder: the folder, which need not exist.
        resume: whether to go on with predictions in the folder.

    Raises:
        UserError: the folder holds predictions and must not, or cannot be resumed.
    """
    found = [name for name in _OUTPUTS if os.path.lexists(os.path.join(folder, name))]
    if found and not resume:
        raise UserError(
            f"{folder}: holds {found[0]} of an earlier prediction; go on with that by --resume, or "
            "name another folder by --out"
        )
    if found and PROGRESS not in found:
        raise UserError(
            f"{folder}: {PROGRESS} is gone, so the prediction cannot be resumed; restore the file, "
            "or name another folder by --out"
        )
