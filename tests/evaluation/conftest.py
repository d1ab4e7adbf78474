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
def _make_image():
    return make_image


@pytest.fixture(name="make_output")
def _make_output():
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
def random_case():
    """Random images of integer boxes, some to ignore, and detections near and far from them.

    No two scores are equal; scores have 3 decimals and coordinates 1, all exact in float64.
    """

    def draw(seed, num_images=12, string_ids=True):
        rng = np.random.default_rng(seed)
        scores = iter(rng.permutation(np.arange(1, 1000)) / 1000)
        images, detections = [], {}
        for number in range(num_images):
            image_id = f"{number:06d}" if string_ids else number + 1
            num_objects = rng.integers(0, 6)
            low = rng.integers(0, [140, 100], (num_objects, 2))
            boxes = np.hstack([low, low + rng.integers(8, 60, (num_objects, 2))]).astype(float)
            classes = rng.integers(0, len(CLASSES), num_objects)
            ignored = (rng.random(num_objects) < 0.25).astype(int)
            images.append(make_image(image_id, boxes.tolist(), classes.tolist(), ignored.tolist()))

            copies = np.repeat(np.arange(num_objects), rng.integers(0, 4, num_objects))
            near = boxes[copies] + rng.normal(0, 4, (len(copies), 4))
            corner = rng.uniform(0, 100, (3, 2))
            far = np.hstack([corner, corner + rng.uniform(5, 60, (3, 2))])
            found = np.round(np.vstack([near, far]), 1)
            found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
            swapped = rng.random(len(copies)) < 0.2
            labels = np.where(swapped, (classes[copies] + 1) % len(CLASSES), classes[copies])
            labels = np.concatenate([labels, rng.integers(0, len(CLASSES), 3)]).astype(np.int64)
            detections[image_id] = (found, np.array([next(scores) for _ in found]), labels)
        return images, detections

    return draw


@pytest.fixture
def picture(tmp_path):
    """Writes a small JPEG-like picture and returns its path."""

    def write(name, height=128, width=128):
        path = tmp_path / f"{name}.png"
        shade = np.linspace(0, 255, width, dtype=np.uint8)
        Image.fromarray(np.broadcast_to(shade[:, None], (height, width, 3)).copy()).save(path)
        return path

    return write
