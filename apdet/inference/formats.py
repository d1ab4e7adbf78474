"""Writes predictions in the formats of COCO, VOC and YOLO, and as a table (CSV)."""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from apdet.files import whole_file
from apdet.inference.progress import Entry
from apdet.inference.sources import SourceImage
from apdet.text import one_line


@dataclass(frozen=True)
class Predictions:
    """What is written.

    Attributes:
        images: all images.
        class_names: the classes of the model.
        category_ids: {class: its id in files in COCO's format}.
        entries: makes an iterator over the entries of the images that could be read.
    """

    images: Sequence[SourceImage]
    class_names: Sequence[str]
    category_ids: Mapping[int, int]
    entries: Callable[[], Iterator[Entry]]

    def __iter__(self) -> Iterator[tuple[SourceImage, Entry]]:
        for entry in self.entries():
            yield self.images[entry["index"]], entry

    def name_of(self, result: Mapping) -> str:
        """The class of a result. Characters that are not printable are escaped."""
        return one_line(self.class_names[result["category_id"]])


def write_coco(predictions: Predictions, folder: str) -> list[str]:
    """Write ``predictions.json`` in COCO's format for results."""
    results = (
        {
            **result,
            "image_id": image.image_id,
            "category_id": predictions.category_ids[result["category_id"]],
        }
        for image, entry in predictions
        for result in entry["results"]
    )
    path = os.path.join(folder, "predictions.json")
    with whole_file(path) as file:
        for part in _json_list(results):
            file.write(part)
    return [path]


def write_images(predictions: Predictions, folder: str) -> list[str]:
    """Write ``images.json``, which maps the ids of images and classes in COCO's format."""
    images = (
        {
            "id": image.image_id,
            "file_name": image.path,
            "width": entry["width"],
            "height": entry["height"],
        }
        for image, entry in predictions
    )
    categories = (
        {"id": category_id, "name": predictions.class_names[k]}
        for k, category_id in sorted(predictions.category_ids.items())
    )
    path = os.path.join(folder, "images.json")
    with whole_file(path) as file:
        for name, content, end in (("images", images, b","), ("categories", categories, b"}\n")):
            file.write(b"{" * (name == "images") + f'"{name}": '.encode())
            for part in _json_list(content):
                file.write(part)
            file.write(end)
    return [path]


def _json_list(values: Iterable[Mapping]) -> Iterator[bytes]:
    """A JSON list, with one value a line."""
    before = "["
    for value in values:
        yield f"{before}\n{json.dumps(value)}".encode()
        before = ","
    yield b"[]\n" if before == "[" else b"\n]\n"


def write_voc(predictions: Predictions, folder: str) -> list[str]:
    """Write ``voc/<image>.xml`` in VOC's format, which counts pixels from 1."""
    names = _names(predictions.images, ".xml")
    for image, entry in predictions:
        root = Element("annotation")
        SubElement(root, "filename").text = one_line(os.path.basename(image.path))
        size = SubElement(root, "size")
        for key, value in (("width", entry["width"]), ("height", entry["height"]), ("depth", 3)):
            SubElement(size, key).text = str(value)
        for result in entry["results"]:
            _add_object(root, predictions.name_of(result), result)
        ElementTree.indent(root)
        _write(os.path.join(folder, "voc", names[image]), ElementTree.tostring(root) + b"\n")
    return [os.path.join(folder, "voc")]


def _add_object(root: Element, name: str, result: Mapping) -> None:
    x, y, width, height = result["bbox"]
    element = SubElement(root, "object")
    SubElement(element, "name").text = name
    SubElement(element, "score").text = repr(result["score"])
    SubElement(element, "difficult").text = "0"
    box = SubElement(element, "bndbox")
    corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
    for key, value in corners.items():
        SubElement(box, key).text = repr(value)


def write_yolo(predictions: Predictions, folder: str) -> list[str]:
    """Write ``yolo/<image>.txt``, and ``classes.txt`` with the name of each class.

    A line is: number of the class, centre x and y, width, height, score. Lengths are parts of the
    width and height of the image.
    """
    names = _names(predictions.images, ".txt")
    for image, entry in predictions:
        lines = []
        for result in entry["results"]:
            x, y, width, height = result["bbox"]
            numbers = (
                (x + width / 2) / entry["width"],
                (y + height / 2) / entry["height"],
                width / entry["width"],
                height / entry["height"],
                result["score"],
            )
            lines.append(f"{result['category_id']} {' '.join(map(repr, numbers))}\n")
        _write(os.path.join(folder, "yolo", names[image]), "".join(lines).encode())
    classes = os.path.join(folder, "classes.txt")
    _write(classes, "".join(f"{one_line(name)}\n" for name in predictions.class_names).encode())
    return [os.path.join(folder, "yolo"), classes]


def write_csv(predictions: Predictions, folder: str) -> list[str]:
    """Write ``predictions.csv``, with one line a detection and corners in pixels."""
    path = os.path.join(folder, "predictions.csv")
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["file", "class", "score", "xmin", "ymin", "xmax", "ymax"])
        for image, entry in predictions:
            for result in entry["results"]:
                x, y, width, height = result["bbox"]
                corners = (x, y, x + width, y + height)
                name = predictions.name_of(result)
                table.writerow([one_line(image.path), name, result["score"], *corners])
        text.detach()
    return [path]


# {name on the command line: function}
FORMATS: dict[str, Callable[[Predictions, str], list[str]]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
    "csv": write_csv,
}


def _names(images: Sequence[SourceImage], suffix: str) -> dict[SourceImage, str]:
    """The name of the file of each image: with the suffix in place of the image's own.

    If images differ in nothing but their suffix, it stays before the new one.
    """
    stems = {image: os.path.splitext(image.name)[0] for image in images}
    count = Counter(stems.values())
    return {
        image: (stem if count[stem] == 1 else image.name) + suffix for image, stem in stems.items()
    }


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with whole_file(path) as file:
        file.write(content)
