"""What can be wrong with a checkpoint."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults.setup import Setup

# Does something to the content of a checkpoint, in place.
Edit = Callable[[dict[str, Any]], None]


def edit_file(path: Path, *edits: Edit) -> None:
    """Change the content of a checkpoint."""
    content = torch.load(path, weights_only=True)
    for edit in edits:
        edit(content)
    torch.save(content, path)


def start_from(*edits: Edit, damage: Callable[[Path], None] | None = None):
    """A fault: start from the trained detector, but change its file."""

    def fault(setup: Setup) -> None:
        path = setup.folder / "weights.pth"
        path.write_bytes(setup.lab.trained().read_bytes())
        edit_file(path, *edits)
        if damage:
            damage(path)
        setup.set("MODEL.WEIGHTS", str(path))

    return fault


def rot(path: Path) -> None:
    """Flip one bit in each of 100 bytes of the largest tensor. No weight becomes nan."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    start = largest.header_offset + largest.file_size // 2
    for position in range(start, start + 100):
        content[position] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Keep the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    """Keep nothing of a file."""
    path.write_bytes(b"")


def poison(name: str, value: float = float("nan")) -> Edit:
    """Set one entry of the first weight or buffer whose name holds ``name``."""

    def edit(content: dict[str, Any]) -> None:
        key = next(key for key in content["model"] if name in key)
        content["model"][key].view(-1)[0] = value

    return edit


def poison_momentum(content: dict[str, Any]) -> None:
    """Set an entry of the optimizer's state to nan."""
    state = content["trainer"]["_trainer"]["optimizer"]["state"]
    next(iter(state.values()))["momentum_buffer"].view(-1)[0] = float("nan")


def keep_weights(condition: Callable[[str], bool]) -> Edit:
    """Keep some of the weights."""

    def edit(content: dict[str, Any]) -> None:
        content["model"] = {k: v for k, v in content["model"].items() if condition(k)}

    return edit


def rename_weights(rename: Callable[[str], str]) -> Edit:
    """Give the weights other names."""

    def edit(content: dict[str, Any]) -> None:
        content["model"] = {rename(k): v for k, v in content["model"].items()}

    return edit


def drop(key: str) -> Edit:
    """Remove an entry, such as "classes"."""
    return lambda content: content.pop(key)
