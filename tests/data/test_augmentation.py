import detectron2.data.transforms as T  # noqa: N812
import numpy as np
import pytest

from apdet.data.augmentation import (
    RandomExpand,
    evaluation_augmentation,
    ssd_augmentation,
    training_augmentation,
)
from apdet.data.mapper import BoxMapper
from apdet.data.voc import load_voc
from apdet.errors import UserError


def painted(box=(30, 20, 60, 70), size=(100, 120)):
    """A black image with a white rectangle, and its box."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = 255
    return image, np.array([box], dtype=np.float64)


def extent(image):
    """The box of what is white."""
    rows, columns = np.nonzero(image[..., 0] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def augment(augmentations, image, boxes):
    aug_input = T.AugInput(image.copy(), boxes=boxes.copy())
    T.AugmentationList(augmentations)(aug_input)
    return aug_input.image, aug_input.boxes


def geometric(size):
    _, *others = ssd_augmentation("BGR", [0.0, 0.0, 0.0])
    return [*others, T.RandomFlip(), T.Resize(size)]


def test_a_painted_rectangle_stays_in_its_box():
    image, boxes = painted()
    moved = 0
    for seed in range(60):
        np.random.seed(seed)
        result, (box,) = augment(geometric((200, 240)), image, boxes)
        assert result.shape == (200, 240, 3)
        visible = box.clip(0, [240, 200, 240, 200])
        if (visible[2:] - visible[:2]).min() > 4:
            np.testing.assert_allclose(extent(result), visible, atol=4)
            moved += not np.allclose(box, 2 * boxes[0], atol=4)
    assert moved > 20


@pytest.mark.parametrize("seed", range(10))
def test_boxes_of_what_the_detector_sees_lie_in_the_image(cfg, voc, seed):
    cfg.INPUT.SSD_AUGMENTATION, cfg.INPUT.RANDOM_FLIP = True, "horizontal"
    voc.add("a", [("cat", 1, 1, 40, 30), ("cat", 30, 20, 40, 30), ("cat", 1, 1, 3, 3)])
    (image,) = load_voc(voc.images, voc.xml)
    np.random.seed(seed)
    mapped = BoxMapper(cfg, is_train=True)(image)
    assert mapped["image"].shape == (3, 64, 64)
    boxes = mapped["instances"].gt_boxes.tensor
    assert (boxes >= 0).all()
    assert (boxes <= 64).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_images_without_boxes_are_augmented_too():
    image, _ = painted()
    shapes = set()
    for boxes in (np.zeros((0, 4)), None):
        for _ in range(20):
            aug_input = T.AugInput(image.copy(), boxes=boxes)
            T.AugmentationList(ssd_augmentation("BGR", [0.0, 0.0, 0.0]))(aug_input)
            shapes.add(aug_input.image.shape)
            assert boxes is None or aug_input.boxes.shape == (0, 4)
    assert len(shapes) > 10


def test_photometric_distortion_moves_nothing_and_changes_colours():
    image, boxes = painted()
    image[image == 0] = 60
    image[image == 255] = 190
    distortion, *_ = ssd_augmentation("BGR", [0.0, 0.0, 0.0])
    results = [augment([distortion], image, boxes) for _ in range(20)]
    for result, after in results:
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(after, boxes)
    assert len({result.tobytes() for result, _ in results}) > 10


def test_expansion_fills_with_the_mean_and_is_left_out_half_of_the_time():
    image, boxes = painted()
    expanded = 0
    for seed in range(200):
        np.random.seed(seed)
        result, (box,) = augment([RandomExpand(4.0, [10.4, 20.0, 30.0])], image, boxes)
        height, width = result.shape[:2]
        assert 100 <= height <= 400
        assert 120 <= width <= 480
        x, y = (box[:2] - boxes[0, :2]).astype(int)
        np.testing.assert_array_equal(result[y : y + 100, x : x + 120], image)
        outside = np.ones((height, width), dtype=bool)
        outside[y : y + 100, x : x + 120] = False
        assert (result[outside] == [10, 20, 30]).all()
        expanded += outside.any()
    assert 70 < expanded < 130


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # of fvcore
@pytest.mark.parametrize(
    ("flip", "flipped"), [("none", (0, 0)), ("horizontal", (0.5, 0)), ("vertical", (0, 0.5))]
)
def test_the_config_decides_on_size_and_flips(cfg, flip, flipped):
    cfg.INPUT.RANDOM_FLIP = flip
    image, boxes = painted()
    flips = np.zeros(2)
    for seed in range(100):
        np.random.seed(seed)
        result, (box,) = augment(training_augmentation(cfg), image, boxes)
        assert result.shape == (64, 64, 3)
        np.testing.assert_allclose(extent(result), box, atol=1)
        flips += box[:2] > (20, 16)  # (16, 12.8) as it was, (32, 19.2) if flipped
    assert flips / 100 == pytest.approx(flipped, abs=0.15)


def test_detectron2s_random_crop_is_heeded(cfg):
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = "relative", [0.5, 0.5]
    first = training_augmentation(cfg)[0]
    assert first.get_transform(painted()[0]).w == 60


def test_test_images_are_only_resized(cfg):
    cfg.INPUT.SSD_AUGMENTATION = True
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 50, 1000
    result, _ = augment(evaluation_augmentation(cfg), *painted())
    assert result.shape == (50, 60, 3)


def test_a_fixed_size_at_test_takes_the_boxes_along(cfg):
    cfg.INPUT.FIXED_SIZE_TEST = [50, 30]
    result, (box,) = augment(evaluation_augmentation(cfg), *painted())
    assert result.shape == (50, 30, 3)
    np.testing.assert_allclose(box, extent(result), atol=1)


@pytest.mark.parametrize("build", [training_augmentation, evaluation_augmentation])
@pytest.mark.parametrize("size", [[512], [0, 512], ["512", "512"], [1, 2, 3]])
def test_a_fixed_size_is_a_height_and_a_width(build, size):
    with pytest.raises(UserError, match=r"^fixed_size is .*; give \[height, width\]"):
        build(fixed_size=size)


@pytest.mark.parametrize("argument", ["flip", "crop_type"])
def test_an_unknown_choice_is_answered_with_those_there_are(argument):
    with pytest.raises(UserError, match=f"^{argument} is 'diagonal'; choose one of .*tal|relative"):
        training_augmentation(**{argument: "diagonal"})


def test_values_do_what_the_same_values_of_a_config_do(cfg):
    cfg.INPUT.FIXED_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = [48, 40], "vertical"
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [30, 30]
    by_values = training_augmentation(
        fixed_size=[48, 40], flip="vertical", crop_type="absolute", crop_size=[30, 30]
    )
    results = []
    for augmentation in (training_augmentation(cfg), by_values):
        np.random.seed(3)
        results.append(augment(augmentation, *painted()))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
