"""Chooses the device of a model."""

import torch

from apdet.errors import UserError


def choose_device(asked_for: str, configured: str, key: str) -> str:
    """Choose a device, and try it.

    Args:
        asked_for: the device of the command line; empty: none is asked for.
        configured: the device of the config. If it is CUDA and there is none, it is the CPU.
        key: the name of the config's key, for errors.

    Raises:
        UserError: the device cannot be used here.
    """
    if not asked_for and configured == "cuda" and not torch.cuda.is_available():
        return "cpu"
    device = asked_for or configured
    try:
        torch.empty(1, device=device).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        # The first sentence; torch goes on with what its developers should know.
        reason = str(error).splitlines()[0].split(". ")[0][:200]
        place = "--device" if asked_for else key
        raise UserError(
            f"{place} is {device!r}, which cannot be used here: {reason}; choose another one, such "
            "as cpu or cuda"
        ) from error
    return device
