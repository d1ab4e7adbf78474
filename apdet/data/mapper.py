"""From a dataset dict to the tensors that the detector takes."""

import copy

import detectron2.data.transforms as T  # noqa: N812
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, detection_utils
from detectron2.structures import BoxMode

from apdet.data.augmentation import build_augmentation
from apdet.data.clean import IMAGE_ERRORS, unreadable


def build_mapper(cfg: CfgNode, is_train: bool) -> "BoxMapper":
    """The mapper of the config: boxes, and masks and keypoints for models that have them."""
    hflip_indices = None
    if cfg.MODEL.KEYPOINT_ON:
        hflip_indices = detection_utils.create_keypoint_hflip_indices(cfg.DATASETS.TRAIN)
    return BoxMapper(
        is_train=is_train,
        augmentations=build_augmentation(cfg, is_train),
        image_format=cfg.INPUT.FORMAT,
        use_instance_mask=cfg.MODEL.MASK_ON,
        instance_mask_format=cfg.INPUT.MASK_FORMAT,
        use_keypoint=cfg.MODEL.KEYPOINT_ON,
        keypoint_hflip_indices=hflip_indices,
        drop_by_centre=cfg.INPUT.SSD_AUGMENTATION,
    )


class BoxMapper(DatasetMapper):
    """Detectron2's mapper, which also shows the boxes to augmentations that ask for them."""

    def __init__(self, *, drop_by_centre: bool = False, **kwargs):
        """Args: ``drop_by_centre``: drop a box whose centre was cropped away, as SSD does."""
        super().__init__(**kwargs)
        self.drop_by_centre = drop_by_centre

    def __call__(self, dataset_dict: dict) -> dict:
        """As Detectron2's.

        Raises:
            UserError: an image that is missing, broken, or of another size than it is said to be.
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
    """(M, 4) float64, XYXY."""
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _crowd(dataset_dict: dict) -> np.ndarray:
    """(M,) bool."""
    annotations = dataset_dict.get("annotations", [])
    return np.array([a.get("iscrowd", 0) for a in annotations], dtype=bool)


def _centre_is_inside(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """(M,) bool."""
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    return (x > 0) & (x < width) & (y > 0) & (y < height)
