import random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from PIL import Image

from apdet.data.mapper import BoxMapper, build_mapper
from apdet.data.voc import load_voc
from apdet.errors import UserError


@pytest.fixture
def image(voc):
    """The dataset dict of an image with two boxes, one of them difficult."""
    voc.add("a", [("cat", 5, 6, 30, 25), ("dog", 1, 1, 20, 20, 1)])
    noise = np.random.randint(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(voc.images / "a.jpg")
    (image,) = load_voc(voc.images, voc.xml)
    return image


@pytest.mark.parametrize("is_train", [True, False])
def test_it_gives_what_detectron2s_mapper_gives(cfg, image, is_train):
    cfg.INPUT.FIXED_SIZE_TRAIN = []
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    ours = BoxMapper(cfg, is_train)(image)
    theirs = DatasetMapper(cfg, is_train)(image)
    assert ours.keys() == theirs.keys()
    assert "annotations" not in ours
    torch.testing.assert_close(ours["image"], theirs["image"], rtol=0, atol=0)
    if is_train:
        ours, theirs = ours["instances"], theirs["instances"]
        assert ours.gt_classes.tolist() == theirs.gt_classes.tolist() == [0]  # no difficult box
        torch.testing.assert_close(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)


@pytest.mark.parametrize("ssd", [True, False])
def test_an_image_without_boxes_has_empty_instances(cfg, image, ssd):
    cfg.INPUT.SSD_AUGMENTATION = ssd
    image["annotations"] = []
    for _ in range(20):
        instances = BoxMapper(cfg, is_train=True)(image)["instances"]
        assert len(instances) == 0
        assert instances.gt_boxes.tensor.shape == (0, 4)


def test_crowds_and_difficult_boxes_do_not_decide_on_the_crops(cfg, image):
    cfg.INPUT.SSD_AUGMENTATION = True
    mapper = BoxMapper(cfg, is_train=True)
    crowd = {"bbox": [0, 0, 1, 1], "bbox_mode": 0, "category_id": 0, "iscrowd": 1}
    for seed in range(20):
        results = []
        for annotations in (image["annotations"], [*image["annotations"], crowd]):
            np.random.seed(seed)
            random.seed(seed)
            results.append(mapper({**image, "annotations": annotations}))
        torch.testing.assert_close(results[0]["image"], results[1]["image"], rtol=0, atol=0)
        assert len(results[1]["instances"]) <= 1


def test_the_dataset_dict_is_left_as_it_was(cfg, image):
    before = repr(image)
    BoxMapper(cfg, is_train=True)(image)
    assert repr(image) == before


@pytest.mark.parametrize("harm", ["cut short", "no image", "gone", "resized"])
@pytest.mark.parametrize("is_train", [True, False])
def test_an_image_that_cannot_be_read_is_named(cfg, image, voc, harm, is_train):
    path = voc.images / "a.jpg"
    if harm == "cut short":
        path.write_bytes(path.read_bytes()[:600])
    elif harm == "no image":
        path.write_text("not an image at all")
    elif harm == "gone":
        path.unlink()
    else:
        Image.new("RGB", (50, 50)).save(path)
    with pytest.raises(UserError, match=r"a\.jpg: not a readable image .*replace it or remove it"):
        BoxMapper(cfg, is_train)(image)


def test_a_crop_drops_the_boxes_whose_centre_it_cuts_off(cfg, image):
    cfg.INPUT.SSD_AUGMENTATION = True
    image["annotations"] = [
        {"bbox": [x, y, x + 4, y + 4], "bbox_mode": 0, "category_id": 0, "iscrowd": 0}
        for x in range(0, 36, 6)
        for y in range(0, 26, 6)
    ]
    mapper = BoxMapper(cfg, is_train=True)
    counts = set()
    for _ in range(40):
        boxes = mapper(image)["instances"].gt_boxes.tensor
        counts.add(len(boxes))
        # Boxes are squares; what is cut off beyond the centre would leave less than half of one.
        width, height = (boxes[:, 2] - boxes[:, 0]), (boxes[:, 3] - boxes[:, 1])
        assert (width >= 0.5 * width.max() - 1e-3).all()
        assert (height >= 0.5 * height.max() - 1e-3).all()
    assert len(counts) > 1


@pytest.mark.parametrize("fixed", [[], [20, 20]])
def test_test_images_keep_their_size_if_asked_for(cfg, image, fixed):
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.FIXED_SIZE_TEST = 20, fixed
    assert BoxMapper(cfg, is_train=False)(image)["image"].shape[1] == 20
    pixels = BoxMapper(cfg, is_train=False, resize=False)(image)["image"]
    expected = np.asarray(Image.open(image["file_name"]))[..., ::-1]
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_the_old_name_still_builds_the_mapper(cfg):
    with pytest.warns(DeprecationWarning, match="call BoxMapper"):
        assert isinstance(build_mapper(cfg, True), BoxMapper)
