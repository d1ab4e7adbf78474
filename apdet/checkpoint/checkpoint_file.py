"""Reads checkpoints of apdet and of other programs, in the form that Detectron2 loads."""

from typing import Any

from apdet.checkpoint.array_pickle import load_array_pickle
from apdet.checkpoint.content import check_weights
from apdet.checkpoint.weights_file import read_torch


def read_checkpoint(path: str, *, heuristics: bool = False) -> dict[str, Any]:
    """Read a ``.pth`` file, a ``.pkl`` of Detectron2 or Caffe2, or a ``.pyth`` file of pycls.

    Args:
        path: the file.
        heuristics: whether Detectron2 shall match names by its heuristics, as it always does for
            files of Caffe2 and pycls.

    Returns:
        {"model": {name: weight}} and the other content of the file, with "matching_heuristics" if
        Detectron2 shall use them.

    Raises:
        UserError: the file is broken, would run code, or holds no weights by their names.
    """
    if path.endswith(".pkl"):
        content = _read_pickle(path)
    else:
        content = read_torch(path)
        if isinstance(content, dict) and path.endswith(".pyth"):
            content = _foreign(content.get("model_state"), "pycls")
        elif not isinstance(content, dict) or "model" not in content:
            content = {"model": content}
    if heuristics:
        content = {**content, "matching_heuristics": True}
    return {**content, "model": check_weights(content["model"], path)}


def _read_pickle(path: str) -> dict[str, Any]:
    content = load_array_pickle(path)
    if "model" in content and "__author__" in content:
        return content
    blobs = content.get("blobs", content)
    if isinstance(blobs, dict):
        blobs = {key: blob for key, blob in blobs.items() if not str(key).endswith("_momentum")}
    return _foreign(blobs, "Caffe2")


def _foreign(weights: object, author: str) -> dict[str, Any]:
    return {"model": weights, "__author__": author, "matching_heuristics": True}
