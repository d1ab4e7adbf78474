"""`digits`: handwritten digits over photographs, a detection data set that is made in seconds.

scikit-learn ships 1,797 scans of handwritten digits, 8 x 8 pixels each, and two photographs. Scans
of several sizes and colours are laid over crops of the photographs, and written both as PASCAL VOC
has it (JPEGImages, Annotations, ImageSets/Main) and as COCO has it (coco_train.json,
coco_test.json). No scan is in both splits, and no part of a photograph.

    python -m apdet.data.digits --out datasets/digits --train 2000 --test 200 --size 128
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split

from apdet.errors import UserError

CLASSES = [str(digit) for digit in range(10)]
MANIFEST = "digits.json"
MAX_DIGITS = 5
SIDES = (0.16, 0.55)  # of a scan, as parts of the image's side
MAX_OVERLAP = 0.1  # of two boxes, as a part of the smaller one
MAX_TRIES = 10  # places that are tried for a digit before it is given up
MIN_CONTRAST = 70  # of a digit's colour against the photograph behind it, in mean grey levels


class Source(NamedTuple):
    """What the images of one split are made from."""

    scans: np.ndarray  # (S, 8, 8) float, 0 to 1
    labels: np.ndarray  # (S,) int
    photographs: list[np.ndarray]  # (H, W, 3) uint8, BGR


def split_sources() -> dict[str, Source]:
    """Four fifths of the scans of each class for training; the photographs are cut in two, too."""
    digits = load_digits()
    parts = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, random_state=0, stratify=digits.target
    )
    photographs = [photograph[..., ::-1] for photograph in load_sample_images().images]
    sources = {}
    for name, part in zip(("train", "test"), parts, strict=True):
        halves = []
        for photograph in photographs:
            cut = round(0.7 * photograph.shape[1])
            halves.append(photograph[:, :cut] if name == "train" else photograph[:, cut:])
        sources[name] = Source(digits.images[part] / 16, digits.target[part], halves)
    return sources


def draw_image(
    source: Source, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """One image (size, size, 3) uint8 BGR, and (class, [x0, y0, x1, y1]) of its digits."""
    image = _background(source.photographs[rng.integers(len(source.photographs))], size, rng)
    objects: list[tuple[int, list[int]]] = []
    for _ in range(rng.integers(1, MAX_DIGITS + 1)):
        index = rng.integers(len(source.scans))
        side = int(rng.uniform(*SIDES) * size)
        scan = cv2.resize(source.scans[index], (side, side), interpolation=cv2.INTER_CUBIC)
        alpha = scan.clip(0, 1)
        rows, columns = np.nonzero(alpha > 0.25)
        extent = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        for x, y in rng.integers(0, size - side + 1, size=(MAX_TRIES, 2)):
            box = [int(v) for v in np.add(extent, (x, y, x, y))]
            if all(_overlap(box, other) <= MAX_OVERLAP for _, other in objects):
                _blend(image[y : y + side, x : x + side], alpha, rng)
                objects.append((int(source.labels[index]), box))
                break
    return image.round().astype(np.uint8), objects


def _background(photograph: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    height, width = photograph.shape[:2]
    side = int(rng.uniform(0.4, 1.0) * min(height, width))
    y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    crop = photograph[y : y + side, x : x + side]
    return cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA).astype(np.float64)


def _blend(patch: np.ndarray, alpha: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a digit of a random colour over ``patch``, in place."""
    colour = rng.uniform(0, 255, size=3)
    behind = patch.mean()
    if abs(colour.mean() - behind) < MIN_CONTRAST:
        colour = (colour + (2 * MIN_CONTRAST if behind < 128 else -2 * MIN_CONTRAST)).clip(0, 255)
    patch += alpha[..., None] * (colour - patch)


def _overlap(a: list[int], b: list[int]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))


def write_digits(
    out: str | Path, num_train: int = 2000, num_test: int = 200, size: int = 128, seed: int = 0
) -> Path:
    """Write the data set to ``out``, or leave it if the same is there already.

    Args:
        out: folder, made if missing.
        num_train: number of training images.
        num_test: number of test images.
        size: side of the images, in pixels, at least 32.
        seed: of all that is random; the same seed writes the same files.

    Returns:
        ``out``.

    Raises:
        UserError: a size that is too small, a folder that cannot be written to or that holds
            something else.
    """
    out = Path(out)
    if size < 32 or min(num_train, num_test) < 1:
        raise UserError(
            f"images of at least 32 pixels and one a split, got {size=}, {num_train=}, {num_test=}"
        )
    settings = {"train": num_train, "test": num_test, "size": size, "seed": seed}
    if _is_there(out, settings):
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
    (out / MANIFEST).write_text(json.dumps(settings))  # last: what is there is whole
    print(f"{out}: {num_train} training and {num_test} test images of {size} x {size} pixels")
    return out


def _is_there(out: Path, settings: dict[str, int]) -> bool:
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
    images, annotations = [], []
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


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m apdet.data.digits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--train", type=int, default=2000, help="training images (2000)")
    parser.add_argument("--test", type=int, default=200, help="test images (200)")
    parser.add_argument("--size", type=int, default=128, help="side of the images, in pixels (128)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (0)")
    args = parser.parse_args(argv)
    try:
        write_digits(args.out, args.train, args.test, args.size, args.seed)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
