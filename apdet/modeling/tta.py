"""Testing on several scales of an image and on their mirror images, merged by NMS."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeTransform
from detectron2.layers import batched_nms
from detectron2.modeling import (
    DatasetMapperTTA,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    detector_postprocess,
)
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from apdet.errors import UserError


def with_test_time_augmentation(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """A detector that is shown several copies of each image, as ``TEST.AUG`` asks for.

    Dense detectors are :class:`DenseDetectorWithTTA`'s, two-stage ones Detectron2's own.

    Args:
        cfg: the config of the model.
        model: which may be distributed.

    Raises:
        UserError: no scale, one that is no number of pixels, or a model that this is not for.
    """
    model = _undistributed(model)
    if not isinstance(model, GeneralizedRCNN):
        return DenseDetectorWithTTA(cfg, model)
    _check_sizes(cfg)
    if cfg.MODEL.KEYPOINT_ON:
        raise UserError(
            "TEST.AUG.ENABLED: Detectron2 merges no keypoints; set it, or MODEL.KEYPOINT_ON, to "
            "False"
        )
    augmented = GeneralizedRCNNWithTTA(cfg, model)
    augmented.training = model.training  # Detectron2 restores this one after the evaluation
    return augmented


def _undistributed(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _check_sizes(cfg: CfgNode) -> list[int]:
    sizes = list(cfg.TEST.AUG.MIN_SIZES)
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UserError(
            f"TEST.AUG.MIN_SIZES is {sizes}; give at least one size in pixels, e.g. [400, 500]"
        )
    return sizes


class DenseDetectorWithTTA(nn.Module):
    """A dense detector that is shown several copies of each image, as ``TEST.AUG`` asks for.

    There is a copy of each short side in ``MIN_SIZES``, its long side at most ``MAX_SIZE``, or, for
    a detector of fixed squares (``INPUT.FIXED_SIZE_TEST``), a square of each side; with ``FLIP``
    there is also the mirror image of each. What the detector finds in each copy, at most
    ``TEST.DETECTIONS_PER_IMAGE``, is brought back to the image and goes through one NMS a class.

    With the scale of ordinary testing alone the detections are exactly those of the detector.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        """Wrap ``model``, which may be distributed; its NMS threshold and limit are used.

        Raises:
            UserError: no scale, one that is no number of pixels, or a model of another kind.
        """
        super().__init__()
        model = _undistributed(model)
        if not isinstance(model, DenseDetector):
            raise UserError(
                "TEST.AUG.ENABLED is for dense and two-stage detectors, "
                f"not for {type(model).__name__}; "
                "choose another MODEL.META_ARCHITECTURE, or set it to False"
            )
        self.model = model
        self.training = model.training  # Detectron2 restores this one after the evaluation
        self.sizes, self.flip = _check_sizes(cfg), cfg.TEST.AUG.FLIP
        self.max_size = cfg.TEST.AUG.MAX_SIZE
        self.square = bool(cfg.INPUT.FIXED_SIZE_TEST)

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        """Detections in each image, in its own pixels.

        Args:
            batched_inputs: dicts with "image", (3, H, W) uint8, of the size of the image file.

        Returns:
            As the detector: {"instances": with pred_boxes, scores and pred_classes} of each image.

        Raises:
            UserError: an image that was resized.
        """
        assert not self.model.training
        return [{"instances": self._detect(image)} for image in batched_inputs]

    def _detect(self, image: Mapping[str, Any]) -> Instances:
        pixels = image["image"]
        height, width = pixels.shape[1:]
        told = image.get("height", height), image.get("width", width)
        if told != (height, width):
            # To resize it once more would show the detector other pixels than a single scale does.
            raise UserError(
                f"{image.get('file_name', 'image')}: it was resized from {told} to "
                f"{(height, width)} before TEST.AUG; load it with INPUT.MIN_SIZE_TEST 0"
            )
        found = [self._detect_in_copy(copy, (height, width)) for copy in self._copies(pixels)]
        merged = merge(found, self.model.test_nms_thresh, self.model.max_detections_per_image)
        # Boxes are clipped here and not before, for NMS in the detector is on boxes as predicted.
        return detector_postprocess(merged, height, width)

    def _copies(self, pixels: Tensor) -> Iterator[dict[str, Any]]:
        """Inputs of the detector with their "transforms", made when they are asked for."""
        _, height, width = pixels.shape
        image = {"image": pixels, "height": height, "width": width}
        for size in self.sizes:
            if self.square:
                # The mapper takes such an image for a resized one, and leaves a square of its size.
                square = ResizeTransform(height, width, size, size).apply_image(
                    pixels.permute(1, 2, 0).numpy()
                )
                image["image"] = torch.tensor(square).permute(2, 0, 1)
            max_size = size if self.square else self.max_size
            yield from DatasetMapperTTA([size], max_size, self.flip)(image)

    def _detect_in_copy(self, copy: dict[str, Any], image_size: tuple[int, int]) -> Instances:
        # As DenseDetector.forward, which would clip the boxes.
        images = self.model.preprocess_image([copy])
        levels = self.model.backbone(images.tensor)
        features = [levels[name] for name in self.model.head_in_features]
        predictions = self.model.head(features)
        (found,) = self.model.forward_inference(images, features, predictions)
        boxes = found.pred_boxes.tensor
        in_image = copy["transforms"].inverse().apply_box(boxes.cpu().numpy())
        return Instances(
            image_size,
            pred_boxes=Boxes(torch.from_numpy(in_image).to(boxes)),
            scores=found.scores,
            pred_classes=found.pred_classes,
        )


def merge(found: Sequence[Instances], nms_thresh: float, max_detections: int) -> Instances:
    """The best detections of all copies of an image, after NMS within each class.

    Args:
        found: in each copy, after NMS of its own, by falling score; boxes in the image's pixels.
        nms_thresh: of two boxes with an IoU above it the one of lower score goes.
        max_detections: how many are kept at most.
    """
    every = Instances.cat(list(found))
    # A second NMS does nothing but for rounding, which it would not do in exactly the same way.
    if len(found) == 1 or len(every) == 0:
        return every
    boxes = every.pred_boxes.tensor
    # batched_nms keeps classes apart only where no coordinate is negative.
    keep = batched_nms(boxes - boxes.min(), every.scores, every.pred_classes, nms_thresh)
    return every[keep[:max_detections]]
