"""`Detector` finds what the evaluation found, however an image is given."""

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from PIL import Image

from apdet.checkpoint.card import CARD
from apdet.errors import UserError
from apdet.inference import Detector


@pytest.fixture(scope="module")
def detector(trained):
    return Detector(trained / "model_final.pth", device="cpu")


def change(trained, tmp_path, **parts):
    """A copy of the model file with other parts; None: without the part."""
    content = torch.load(trained / "model_final.pth", weights_only=True)
    content = {k: v for k, v in {**content, **parts}.items() if v is not None}
    torch.save(content, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def as_results(detections):
    """The boxes, scores and classes of detections as rows, in the order of the scores."""
    boxes = detections.pred_boxes.tensor.clone()
    boxes[:, 2:] -= boxes[:, :2]
    rows = torch.column_stack([boxes, detections.scores, detections.pred_classes])
    return rows.double()


def test_it_finds_what_the_evaluation_found(detector, images, evaluated):
    expected = defaultdict(list)
    for found in evaluated:
        row = [*found["bbox"], found["score"], found["category_id"]]
        expected[found["image_id"]].append(row)
    detections = detector(images, threshold=0)
    assert len(detections) == len(expected) == len(images)
    for number, found in enumerate(detections, 1):
        rows = torch.tensor(sorted(expected[number], key=lambda row: -row[4]))
        torch.testing.assert_close(as_results(found), rows.double(), rtol=0, atol=2e-6)


def same(found, expected):
    return all(
        torch.equal(getattr(found, name), getattr(expected, name))
        for name in ("scores", "pred_classes")
    ) and torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)


def test_an_image_may_be_a_path_an_array_or_of_pillow(detector, images):
    expected = detector(images[0])
    assert len(expected) > 0
    pixels = read_image(str(images[0]), "RGB")
    for given in (str(images[0]), pixels, Image.open(images[0])):
        assert same(detector(given), expected)
    assert same(detector(pixels[:, :, ::-1], channels="BGR"), expected)
    assert not same(detector(pixels[:, :, ::-1], threshold=0), detector(pixels, threshold=0))
    many = detector([images[0], pixels])
    assert same(many[0], expected)
    assert same(many[1], expected)


def test_boxes_lie_in_the_image_as_a_viewer_turns_it(detector, images, tmp_path):
    image = Image.open(images[0]).convert("RGB").resize((64, 48))
    upright = detector(np.asarray(image), threshold=0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise, which undoes the turn below
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    for given in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        found = detector(given, threshold=0)
        assert found.image_size == (48, 64)
        assert same(found, upright)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "P"])
def test_an_image_of_another_mode_is_read_as_in_training(detector, images, tmp_path, mode):
    grey = Image.open(images[0]).convert("L")
    if mode == "I;16":
        other = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        other = grey.convert("RGB").convert(mode) if mode == "RGBA" else grey.convert(mode)
    other.save(tmp_path / "other.png")
    expected = detector(np.asarray(grey), threshold=0)
    assert same(detector(tmp_path / "other.png", threshold=0), expected)


def test_the_threshold_is_the_one_with_the_best_f1(detector, images, trained):
    """By brute force: F1 of every threshold on the images of the evaluation."""
    truth = json.loads((trained.parent / "digits" / "coco_train.json").read_text())
    boxes = defaultdict(list)
    for annotation in truth["annotations"]:
        x, y, w, h = annotation["bbox"]
        boxes[annotation["image_id"]].append((annotation["category_id"], x, y, x + w, y + h))
    ids = {image["file_name"]: image["id"] for image in truth["images"]}
    category = {c["id"]: c["name"] for c in truth["categories"]}
    found = {ids[path.name]: detector(path, threshold=0) for path in images}

    def f1(threshold):
        right = shown = 0
        for image_id, detections in found.items():
            left = list(boxes[image_id])
            kept = detections[detections.scores >= threshold]
            shown += len(kept)
            for box, k in zip(kept.pred_boxes.tensor.tolist(), kept.pred_classes, strict=True):
                overlaps = [
                    (iou(box, other[1:]), other)
                    for other in boxes[image_id]
                    if category[other[0]] == detector.classes[int(k)]
                ]
                best, match = max(overlaps, default=(0, None))
                if best > 0.5 and match in left:
                    left.remove(match)
                    right += 1
        return 2 * right / (shown + len(truth["annotations"]))

    scores = torch.cat([detections.scores for detections in found.values()]).double()
    best = max(f1(float(score)) for score in scores if score > 0.3)
    assert f1(detector.threshold) == pytest.approx(best)
    assert detector.threshold == detector.card.threshold
    assert detector.card.evaluated_on == "digits_train"
    assert all(len(d) == int((found[i].scores >= detector.threshold).sum())
               for i, d in zip(found, detector(images), strict=True))  # fmt: skip


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def test_the_card_has_the_results_of_the_evaluation(detector, trained):
    results = json.loads((trained / "results.json").read_text())["results"]
    assert detector.card.metrics["bbox/AP50"] == pytest.approx(results["bbox"]["AP50"])
    assert not any(np.isnan(value) for value in detector.card.metrics.values())


def test_the_best_and_the_final_model_say_the_same_after_one_evaluation(trained):
    best, final = (
        torch.load(trained / f"model_{name}.pth", weights_only=True)[CARD]
        for name in ("best", "final")
    )
    assert best == final


def test_a_model_without_a_config_needs_one(trained, tmp_path, images, detector):
    path = change(trained, tmp_path, card=None)
    with pytest.raises(UserError, match=r"model\.pth: holds no config.*--config-file"):
        Detector(path, device="cpu")
    config = trained.parent / "small.yaml"
    older = Detector(path, config_file=config, device="cpu")
    assert older.threshold == 0.05
    assert same(older(images[0], threshold=0), detector(images[0], threshold=0))


def test_the_state_of_a_loss_is_not_needed(trained, tmp_path, images, detector):
    weights = torch.load(trained / "model_final.pth", weights_only=True)["model"]
    own = {**weights, "cls_loss.loss.average": torch.ones(3)}  # of a loss of one's own
    assert same(Detector(change(trained, tmp_path, model=own))(images[0]), detector(images[0]))
    own = {**weights, "head.cls_loss": torch.ones(3)}
    with pytest.raises(UserError, match=r"head\.cls_loss"):
        Detector(change(trained, tmp_path, model=own))


def test_a_model_without_names_of_classes_counts_them(trained, tmp_path):
    path = change(trained, tmp_path, classes=None)
    assert Detector(path, device="cpu").classes == [str(k) for k in range(10)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4, 3)), r"an array of float64 of shape \(4, 4, 3\); give uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"of shape \(4, 4, 4\)"),
        (np.zeros((3,), np.uint8), r"of shape \(3,\)"),
        ("nowhere.png", r"nowhere\.png: no such image"),
    ],
)
def test_what_is_no_image_is_refused(detector, given, message):
    with pytest.raises(UserError, match=message):
        detector(given)


def test_channels_are_rgb_or_bgr(detector, images):
    with pytest.raises(UserError, match="channels is 'GRB'; choose RGB or BGR"):
        detector(read_image(str(images[0]), "RGB"), channels="GRB")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.pth").write_text("a text")
    with pytest.raises(UserError, match=r"model\.pth"):
        Detector(tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        Detector(tmp_path / "none.pth")


def test_several_scales_find_objects_too(trained, images, detector):
    scales = Detector(trained / "model_final.pth", device="cpu", multi_scale=True)
    found = scales(images[0])
    assert len(found) > 0
    assert found.image_size == detector(images[0]).image_size


def test_calibrated_scores_are_probabilities_in_the_same_order(trained, detector, images):
    calibrated = Detector(trained / "model_final.pth", device="cpu", calibrated=True)
    a, b, c = calibrated.card.calibration[""]
    for image in images[:3]:
        scores = detector(image, threshold=0)
        found = calibrated(image, threshold=0)
        s = scores.scores.double()
        expected = torch.sigmoid(a * s.log() - b * (1 - s).log() + c)
        torch.testing.assert_close(found.scores, expected, rtol=0, atol=1e-6)
        assert torch.equal(found.pred_boxes.tensor, scores.pred_boxes.tensor)
        assert (calibrated(image).scores >= 0.5).all()
    errors = calibrated.card.metrics
    assert errors["calibration/D-ECE"] < errors["calibration/D-ECE of scores"]


def test_a_model_without_calibration_says_so(trained, tmp_path):
    content = torch.load(trained / "model_final.pth", weights_only=True)
    path = change(trained, tmp_path, card={**content[CARD], "calibration": {}})
    with pytest.raises(UserError, match=r"model\.pth: holds no calibration"):
        Detector(path, device="cpu", calibrated=True)
