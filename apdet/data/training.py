"""The images that a detector is trained on, and their batches."""

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
from apdet.errors import UserError


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
    """Dataset dicts of the data sets to train on; crowds of COCO are left out.

    A config may stand for the arguments.

    Args:
        names: as registered (``DATASETS.TRAIN``).
        filter_empty: whether images that have no box to train on are left out
            (``DATALOADER.FILTER_EMPTY_ANNOTATIONS``).
        train_on_difficult: whether VOC's difficult boxes are trained on
            (``DATASETS.TRAIN_ON_DIFFICULT``).
        mask_format: "polygon" or "bitmask", where masks are trained (``INPUT.MASK_FORMAT``).

    Raises:
        UserError: no data set is named, one is not annotated, or none has a box; or an object has
            no mask, or a run-length encoded one that is to be a polygon, where masks are trained.
    """
    names = list(names)
    if not names:
        raise UserError("DATASETS.TRAIN is empty; name the data sets to train on")
    bare = [name for name in names if not MetadataCatalog.get(name).get("annotated", True)]
    if bare:
        raise UserError(f"DATASETS.TRAIN {bare} has no annotated box to train on; take it out")
    dicts = get_detection_dataset_dicts(names, filter_empty=False)
    if not any(image.get("annotations") for image in dicts):
        raise UserError(f"DATASETS.TRAIN {names} has no annotated box to train on")
    if train_on_difficult:
        dicts = [_with_difficult(image) for image in dicts]
    if filter_empty:
        dicts = filter_images_with_only_crowd_annotations(dicts)
    if not dicts:
        raise UserError(f"DATASETS.TRAIN {names} has only boxes that are difficult or crowds")
    if mask_format:
        for image in dicts:
            _check_masks(image, mask_format)
    return dicts


def _check_masks(image: dict, mask_format: str) -> None:
    masks = [box.get("segmentation") for box in image["annotations"] if not box.get("iscrowd")]
    if not all(masks):
        raise UserError(
            f"{image['file_name']}: an object has no mask, which MODEL.MASK_ON True needs; add it "
            "to the annotations, or set MODEL.MASK_ON False"
        )
    if mask_format == "polygon" and not all(isinstance(mask, list) for mask in masks):
        raise UserError(
            f"{image['file_name']}: a mask is run-length encoded; set INPUT.MASK_FORMAT bitmask"
        )


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
    """Detectron2's loader, with the batches of an uninterrupted training from ``start_iter`` on.

    They are the same to the last bit, augmentation included, whatever the number of workers.

    Args:
        dataset: dicts, as of :func:`training_dicts`.
        mapper: of such a dict to what the model takes; may draw from Python, numpy and torch.
        total_batch_size: of all processes together.
        seed: of the shuffle and of what the mapper draws.
        start_iter: how many batches to skip.
        aspect_ratio_grouping: whether the images of a batch are all wide, or none is.
        kwargs: the others of :func:`build_detection_train_loader`.

    Raises:
        UserError: a batch that the processes cannot share equally.
    """
    check_batch_size(total_batch_size)
    sampler = ResumableSampler(
        # As in Detectron2's own grouping, whose unfinished batches are lost when interrupted.
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
        seed=seed,  # else it draws one where the model draws
        **kwargs,
    )


def check_batch_size(total_batch_size: int) -> None:
    """Raise a UserError for a batch that the processes cannot share equally."""
    if total_batch_size % comm.get_world_size():
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {total_batch_size}, which {comm.get_world_size()} processes "
            "cannot share equally; choose a multiple of it"
        )


def _with_difficult(image: dict) -> dict:
    # The loader sets iscrowd on difficult boxes, by which Detectron2 leaves them out.
    annotations = [
        {**box, "iscrowd": 0} if box.get("difficult") else box for box in image["annotations"]
    ]
    return {**image, "annotations": annotations}
