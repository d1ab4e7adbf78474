"""The attributes by which a detector describes itself to the rest of apdet.

With them, the number of classes of a meta-architecture is set and checked, fine-tuning keeps the
weights of shared classes, and the dry run counts anchors. Every attribute is optional. The
functions below return None for a detector without the attribute, such as one of Detectron2's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn


class AnchorMatches(NamedTuple):
    """How the anchors of a training batch are matched to its boxes; points count as anchors.

    N images, R anchors of all levels, K classes.
    """

    num_anchors: dict[str, int]  # {name of a feature level: its anchors}, from fine to coarse
    labels: Tensor  # (N, R) int64: -1 ignored, 0 to K-1 the class of a positive, K background


class Detector(Protocol):
    """The attributes by which a meta-architecture describes itself; each is optional."""

    # K. In Detectron2's two-stage detectors, the RoI heads have this attribute.
    num_classes: int
    # The config key that `from_config` reads `num_classes` from. RoI heads can have it too.
    num_classes_key: ClassVar[str]
    # The name of the submodule that predicts classes. It may hold one layer for each level. The
    # weights of a layer have anchors x num_logits rows, see `ClsLoss.num_logits`.
    class_layer: ClassVar[str]

    def match_anchors(self, batched_inputs: Sequence[Mapping[str, Any]]) -> AnchorMatches:
        """Match the anchors of a training batch to its boxes; inputs as in `forward`."""
        ...


def num_classes_of(model: nn.Module) -> int | None:
    """The number of classes of a detector, or of its RoI heads."""
    return getattr(getattr(model, "roi_heads", model), "num_classes", None)


def class_layer_of(model: nn.Module) -> str | None:
    """The name of the submodule that predicts classes."""
    return getattr(model, "class_layer", None)


def match_anchors(
    model: nn.Module, batched_inputs: Sequence[Mapping[str, Any]]
) -> AnchorMatches | None:
    """Match the anchors of a training batch to its boxes, as the detector does in training."""
    match = getattr(model, "match_anchors", None)
    return None if match is None else match(batched_inputs)
