"""Replaces argument names in errors by the config keys that the arguments are read from.

Code below the config layer names its own arguments: `ArgumentError("ClsLoss", "{loss} is ...")`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apdet.errors import ArgumentError, UserError

# "owner.argument" -> (key in YAML, key in a Python config). All other keys of a Python config are
# found from the calls in it, see `apdet.config.lazy_plan.lazy_key`.
SHARED = {
    "Checkpointer.allow_mismatch": ("MODEL.ALLOW_WEIGHT_MISMATCH", "train.allow_weight_mismatch"),
    "Checkpointer.classes": (
        "`classes: [...]` of an entry of DATASETS.REGISTER",
        "`classes: [...]` of an entry of datasets.register",
    ),
    "Checkpointer.save_dir": ("OUTPUT_DIR", "train.output_dir"),
    "Checkpointer.weights": ("MODEL.WEIGHTS", "train.init_checkpoint"),
    "Checkpointer.weights_classes": ("MODEL.WEIGHTS_CLASSES", "train.weights_classes"),
    "TrainingPlan.base_lr": ("SOLVER.BASE_LR", "optimizer.lr"),
    "TrainingPlan.checkpoints_to_keep": (
        "SOLVER.CHECKPOINTS_TO_KEEP",
        "train.checkpointer.max_to_keep",
    ),
    "TrainingPlan.best_metric": ("TEST.BEST_CHECKPOINT_METRIC", "train.best_checkpoint_metric"),
    "TrainingPlan.clip_gradients": ("SOLVER.CLIP_GRADIENTS", "train.clip_gradients"),
    "TrainingPlan.expected_results": ("TEST.EXPECTED_RESULTS", "train.expected_results"),
    "TrainingPlan.model": ("MODEL", "model"),
    "TrainingPlan.max_iter": ("SOLVER.MAX_ITER", "train.max_iter"),
    "TrainingPlan.output_dir": ("OUTPUT_DIR", "train.output_dir"),
    "TrainingPlan.seed": ("SEED", "train.seed"),
    "build_stepper.precision": ("SOLVER.AMP.PRECISION", "train.amp.precision"),
    "check_batch_size.total_batch_size": (
        "SOLVER.IMS_PER_BATCH",
        "dataloader.train.total_batch_size",
    ),
    "TrainingPlan.test_sets": ("DATASETS.TEST", "datasets.test"),
    "TrainingPlan.val_sets": ("DATASETS.VAL", "datasets.val"),
    "errors_of_workers.num_workers": ("DATALOADER.NUM_WORKERS", "dataloader.train.num_workers"),
    "register.entries": ("DATASETS.REGISTER", "datasets.register"),
    "register.test": ("DATASETS.TEST", "datasets.test"),
    "register.train": ("DATASETS.TRAIN", "datasets.train"),
    "register.val": ("DATASETS.VAL", "datasets.val"),
    "scale.batch_size": ("SOLVER.IMS_PER_BATCH", "dataloader.train.total_batch_size"),
    "scale.reference_batch_size": (
        "SOLVER.REFERENCE_BATCH_SIZE",
        "train.reference_batch_size",
    ),
    "scale.reference_world_size": (
        "SOLVER.REFERENCE_WORLD_SIZE",
        "train.reference_world_size",
    ),
    "to_dataset_dicts.class_names": (
        "`classes: [...]` of an entry of DATASETS.REGISTER",
        "`classes: [...]` of an entry of datasets.register",
    ),
    "training_dicts.names": ("DATASETS.TRAIN", "datasets.train"),
    "with_test_time_augmentation.model": ("TEST.AUG.ENABLED", "train.multi_scale_testing"),
    "with_test_time_augmentation.sizes": (
        "TEST.AUG.MIN_SIZES",
        "train.multi_scale_testing.sizes",
    ),
}
# "owner.argument" -> key in YAML.
YAML_ONLY = {
    "BaseKeypointRCNNHead.num_keypoints": "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS",
    "BoxMapper.image_format": "INPUT.FORMAT",
    "BoxMapper.precomputed_proposal_topk": "MODEL.LOAD_PROPOSALS",
    "BoxMapper.use_instance_mask": "MODEL.MASK_ON",
    "ClsLoss.kwargs": "MODEL.CLS_LOSS.KWARGS",
    "ClsLoss.loss": "MODEL.CLS_LOSS.NAME",
    "ClsLoss.neg_pos_ratio": "MODEL.CLS_LOSS.NEG_POS_RATIO",
    "ClsLoss.sampler": "MODEL.CLS_LOSS.SAMPLER",
    "EvaluationTasks.detections_per_image": "TEST.DETECTIONS_PER_IMAGE",
    "RankingDenseDetector.loss_normalizer": "MODEL.RETINANET.LOSS_NORMALIZER",
    "RankingDenseDetector.test_score_thresh_per_level": (
        "MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL"
    ),
    "RankingRPN.cls_loss": "MODEL.CLS_LOSS.NAME",
    "SSDVGG16.input_size": "MODEL.VGG.INPUT_SIZE",
    "SSDVGG16.out_features": "MODEL.RETINANET.IN_FEATURES",
    "build_evaluator.keypoint_oks_sigmas": "TEST.KEYPOINT_OKS_SIGMAS",
    "build_evaluator.keypoints": "MODEL.KEYPOINT_ON",
    "build_evaluator.masks": "MODEL.MASK_ON",
    "evaluation_augmentation.fixed_size": "INPUT.FIXED_SIZE_TEST",
    "ssd_augmentation.image_format": "INPUT.FORMAT",
    "training_augmentation.crop_type": "INPUT.CROP.TYPE",
    "training_augmentation.fixed_size": "INPUT.FIXED_SIZE_TRAIN",
    "training_augmentation.flip": "INPUT.RANDOM_FLIP",
    "training_dicts.mask_format": "INPUT.MASK_FORMAT",
}


def yaml_key(owner: str, argument: str) -> str | None:
    """The YAML key that an argument of ``owner`` is read from; None if there is no such key."""
    name = f"{owner}.{argument}"
    return SHARED[name][0] if name in SHARED else YAML_ONLY.get(name)


@contextmanager
def naming(key_of: Callable[[str, str], str | None]) -> Iterator[None]:
    """In this context, turn an ArgumentError into a UserError that names config keys.

    Args:
        key_of: (owner, argument) -> the key that the argument was read from. None keeps the name
            of the argument.
    """
    try:
        yield
    except ArgumentError as error:
        raise UserError(error.message(key_of)) from error
