"""Checks that a file holds weights by their names."""

import numpy as np
import torch
from fvcore.common.checkpoint import _strip_prefix_if_present
from torch import Tensor

from apdet.errors import UserError

REMEDY = "give a file that was written by torch.save(model.state_dict(), ...)"


def check_weights(weights: object, path: str) -> dict[str, Tensor]:
    """Check that a part of a file is weights by their names.

    In place, numpy arrays become tensors, and the prefix that DataParallel adds to each name goes.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(weights, dict):
        kind = type(weights).__name__
        raise UserError(f"{path}: holds a {kind}, not weights by their names; {REMEDY}")
    for key, value in weights.items():
        if isinstance(key, str) and isinstance(value, np.ndarray):
            try:
                weights[key] = torch.from_numpy(value)
            except (TypeError, ValueError) as error:  # such as an array of objects or strings
                raise UserError(
                    f"{path}: {key!r} is no array of numbers: {error}; {REMEDY}"
                ) from error
        elif not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{path}: {key!r} is a {type(value).__name__}, not a weight by its name; {REMEDY}"
            )
    if odd := next((key for key, value in weights.items() if not is_plain(value)), None):
        raise UserError(
            f"{path}: {odd!r} is a sparse or quantised tensor, or one without values, which no "
            f"detector here reads; {REMEDY}, of a model with plain weights"
        )
    _strip_prefix_if_present(weights, "module.")
    return weights


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has a number for each entry."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
