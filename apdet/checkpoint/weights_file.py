"""Reads weights from files of several formats without running code."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from apdet.errors import UserError


def read_weights(path: str) -> dict[str, Tensor]:
    """Read all weights in a ``.pth``, ``.pt``, ``.safetensors`` or ``.onnx`` file.

    Returns:
        {name: weight}, on the CPU.

    Raises:
        UserError: the file is missing or broken, has another format, or holds something that is not
            a weight; or the package that reads the format is not installed.
    """
    readers = {
        ".pth": read_torch,
        ".pt": read_torch,
        ".safetensors": _read_safetensors,
        ".onnx": _read_onnx,
    }
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in readers:
        raise UserError(f"{path}: its name ends in none of {', '.join(readers)}")
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file")
    return _unwrap(readers[suffix](path), path)


def read_torch(path: str) -> Any:
    """Read a file of ``torch.save`` that holds only tensors and plain data.

    Raises:
        UserError: the file is broken, or would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle may raise any exception
        lines = str(error).splitlines() or [type(error).__name__]
        # The first line of torch's message is not shown: it advises to turn the protection off.
        reason = next((line for line in lines if "GLOBAL" in line), lines[0])
        raise UserError(
            f"{path}: not a checkpoint of mere weights, or broken: {reason}; download it again, or "
            "write it by torch.save(model.state_dict(), ...)"
        ) from error


def _read_safetensors(path: str) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{path}: to read it, pip install safetensors") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file, or broken: {error}") from error


def _read_onnx(path: str) -> object:
    try:
        import onnx
    except ImportError as error:
        raise UserError(f"{path}: to read it, pip install onnx") from error
    try:
        arrays = {
            item.name: onnx.numpy_helper.to_array(item).astype("float32")
            for item in onnx.load(path).graph.initializer
            if "FLOAT" in (kind := onnx.TensorProto.DataType.Name(item.data_type))
            or kind == "DOUBLE"
        }
    except Exception as error:  # the exceptions of onnx have no class in common
        raise UserError(f"{path}: not an ONNX file, or broken: {error}") from error
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _unwrap(data: object, path: str) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
    if not isinstance(data, Mapping):
        raise UserError(f"{path}: holds a {type(data).__name__}, not weights by their names")
    for key, value in data.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{path}: {key!r} is a {type(value).__name__}, not a weight by its name"
            )
    # DataParallel adds this prefix to each name.
    if all(key.startswith("module.") for key in data):
        return {key.removeprefix("module."): value for key, value in data.items()}
    return dict(data)
