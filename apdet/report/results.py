"""Writes ``results.json``, the results of an evaluation."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apdet.files import naming_file, whole_file


def write_results(output_dir: str | os.PathLike, results: Mapping[str, Any], **extra: Any) -> Path:
    """Write ``{"results": results, **extra}`` to ``results.json``; nan and infinity become null.

    Args:
        output_dir: the folder of the file, which is made if it does not exist.
        results: the results of an evaluation, as Detectron2 returns them.
        extra: other entries of the file.

    Returns:
        The path of the file.

    Raises:
        UserError: the folder cannot be written to.
    """
    path = Path(output_dir) / "results.json"
    with naming_file(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"results": results, **extra})
    return path


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file; numbers that are not finite become null.

    Args:
        path: the file.
        content: the content. It may hold arrays and tensors.

    Raises:
        UserError: the file cannot be written.
        TypeError: the content has a type that JSON does not have.
    """
    text = json.dumps(_to_plain(content), indent=2, allow_nan=False)
    with whole_file(path) as file:
        file.write(f"{text}\n".encode())


def _to_plain(value: Any) -> Any:
    """Convert a value to the types of JSON."""
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and torch
        return _to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
