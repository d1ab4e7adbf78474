"""Predicts on many images, in bounded memory, and writes pictures and files."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from tqdm import tqdm

from apdet.data.image import read_image
from apdet.data.worker_errors import errors_of_workers
from apdet.errors import UserError
from apdet.files import whole_file
from apdet.inference.batches import batches_of_equal
from apdet.inference.detector import Detector
from apdet.inference.picture import picture_name, write_picture
from apdet.inference.progress import Entry, Progress
from apdet.inference.reading import ReadImage, read_ahead
from apdet.inference.selection import Selection
from apdet.inference.sources import SourceImage
from apdet.signals import StopRequest
from apdet.text import one_line


@dataclass(frozen=True)
class Running:
    """How the work is done.

    Attributes:
        batch_size: the number of images of the same input size that the model gets at a time.
        workers: the number of processes that read images.
        pictures: whether to draw pictures.
        bits: number of bits that pixels of 16-bit images use; None: all.
    """

    batch_size: int = 1
    workers: int = 2
    pictures: bool = True
    bits: int | None = None


def predict_images(
    detector: Detector,
    images: Sequence[SourceImage],
    progress: Progress,
    *,
    selection: Selection,
    running: Running,
    stop: StopRequest,
) -> float:
    """Predict on all images that are not done. Predictions are in ``progress`` at once.

    Args:
        detector: the model.
        images: all images.
        progress: keeps the predictions. Pictures are drawn in ``pictures`` beside its file.
        selection: which detections are kept.
        running: how the work is done.
        stop: whether a signal asked this process to end. It ends after the batch.

    Returns:
        The number of images per second, without those that failed.

    Raises:
        UserError: something cannot be written, or the memory does not suffice.
        Stopped: a signal has ended the work.
    """
    todo = [index for index in range(len(images)) if index not in progress]
    paths = [image.path for image in images]
    start = time.monotonic()
    with (
        stop.deferred(),
        errors_of_workers(stop),
        closing(_progress_bar(len(images), len(images) - len(todo))) as bar,
    ):
        stream = read_ahead(
            paths, todo, detector.mapper, workers=running.workers, bits=running.bits
        )
        readable = _without_failures(stream, progress, bar)
        for batch in batches_of_equal(readable, _input_size, running.batch_size):
            all_found = _detect(detector, batch)
            kept = [selection.apply(found) for found in all_found]
            if running.pictures:
                folder = os.path.join(os.path.dirname(progress.path), "pictures")
                for read, found in zip(batch, kept, strict=True):
                    _draw(images[read.index], found, detector.classes, folder, running.bits)
            highest = [selection.of_classes(found).scores[:1].tolist() for found in all_found]
            progress.add([_entry(*values) for values in zip(batch, kept, highest, strict=True)])
            bar.update(len(batch))
            if stop.signum:
                break
    return (len(todo) - len(progress.failed)) / (time.monotonic() - start)


def _draw(
    image: SourceImage, found: Instances, class_names: list[str], folder: str, bits: int | None
) -> None:
    pixels = read_image(image.path, "RGB", bits=bits)
    write_picture(os.path.join(folder, picture_name(image.name)), pixels, found, class_names)


def _progress_bar(total: int, done: int) -> tqdm:
    bar = tqdm(total=total, initial=done, unit=" images", dynamic_ncols=True)
    if not bar.fp.isatty():  # a log, where each state is a line of its own
        bar.mininterval = 30
    return bar


def _without_failures(
    stream: Iterable[ReadImage], progress: Progress, bar: tqdm
) -> Iterator[ReadImage]:
    for read in stream:
        if read.inputs is None:
            progress.failed[read.index] = read.error
            bar.set_postfix(failed=len(progress.failed), refresh=False)
            bar.update()
        else:
            yield read


def _input_size(read: ReadImage) -> torch.Size:
    assert read.inputs is not None
    return read.inputs["image"].shape


def _detect(detector: Detector, batch: Sequence[ReadImage]) -> list[Instances]:
    inputs: list[dict[str, Any]] = [read.inputs for read in batch if read.inputs is not None]
    try:
        return detector.detect(inputs)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the memory of the device does not suffice for {len(batch)} images of "
            f"{tuple(_input_size(batch[0]))}; set --batch lower, or use --device cpu"
        ) from error


def _entry(read: ReadImage, kept: Instances, highest: list[float]) -> Entry:
    height, width = kept.image_size
    return {
        "index": read.index,
        "width": width,
        "height": height,
        "highest": highest[0] if highest else None,
        "results": instances_to_coco_json(kept, 0),  # changes keypoints in place
    }


def write_failures(images: Sequence[SourceImage], progress: Progress, folder: str) -> str:
    """Write ``failed.txt``: the path of each image that could not be read, a tab, the reason."""
    path = os.path.join(folder, "failed.txt")
    with whole_file(path) as file:
        for index, reason in sorted(progress.failed.items()):
            file.write(f"{one_line(images[index].path)}\t{one_line(reason)}\n".encode())
    return path
