"""The checkpoints in the folder of a training: which to resume from, and which to delete."""

import contextlib
import logging
import os
import re
from pathlib import Path

from apdet.checkpoint.weights_file import read_whole
from apdet.errors import UserError

logger = logging.getLogger(__name__)

TAG = "last_checkpoint"  # the file with the name of the checkpoint to resume from
_PERIODIC = re.compile(r"model_(\d+)\.pth")


def periodic_checkpoints(folder: str | os.PathLike) -> list[Path]:
    """The checkpoints that are named by their iteration, the newest first."""
    files = [path for path in Path(folder).glob("model_*.pth") if _PERIODIC.fullmatch(path.name)]
    return sorted(files, key=_iteration_in_name, reverse=True)


def holds_run(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a training: a checkpoint, or the name of one."""
    return bool(_all_checkpoints(folder)) or Path(folder, TAG).exists()


def find_checkpoint(folder: str | os.PathLike) -> Path | None:
    """Find the checkpoint to resume from.

    This is the checkpoint that the file ``last_checkpoint`` names. If that is not possible, it is
    the newest whole checkpoint, and the log says so.

    Returns:
        The path; None if the folder holds no training.

    Raises:
        UserError: the folder holds a training, but no whole checkpoint.
    """
    folder = Path(folder)
    if not holds_run(folder):
        return None
    tagged, problem = _tagged(folder)
    if tagged is not None:
        problem = _find_fault(tagged)
        if not problem:
            return tagged
    others = [path for path in _all_checkpoints(folder) if path != tagged]
    for path in sorted(others, key=_iteration_of, reverse=True):
        if not _find_fault(path):
            logger.warning(f"{problem}. Going on from the newest whole checkpoint, {path}")
            return path
    raise UserError(
        f"{problem}. {folder} holds no other whole checkpoint; restore one, or remove the folder "
        "to start from the beginning"
    )


def _tagged(folder: Path) -> tuple[Path | None, str]:
    """The file that ``last_checkpoint`` names; else None and what is wrong."""
    tag = folder / TAG
    if tag.exists() and not tag.is_file():
        return None, f"{tag} is not a regular file"
    try:
        name = tag.read_text().strip()
    except FileNotFoundError:
        return None, f"{tag} is missing"
    except (OSError, UnicodeDecodeError):
        return None, f"{tag} cannot be read"
    if not name:
        return None, f"{tag} is empty"
    path = folder / name
    if "\0" in name or path.parent != folder:
        return None, f"{tag} names {name!r}, which is not a file in this folder"
    if not os.path.isfile(path):  # unlike Path.is_file, it takes names that are too long
        return None, f"{tag} names {name!r}, which does not exist"
    return path, ""


def _find_fault(path: Path) -> str:
    """What is wrong with a checkpoint; empty if it is whole."""
    try:
        read_whole(str(path))
    except UserError as error:
        return str(error)
    return ""


def remove_old_checkpoints(folder: str | os.PathLike, *, keep: int) -> None:
    """Remove all periodic checkpoints but the newest ``keep``, and the one to resume from."""
    tagged, _ = _tagged(Path(folder))
    for path in periodic_checkpoints(folder)[keep:]:
        if path != tagged:
            path.unlink(missing_ok=True)


def remove_stale_files(folder: str | os.PathLike) -> None:
    """Remove the parts of checkpoints that a killed training left behind.

    No training may run in the folder.
    """
    # Up to 0.3 their names did not have the number of the process.
    for path in (*Path(folder).glob("*.pth*.tmp"), *Path(folder).glob(f"{TAG}*.tmp")):
        with contextlib.suppress(OSError):
            path.unlink()
            logger.info("Removed %s, which a killed training left behind", path)


def _all_checkpoints(folder: str | os.PathLike) -> list[Path]:
    others = [Path(folder, f"model_{name}.pth") for name in ("final", "best")]
    return [*(path for path in others if path.is_file()), *periodic_checkpoints(folder)]


def _iteration_of(checkpoint: Path) -> int:
    if _PERIODIC.fullmatch(checkpoint.name):
        return _iteration_in_name(checkpoint)
    try:
        iteration = read_whole(str(checkpoint)).get("iteration")
    except UserError:
        return -1
    return iteration if isinstance(iteration, int) else -1


def _iteration_in_name(path: Path) -> int:
    match = _PERIODIC.fullmatch(path.name)
    assert match
    return int(match[1])
