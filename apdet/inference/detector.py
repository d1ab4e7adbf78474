"""A trained model that detects objects in images."""

import os
from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T  # noqa: N812
import numpy as np
import torch
from detectron2.structures import Instances
from PIL import Image

from apdet.config.device import choose_device
from apdet.engine.model import add_multi_scale_testing
from apdet.errors import UserError
from apdet.inference.model_file import load_model
from apdet.inference.pixels import to_pixels

# Detections with a lower score are not returned if the model file names no threshold.
DEFAULT_THRESHOLD = 0.05

ImageLike = str | os.PathLike | np.ndarray | Image.Image


class Detector:
    """A detector that a model file describes.

        detector = Detector("model_best.pth")
        detections = detector("image.jpg")
        for k, score in zip(detections.pred_classes, detections.scores):
            print(detector.classes[k], float(score))

    Attributes:
        classes: the names of the classes, in order.
        card: what the file says of its model.
        threshold: the score threshold that is used if none is given: the one with the best F1, or
            0.05 if the model was never evaluated.
        model: the model, on its device.
    """

    def __init__(
        self,
        model_file: str | os.PathLike,
        *,
        config_file: str | os.PathLike = "",
        device: str = "",
        multi_scale: bool = False,
        calibrated: bool = False,
    ):
        """Load a model.

        Args:
            model_file: ``model_best.pth`` or another checkpoint of a training.
            config_file: the config that the model was trained with. It is needed if the model file
                does not hold it, see docs/model_files.md. A Python config is run as code.
            device: the device of the model; empty: CUDA if there is one, else the CPU.
            multi_scale: whether to test on several scales and on mirror images.
            calibrated: whether scores are turned into probabilities, by the calibration of the
                model file. ``threshold`` then is a probability, too: 0.5.

        Raises:
            UserError: the file is no model, or holds no config and none is given; or the config is
                of another model.
        """
        device = choose_device(device, "cuda", "device")
        loaded = load_model(os.fspath(model_file), config_file, device=device)
        self.model, self.classes, self.card = loaded.model, loaded.classes, loaded.card
        prediction = loaded.prediction
        self.mapper = prediction.mapper
        if multi_scale:
            self.mapper = prediction.mapper_without_resize
            if prediction.multi_scale is None:
                raise UserError(
                    "train.multi_scale_testing of the config is None, so the scales are not known"
                )
            self.model = add_multi_scale_testing(prediction.multi_scale, self.model).eval()
        known = self.card.threshold
        self.threshold = DEFAULT_THRESHOLD if known is None else known
        self._calibration = None
        if calibrated:
            self._calibration, self.threshold = loaded.calibration(), 0.5

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        threshold: float | None = None,
        channels: str = "RGB",
    ) -> Any:
        """Detect objects.

        Args:
            images: an image, or a list of images: a path; an array (H, W, 3) or (H, W) uint8; or a
                PIL image. Paths and PIL images are turned as their EXIF says.
            threshold: the lowest score that is returned; None: ``self.threshold``.
            channels: "RGB" or "BGR", the order of the channels of arrays.

        Returns:
            Detectron2's ``Instances`` of the image, or a list of them: ``pred_boxes`` in pixels of
            the image, ``scores`` in descending order, ``pred_classes``, and ``pred_masks`` or
            ``pred_keypoints`` if the model has them. They are on the CPU.

        Raises:
            UserError: an image cannot be read.
        """
        if isinstance(images, str | os.PathLike | np.ndarray | Image.Image):
            return self([images], threshold=threshold, channels=channels)[0]
        inputs = [self.prepare(image, channels=channels) for image in images]
        lowest = self.threshold if threshold is None else threshold
        # One at a time: images in a batch are padded to one size, which changes scores a little.
        found = [self.detect([image])[0] for image in inputs]
        return [instances[instances.scores >= lowest] for instances in found]

    def prepare(self, image: ImageLike, *, channels: str = "RGB") -> dict[str, Any]:
        """Read an image and make the input of the model, as an evaluation does.

        Args:
            image: see `__call__`.
            channels: see `__call__`.

        Raises:
            UserError: the image cannot be read.
        """
        if isinstance(image, str | os.PathLike):
            return self.mapper({"file_name": os.fspath(image)})
        pixels = to_pixels(image, channels, self.mapper.image_format)
        height, width = pixels.shape[:2]
        augmented = T.AugInput(pixels)
        self.mapper.augmentations(augmented)
        tensor = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    @torch.no_grad()
    def detect(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        """Detect objects in inputs of the model.

        Args:
            inputs: results of `prepare`.

        Returns:
            All detections of each image, on the CPU, in descending order of their scores, which
            are float64 if they are probabilities.
        """
        outputs = [output["instances"].to("cpu") for output in self.model(inputs)]
        if self._calibration:
            for found in outputs:
                scores, classes = found.scores.double().numpy(), found.pred_classes.numpy()
                found.scores = torch.from_numpy(self._calibration(scores, classes))
        return [found[found.scores.argsort(descending=True, stable=True)] for found in outputs]
