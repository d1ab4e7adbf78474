"""The schedule of a training, which can be scaled to another batch size."""

from dataclasses import dataclass, replace

from detectron2.config import CfgNode


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
        learning rate is k times as large, and the number of epochs stays the same.

        Args:
            reference_batch_size: the batch size for which this schedule is set; 0: no scaling.
            batch_size: the batch size of the training.
        """
        if reference_batch_size in (0, batch_size):
            return self
        scale = batch_size / reference_batch_size
        return replace(
            self,
            base_lr=self.base_lr * scale,
            max_iter=round(self.max_iter / scale),
            checkpoint_period=round(self.checkpoint_period / scale),
            eval_period=round(self.eval_period / scale),
            warmup_iters=round(self.warmup_iters / scale),
            steps=tuple(round(step / scale) for step in self.steps),
        )


def scale_to_batch_size(cfg: CfgNode) -> CfgNode:
    """Copy ``cfg``, and scale the schedule of the copy to ``SOLVER.IMS_PER_BATCH``.

    ``SOLVER.REFERENCE_BATCH_SIZE`` of the copy is set to the batch size, so that the copy is not
    scaled a second time. If it is 0, nothing changes.
    """
    cfg = cfg.clone()
    solver, reference = cfg.SOLVER, cfg.SOLVER.REFERENCE_BATCH_SIZE
    if reference == 0:
        return cfg
    schedule = Schedule(
        base_lr=solver.BASE_LR,
        max_iter=solver.MAX_ITER,
        checkpoint_period=solver.CHECKPOINT_PERIOD,
        eval_period=cfg.TEST.EVAL_PERIOD,
        warmup_iters=solver.WARMUP_ITERS,
        steps=tuple(solver.STEPS),
    ).scaled(reference_batch_size=reference, batch_size=solver.IMS_PER_BATCH)
    frozen = cfg.is_frozen()
    cfg.defrost()
    solver.BASE_LR, solver.MAX_ITER = schedule.base_lr, schedule.max_iter
    solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD = (
        schedule.checkpoint_period,
        schedule.eval_period,
    )
    solver.WARMUP_ITERS, solver.STEPS = schedule.warmup_iters, schedule.steps
    solver.REFERENCE_BATCH_SIZE = solver.IMS_PER_BATCH
    if frozen:
        cfg.freeze()
    return cfg
