"""Reads and evaluates a sample of the images, to find errors before they end a long training."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from apdet.config.plan import Loader, TestSet, TrainingPlan
from apdet.data.temporary_set import temporary_data_set
from apdet.evaluation import build_evaluator

NUM_READ = 64  # of each data set
NUM_EVALUATED = 4


def read_training_images(batches: Iterable[list[Any]]) -> int:
    """Read the first images of a training, by the data-loader workers.

    Args:
        batches: the batches of the training.

    Returns:
        Their number, at least `NUM_READ`.

    Raises:
        UserError: an image cannot be read.
    """
    num_read = 0
    for batch in batches:
        num_read += len(batch)
        if num_read >= NUM_READ:
            break
    return num_read


def read_test_images(loader: Loader) -> int:
    """Read images from all over a test set.

    Args:
        loader: the batches of the test set.

    Returns:
        The number of images, at most `NUM_READ`.

    Raises:
        UserError: an image cannot be read.
    """
    images: Any = getattr(loader, "dataset", ())  # a user's loader may have none
    indices = np.unique(np.linspace(0, len(images) - 1, NUM_READ).astype(int)) if images else ()
    for index in indices:
        images[int(index)]
    return len(indices)


@torch.no_grad()
def evaluate_first_images(
    plan: TrainingPlan, model: nn.Module, test_set: TestSet, loader: Loader
) -> list[int]:
    """Evaluate a model on the first images of a test set, and forget the results.

    Args:
        plan: says what an evaluation measures.
        model: the detector.
        test_set: the test set.
        loader: its batches.

    Returns:
        The numbers of detections, one for each image.

    Raises:
        UserError: an image cannot be read, or the evaluation fails.
    """
    model.eval()
    first = list(islice((image for batch in loader for image in batch), NUM_EVALUATED))
    outputs = [model([image])[0] for image in first]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        if test_set.build_evaluator is not None:
            evaluator = test_set.build_evaluator(folder)
            evaluator.reset()
            evaluator.process(first, outputs)  # it would measure on all images
        else:
            with _data_set_of(test_set.name, [image["image_id"] for image in first]) as name:
                evaluator = build_evaluator(name, folder, **asdict(plan.tasks))
                evaluator.reset()
                evaluator.process(first, outputs)
                evaluator.evaluate()
    return [len(output["instances"]) for output in outputs]


@contextmanager
def _data_set_of(name: str, image_ids: Sequence[Any]) -> Iterator[str]:
    """In this context, some images of a data set are registered as a data set of their own."""
    some = f"{name}, {len(image_ids)} images"
    chosen = set(image_ids)
    # Without "json_file", the evaluator measures on what is registered.
    metadata = MetadataCatalog.get(name).as_dict()
    metadata = {key: metadata[key] for key in metadata if key not in ("name", "json_file")}
    images = [image for image in DatasetCatalog.get(name) if image["image_id"] in chosen]
    with temporary_data_set(some, lambda: images, metadata):
        yield some


@contextmanager
def _quiet() -> Iterator[None]:
    """In this context, nothing below a warning is printed: the results mean nothing."""
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
