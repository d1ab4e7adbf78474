import copy

import pytest

from apdet.data.digest import annotation_digest

BOX = {"bbox": [1.0, 2.0, 30.0, 40.0], "category_id": 1, "iscrowd": 0}
IMAGES = [
    {"file_name": "/data/a.jpg", "height": 50, "width": 60, "annotations": [BOX, BOX]},
    {"file_name": "/data/b.jpg", "height": 50, "width": 60, "annotations": []},
]


def changed(image, change, box=None):
    images = copy.deepcopy(IMAGES)
    (images[image] if box is None else images[image]["annotations"][box]).update(change)
    return images


@pytest.mark.parametrize(
    "images",
    [
        changed(0, {"bbox": [1.0, 2.0, 30.0, 40.000001]}, box=1),
        changed(0, {"category_id": 2}, box=0),
        changed(0, {"iscrowd": 1}, box=0),
        changed(0, {"annotations": [BOX]}),
        changed(1, {"file_name": "/data/c.jpg"}),
        changed(1, {"height": 51}),
        [*changed(0, {"annotations": [BOX]})[:1], {**IMAGES[1], "annotations": [BOX]}],
        IMAGES[::-1],
        IMAGES[:1],
    ],
)
def test_another_data_set_has_another_digest(images):
    assert annotation_digest(images) != annotation_digest(IMAGES)


def test_a_copy_in_another_folder_has_the_same_digest():
    images = changed(0, {"file_name": "/scratch/a.jpg"})
    assert annotation_digest(images) == annotation_digest(copy.deepcopy(IMAGES))


def test_a_data_set_without_images_or_annotations_has_a_digest():
    assert annotation_digest([]) != annotation_digest([{"file_name": "a.jpg"}])
