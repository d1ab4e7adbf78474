import numpy as np
import pytest
from small_datasets import (  # noqa: F401  fixtures
    CLASSES,
    evaluate,
    make_image,
    make_image_fixture,
    make_output_fixture,
    register,
)


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
