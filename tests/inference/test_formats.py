"""The formats, with names that could harm; tests/cli/test_predict.py reads real boxes back."""

import csv
import json

import pytest

from apdet.data.class_names import normalise
from apdet.data.voc import read_voc
from apdet.inference.formats import (
    Predictions,
    write_coco,
    write_csv,
    write_images,
    write_voc,
    write_yolo,
)
from apdet.inference.sources import SourceImage, number_sources

NAMES = ["../../etc/passwd", 'a<b>&"c', "two\nlines\x1b[31m", "a, b", "\udcff", "中文"]


@pytest.fixture
def predictions(tmp_path):
    """One detection of each class in each of three images; two differ in their suffix alone."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "\x1b[2J.jpg"):
        (folder / name).touch()
    images = number_sources([str(folder / name) for name in ("a.jpg", "a.png", "\x1b[2J.jpg")])
    results = [
        {"image_id": 0, "category_id": k, "bbox": [1.5 * k, 2.25, 3.0, 4.0], "score": 0.5}
        for k in range(len(NAMES))
    ]
    entries = [
        {"index": i, "width": 40, "height": 20, "highest": 0.5, "results": results * (i != 1)}
        for i in range(3)
    ]
    ids = {k: 10 - k for k in range(len(NAMES))}
    return Predictions(images, NAMES, ids, lambda: iter(entries))


def written(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_class_name_is_no_path_and_leaves_no_control_character(predictions, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for write in (write_coco, write_images, write_voc, write_yolo, write_csv):
        write(predictions, str(out))
    assert written(tmp_path) - {f"out/{name}" for name in written(out)} == written(tmp_path) - {
        name for name in written(tmp_path) if name.startswith("out/")
    }
    assert written(out) == {
        *("predictions.json", "images.json", "predictions.csv", "classes.txt"),
        *("voc/a.jpg.xml", "voc/a.png.xml", "voc/\x1b[2J.xml"),
        *("yolo/a.jpg.txt", "yolo/a.png.txt", "yolo/\x1b[2J.txt"),
    }
    for name in written(out):
        assert "\x1b" not in (out / name).read_text(), name
    assert len((out / "classes.txt").read_text().splitlines()) == len(NAMES)


def test_coco_files_have_the_ids_and_the_names_as_they_are(predictions, tmp_path):
    write_coco(predictions, str(tmp_path))
    write_images(predictions, str(tmp_path))
    results = json.loads((tmp_path / "predictions.json").read_text())
    assert [r["image_id"] for r in results] == [1] * 6 + [3] * 6
    assert [r["category_id"] for r in results] == [10, 9, 8, 7, 6, 5] * 2
    content = json.loads((tmp_path / "images.json").read_text())
    assert {c["id"]: c["name"] for c in content["categories"]} == dict(
        zip(range(10, 4, -1), NAMES, strict=True)
    )
    assert [i["id"] for i in content["images"]] == [1, 2, 3]


def test_voc_files_read_back_although_names_are_odd(predictions, tmp_path):
    write_voc(predictions, str(tmp_path))
    records = read_voc(tmp_path / "images", tmp_path / "voc").images
    boxes = [[annotation["bbox"] for annotation in r["annotations"]] for r in records]
    expected = [[1.5 * k, 2.25, 1.5 * k + 3, 6.25] for k in range(6)]
    assert sorted(boxes) == [[], expected, expected]
    names = {annotation["category"] for r in records for annotation in r["annotations"]}
    assert len({normalise(name) for name in names}) == len(NAMES)
    assert {"../../etc/passwd", 'a<b>&"c', "中文"} < names


def test_a_table_has_a_line_for_each_detection(predictions, tmp_path):
    write_csv(predictions, str(tmp_path))
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[3]["class"] == "a, b"
    assert [float(rows[3][key]) for key in ("xmin", "ymin", "xmax", "ymax")] == [
        4.5,
        2.25,
        7.5,
        6.25,
    ]


def test_lists_without_a_detection_or_an_image_are_empty_json_lists(tmp_path):
    nothing = Predictions([SourceImage(1, "/a.jpg", "a.jpg")], NAMES, {0: 0}, lambda: iter([]))
    write_coco(nothing, str(tmp_path))
    write_images(nothing, str(tmp_path))
    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    assert json.loads((tmp_path / "images.json").read_text())["images"] == []
