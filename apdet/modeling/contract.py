"""The attributes by which a detector describes itself to the rest of apdet.

With them, the number of classes of a meta-architecture is set and checked, weights are matched to
classes by name, and the dry run counts anchors. Every attribute is optional. The functions below
return None for a detector without the attribute, such as one of Detectron2's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import Tensor, nn


class AnchorMatches(NamedTuple):
    """How the anchors of a training batch are matched to its boxes; points count as anchors.

    N images, R anchors of all levels, K classes.
    """

    num_anchors: dict[str, int]  # {name of a feature level: its anchors}, from fine to coarse
    labels: Tensor  # (N, R) int64: -1 ignored, 0 to K-1 the class of a positive, K background


class ClassLayer(NamedTuple):
    """A layer with rows for each class, such as a layer of logits.

    The first dimension of its weights is (anchors, classes, rows per class), flattened.
    """

    name: str  # of the submodule, which may hold several layers, such as one for each level
    has_background: bool = False  # whether the background is one more class, the last one
    rows_per_class: int = 1  # such as 4 for the boxes of a class


class Detector(Protocol):
    """The attributes by which a meta-architecture describes itself; each is optional."""

    # K. In Detectron2's two-stage detectors, the RoI heads have this attribute.
    num_classes: int
    # The config key that `from_config` reads `num_classes` from. RoI heads can have it too.
    num_classes_key: ClassVar[str]
    # All layers with rows for each class. RoI heads can have this attribute too, with names within
    # them. None: not known. See `apdet.modeling.class_layers`.
    class_layers: Sequence[ClassLayer] | None
    # Instead of `class_layers`, if one submodule predicts classes and nothing else has rows for
    # each class: its name. The detector then has a `ClsLoss` by the name `cls_loss`.
    class_layer: ClassVar[str]

    def match_anchors(self, batched_inputs: Sequence[Mapping[str, Any]]) -> AnchorMatches:
        """Match the anchors of a training batch to its boxes; inputs as in `forward`."""
        ...


def num_classes_of(model: nn.Module) -> int | None:
    """The number of classes of a detector, or of its RoI heads."""
    return getattr(getattr(model, "roi_heads", model), "num_classes", None)


def predicts(model: nn.Module, task: str) -> bool | None:
    """Whether a detector predicts more than boxes; None if that is not known.

    Args:
        model: the detector.
        task: "mask" or "keypoint".
    """
    if isinstance(model, DenseDetector):
        return False
    return getattr(getattr(model, "roi_heads", None), f"{task}_on", None)


def num_keypoints_of(model: nn.Module) -> int | None:
    """The number of keypoints of an object, if the detector has one of Detectron2's heads."""
    head = getattr(getattr(model, "roi_heads", None), "keypoint_head", None)
    return getattr(head, "num_keypoints", None)


def class_layer_of(model: nn.Module) -> str | None:
    """The name of the submodule that predicts classes."""
    return getattr(model, "class_layer", None)


def match_anchors(
    model: nn.Module, batched_inputs: Sequence[Mapping[str, Any]]
) -> AnchorMatches | None:
    """Match the anchors of a training batch to its boxes, as the detector does in training."""
    match = getattr(model, "match_anchors", None)
    return None if match is None else match(batched_inputs)
