"""Four small pictures of bright rectangles, in the layouts of COCO and of PASCAL VOC."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SIZE = 64
COLOURS = {"cat": (230, 40, 40), "dog": (40, 80, 240), "cow": (60, 220, 60)}
CLASSES = list(COLOURS)

# The objects of each picture: (class, x0, y0, x1, y1), in pixels from 0 on, x1 and y1 excluded.
_OBJECTS = (
    (("cat", 6, 8, 30, 34), ("dog", 36, 30, 60, 58)),
    (("dog", 4, 6, 32, 28), ("cow", 34, 36, 60, 60)),
    (("cow", 8, 30, 32, 58), ("cat", 36, 6, 60, 30)),
    (("cat", 30, 28, 58, 56), ("dog", 5, 5, 27, 29)),
)

_XML = """<annotation>
<filename>{stem}.png</filename>
<size><width>{size}</width><height>{size}</height><depth>3</depth></size>
{objects}</annotation>
"""
_XML_OBJECT = """<object><name>{name}</name><difficult>0</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>
"""


class Picture(NamedTuple):
    """A picture and its objects.

    Attributes:
        stem: the name of the file without its suffix.
        pixels: (64, 64, 3) uint8, RGB.
        objects: (class, x0, y0, x1, y1) of each object.
    """

    stem: str
    pixels: np.ndarray
    objects: tuple[tuple[Any, ...], ...]


def draw_pictures() -> list[Picture]:
    """Draw the pictures: coloured rectangles on a dark background of noise."""
    rng = np.random.default_rng(0)
    pictures = []
    for number, objects in enumerate(_OBJECTS):
        pixels = rng.integers(60, 90, (SIZE, SIZE, 3)).astype(np.uint8)
        for name, x0, y0, x1, y1 in objects:
            pixels[y0:y1, x0:x1] = COLOURS[name]
        pictures.append(Picture(f"im{number}", pixels, objects))
    return pictures


def write_coco(folder: Path) -> None:
    """Write ``images/*.png`` and ``data.json``. Ids count from 1."""
    content: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
    }
    (folder / "images").mkdir()
    for image_id, picture in enumerate(draw_pictures(), 1):
        file_name = f"{picture.stem}.png"
        Image.fromarray(picture.pixels).save(folder / "images" / file_name)
        content["images"].append(
            {"id": image_id, "file_name": file_name, "width": SIZE, "height": SIZE}
        )
        for name, x0, y0, x1, y1 in picture.objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": CLASSES.index(name) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    (folder / "data.json").write_text(json.dumps(content))


def write_voc(folder: Path) -> None:
    """Write ``JPEGImages/*.png``, ``Annotations/*.xml`` and the split ``all`` of all pictures."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    pictures = draw_pictures()
    for picture in pictures:
        Image.fromarray(picture.pixels).save(folder / "JPEGImages" / f"{picture.stem}.png")
        # VOC counts pixels from 1 on and includes the last one.
        objects = "".join(
            _XML_OBJECT.format(x0 + 1, y0 + 1, x1, y1, name=name)
            for name, x0, y0, x1, y1 in picture.objects
        )
        xml = _XML.format(stem=picture.stem, size=SIZE, objects=objects)
        (folder / "Annotations" / f"{picture.stem}.xml").write_text(xml)
    write_split(folder, [picture.stem for picture in pictures])


def write_split(folder: Path, lines: list[str]) -> None:
    """Write the split file ``all``."""
    text = "".join(f"{line}\n" for line in lines)
    (folder / "ImageSets" / "Main" / "all.txt").write_text(text)
