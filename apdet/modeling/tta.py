"""Wraps a detector of any kind for testing on several scales and on mirror images."""

from collections.abc import Sequence

from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from apdet.errors import ArgumentError
from apdet.modeling.dense_tta import DenseDetectorWithTTA
from apdet.modeling.two_stage_tta import TwoStageDetectorWithTTA


def with_test_time_augmentation(
    model: nn.Module,
    *,
    sizes: Sequence[int],
    max_size: int,
    flip: bool,
    square: bool = False,
) -> nn.Module:
    """Wrap a detector so that it sees several copies of each image.

    Args:
        model: a dense or a two-stage detector, which may be in DistributedDataParallel.
        sizes: the short sides of the copies, in pixels.
        max_size: limit of the long sides of the copies, in pixels.
        flip: whether to add the mirror image of each copy.
        square: whether the copies of a dense detector are squares with sides ``sizes``.

    Raises:
        UserError: ``sizes`` is empty or not a list of positive integers, or the model is of another
            kind or detects keypoints.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    sizes = list(sizes)
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise _error(
            "{sizes} is {value}; give at least one size in pixels, e.g. [400, 500]", value=sizes
        )
    if isinstance(model, GeneralizedRCNN):
        if getattr(model.roi_heads, "keypoint_on", False):
            raise _error(
                "{model}: Detectron2 merges no keypoints of several scales; test on one scale, or "
                "without keypoints"
            )
        return TwoStageDetectorWithTTA(model, sizes=sizes, max_size=max_size, flip=flip)
    if isinstance(model, DenseDetector):
        return DenseDetectorWithTTA(model, sizes=sizes, max_size=max_size, flip=flip, square=square)
    raise _error(
        "{model}: test-time augmentation is for dense and two-stage detectors, not for {kind}; "
        "choose another model, or test on one scale",
        kind=type(model).__name__,
    )


def _error(template: str, **values: object) -> ArgumentError:
    return ArgumentError("with_test_time_augmentation", template, **values)
