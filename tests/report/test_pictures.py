import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from apdet.errors import UserError
from apdet.report.pictures import draw_detections, score_text
from apdet.report.selection import MAX_BOXES
from apdet.report.tile import TILE_SIZE

BOX, FAR = [10, 10, 60, 60], [70, 70, 120, 120]


def predictions(path, *entries):
    """Write (image id, category id, XYXY box, score) as the COCO evaluator does."""
    results = [
        {"image_id": i, "category_id": k, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
        for i, k, (x0, y0, x1, y1), score in entries
    ]
    path.write_text(json.dumps(results))
    return path


@pytest.fixture
def pets(register, make_image, picture):
    """Registers images with a cat each, or without; images are 128 x 128."""

    def add(num_images, *, annotated=True, **metadata):
        truth = ([BOX], [0]) if annotated else ((), ())
        file = picture("image")
        images = [make_image(f"{i}", *truth, file_name=file) for i in range(num_images)]
        register("pets", images, annotated=annotated, **metadata)

    return add


def draw(tmp_path, *entries, **options):
    file = predictions(tmp_path / "predictions.json", *entries)
    path = draw_detections("pets", file, tmp_path / "detections.png", **options)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_small_images_are_drawn_large_in_a_grid(pets, tmp_path):
    pets(6)
    height, width = draw(tmp_path, ("0", 0, BOX, 0.3)).shape[:2]
    assert 4 * TILE_SIZE < width < 4.3 * TILE_SIZE
    assert 2 * TILE_SIZE < height < 2.5 * TILE_SIZE


def test_no_more_images_are_drawn_than_asked_for(pets, tmp_path):
    pets(6)
    height, width = draw(tmp_path, ("0", 0, BOX, 0.3), num_images=2).shape[:2]
    assert 2 * TILE_SIZE < width < 2.3 * TILE_SIZE
    assert TILE_SIZE < height < 1.5 * TILE_SIZE


def test_the_same_predictions_give_the_same_picture_and_others_another(pets, tmp_path):
    pets(2)
    first = draw(tmp_path, ("0", 0, BOX, 0.3))
    np.testing.assert_array_equal(draw(tmp_path, ("0", 0, BOX, 0.3)), first)
    moved = draw(tmp_path, ("0", 0, [12, 10, 62, 60], 0.3))
    assert moved.shape == first.shape
    assert not np.array_equal(moved, first)


def test_detections_below_the_best_threshold_are_not_drawn(pets, tmp_path):
    pets(2)
    hits = ("0", 0, BOX, 0.03), ("1", 0, BOX, 0.04)
    best = draw(tmp_path, *hits)
    np.testing.assert_array_equal(draw(tmp_path, *hits, ("0", 1, FAR, 0.02)), best)
    all_drawn = draw(tmp_path, *hits, ("0", 1, FAR, 0.02), score_threshold=0.01)
    assert not np.array_equal(all_drawn, best)


def test_a_threshold_that_is_given_is_kept(pets, tmp_path):
    pets(1)
    kept = draw(tmp_path, ("0", 0, BOX, 0.8), score_threshold=0.5)
    both = draw(tmp_path, ("0", 0, BOX, 0.8), ("0", 1, FAR, 0.4), score_threshold=0.5)
    np.testing.assert_array_equal(both, kept)


def test_the_threshold_is_chosen_on_the_validation_set(pets, register, make_image, tmp_path):
    pets(2)
    register("val", [make_image("v", [BOX], [0])])
    validation = ("val", predictions(tmp_path / "val.json", (1, 0, BOX, 0.5), (1, 0, FAR, 0.4)))
    hits = (1, 0, BOX, 0.3), (2, 0, BOX, 0.6)
    shown = draw(tmp_path, *hits, validation=validation)
    given = draw(tmp_path, *hits, score_threshold=0.5)
    title = shown.shape[0] // 10  # which differs: it says where the threshold is from
    np.testing.assert_array_equal(shown[title:], given[title:])
    assert not np.array_equal(shown[title:], draw(tmp_path, *hits)[title:])  # shows both


def test_without_annotations_the_best_five_of_each_image_are_drawn(pets, tmp_path):
    pets(1, annotated=False)
    boxes = [("0", 0, [10 * i, 10, 10 * i + 50, 60], 0.09 - i / 100) for i in range(6)]
    five = draw(tmp_path, *boxes[:5])
    np.testing.assert_array_equal(draw(tmp_path, *boxes), five)
    assert not np.array_equal(draw(tmp_path, *boxes[:4]), five)


def test_category_ids_of_the_file_are_taken_to_classes(pets, tmp_path):
    mapping = {18: 0, 5: 1, 7: 2}
    pets(1, thing_dataset_id_to_contiguous_id=mapping)
    assert draw(tmp_path, ("0", 18, BOX, 0.3)).size
    with pytest.raises(UserError, match="not predictions in COCO's format on pets"):
        draw(tmp_path, ("0", 0, BOX, 0.3))


def test_an_image_without_detections_and_names_with_dollars_are_drawn(pets, tmp_path):
    pets(2, thing_classes=["$x^$", "$", "c"])
    assert draw(tmp_path, ("1", 0, BOX, 0.3), ("1", 1, FAR, 0.2)).size
    assert draw(tmp_path).size


def test_predictions_on_another_data_set_are_refused(pets, tmp_path):
    pets(1)
    with pytest.raises(UserError, match="image 'other', which is not in pets"):
        draw(tmp_path, ("other", 0, BOX, 0.3))


def test_without_predictions_no_picture_is_written(pets, tmp_path, caplog):
    pets(1)
    assert draw_detections("pets", tmp_path / "none.json", tmp_path / "detections.png") is None
    assert not (tmp_path / "detections.png").exists()
    assert "none.json: no predictions" in caplog.text


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.35, "0.35"),
        (0.0123, "0.012"),
        (0.97, "0.970"),
        (0.99987, "0.99987"),
        (1 - 2.3e-7, "0.99999977"),
        (1.0, "1"),
        (0.0, "0"),
    ],
)
def test_a_score_is_told_from_0_and_1(score, text):
    assert score_text(score) == text
    assert (float(text) in (0, 1)) == (score in (0, 1))


def test_images_of_16_bits_are_drawn_by_their_depth(pets, tmp_path):
    pets(1)
    expected = draw(tmp_path, ("0", 0, BOX, 0.3))
    (image,) = DatasetCatalog.get("pets")
    shades = np.asarray(Image.open(image["file_name"]).convert("L"))
    deep = np.rint(shades * (4095 / 255)).astype(np.uint16)
    Image.fromarray(deep).save(image["file_name"])
    image["bits"] = 12
    np.testing.assert_array_equal(draw(tmp_path, ("0", 0, BOX, 0.3)), expected)


def crowd(num, seed=0):
    """Boxes of one size, 1 x 1, in an image of 128 x 128."""
    corners = np.random.default_rng(seed).uniform(0, 127, (num, 2))
    return np.hstack([corners, corners + 1]).tolist()


def test_of_very_many_detections_the_best_are_drawn_and_the_title_says_it(pets, tmp_path):
    pets(1)
    best = [("0", 0, box, 1 - i / 1000) for i, box in enumerate(crowd(MAX_BOXES))]
    others = [("0", 1, box, 0.5) for box in crowd(2000, seed=1)]
    drawn = draw(tmp_path, *others, *best, score_threshold=0.1)
    expected = draw(tmp_path, *best, score_threshold=0.1)
    np.testing.assert_array_equal(drawn[-TILE_SIZE:], expected[-TILE_SIZE:])
    assert len(drawn) > len(expected)  # the title has another line


def test_of_very_many_objects_the_largest_are_drawn(pets, tmp_path):
    pets(1)
    (image,) = DatasetCatalog.get("pets")
    (large,) = image["annotations"]
    tiny = [{**large, "bbox": box} for box in crowd(2000)]
    larger = [{**large, "bbox": [x0, y0, x1 + 1, y1]} for x0, y0, x1, y1 in crowd(MAX_BOXES, 1)]
    image["annotations"] = tiny + larger
    drawn = draw(tmp_path, score_threshold=0.1)
    image["annotations"] = larger
    expected = draw(tmp_path, score_threshold=0.1)
    np.testing.assert_array_equal(drawn[-TILE_SIZE:], expected[-TILE_SIZE:])
