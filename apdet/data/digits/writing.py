"""Writes the `digits` data set in PASCAL VOC's layout and in COCO's format."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from apdet.data.digits.drawing import Source, draw_image, split_sources
from apdet.errors import UserError

CLASSES = [str(digit) for digit in range(10)]
MANIFEST = "digits.json"


def write_digits(
    out: str | Path, num_train: int = 2000, num_test: int = 200, size: int = 128, seed: int = 0
) -> Path:
    """Write the data set to ``out``, unless ``out`` holds the same data set already.

    Args:
        out: the folder, which is made if it does not exist.
        num_train: number of training images.
        num_test: number of test images.
        size: side of the images, in pixels, at least 32.
        seed: seed of all random numbers; the same seed gives the same files.

    Returns:
        ``out``.

    Raises:
        UserError: ``size`` is too small, or ``out`` cannot be written to or holds other files.
    """
    out = Path(out)
    if size < 32 or min(num_train, num_test) < 1:
        raise UserError(
            f"images of at least 32 pixels and one a split, got {size=}, {num_train=}, {num_test=}"
        )
    settings = {"train": num_train, "test": num_test, "size": size, "seed": seed}
    if _is_complete(out, settings):
        print(f"{out}: the data set is there already")
        return out
    try:
        for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written to: {error}; name another folder") from error
    sources = split_sources()
    for number, split in enumerate(("train", "test")):
        rng = np.random.default_rng([seed, number])
        _write_split(out, split, settings[split], sources[split], size, rng)
    (out / MANIFEST).write_text(json.dumps(settings))  # last, so that it marks a complete data set
    print(f"{out}: {num_train} training and {num_test} test images of {size} x {size} pixels")
    return out


def _is_complete(out: Path, settings: dict[str, int]) -> bool:
    manifest = out / MANIFEST
    if manifest.is_file():
        if json.loads(manifest.read_text()) == settings:
            return True
        raise UserError(f"{out} holds digits of other settings: remove it, or name another folder")
    ours = {"JPEGImages", "Annotations", "ImageSets", "coco_train.json", "coco_test.json"}
    if out.is_dir() and (foreign := {path.name for path in out.iterdir()} - ours):
        raise UserError(f"{out} holds other files, such as {min(foreign)}: name another folder")
    return False


def _write_split(
    out: Path, split: str, count: int, source: Source, size: int, rng: np.random.Generator
) -> None:
    names = [f"{split}_{i:05d}" for i in range(count)]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, name in enumerate(names, 1):
        image, objects = draw_image(source, size, rng)
        cv2.imwrite(str(out / "JPEGImages" / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        _write_xml(out / "Annotations" / f"{name}.xml", name, size, objects)
        images.append({"id": i, "file_name": f"{name}.jpg", "height": size, "width": size})
        for digit, (x0, y0, x1, y1) in objects:
            width, height = x1 - x0, y1 - y0
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": digit + 1,
                    "bbox": [x0, y0, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                }
            )
    (out / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join([*names, ""]))
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (out / f"coco_{split}.json").write_text(json.dumps(content))


def _write_xml(path: Path, name: str, size: int, objects: list[tuple[int, list[int]]]) -> None:
    def add(parent: ElementTree.Element, tag: str, text: Any = None) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, tag)
        element.text = None if text is None else str(text)
        return element

    root = ElementTree.Element("annotation")
    add(root, "filename", f"{name}.jpg")
    measures = add(root, "size")
    for tag, value in (("width", size), ("height", size), ("depth", 3)):
        add(measures, tag, value)
    for digit, (x0, y0, x1, y1) in objects:
        element = add(root, "object")
        add(element, "name", CLASSES[digit])
        add(element, "difficult", 0)
        box = add(element, "bndbox")
        # VOC counts pixels from 1 and includes the last one.
        for tag, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
            add(box, tag, value)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path)
