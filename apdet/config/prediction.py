"""What a config says of prediction: how the model is built, and how images are read for it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.modeling import build_model
from omegaconf import DictConfig
from torch import nn

import apdet.modeling  # noqa: F401  registers the meta-architectures
from apdet.config.datasets import set_num_classes
from apdet.config.plan import MultiScaleTesting
from apdet.config.python_model import PythonModel, parts_of
from apdet.config.yaml_plan import multi_scale_testing
from apdet.data.mapper import BoxMapper
from apdet.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """How to predict with a model.

    Attributes:
        build_model: builds the model, on its device.
        mapper: reads an image, {"file_name": path}, and makes the input of the model.
        mapper_without_resize: the same, in the size of the image, for testing on several scales.
        multi_scale: settings for testing on several scales; None: the config has none.
    """

    build_model: Callable[[], nn.Module]
    mapper: DatasetMapper
    mapper_without_resize: DatasetMapper
    multi_scale: MultiScaleTesting | None


def prediction_of(
    config: CfgNode | DictConfig | PythonModel, *, device: str, num_classes: int | None = None
) -> Prediction:
    """Read what a config says of prediction. No data set is needed.

    Args:
        config: a config of either kind, or the one that a model file holds.
        device: the device of the model.
        num_classes: number of classes of the model, if it is known.

    Raises:
        UserError: the config describes no model, or no way to read images.
    """
    if isinstance(config, DictConfig):
        config = parts_of(config)
    if isinstance(config, PythonModel):
        return _of_python(config, device)
    config = config.clone()
    config.defrost()
    config.MODEL.DEVICE = device
    if num_classes:
        set_num_classes(config, num_classes)
    return Prediction(
        build_model=partial(build_model, config),
        mapper=BoxMapper(config, is_train=False),
        mapper_without_resize=BoxMapper(config, is_train=False, resize=False),
        multi_scale=multi_scale_testing(config),
    )


def _of_python(config: PythonModel, device: str) -> Prediction:
    mapper = config.build("mapper")
    if not isinstance(mapper, DatasetMapper):
        raise UserError(
            f"the images of this model are read by a {type(mapper).__name__}, which cannot be used "
            "alone; write dataloader.test.mapper as L(BoxMapper)(is_train=False, augmentations=...)"
        )
    scales = config.multi_scale
    return Prediction(
        build_model=lambda: config.build("model").to(device),
        mapper=mapper,
        mapper_without_resize=config.build("mapper", augmentations=[]),
        multi_scale=MultiScaleTesting(**scales) if scales else None,
    )
