"""Loads the images that a detector is trained on."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.structures import BoxMode

from apdet.data.class_names import warn_of_empty_classes
from apdet.errors import ArgumentError, UserError

logger = logging.getLogger(__name__)


def _from_config(cfg: CfgNode) -> dict:
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
    return {
        "names": cfg.DATASETS.TRAIN,
        "filter_empty": cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        "train_on_difficult": cfg.DATASETS.TRAIN_ON_DIFFICULT,
        "mask_format": cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None,
        "min_keypoints": keypoints if cfg.MODEL.KEYPOINT_ON else 0,
    }


@configurable(from_config=_from_config)
def training_dicts(
    names: Sequence[str],
    *,
    filter_empty: bool = True,
    train_on_difficult: bool = False,
    mask_format: str | None = None,
    min_keypoints: int = 0,
) -> list[dict]:
    """Load the dataset dicts of the data sets to train on.

    ``training_dicts(cfg)`` takes the arguments from a config. The log counts the images and boxes
    that are left out, each in one line, and names the classes without a box. A second call with
    the same arguments returns the same list.

    Args:
        names: the names of registered data sets.
        filter_empty: whether to leave out images without a box to train on. Boxes that COCO marks
            as crowds are never trained on.
        train_on_difficult: whether to train on boxes that VOC marks as difficult.
        mask_format: "polygon" or "bitmask" if masks are trained, else None.
        min_keypoints: leave out images with fewer visible keypoints.

    Raises:
        UserError: no data set is named, a data set is not annotated, or no image is left. Or a box
            is rotated. If masks are trained: an object has no mask, or ``mask_format`` is "polygon"
            but a mask is run-length encoded.
    """
    names = tuple(names)
    if not names:
        raise _error("{names} is empty; name the data sets to train on")
    bare = [name for name in names if not MetadataCatalog.get(name).get("annotated", True)]
    if bare:
        raise _error("{names} {bare} has no annotated box to train on; take it out", bare=bare)
    # A data set that is registered anew has another loader.
    loaders = tuple(DatasetCatalog[name] for name in names)
    return _load(names, loaders, filter_empty, train_on_difficult, mask_format, min_keypoints)


@lru_cache(maxsize=1)
def _load(
    names: tuple[str, ...],
    loaders: tuple[Callable, ...],
    filter_empty: bool,
    train_on_difficult: bool,
    mask_format: str | None,
    min_keypoints: int,
) -> list[dict]:
    """`training_dicts`, which a training calls more than once."""
    every = get_detection_dataset_dicts(names, filter_empty=False)
    if not any(image.get("annotations") for image in every):
        raise _error(
            "{names} {value} has no annotated box to train on; annotate boxes", value=list(names)
        )
    if train_on_difficult:
        every = [_with_difficult(image) for image in every]
    dicts: list[dict] = []
    left_out: dict[str, list[dict]] = defaultdict(list)
    for image in every:
        reason = _reason_to_leave_out(image.get("annotations", []), filter_empty, min_keypoints)
        (left_out[reason] if reason else dicts).append(image)
    reasons = ", ".join(
        f"{len(images)} {reason} (the first is {images[0]['file_name']})"
        for reason, images in left_out.items()
    )
    if not dicts:
        raise _error(
            "{names} {value} has no image to train on: {reasons}; correct the annotations",
            value=list(names),
            reasons=reasons,
        )
    if left_out:
        logger.warning(f"Training on {len(dicts)} of {len(every)} images; left out: {reasons}")
    _log_boxes(names, dicts)
    for image in dicts:
        _check_boxes(image)
        if mask_format:
            _check_masks(image, mask_format)
    return dicts


def _log_boxes(names: Sequence[str], dicts: Sequence[dict]) -> None:
    """Log how many boxes are left out, and the classes that have no other box."""
    count, num_ignored = Counter[int](), 0
    for image in dicts:
        for box in image.get("annotations", []):
            if box.get("iscrowd"):
                num_ignored += 1
            else:
                count[box["category_id"]] += 1
    if num_ignored:
        logger.info(
            f"Training on {count.total()} boxes; {num_ignored} boxes are left out, because they "
            "are difficult or crowds"
        )
    classes = MetadataCatalog.get(names[0]).get("thing_classes", [])
    warn_of_empty_classes({name: count[k] for k, name in enumerate(classes)}, ", ".join(names))


def _reason_to_leave_out(
    annotations: list[dict], filter_empty: bool, min_keypoints: int
) -> str | None:
    """Why an image with these annotations is not trained on; None if it is."""
    if filter_empty and not annotations:
        return "without a box"
    if filter_empty and all(box.get("iscrowd", 0) for box in annotations):
        return "with only boxes that are difficult or crowds"
    visible = sum(v > 0 for box in annotations for v in box.get("keypoints", [])[2::3])
    return f"with fewer than {min_keypoints} keypoints" if visible < min_keypoints else None


def _error(template: str, **values: object) -> ArgumentError:
    return ArgumentError("training_dicts", template, **values)


def _check_boxes(image: dict) -> None:
    modes = [box.get("bbox_mode") for box in image.get("annotations", [])]
    if BoxMode.XYWHA_ABS in modes:
        raise UserError(
            f"{image['file_name']}: a box is rotated, but rotated boxes are not trained; write "
            "upright boxes"
        )


def _check_masks(image: dict, mask_format: str) -> None:
    file_name = image["file_name"]
    masks = [box.get("segmentation") for box in image["annotations"] if not box.get("iscrowd")]
    if not all(masks):
        # The argument that turns masks on belongs to the mapper.
        raise ArgumentError(
            "BoxMapper",
            "{file_name}: an object has no usable mask, but {use_instance_mask} is True; correct "
            "the annotations, or set {use_instance_mask} to False",
            file_name=file_name,
        )
    if mask_format == "polygon" and not all(isinstance(mask, list) for mask in masks):
        raise _error(
            "{file_name}: a mask is run-length encoded; set {mask_format} to 'bitmask'",
            file_name=file_name,
        )


def _with_difficult(image: dict) -> dict:
    # Our loader sets iscrowd on difficult boxes, and Detectron2 leaves out boxes with iscrowd.
    annotations = [
        {**box, "iscrowd": 0} if box.get("difficult") else box for box in image["annotations"]
    ]
    return {**image, "annotations": annotations}
