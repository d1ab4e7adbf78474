"""The schedule of a training, which can be scaled to another batch size."""

import logging
from dataclasses import dataclass, replace

from detectron2.config import CfgNode
from detectron2.utils import comm

from apdet.errors import ArgumentError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """The settings that depend on the batch size. All but the learning rate are in iterations."""

    base_lr: float
    max_iter: int
    checkpoint_period: int
    eval_period: int
    warmup_iters: int = 0
    steps: tuple[int, ...] = ()

    def scaled(self, *, reference_batch_size: int, batch_size: int) -> "Schedule":
        """Scale the schedule to batches of ``batch_size`` images.

        This is the linear rule of arXiv:1706.02677: with k times as many images in a batch, the
        learning rate is k times as large, and the number of epochs stays the same. Only a warm-up
        can become 0. Steps that coincide are one step.

        Args:
            reference_batch_size: the batch size for which this schedule is set; 0: no scaling.
            batch_size: the batch size of the training.
        """
        if reference_batch_size in (0, batch_size):
            return self
        scale = batch_size / reference_batch_size

        def at_least_1(iterations: int) -> int:
            return max(round(iterations / scale), min(iterations, 1))

        max_iter = at_least_1(self.max_iter)
        # Detectron2's schedule takes no step at the very end, where it would have no effect.
        steps = dict.fromkeys(at_least_1(step) for step in self.steps)
        scaled = replace(
            self,
            base_lr=self.base_lr * scale,
            max_iter=max_iter,
            checkpoint_period=at_least_1(self.checkpoint_period),
            eval_period=at_least_1(self.eval_period),
            warmup_iters=round(self.warmup_iters / scale),
            steps=tuple(step for step in steps if step != max_iter),
        )
        logger.info(
            f"Scaled from batches of {reference_batch_size} to {batch_size} images: learning rate "
            f"{scaled.base_lr:g}, {scaled.max_iter} iterations"
        )
        if scaled.num_falls < self.num_falls:
            logger.warning(
                f"The scaled schedule is so short that steps coincide: the learning rate falls "
                f"{scaled.num_falls} times, not {self.num_falls} times"
            )
        return scaled

    @property
    def num_falls(self) -> int:
        """How often the learning rate falls by a step before the end."""
        return sum(step < self.max_iter for step in self.steps)


def scale(
    schedule: Schedule,
    *,
    batch_size: int,
    reference_batch_size: int,
    reference_world_size: int,
    num_processes: int,
) -> tuple[Schedule, int]:
    """Scale a schedule and a batch size to the training, by at most one of the two references.

    Args:
        schedule: the schedule of the config.
        batch_size: the batch size of the config.
        reference_batch_size: the batch size for which the schedule is set; 0: not this reference.
        reference_world_size: the number of processes for which schedule and batch size are set, so
            that the share of each process stays the same; 0: not this reference.
        num_processes: the number of processes of the training.

    Returns:
        The schedule and the batch size of the training.

    Raises:
        ArgumentError: both references are set, or the processes cannot share a batch equally.
    """
    if reference_world_size:
        if reference_batch_size:
            raise _error(
                "{reference_world_size} and {reference_batch_size} are both set; set one of them "
                "to 0"
            )
        if batch_size % reference_world_size:
            raise _error(
                "{reference_world_size} is {world_size}, but so many processes cannot share a "
                "batch of {images} images equally; set {batch_size} to a multiple of {world_size}",
                world_size=reference_world_size,
                images=batch_size,
            )
        reference_batch_size = batch_size
        batch_size = batch_size // reference_world_size * num_processes
    scaled = schedule.scaled(reference_batch_size=reference_batch_size, batch_size=batch_size)
    return scaled, batch_size


def _error(template: str, **values: object) -> ArgumentError:
    return ArgumentError("scale", template, **values)


def scale_to_batch_size(cfg: CfgNode, *, num_processes: int | None = None) -> CfgNode:
    """Copy ``cfg``, and scale batch size and schedule of the copy to the training.

    The references ``SOLVER.REFERENCE_BATCH_SIZE`` and ``SOLVER.REFERENCE_WORLD_SIZE`` of the copy
    are those of the training, so that the copy is not scaled a second time. A reference of 0 stays
    0. If both are 0, nothing changes.

    Args:
        cfg: the config.
        num_processes: the number of processes of the training; None: those that run now.

    Raises:
        ArgumentError: both references are set, or the processes cannot share a batch equally.
    """
    cfg = cfg.clone()
    solver = cfg.SOLVER
    num_processes = num_processes or comm.get_world_size()
    schedule, batch_size = scale(
        Schedule(
            base_lr=solver.BASE_LR,
            max_iter=solver.MAX_ITER,
            checkpoint_period=solver.CHECKPOINT_PERIOD,
            eval_period=cfg.TEST.EVAL_PERIOD,
            warmup_iters=solver.WARMUP_ITERS,
            steps=tuple(solver.STEPS),
        ),
        batch_size=solver.IMS_PER_BATCH,
        reference_batch_size=solver.REFERENCE_BATCH_SIZE,
        reference_world_size=solver.REFERENCE_WORLD_SIZE,
        num_processes=num_processes,
    )
    frozen = cfg.is_frozen()
    cfg.defrost()
    solver.BASE_LR, solver.MAX_ITER = schedule.base_lr, schedule.max_iter
    solver.CHECKPOINT_PERIOD = schedule.checkpoint_period
    cfg.TEST.EVAL_PERIOD = schedule.eval_period
    solver.WARMUP_ITERS, solver.STEPS = schedule.warmup_iters, schedule.steps
    solver.IMS_PER_BATCH = batch_size
    if solver.REFERENCE_BATCH_SIZE:
        solver.REFERENCE_BATCH_SIZE = batch_size
    if solver.REFERENCE_WORLD_SIZE:
        solver.REFERENCE_WORLD_SIZE = num_processes
    if frozen:
        cfg.freeze()
    return cfg
