"""Records the calls that make the host wait for its device, on a machine that has only a CPU."""

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WAITING = {
    # They give numbers to Python.
    *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__array__"),
    *("item", "tolist", "numpy", "is_nonzero", "equal", "allclose"),
    # They copy data between host and device.
    *("cpu", "cuda", "new_tensor", "tensor", "as_tensor", "asarray", "from_numpy"),
    # The shape of their result depends on data.
    *("nonzero", "argwhere", "masked_select", "masked_scatter", "masked_scatter_"),
    *("bincount", "histc", "unique", "unique_consecutive"),
}


class HostWaits(TorchFunctionMode):
    """Within it, ``calls`` grows by the name of each function of torch that waits."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _waits(func.__name__, args, kwargs):
            self.calls.append(func.__name__)
        return func(*args, **kwargs)


def _waits(name, args, kwargs):
    if name in ("__getitem__", "__setitem__"):
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in index)
    if name == "to":
        return any(isinstance(x, str | torch.device) for x in (*args, *kwargs.values()))
    if name == "where":
        return len(args) + len(kwargs) == 1
    if name == "repeat_interleave":
        repeats = args[1] if len(args) > 1 else kwargs.get("repeats", args[0])
        return isinstance(repeats, Tensor) and kwargs.get("output_size") is None
    return name in WAITING
