"""Builds the batches that a detector is trained on."""

from collections.abc import Callable, Iterable
from typing import Any

from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.utils import comm

from apdet.data.stream import ResumableSampler, StreamDataset
from apdet.data.training_images import training_dicts
from apdet.errors import ArgumentError

__all__ = ["check_batch_size", "resumable_train_loader", "training_dicts"]


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
