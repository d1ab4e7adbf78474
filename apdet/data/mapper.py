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
from apdet.data.image import CHANNELS, read_image
from apdet.data.image_header import unreadable
from apdet.errors import ArgumentError, UserError


class BoxMapper(DatasetMapper):
    """Detectron2's mapper, except that augmentations can also read the boxes."""

    @configurable
    def __init__(self, *, drop_by_centre: bool = False, **kwargs: Any):
        """Set up the mapper.

        Args:
            drop_by_centre: whether to drop a box whose centre is outside the crop, as SSD does.
            kwargs: the arguments of Detectron2's ``DatasetMapper``, except those for proposals.

        Raises:
            UserError: the image format is unknown, or proposals are asked for.
        """
        super().__init__(**kwargs)
        if self.image_format not in CHANNELS:
            raise _error(
                "{image_format} is {value!r}; choose one of {choices}",
                value=self.image_format,
                choices=", ".join(CHANNELS),
            )
        if self.proposal_topk is not None:
            raise _error("{precomputed_proposal_topk} cannot be used: proposals are not loaded")
        self.drop_by_centre = drop_by_centre

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True, resize: bool = True) -> dict:
        """Read the arguments from ``cfg.INPUT``, ``cfg.MODEL.MASK_ON`` and ``KEYPOINT_ON``.

        Args:
            cfg: the config.
            is_train: whether the images are training images, which are augmented.
            resize: whether to resize test images.

        Raises:
            UserError: the config asks for something that this mapper does not do.
        """
        _check_config(cfg)
        if is_train:
            augmentations = training_augmentation(cfg)
        else:
            augmentations = evaluation_augmentation(cfg) if resize else []
        hflip_indices = None
        if cfg.MODEL.KEYPOINT_ON and is_train:  # else no data set is needed
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
            UserError: the image is missing or broken, differs in size from the dataset dict, or
                cannot be augmented.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        image = self._read(dataset_dict)
        if not self.is_train:
            dataset_dict.pop("annotations", None)
        boxes = _boxes(dataset_dict.get("annotations", []))
        aug_input = T.AugInput(image, boxes=boxes[~_crowd(dataset_dict)])
        try:
            transforms = self.augmentations(aug_input)
        except ValueError as error:
            height, width = image.shape[:2]
            raise UserError(
                f"{dataset_dict['file_name']}: an image of {width} x {height} pixels cannot be "
                f"augmented ({error}); remove it from the data set, or change the augmentation"
            ) from error
        image = aug_input.image
        dataset_dict["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        if "annotations" in dataset_dict:
            if self.drop_by_centre:
                kept = _centre_is_inside(transforms.apply_box(boxes), *image.shape[:2])
                annotations = zip(dataset_dict["annotations"], kept, strict=True)
                dataset_dict["annotations"] = [a for a, is_kept in annotations if is_kept]
            try:
                self._transform_annotations(dataset_dict, transforms, image.shape[:2])
            except ModuleNotFoundError as error:
                raise UserError(
                    f"{dataset_dict['file_name']}: to crop masks that are polygons, pip install "
                    "shapely; or train without crops (INPUT.CROP.ENABLED, INPUT.SSD_AUGMENTATION)"
                ) from error
        return dataset_dict

    def _read(self, dataset_dict: dict) -> np.ndarray:
        file_name = dataset_dict["file_name"]
        image = read_image(file_name, self.image_format, bits=dataset_dict.get("bits"))
        try:
            detection_utils.check_image_size(dataset_dict, image)
        except detection_utils.SizeMismatchError as error:
            raise unreadable(file_name, error) from error
        return image


def _error(template: str, **values: object) -> ArgumentError:
    return ArgumentError("BoxMapper", template, **values)


def _check_config(cfg: CfgNode) -> None:
    """Refuse a config that asks for something that `BoxMapper` does not do."""
    channels = CHANNELS.get(cfg.INPUT.FORMAT)
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        if channels not in (None, len(cfg.MODEL[key])):
            raise UserError(
                f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}, so images have {channels} channels, but "
                f"MODEL.{key} has {len(cfg.MODEL[key])} values; give one for each channel"
            )
    if cfg.MODEL.LOAD_PROPOSALS:
        raise UserError("MODEL.LOAD_PROPOSALS is True, but proposals are not loaded; set it False")
    if cfg.MODEL.META_ARCHITECTURE in ("SemanticSegmentor", "PanopticFPN"):
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}, but semantic "
            "segmentation is not trained; choose a detector"
        )
    for part, refused in (
        ("PROPOSAL_GENERATOR", "RRPN"),
        ("ANCHOR_GENERATOR", "RotatedAnchorGenerator"),
        ("ROI_HEADS", "RROIHeads"),
    ):
        name = cfg.MODEL[part].NAME
        if name == refused:
            raise UserError(
                f"MODEL.{part}.NAME is {name!r}, but rotated boxes are not trained; change it"
            )


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
