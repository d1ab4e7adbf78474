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
    "Checkpointer.save_dir": ("OUTPUT_DIR", "train.output_dir"),
    "Checkpointer.weights": ("MODEL.WEIGHTS", "train.init_checkpoint"),
    "Checkpointer.weights_classes": ("MODEL.WEIGHTS_CLASSES", "train.weights_classes"),
    "TrainingPlan.base_lr": ("SOLVER.BASE_LR", "optimizer.lr"),
    "TrainingPlan.clip_gradients": ("SOLVER.CLIP_GRADIENTS", "train.clip_gradients"),
    "TrainingPlan.output_dir": ("OUTPUT_DIR", "train.output_dir"),
    "build_stepper.precision": ("SOLVER.AMP.PRECISION", "train.amp.precision"),
    "check_batch_size.total_batch_size": (
        "SOLVER.IMS_PER_BATCH",
        "dataloader.train.total_batch_size",
    ),
    "register.entries": ("DATASETS.REGISTER", "datasets.register"),
    "register.test": ("DATASETS.TEST", "datasets.test"),
    "register.train": ("DATASETS.TRAIN", "datasets.train"),
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
    "BoxMapper.use_instance_mask": "MODEL.MASK_ON",
    "ClsLoss.kwargs": "MODEL.CLS_LOSS.KWARGS",
    "ClsLoss.loss": "MODEL.CLS_LOSS.NAME",
    "ClsLoss.neg_pos_ratio": "MODEL.CLS_LOSS.NEG_POS_RATIO",
    "ClsLoss.sampler": "MODEL.CLS_LOSS.SAMPLER",
    "RankingDenseDetector.loss_normalizer": "MODEL.RETINANET.LOSS_NORMALIZER",
    "RankingDenseDetector.test_score_thresh_per_level": (
        "MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL"
    ),
    "RankingRPN.cls_loss": "MODEL.CLS_LOSS.NAME",
    "SSDVGG16.input_size": "MODEL.VGG.INPUT_SIZE",
    "SSDVGG16.out_features": "MODEL.RETINANET.IN_FEATURES",
    "evaluation_augmentation.fixed_size": "INPUT.FIXED_SIZE_TEST",
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
