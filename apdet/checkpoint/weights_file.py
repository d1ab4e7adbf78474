"""Reads weights from files of several formats without running code."""

import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from apdet.checkpoint.content import check_weights
from apdet.checkpoint.finite import find_not_finite
from apdet.errors import UserError
from apdet.files import check_regular_file, unreadable_file


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
    check_regular_file(path)
    return _unwrap(readers[suffix](path), path)


def read_torch(path: str) -> Any:
    """Read a file of ``torch.save`` that holds only tensors and plain data.

    The checksums of the file are tested, which torch does not do. Files of torch before 1.6 have no
    checksums.

    Raises:
        UserError: the file is broken, or would run code.
    """
    check_regular_file(path)
    try:
        _check_archive(path)
        with warnings.catch_warnings():
            # torch warns of formats that it then refuses, and the error below names them.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise unreadable_file(path, error) from error
    except Exception as error:  # a broken file may raise any exception
        raise UserError(
            f"{path}: not a checkpoint of mere weights, or broken: {_reason(error)}; "
            "download it again, or write it by torch.save(model.state_dict(), ...)"
        ) from error


def read_whole(path: str) -> dict[str, Any]:
    """Read a checkpoint of a training, and check that it is whole.

    Returns:
        The content. "model" has the weights; no other entry is checked but for NaN and infinity.

    Raises:
        UserError: the file is missing, truncated or damaged, would run code, holds no weights by
            the name "model", or holds a NaN or an infinity.
    """
    data = read_torch(path)
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise UserError(f"{path}: holds no weights by the name 'model'")
    check_weights(data["model"], path)
    bad = list(find_not_finite(data))
    if bad:
        raise UserError(f"{path}: {len(bad)} tensors have NaN or infinity, {bad[0]} the first")
    return data


def _check_archive(path: str) -> None:
    """Check that a file is not empty, and if it is a zip archive, its end and its checksums."""
    with open(path, "rb") as file:
        start = file.read(2)
    if not start:
        raise EOFError("it is empty")
    if start != b"PK":
        return
    if not zipfile.is_zipfile(path):
        raise EOFError("it is truncated")
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/data.pkl") for name in archive.namelist()):
            raise zipfile.BadZipFile("it is a zip archive of another program than torch")
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"its part {damaged} has another checksum than when written")


def _reason(error: Exception) -> str:
    """Say why a file is refused, without torch's advice to turn the protection off."""
    message = str(error)
    if name := re.search(r"GLOBAL (\S+)", message):
        return f"it asks for {name[1]}, which no weights need"
    if "TorchScript" in message:
        return "it is a TorchScript archive, which holds code"
    if ".tar format" in message:
        return "it is a tar archive"
    if "weights_only" in message or not message:
        return "it has another format than torch.save"
    return message.splitlines()[0]


def _read_safetensors(path: str) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{path}: to read it, pip install safetensors") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
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
    return dict(check_weights(data, path))
