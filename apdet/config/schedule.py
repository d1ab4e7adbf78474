"""The schedule of a training, scaled to its batch size."""

from detectron2.config import CfgNode


def scale_to_batch_size(cfg: CfgNode) -> CfgNode:
    """A copy of ``cfg`` with the schedule scaled from its reference batch size to its batch size.

    The linear rule of arXiv:1706.02677: k times the images, k times the learning rate, and the
    same number of epochs. Nothing changes when ``SOLVER.REFERENCE_BATCH_SIZE`` is 0.
    """
    cfg = cfg.clone()
    reference = cfg.SOLVER.REFERENCE_BATCH_SIZE
    if reference in (0, cfg.SOLVER.IMS_PER_BATCH):
        return cfg
    frozen = cfg.is_frozen()
    cfg.defrost()
    scale = cfg.SOLVER.IMS_PER_BATCH / reference
    cfg.SOLVER.BASE_LR *= scale
    cfg.SOLVER.STEPS = tuple(round(step / scale) for step in cfg.SOLVER.STEPS)
    for node, key in [
        (cfg.SOLVER, "MAX_ITER"),
        (cfg.SOLVER, "WARMUP_ITERS"),
        (cfg.SOLVER, "CHECKPOINT_PERIOD"),
        (cfg.TEST, "EVAL_PERIOD"),
    ]:
        node[key] = round(node[key] / scale)
    cfg.SOLVER.REFERENCE_BATCH_SIZE = cfg.SOLVER.IMS_PER_BATCH
    if frozen:
        cfg.freeze()
    return cfg
