"""Small data sets in Detectron2's catalogs: fixtures of tests/evaluation and tests/report."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

CLASSES = ["cat", "dog", "cow"]


@pytest.fixture
def register():
    """Registers a data set in Detectron2's catalogs for the length of a test."""
    names = []

    def add(name, dataset_dicts, **metadata):
        DatasetCatalog.register(name, lambda: dataset_dicts)
        MetadataCatalog.get(name).set(**{"thing_classes": CLASSES, **metadata})
        names.append(name)

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def make_image(image_id, boxes=(), classes=(), ignored=None, file_name=""):
    """A dataset dict of a 200 x 160 image."""
    ignored = [0] * len(boxes) if ignored is None else ignored
    annotations = [
        {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": k, "iscrowd": i}
        for box, k, i in zip(boxes, classes, ignored, strict=True)
    ]
    return {
        "file_name": str(file_name),
        "image_id": image_id,
        "height": 160,
        "width": 200,
        "annotations": annotations,
    }


def make_output(boxes=(), scores=(), classes=()):
    """What a model returns for an image."""
    instances = Instances((160, 200))
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.tensor(scores, dtype=torch.float32)
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return {"instances": instances}


@pytest.fixture(name="make_image")
def make_image_fixture():
    return make_image


@pytest.fixture(name="make_output")
def make_output_fixture():
    return make_output


@pytest.fixture
def evaluate():
    """Runs an evaluator over a data set and the outputs for its images."""

    def run(evaluator, dataset_dicts, outputs):
        evaluator.reset()
        for image, output in zip(dataset_dicts, outputs, strict=True):
            evaluator.process([image], [output])
        return evaluator.evaluate()

    return run


@pytest.fixture
def picture(tmp_path):
    """Writes a small JPEG-like picture and returns its path."""

    def write(name, height=128, width=128):
        path = tmp_path / f"{name}.png"
        shade = np.linspace(0, 255, width, dtype=np.uint8)
        Image.fromarray(np.broadcast_to(shade[:, None], (height, width, 3)).copy()).save(path)
        return path

    return write
