"""Loads the images that a detector is trained on, and builds their batches."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetFromList, MetadataCatalog, build_detection_train_loader
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    get_detection_dataset_dicts,
)
from detectron2.utils import comm

from apdet.data.stream import ResumableSampler, StreamDataset
from apdet.errors import ArgumentError


def _from_config(cfg: CfgNode) -> dict:
    return {
        "names": cfg.DATASETS.TRAIN,
        "filter_empty": cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        "train_on_difficult": cfg.DATASETS.TRAIN_ON_DIFFICULT,
        "mask_format": cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None,
    }


@configurable(from_config=_from_config)
def training_dicts(
    names: Sequence[str],
    *,
    filter_empty: bool = True,
    train_on_difficult: bool = False,
    mask_format: str | None = None,
) -> list[dict]:
    """Load the dataset dicts of the data sets to train on.

    ``training_dicts(cfg)`` takes the arguments from a config.

    Args:
        names: the names of registered data sets.
        filter_empty: whether to leave out images without a box to train on. Boxes that COCO marks
            as crowds are never trained on.
        train_on_difficult: whether to train on boxes that VOC marks as difficult.
        mask_format: "polygon" or "bitmask" if masks are trained, else None.

    Raises:
        UserError: no data set is named, a data set is not annotated, or no data set has a box. If
            masks are trained: an object has no mask, or ``mask_format`` is "polygon" but a mask is
            run-length encoded.
    """
    names = list(names)
    if not names:
        raise _error("{names} is empty; name the data sets to train on")
    bare = [name for name in names if not MetadataCatalog.get(name).get("annotated", True)]
    if bare:
        raise _error("{names} {bare} has no annotated box to train on; take it out", bare=bare)
    dicts = get_detection_dataset_dicts(names, filter_empty=False)
    if not any(image.get("annotations") for image in dicts):
        raise _error("{names} {value} has no annotated box to train on", value=names)
    if train_on_difficult:
        dicts = [_with_difficult(image) for image in dicts]
    if filter_empty:
        dicts = filter_images_with_only_crowd_annotations(dicts)
    if not dicts:
        raise _error("{names} {value} has only boxes that are difficult or crowds", value=names)
    if mask_format:
        for image in dicts:
            _check_masks(image, mask_format)
    return dicts


def _error(template: str, **values: object) -> ArgumentError:
    return ArgumentError("training_dicts", template, **values)


def _check_masks(image: dict, mask_format: str) -> None:
    file_name = image["file_name"]
    masks = [box.get("segmentation") for box in image["annotations"] if not box.get("iscrowd")]
    if not all(masks):
        # The argument that turns masks on belongs to the mapper.
        raise ArgumentError(
            "BoxMapper",
            "{file_name}: an object has no mask, but {use_instance_mask} is True; add the mask to "
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


def resumable_train_loader(
    dataset: list[dict],
    *,
    mapper: Callable[[dict], dict],
    total_batch_size: int,
    seed: int,
    start_iter: int = 0,
    aspect_ratio_grouping: bool = True,
    **kwargs: Any,
) -> Iterable[list[dict]]:
    """Build Detectron2's training loader, except that it can start at any iteration.

    From ``start_iter`` on, its batches are bitwise equal to the batches of an uninterrupted
    training, including augmentation, for any number of workers.

    Args:
        dataset: the result of :func:`training_dicts`.
        mapper: maps a dataset dict to the model's input. It may draw random numbers from Python,
            numpy and torch.
        total_batch_size: number of images in a batch, over all processes.
        seed: seed of the shuffle and of the mapper's random numbers.
        start_iter: how many batches to skip.
        aspect_ratio_grouping: whether to keep wide images and tall ones in separate batches.
        kwargs: further arguments of :func:`build_detection_train_loader`.

    Raises:
        UserError: the processes cannot share a batch equally.
    """
    check_batch_size(total_batch_size)
    sampler = ResumableSampler(
        # Detectron2 groups by the same rule, but an interruption loses its unfinished batches.
        [aspect_ratio_grouping and image["width"] > image["height"] for image in dataset],
        batch_size=total_batch_size // comm.get_world_size(),
        seed=seed,
        start_iter=start_iter,
    )
    return build_detection_train_loader(
        StreamDataset(DatasetFromList(dataset, copy=False), mapper, seed=seed),
        mapper=None,
        sampler=sampler,
        total_batch_size=total_batch_size,
        aspect_ratio_grouping=False,
        seed=seed,  # without a seed, the loader would draw one from the model's generator
        **kwargs,
    )


def check_batch_size(total_batch_size: int) -> None:
    """Raise a UserError if the processes cannot share a batch equally."""
    num_processes = comm.get_world_size()
    if total_batch_size % num_processes:
        raise ArgumentError(
            "check_batch_size",
            "{total_batch_size} is {value}, which {num_processes} processes cannot share equally; "
            "choose a multiple of {num_processes}",
            value=total_batch_size,
            num_processes=num_processes,
        )
