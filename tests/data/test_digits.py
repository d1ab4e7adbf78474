import json
import subprocess
import sys

import numpy as np
import pytest
from coco_dicts import load_coco
from conftest import CONFIGS

from apdet.data.digits import CLASSES, draw_image, main, split_sources, write_digits
from apdet.data.voc import load_voc, split_ids
from apdet.errors import UserError


def files_in(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_no_scan_and_no_part_of_a_photograph_is_in_both_splits():
    train, test = split_sources().values()
    scans = {scan.tobytes() for scan in train.scans}
    assert not any(scan.tobytes() in scans for scan in test.scans)
    assert len(train.scans) + len(test.scans) == 1797
    for left, right in zip(train.photographs, test.photographs, strict=True):
        assert left.shape[1] + right.shape[1] == 640
    for split in (train, test):
        assert set(split.labels) == set(range(10))


def test_boxes_are_tight_around_what_was_painted():
    source, rng = split_sources()["train"], np.random.default_rng(0)
    grey = source._replace(photographs=[np.full_like(p, 128) for p in source.photographs])
    for _ in range(20):
        image, objects = draw_image(grey, 128, rng)
        painted = np.abs(image.astype(int) - 128).max(axis=2) > 12
        for _, (x0, y0, x1, y1) in objects:
            inside = painted[y0:y1, x0:x1]
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()
        for _, (x0, y0, x1, y1) in objects:  # a stroke fades out over some pixels
            painted[max(y0 - 5, 0) : y1 + 5, max(x0 - 5, 0) : x1 + 5] = False
        assert not painted.any()


def test_the_same_data_set_is_read_from_voc_and_from_coco_files(tmp_path):
    write_digits(tmp_path, 6, 3, size=64)
    for split, count in (("train", 6), ("test", 3)):
        images = tmp_path / "JPEGImages"
        ids = split_ids(tmp_path, split)
        voc = load_voc(images, tmp_path / "Annotations", ids=ids, class_names=CLASSES)
        coco = load_coco(tmp_path / f"coco_{split}.json", images)
        assert len(voc) == len(coco) == count
        for ours, theirs in zip(voc, coco, strict=True):
            assert ours["file_name"] == theirs["file_name"]
            assert (
                (ours["height"], ours["width"]) == (theirs["height"], theirs["width"]) == (64, 64)
            )
            boxes = [
                [(a["category_id"], a["bbox"]) for a in x["annotations"]] for x in (ours, theirs)
            ]
            assert boxes[0] == boxes[1]
            assert boxes[0]


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_digits(tmp_path / folder, 3, 2, size=64, seed=seed)
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")
    image = "JPEGImages/train_00000.jpg"
    assert (tmp_path / "a" / image).read_bytes() != (tmp_path / "c" / image).read_bytes()


def test_what_is_there_is_left_or_refused_but_never_overwritten(tmp_path, capsys):
    write_digits(tmp_path / "a", 2, 1, size=64)
    before = files_in(tmp_path / "a")
    write_digits(tmp_path / "a", 2, 1, size=64)
    assert "there already" in capsys.readouterr().out
    with pytest.raises(UserError, match="other settings: remove it"):
        write_digits(tmp_path / "a", 3, 1, size=64)
    assert files_in(tmp_path / "a") == before
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("")
    with pytest.raises(UserError, match=r"thesis\.txt: name another folder"):
        write_digits(tmp_path / "b", 2, 1, size=64)


def test_a_data_set_that_was_cut_short_is_completed(tmp_path):
    write_digits(tmp_path / "a", 3, 2, size=64)
    write_digits(tmp_path / "b", 3, 2, size=64)
    for name in ("digits.json", "coco_test.json"):
        (tmp_path / "b" / name).unlink()
    write_digits(tmp_path / "b", 3, 2, size=64)
    assert files_in(tmp_path / "a") == files_in(tmp_path / "b")


def test_the_command_line_writes_what_it_was_asked_for(tmp_path, capsys):
    main(["--out", str(tmp_path / "d"), "--train", "2", "--test", "1", "--size", "32"])
    assert "2 training and 1 test images of 32 x 32" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "d" / "coco_train.json").read_text())["images"]) == 2
    with pytest.raises(SystemExit, match="error: images of at least 32 pixels"):
        main(["--out", str(tmp_path / "e"), "--size", "8"])
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"error: .*cannot be written to"):
        main(["--out", str(tmp_path / "file" / "below")])


@pytest.mark.parametrize(
    "command", [["-m", "apdet.data.digits"], [str(CONFIGS.parent / "datasets/prepare_digits.py")]]
)
def test_the_module_and_the_script_write_the_same_files(tmp_path, command):
    arguments = ["--out", str(tmp_path / "d"), "--train", "2", "--test", "1", "--size", "32"]
    subprocess.run([sys.executable, *command, *arguments], check=True)
    write_digits(tmp_path / "expected", 2, 1, size=32)
    assert files_in(tmp_path / "d") == files_in(tmp_path / "expected")
