"""`apdet predict` from end to end, with a small detector of digits."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import CONFIGS, SMALL, exit_message
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apdet.checkpoint.card import ModelCard, write_card
from apdet.checkpoint.checkpoint_file import read_checkpoint
from apdet.cli import predict, train
from apdet.data.digits import CLASSES, write_digits
from apdet.data.voc import read_voc
from apdet.inference import Detector

TOOL = CONFIGS.parent / "tools" / "predict.py"
FINAL_FILES = ("predictions.json", "images.json", "failed.txt", "predictions.csv")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A COCO set whose ids are neither consecutive nor in the order of the classes."""
    folder = tmp_path_factory.mktemp("predict")
    write_digits(folder / "digits", num_train=8, num_test=5, size=64, seed=0)
    for split in ("train", "test"):
        path = folder / "digits" / f"coco_{split}.json"
        content = json.loads(path.read_text())
        for image in content["images"]:
            image["id"] = 90 - 7 * image["id"]
        for annotation in content["annotations"]:
            annotation["image_id"] = 90 - 7 * annotation["image_id"]
            annotation["category_id"] = 50 - annotation["category_id"]
        for category in content["categories"]:
            category["id"] = 50 - category["id"]
        path.write_text(json.dumps(content))
    return folder / "digits"


@pytest.fixture(scope="module")
def trained(digits):
    """The folder of a training with its evaluation on the COCO set."""
    text = SMALL.format(configs=CONFIGS, output=digits / "output", classes=CLASSES)
    for split in ("train", "test"):
        entry = f"format: coco, json: digits/coco_{split}.json, images: digits/JPEGImages"
        text = text.replace(f"format: voc, root: digits, split: {split}", entry)
    config = digits.parent / "small.yaml"
    config.write_text(text)
    options = ["SOLVER.MAX_ITER", "40", "SOLVER.BASE_LR", "0.02", "SOLVER.CHECKPOINT_PERIOD", "40"]
    train.main(["--config-file", str(config), *options])
    return digits / "output"


@pytest.fixture
def model(trained):
    return str(trained / "model_final.pth")


@pytest.fixture
def run(model, tmp_path):
    """A function that predicts and returns the output folder."""

    def predict_on(*arguments, out="out", workers=0):
        options = ["--device", "cpu", "--workers", str(workers), "--out", str(tmp_path / out)]
        predict.main([model, *options, *map(str, arguments)])
        return tmp_path / out

    return predict_on


@pytest.fixture
def images(digits, tmp_path):
    """A folder with eight images, two of which have the same name."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for number, path in enumerate(sorted((digits / "JPEGImages").glob("*.jpg"))[:8]):
        name = f"{number}.jpg" if number < 7 else "sub/0.jpg"
        shutil.copy(path, folder / name)
    return folder


def results_in(folder):
    return json.loads((folder / "predictions.json").read_text())


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def exit_code(call, *arguments, **options):
    with pytest.raises(SystemExit) as caught:
        call(*arguments, **options)
    return caught.value.code


def test_the_ap_of_predictions_on_a_coco_set_is_that_of_its_evaluation(digits, trained, run):
    test_json = digits / "coco_test.json"
    options = ["--images-json", test_json, "--images-folder", digits / "JPEGImages"]
    out = run(*options, "--threshold", 0, "--no-pictures", workers=2)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(test_json))
        evaluation = COCOeval(truth, truth.loadRes(str(out / "predictions.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    evaluated = json.loads((trained / "results.json").read_text())["results"]["bbox"]
    assert evaluated["AP"] > 0
    assert 100 * evaluation.stats[:3] == pytest.approx(
        [evaluated[name] for name in ("AP", "AP50", "AP75")], abs=0
    )
    listed = json.loads((out / "images.json").read_text())
    truth = json.loads(test_json.read_text())
    assert {i["id"]: os.path.basename(i["file_name"]) for i in listed["images"]} == {
        i["id"]: i["file_name"] for i in truth["images"]
    }
    assert {c["id"]: c["name"] for c in listed["categories"]} == {
        c["id"]: c["name"] for c in truth["categories"]
    }


def test_all_formats_hold_what_the_detector_finds(images, model, run):
    out = run(images, "--format", "coco,voc,yolo,csv", "--threshold", 0.02, "--max-detections", 9)
    detector = Detector(model, device="cpu")
    listed = json.loads((out / "images.json").read_text())["images"]
    assert [os.path.relpath(i["file_name"], images) for i in listed] == [
        *(f"{k}.jpg" for k in range(7)),
        "sub/0.jpg",
    ]
    table = list(csv.DictReader((out / "predictions.csv").open()))
    assert len(table) == len(results_in(out)) > 0
    for image in listed:
        found = detector(image["file_name"], threshold=0.02)[:9]
        boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.tolist()
        classes = found.pred_classes.tolist()
        coco = [result for result in results_in(out) if result["image_id"] == image["id"]]
        assert [r["score"] for r in coco] == scores
        assert [r["category_id"] for r in coco] == classes
        corners = [(x, y, x + w, y + h) for x, y, w, h in (r["bbox"] for r in coco)]
        np.testing.assert_allclose(np.reshape(corners, (-1, 4)), boxes, rtol=0, atol=1e-4)
        rows = [row for row in table if row["file"] == image["file_name"]]
        assert [row["class"] for row in rows] == [detector.classes[k] for k in classes]
        read = [tuple(float(row[k]) for k in ("xmin", "ymin", "xmax", "ymax")) for row in rows]
        assert read == corners
        name = os.path.splitext(os.path.relpath(image["file_name"], images))[0]
        lines = np.loadtxt(out / "yolo" / f"{name}.txt", ndmin=2).reshape(-1, 6)
        assert lines[:, 0].tolist() == classes
        assert lines[:, 5].tolist() == scores
        centre, size = lines[:, 1:3] * 64, lines[:, 3:5] * 64  # the images have 64 x 64 pixels
        yolo = np.hstack([centre - size / 2, centre + size / 2])
        np.testing.assert_allclose(yolo, boxes, rtol=0, atol=1e-4)
        assert (out / "pictures" / f"{name}.jpg").is_file()
    assert (out / "classes.txt").read_text().split() == detector.classes


def test_voc_files_give_the_boxes_back(images, run):
    out = run(images, "--format", "coco,voc", "--threshold", 0.02, "--no-pictures")
    coco = [r for r in results_in(out) if r["image_id"] < 8]  # not the one in the folder below
    records = read_voc(images, out / "voc").images
    read = [a for record in records for a in record["annotations"]]
    names = json.loads((out / "images.json").read_text())["categories"]
    assert [a["category"] for a in read] == [names[r["category_id"]]["name"] for r in coco]
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (r["bbox"] for r in coco)]
    np.testing.assert_allclose([a["bbox"] for a in read], boxes, rtol=0, atol=1e-12)
    assert {(r["width"], r["height"]) for r in records} == {(64, 64)}


def test_an_interrupted_run_goes_on_to_the_same_files(images, model, run, tmp_path):
    settings = ["--threshold", "0", "--batch", "2", "--format", "coco,csv"]
    (images / "3.jpg").write_bytes(b"no image")
    assert exit_code(run, images, *settings, out="whole") == predict.SOME_FAILED
    command = [sys.executable, TOOL, model, images, *settings, "--device", "cpu", "--out"]
    process = subprocess.Popen([*command, tmp_path / "cut"], stderr=subprocess.PIPE, text=True)
    progress = tmp_path / "cut" / "progress.jsonl"
    while not progress.exists() or progress.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    printed = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert re.search(r"stopped by SIGTERM; [246] of 8 images are done, go on by --resume", printed)
    assert "Traceback" not in printed
    assert not (tmp_path / "cut" / "predictions.json").exists()

    # As a kill leaves it: the settings, a batch, an image of the next batch, and part of an image.
    lines = (tmp_path / "whole" / "progress.jsonl").read_bytes().splitlines(keepends=True)
    progress.write_bytes(b"".join(lines[:4]) + lines[4][:9])
    shutil.rmtree(tmp_path / "cut" / "pictures")
    assert exit_code(run, images, *settings, "--resume", out="cut") == predict.SOME_FAILED
    for name in FINAL_FILES:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # The first batch is not done again.
    missing = files_in(tmp_path / "whole") - files_in(tmp_path / "cut")
    assert missing == {"pictures/0.jpg", "pictures/1.jpg"}


def test_a_run_is_resumed_only_with_the_same_model_threshold_and_images(images, model, run):
    out = run(images, "--threshold", 0.1, "--no-pictures")
    before = {name: (out / name).read_bytes() for name in files_in(out)}
    same = ["--threshold", 0.1, "--no-pictures"]
    assert "holds progress.jsonl of an earlier" in exit_message(run, images, *same)
    message = exit_message(run, images, "--resume", "--threshold", 0.2, "--no-pictures")
    assert "another --threshold (0.1, and now it is 0.2)" in message
    assert "list of images" in exit_message(run, images / "sub", *same, "--resume")
    card = Detector(model, device="cpu").card
    other = images.parent / "other.pth"
    shutil.copy(model, other)
    write_card(other, ModelCard(config=card.config))
    message = exit_message(
        predict.main, [str(other), str(images), *map(str, same), "--resume", "--out", str(out)]
    )
    assert "begun with another model" in message
    assert {name: (out / name).read_bytes() for name in files_in(out)} == before
    (out / "progress.jsonl").unlink()
    assert "progress.jsonl is gone" in exit_message(run, images, *same, "--resume")


def test_images_that_cannot_be_read_are_named_and_tried_again(images, run, capsys):
    whole = (images / "1.jpg").read_bytes()
    (images / "1.jpg").write_bytes(whole[:400])
    (images / "5.jpg").write_bytes(b"")
    assert exit_code(run, images, workers=2) == predict.SOME_FAILED
    assert "2 of 8 images could not be read" in capsys.readouterr().err
    out = images.parent / "out"
    failed = [line.split("\t") for line in (out / "failed.txt").read_text().splitlines()]
    assert [path for path, _ in failed] == [str(images / "1.jpg"), str(images / "5.jpg")]
    assert all("not a readable image" in reason for _, reason in failed)
    for name in ("1.jpg", "5.jpg"):
        (images / name).write_bytes(whole)
    run(images, "--resume")  # exit code 0
    assert (out / "failed.txt").read_text() == ""
    assert len(json.loads((out / "images.json").read_text())["images"]) == 8


def test_it_is_an_error_if_no_image_can_be_read(images, run):
    for path in images.rglob("*.jpg"):
        path.write_bytes(b"no image")
    assert "no image could be read; the first is" in exit_message(run, images)


def test_a_threshold_that_hides_everything_is_said(images, run, capsys):
    out = run(images, "--threshold", 1, "--no-pictures")
    assert results_in(out) == []
    printed = capsys.readouterr().out
    highest = max(r["score"] for r in results_in(run(images, "--threshold", 0, out="all")))
    assert f"the highest score is {highest:.2g}" in printed
    assert "--threshold best" in printed


def test_a_model_without_evaluation_uses_a_low_threshold_and_says_so(images, model, capsys):
    card = Detector(model, device="cpu").card
    other = images.parent / "other.pth"
    shutil.copy(model, other)
    write_card(other, ModelCard(config=card.config))
    assert read_checkpoint(str(other))["card"]["threshold"] is None
    predict.main([str(other), str(images), "--out", str(images.parent / "out"), "--device", "cpu"])
    assert "was never evaluated" in capsys.readouterr().out


def test_a_model_file_without_config_needs_the_config_file(images, model, digits, run):
    expected = results_in(run(images, "--threshold", 0, "--no-pictures"))
    other = images.parent / "other.pth"
    shutil.copy(model, other)
    write_card(other, ModelCard(config=""))
    arguments = [str(other), str(images), "--threshold", "0", "--no-pictures"]
    arguments += ["--out", str(images.parent / "other"), "--device", "cpu"]
    assert "--config-file" in exit_message(predict.main, arguments)
    predict.main([*arguments, "--config-file", str(digits.parent / "small.yaml")])
    assert results_in(images.parent / "other") == expected


def test_only_the_classes_and_the_number_asked_for_are_kept(images, run):
    wanted = ["--threshold", 0, "--no-pictures"]
    everything = results_in(run(images, *wanted))
    some = results_in(run(images, *wanted, "--classes", "7, 3", out="b"))
    assert some == [r for r in everything if CLASSES[r["category_id"]] in ("3", "7")]
    best = results_in(run(images, *wanted, "--max-detections", 2, out="c"))
    of_first = [r for r in everything if r["image_id"] == 1][:2]
    assert [r for r in best if r["image_id"] == 1] == of_first
    assert "does not know" in exit_message(run, images, "--classes", "3,cat", "--resume")


def test_a_picture_turned_by_exif_has_its_boxes_where_a_viewer_shows_them(images, run):
    upright = Image.open(images / "0.jpg").resize((96, 64))
    folder = images.parent / "turned"
    folder.mkdir()
    upright.save(folder / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    grey = upright.convert("L")
    grey.save(folder / "grey.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "sixteen.png")
    upright.convert("RGBA").save(folder / "rgba.png")
    out = run(folder, "--threshold", 0)
    listed = json.loads((out / "images.json").read_text())["images"]
    found = {
        os.path.basename(i["file_name"]): [
            (r["bbox"], r["score"]) for r in results_in(out) if r["image_id"] == i["id"]
        ]
        for i in listed
    }
    assert {(i["width"], i["height"]) for i in listed} == {(96, 64)}
    assert found["upright.png"]
    assert found["turned.png"] == found["rgba.png"] == found["upright.png"]
    assert found["sixteen.png"] == found["grey.png"]
    with Image.open(out / "pictures" / "turned.png") as picture:
        assert picture.width / picture.height == 96 / 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["*.nothing"], "no image there"),
        (["images", "--device", "toaster"], "--device is 'toaster'"),
    ],
)
def test_wrong_arguments_end_with_one_line(images, run, monkeypatch, arguments, message):
    monkeypatch.chdir(images.parent)
    assert message in exit_message(run, *arguments)
    assert not (images.parent / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_named(images, model):
    file = images / "0.jpg"
    for out in (file, file / "below"):
        message = exit_message(predict.main, [model, str(images), "--out", str(out)])
        assert str(file) in message
