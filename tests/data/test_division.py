import logging
import os
import random
import shutil

import numpy as np
import pytest

from apdet.data.division import divide
from apdet.data.records import Records
from apdet.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A folder of images; their contents do not matter here, but differ."""
    for i in range(60):
        (tmp_path / f"{i}.jpg").write_text(f"image {i:02}")
    return tmp_path


def records_of(folder):
    """The images of the folder in random order, each with a box of class a, and c0 to c4 in few."""
    files = [str(path) for path in folder.rglob("*.jpg")]
    random.shuffle(files)
    images = [{"file_name": file, "annotations": [{"category": "a"}]} for file in files]
    return Records(images, ["a"], None)


def divided(folder, fraction=0.25, seed=0):
    """The file names below the folder in the two parts."""
    parts = divide(
        records_of(folder), ("train", "val"), folder=str(folder), fraction=fraction, seed=seed
    )
    return [{os.path.relpath(i["file_name"], folder) for i in part.images} for part in parts]


@pytest.mark.parametrize("fraction", [0.02, 0.2, 0.25, 1 / 3, 0.9])
def test_the_parts_are_disjoint_and_complete_and_have_the_fraction(folder, fraction):
    train, val = divided(folder, fraction)
    assert not train & val
    assert len(train | val) == 60
    assert len(val) == round(60 * fraction)


def test_neither_the_order_of_files_nor_their_place_matters(folder, tmp_path_factory):
    copy = tmp_path_factory.mktemp("other") / "place"
    shutil.copytree(folder, copy)
    assert divided(folder) == divided(folder) == divided(copy)


def test_parts_keep_the_order_of_the_images(folder):
    records = records_of(folder)
    order = [image["file_name"] for image in records.images]
    for part in divide(records, ("train", "val"), folder=str(folder), fraction=0.5):
        positions = [order.index(image["file_name"]) for image in part.images]
        assert positions == sorted(positions)


def test_another_seed_gives_another_division(folder):
    parts = [frozenset(divided(folder, seed=seed)[1]) for seed in range(5)]
    assert len(set(parts)) == 5


def test_the_division_is_random_over_the_folder(folder):
    ranks = [int(name[:-4]) for seed in range(40) for name in divided(folder, seed=seed)[1]]
    assert np.mean(ranks) == pytest.approx(29.5, abs=3)


def test_files_of_the_same_content_are_on_one_side(folder):
    for i in range(0, 60, 3):
        (folder / "copies").mkdir(exist_ok=True)
        shutil.copy(folder / f"{i}.jpg", folder / "copies" / f"copy of {i}.jpg")
    for seed in range(10):
        train, val = divided(folder, seed=seed)
        assert len(val) in (19, 20)
        for i in range(0, 60, 3):
            assert (f"{i}.jpg" in val) == (os.path.join("copies", f"copy of {i}.jpg") in val)
        assert len(train) + len(val) == 80


def test_files_that_differ_at_their_ends_alone_are_not_the_same(folder):
    for i in range(60):
        (folder / f"{i}.jpg").write_bytes(bytes(70_000) + b"%02d" % i)
    assert len(divided(folder)[1]) == 15


def test_added_images_move_few_of_the_others(folder):
    _, before = divided(folder)
    for i in range(60, 80):
        (folder / f"{i}.jpg").write_text(f"image {i:02}")
    _, after = divided(folder)
    moved = before ^ {name for name in after if int(name[:-4]) < 60}
    assert len(after) == 20
    assert len(moved) <= 5  # of 60; a new draw would move about 22


@pytest.mark.parametrize(
    ("fraction", "part"), [(0.001, "leave val without"), (0.999, "leave train without")]
)
def test_a_part_without_images_is_an_error(folder, fraction, part):
    with pytest.raises(UserError, match=f"60 images with a fraction of {fraction} .* {part}"):
        divided(folder, fraction)


def test_images_that_are_all_the_same_cannot_be_divided(folder):
    for path in folder.iterdir():
        path.write_text("the same")
    with pytest.raises(UserError, match="leave val without an image"):
        divided(folder)


def test_a_missing_image_is_named(folder):
    records = records_of(folder)
    (folder / "7.jpg").unlink()
    with pytest.raises(UserError, match=r"7\.jpg: no such image"):
        divide(records, ("train", "val"), folder=str(folder), fraction=0.5)


def test_one_line_tells_the_sizes_and_the_classes_that_a_part_lacks(folder, caplog, monkeypatch):
    logger = logging.getLogger("apdet.data.division")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    caplog.set_level(logging.INFO, logger.name)
    divided(folder)
    records = records_of(folder)
    _, val = divided(folder)
    for image in records.images:
        rare = "only val" if os.path.basename(image["file_name"]) in val else "only train"
        image["annotations"].append({"category": rare})
    records = records._replace(class_names=["a", "only train", "only val", "nowhere"])
    caplog.clear()
    parts = divide(records, ("x_train", "x_val"), folder=str(folder), fraction=0.25)
    assert [record.getMessage() for record in caplog.records] == [
        "x_train has 45 images and x_val has 15 images (fraction 0.25, seed 0); "
        "x_train has no box of only val, nowhere; x_val has no box of only train, nowhere"
    ]
    assert [part.class_names for part in parts] == [records.class_names] * 2


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    records = Records([{"file_name": str(tmp_path / "a.png")}] * 2, [], None)
    with pytest.raises(UserError, match=r"a\.png: a named pipe, not a regular file"):
        divide(records, ["train", "val"], folder=str(tmp_path), fraction=0.5)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for file in files:
        file.write_bytes(b"same")

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    records = Records([{"file_name": str(file)} for file in files], [], None)
    with pytest.raises(UserError, match=r"[ab]\.png: cannot be read .*make it readable"):
        divide(records, ["train", "val"], folder=str(tmp_path), fraction=0.5)
