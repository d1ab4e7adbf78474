"""The training plan of a YAML config."""

from collections.abc import Iterable
from functools import partial

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer

import apdet.modeling  # noqa: F401  registers the meta-architectures
from apdet.config.model_text import model_text
from apdet.config.names import yaml_key
from apdet.config.plan import (
    EvaluationTasks,
    Loader,
    MultiScaleTesting,
    TestSet,
    TrainingPlan,
    Weights,
)
from apdet.config.schedule import Schedule, scale_to_batch_size
from apdet.data.mapper import BoxMapper
from apdet.data.register import training_classes
from apdet.data.training import check_batch_size, resumable_train_loader, training_dicts


def plan_from_yaml(cfg: CfgNode, *, num_processes: int | None = None) -> TrainingPlan:
    """Make the training plan of a config, with its schedule scaled to the training.

    Args:
        cfg: its data sets must be registered. It is not changed.
        num_processes: see :func:`scale_to_batch_size`.
    """
    cfg = scale_to_batch_size(cfg, num_processes=num_processes)
    cfg.freeze()
    solver, test, sets = cfg.SOLVER, cfg.TEST, cfg.DATASETS
    return TrainingPlan(
        config=cfg,
        key_of=yaml_key,
        output_dir=cfg.OUTPUT_DIR,
        device=cfg.MODEL.DEVICE,
        seed=cfg.SEED,
        architecture=cfg.MODEL.META_ARCHITECTURE,
        classes=training_classes([*sets.TRAIN, *sets.VAL, *sets.TEST]),
        train_sets=list(sets.TRAIN),
        test_sets=_test_sets(cfg, sets.TEST),
        val_sets=_test_sets(cfg, sets.VAL),
        load_train_dicts=partial(training_dicts, cfg),
        build_model=partial(build_model, cfg),
        build_optimizer=partial(build_optimizer, cfg),
        build_lr_scheduler=partial(build_lr_scheduler, cfg),
        build_train_loader=partial(_train_loader, cfg),
        schedule=Schedule(
            base_lr=solver.BASE_LR,
            max_iter=solver.MAX_ITER,
            checkpoint_period=solver.CHECKPOINT_PERIOD,
            eval_period=test.EVAL_PERIOD,
        ),
        checkpoints_to_keep=solver.CHECKPOINTS_TO_KEEP,
        best_metric=test.BEST_CHECKPOINT_METRIC,
        precision=solver.AMP.PRECISION if solver.AMP.ENABLED else "",
        cudnn_benchmark=cfg.CUDNN_BENCHMARK,
        weights=Weights(
            cfg.MODEL.WEIGHTS, cfg.MODEL.WEIGHTS_CLASSES, cfg.MODEL.ALLOW_WEIGHT_MISMATCH
        ),
        tasks=EvaluationTasks(
            cfg.MODEL.MASK_ON,
            cfg.MODEL.KEYPOINT_ON,
            test.KEYPOINT_OKS_SIGMAS,
            test.DETECTIONS_PER_IMAGE,
        ),
        multi_scale=multi_scale_testing(cfg) if test.AUG.ENABLED else None,
        precise_bn_iters=test.PRECISE_BN.NUM_ITER if test.PRECISE_BN.ENABLED else 0,
        expected_results=test.EXPECTED_RESULTS,
        model_text=partial(model_text, cfg),
    )


def _train_loader(cfg: CfgNode, *, seed: int, start_iter: int = 0) -> Loader:
    """Build the training batches. They can be resumed only with Detectron2's default sampler."""
    dataset, mapper = training_dicts(cfg), BoxMapper(cfg, is_train=True)
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        check_batch_size(cfg.SOLVER.IMS_PER_BATCH)
        return build_detection_train_loader(cfg, dataset=dataset, mapper=mapper)
    return resumable_train_loader(
        dataset,
        mapper=mapper,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        start_iter=start_iter,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def _test_sets(cfg: CfgNode, names: Iterable[str]) -> list[TestSet]:
    return [TestSet(name, partial(_test_loader, cfg, name)) for name in names]


def _test_loader(cfg: CfgNode, name: str, *, resize: bool = True) -> Loader:
    # The mapper would drop the annotations, but the loader would make a copy of them before.
    images = [
        {key: value for key, value in image.items() if key != "annotations"}
        for image in DatasetCatalog.get(name)
    ]
    mapper = BoxMapper(cfg, is_train=False, resize=resize)
    return build_detection_test_loader(
        images, mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
    )


def multi_scale_testing(cfg: CfgNode) -> MultiScaleTesting:
    """The settings for testing on several scales, whether it is on or off."""
    node, square = cfg.TEST.AUG, bool(cfg.INPUT.FIXED_SIZE_TEST)
    return MultiScaleTesting(node.MIN_SIZES, node.MAX_SIZE, node.FLIP, square)
