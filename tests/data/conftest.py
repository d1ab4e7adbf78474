import json
import logging
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from apdet.data import register

OBJECT = """<object>
<name>{name}</name><pose>Left</pose><truncated>0</truncated>{difficult}
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox>
</object>"""


class VocFolder:
    """Writes a data set in PASCAL VOC's layout."""

    def __init__(self, root: Path):
        self.root = root
        self.images, self.xml = root / "JPEGImages", root / "Annotations"
        self.splits = root / "ImageSets" / "Main"
        for folder in (self.images, self.xml, self.splits):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, image_id, objects=(), *, size=(40, 30), stated=None, suffix=".jpg"):
        """``objects``: (name, xmin, ymin, xmax, ymax[, difficult]); sizes are (width, height)."""
        Image.new("RGB", size, (90, 120, 150)).save(self.images / f"{image_id}{suffix}")
        self.annotate(image_id, objects, stated or size)
        return self

    def annotate(self, image_id, objects=(), size=(40, 30), filename=None):
        parts = [
            OBJECT.format(
                *box,
                name=name,
                difficult="".join(f"<difficult>{d}</difficult>" for d in difficult),
            )
            for name, *box in objects
            for box, difficult in [(box[:4], box[4:])]
        ]
        (self.xml / f"{image_id}.xml").write_text(
            f"<annotation><folder>VOC</folder><filename>{filename or image_id + '.jpg'}</filename>"
            f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
            f"{''.join(parts)}</annotation>"
        )

    def split(self, name, *lines):
        (self.splits / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        return self


class CocoFolder:
    """Writes images and a JSON file in COCO's format."""

    def __init__(self, root: Path, categories=((1, "cat"), (2, "dog"))):
        self.images, self.json = root / "images", root / "instances.json"
        self.images.mkdir(parents=True, exist_ok=True)
        self.content = {
            "info": {},
            "images": [],
            "annotations": [],
            "categories": [{"id": i, "name": name} for i, name in categories],
        }

    def add(self, image_id, boxes=(), *, size=(40, 30), stated=None):
        """``boxes``: (category id, x, y, width, height[, iscrowd])."""
        width, height = stated or size
        name = f"{image_id}.png"
        Image.new("RGB", size, (90, 120, 150)).save(self.images / name)
        image = {"id": image_id, "file_name": name, "width": width, "height": height}
        self.content["images"].append(image)
        for category, x, y, w, h, *crowd in boxes:
            self.content["annotations"].append(
                {
                    "id": len(self.content["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": crowd[0] if crowd else 0,
                }
            )
        return self

    def write(self):
        self.json.write_text(json.dumps(self.content))
        return self


@pytest.fixture
def voc(tmp_path):
    """An empty folder of VOC's layout; `VocFolder` for a second one is ``type(voc)``."""
    return VocFolder(tmp_path / "voc")


@pytest.fixture
def coco(tmp_path):
    """An empty COCO data set; `CocoFolder` for a second one is ``type(coco)``."""
    return CocoFolder(tmp_path / "coco")


@pytest.fixture
def flaws(caplog, monkeypatch):
    """A function that gives the warnings about flawed annotations so far."""
    logger = logging.getLogger("apdet.data.flaws")
    # Detectron2's setup_logger, which other tests call, keeps records from the root's handlers.
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    caplog.set_level(logging.WARNING, logger.name)
    return lambda: [r.getMessage() for r in caplog.records if r.name == logger.name]


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(register, "_ours", set(register._ours))
    saved = [(catalog, dict(catalog)) for catalog in (DatasetCatalog, MetadataCatalog)]
    yield
    for catalog, content in saved:
        catalog.clear()
        catalog.update(content)


@pytest.fixture(autouse=True)
def seeded_numpy():
    np.random.seed(0)
