"""The hook that changes the learning rate, and how a resumed training takes a new one."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from detectron2.engine import hooks
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import ParamScheduler
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

logger = logging.getLogger(__name__)


def build_scheduler(
    build: Callable[[torch.optim.Optimizer], TorchScheduler | ParamScheduler],
    optimizer: torch.optim.Optimizer,
    *,
    max_iter: int,
) -> TorchScheduler:
    """Build the schedule of an optimizer.

    Args:
        build: builds it, or the factors of the learning rate over the time of the training.
        optimizer: the optimizer, whose learning rates are the base.
        max_iter: number of iterations of the training.
    """
    schedule = build(optimizer)
    if isinstance(schedule, ParamScheduler):
        return LRMultiplier(optimizer, schedule, max_iter)
    return schedule


class LRScheduler(hooks.LRScheduler):
    """Detectron2's hook, except that a resumed training follows the schedule of its config.

    The checkpoint only says where in the schedule the training is. The settings of the optimizer,
    such as its learning rate and weight decay, are those of the config, too.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not isinstance(self.scheduler, LRMultiplier):  # its rates may depend on the former ones
            super().load_state_dict(state_dict)
            return
        saved, base_lrs = state_dict.get("base_lrs"), self.scheduler.base_lrs
        if saved and max(saved) != max(base_lrs):
            logger.info(
                f"The base learning rate is now {max(base_lrs):g}; "
                f"the checkpoint was trained with {max(saved):g}"
            )

    def resume(
        self, optimizer: torch.optim.Optimizer, load: Callable[[], None], *, num_steps: int
    ) -> None:
        """Load the state of an optimizer, but keep its settings and those of the schedule.

        Args:
            optimizer: the optimizer of the schedule.
            load: loads its state and settings.
            num_steps: number of steps that were made.
        """
        if not isinstance(self.scheduler, LRMultiplier):
            load()
            return
        settings = [
            {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        load()
        self.scheduler.last_epoch = min(num_steps, self.scheduler._max_iter)
        rates = self.scheduler.get_lr()
        self.scheduler.last_epoch = num_steps  # may be more if the training was shortened
        for group, own, rate in zip(optimizer.param_groups, settings, rates, strict=True):
            group.update({**own, "lr": rate})
