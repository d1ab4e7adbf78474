"""The hook that ends a training when a signal asks for it."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.comm import _get_global_gloo_group

from apdet.signals import Stopped, StopRequest


class StopHook(HookBase):
    """Ends the training after the step in which a signal arrived, with a checkpoint of the step.

    All processes end after the same step, whichever of them received the signal.
    """

    def __init__(self, stop: StopRequest, save_now: Callable[[], None]):
        """Set up the hook.

        Args:
            stop: whether a signal asked this process to end.
            save_now: writes a checkpoint.
        """
        self.stop, self.save_now = stop, save_now

    def after_step(self) -> None:
        signum = _maximum(self.stop.signum)
        if signum:
            self.save_now()
            comm.synchronize()  # the first process that ends would end the others
            raise Stopped(signum, agreed=True)


def _maximum(number: int) -> int:
    """The largest of the numbers of all processes."""
    if comm.get_world_size() == 1:
        return number
    tensor = torch.tensor(number)
    dist.all_reduce(tensor, dist.ReduceOp.MAX, group=_get_global_gloo_group())
    return int(tensor)
