"""Maps a dataset dict to the input of the detector."""

import copy
import warnings
from typing import Any

import detectron2.data.transforms as T  # noqa: N812
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.structures import BoxMode

from apdet.data.augmentation import evaluation_augmentation, training_augmentation
from apdet.data.clean import IMAGE_ERRORS, unreadable


class BoxMapper(DatasetMapper):
    """Detectron2's mapper, except that augmentations can also read the boxes."""

    @configurable
    def __init__(self, *, drop_by_centre: bool = False, **kwargs: Any):
        """Set up the mapper.

        Args:
            drop_by_centre: whether to drop a box whose centre is outside the crop, as SSD does.
            kwargs: the arguments of Detectron2's ``DatasetMapper``.
        """
        super().__init__(**kwargs)
        self.drop_by_centre = drop_by_centre

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True, resize: bool = True) -> dict:
        """Read the arguments from ``cfg.INPUT``, ``cfg.MODEL.MASK_ON`` and ``KEYPOINT_ON``.

        Args:
            cfg: the config.
            is_train: whether the images are training images, which are augmented.
            resize: whether to resize test images.
        """
        if is_train:
            augmentations = training_augmentation(cfg)
        else:
            augmentations = evaluation_augmentation(cfg) if resize else []
        hflip_indices = None
        if cfg.MODEL.KEYPOINT_ON:
            hflip_indices = detection_utils.create_keypoint_hflip_indices(cfg.DATASETS.TRAIN)
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "use_keypoint": cfg.MODEL.KEYPOINT_ON,
            "keypoint_hflip_indices": hflip_indices,
            "drop_by_centre": cfg.INPUT.SSD_AUGMENTATION,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """Map a dataset dict to the input of the model; see Detectron2's ``DatasetMapper``.

        Raises:
            UserError: the image is missing or broken, or differs in size from the dataset dict.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        image = self._read(dataset_dict)
        if not self.is_train:
            dataset_dict.pop("annotations", None)
        boxes = _boxes(dataset_dict.get("annotations", []))
        aug_input = T.AugInput(image, boxes=boxes[~_crowd(dataset_dict)])
        transforms = self.augmentations(aug_input)
        image = aug_input.image
        dataset_dict["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if "annotations" in dataset_dict:
            if self.drop_by_centre:
                kept = _centre_is_inside(transforms.apply_box(boxes), *image.shape[:2])
                annotations = zip(dataset_dict["annotations"], kept, strict=True)
                dataset_dict["annotations"] = [a for a, is_kept in annotations if is_kept]
            self._transform_annotations(dataset_dict, transforms, image.shape[:2])
        return dataset_dict

    def _read(self, dataset_dict: dict) -> np.ndarray:
        file_name = dataset_dict["file_name"]
        try:
            image = detection_utils.read_image(file_name, format=self.image_format)
            detection_utils.check_image_size(dataset_dict, image)
        except (*IMAGE_ERRORS, detection_utils.SizeMismatchError) as error:
            raise unreadable(file_name, error) from error
        return image


def _boxes(annotations: list[dict]) -> np.ndarray:
    """The boxes, (M, 4) float64 XYXY, of M annotations."""
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _crowd(dataset_dict: dict) -> np.ndarray:
    """Whether each of M annotations is a crowd, (M,) bool."""
    annotations = dataset_dict.get("annotations", [])
    return np.array([a.get("iscrowd", 0) for a in annotations], dtype=bool)


def _centre_is_inside(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Whether the centre of each box is inside the image, (M,) bool."""
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    return (x > 0) & (x < width) & (y > 0) & (y < height)


def build_mapper(cfg: CfgNode, is_train: bool) -> BoxMapper:
    """Deprecated: call ``BoxMapper(cfg, is_train)``."""
    warnings.warn(
        "build_mapper(cfg, is_train) is deprecated; call BoxMapper(cfg, is_train)",
        DeprecationWarning,
        stacklevel=2,
    )
    return BoxMapper(cfg, is_train)
