"""Divides the images of one folder into a training set and a validation set."""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial

from apdet.data.image_header import check_image_file
from apdet.data.records import Records
from apdet.errors import UserError
from apdet.files import unreadable_file

logger = logging.getLogger(__name__)


def divide(
    records: Records, names: Sequence[str], *, folder: str, fraction: float, seed: int = 0
) -> list[Records]:
    """Divide images at random, but in the same way each time.

    Each image gets a random number from its file name and the seed, and the images with the
    smallest numbers are for validation. So the order of the images has no influence, and if images
    are added, the others stay where they are, except for the few that keep the fraction exact.
    Files with the same content stay together. The number of images for validation is the fraction
    of all images, rounded, or less if such files do not allow it.

    Args:
        records: all images.
        names: the names of the two parts, for the log: training, validation.
        folder: the folder of the images. File names below it count.
        fraction: the part for validation, in (0, 1).
        seed: another seed gives another division.

    Returns:
        The images for training and those for validation, each in the order of ``records``. Both
        have the classes of all images.

    Raises:
        UserError: an image is missing, or a part would be empty.
    """
    files = [image["file_name"] for image in records.images]
    keys = [_random_key(os.path.relpath(file, folder), seed) for file in files]
    target = int(fraction * len(files) + 0.5)
    validation: set[int] = set()
    for group in sorted(_identical(files), key=lambda group: min(keys[i] for i in group)):
        if len(validation) + len(group) <= target:
            validation.update(group)
    if not 0 < len(validation) < len(files):
        raise UserError(
            f"{folder}: {len(files)} images with a fraction of {fraction} for validation leave "
            f"{names[not validation]} without an image, as identical files stay together; change "
            "the fraction or add images"
        )
    parts = [
        records._replace(
            images=[image for i, image in enumerate(records.images) if (i in validation) == side]
        )
        for side in (False, True)
    ]
    _log(parts, names, fraction, seed)
    return parts


def _random_key(file_name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/".encode() + os.fsencode(file_name)).digest()


def _identical(files: Sequence[str]) -> list[list[int]]:
    """Group the indices of files with the same content. Few files are read as a whole."""
    groups = [list(range(len(files)))]
    for key in (_size, partial(_digest, num_bytes=2**16), partial(_digest, num_bytes=-1)):
        groups = [part for group in groups for part in _grouped(group, files, key)]
    return groups


def _grouped(
    indices: list[int], files: Sequence[str], key: Callable[[str], Hashable]
) -> Iterable[list[int]]:
    if len(indices) == 1:
        return [indices]
    groups = defaultdict(list)
    for i in indices:
        groups[key(files[i])].append(i)
    return groups.values()


def _size(file: str) -> int:
    check_image_file(file)
    return os.path.getsize(file)


def _digest(file: str, num_bytes: int) -> bytes:
    try:
        with open(file, "rb") as content:
            return hashlib.sha256(content.read(num_bytes)).digest()
    except OSError as error:
        raise unreadable_file(file, error) from error


def _log(parts: Sequence[Records], names: Sequence[str], fraction: float, seed: int) -> None:
    sizes, lacks = [], []
    for name, part in zip(names, parts, strict=True):
        sizes.append(f"{name} has {len(part.images)} images")
        found = {box["category"] for image in part.images for box in image.get("annotations", [])}
        missing = [class_name for class_name in part.class_names if class_name not in found]
        if missing:
            lacks.append(f"; {name} has no box of {', '.join(missing)}")
    message = f"{' and '.join(sizes)} (fraction {fraction}, seed {seed}){''.join(lacks)}"
    logger.log(logging.WARNING if lacks else logging.INFO, message)
