"""Testing a dense detector on several scales of an image, merged by NMS."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.data.transforms import ResizeTransform
from detectron2.layers import batched_nms
from detectron2.modeling import DatasetMapperTTA, detector_postprocess
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from apdet.errors import UserError


class DenseDetectorWithTTA(nn.Module):
    """A dense detector that sees several copies of each image.

    Each of ``sizes`` gives one copy; with ``flip`` it also gives the mirror image of the copy. The
    size is the short side of the copy in pixels, or with ``square`` both sides. The detections in
    all copies, at most ``max_detections_per_image`` of each, are mapped back to the image and
    merged by one NMS for each class.

    With only the scale of ordinary testing, the detections are exactly the same as without it.
    """

    def __init__(
        self,
        model: DenseDetector,
        *,
        sizes: Sequence[int],
        max_size: int,
        flip: bool,
        square: bool = False,
    ) -> None:
        """Wrap ``model``; see :func:`apdet.modeling.tta.with_test_time_augmentation`."""
        super().__init__()
        self.model = model
        self.training = model.training  # Detectron2 restores this flag after the evaluation
        self.sizes, self.max_size = list(sizes), max_size
        self.flip, self.square = flip, square

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Instances]]:
        """Detect in each image.

        Args:
            batched_inputs: dicts with "image" (3, H, W) uint8, in the size of the image file.

        Returns:
            {"instances": ...} for each image, with pred_boxes in pixels of the image, scores and
            pred_classes.

        Raises:
            UserError: an image was resized.
        """
        assert not self.model.training
        return [{"instances": self._detect(image)} for image in batched_inputs]

    def _detect(self, image: Mapping[str, Any]) -> Instances:
        pixels = image["image"]
        height, width = pixels.shape[1:]
        original = image.get("height", height), image.get("width", width)
        if original != (height, width):
            # A second resize would not give the pixels of ordinary testing at that scale.
            raise UserError(
                f"{image.get('file_name', 'image')}: it was resized from {original} to "
                f"{(height, width)} before test-time augmentation; load it in its own size "
                "(BoxMapper(..., resize=False))"
            )
        found = [self._detect_in_copy(copy, (height, width)) for copy in self._copies(pixels)]
        merged = merge(found, self.model.test_nms_thresh, self.model.max_detections_per_image)
        # Boxes are clipped only here, because NMS in the detector compares unclipped boxes.
        return detector_postprocess(merged, height, width)

    def _copies(self, pixels: Tensor) -> Iterator[dict[str, Any]]:
        """Make the inputs of the detector, with their "transforms", one by one."""
        _, height, width = pixels.shape
        image = {"image": pixels, "height": height, "width": width}
        for size in self.sizes:
            if self.square:
                # Detectron2's mapper treats the square as a resized image, and keeps its size.
                square = ResizeTransform(height, width, size, size).apply_image(
                    pixels.permute(1, 2, 0).numpy()
                )
                image["image"] = torch.tensor(square).permute(2, 0, 1)
            max_size = size if self.square else self.max_size
            yield from DatasetMapperTTA([size], max_size, self.flip)(image)

    def _detect_in_copy(self, copy: dict[str, Any], image_size: tuple[int, int]) -> Instances:
        # The same steps as in DenseDetector.forward, which would also clip the boxes.
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
    """Merge the detections in all copies of an image by NMS within each class.

    Args:
        found: the detections in each copy after its own NMS, sorted by descending score. Boxes are
            in pixels of the image.
        nms_thresh: of two boxes with an IoU above this, only the box with the higher score is kept.
        max_detections: the maximum number of detections to keep.

    Returns:
        The merged detections, sorted by descending score.
    """
    every = Instances.cat(list(found))
    # With one copy, a second NMS could only change results by rounding.
    if len(found) == 1 or len(every) == 0:
        return every
    boxes = every.pred_boxes.tensor
    # batched_nms keeps classes apart only if no coordinate is negative.
    keep = batched_nms(boxes - boxes.min(), every.scores, every.pred_classes, nms_thresh)
    return every[keep[:max_detections]]
