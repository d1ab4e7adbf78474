"""`apdet calibrate` and `apdet export` write new model files."""

import json
import re

import pytest
import torch
from conftest import exit_message

from apdet.checkpoint.card import CARD
from apdet.cli import calibrate, export, predict
from apdet.cli.train import main as train
from apdet.inference import Detector


@pytest.fixture
def model(config, output):
    """A model that was trained, but not evaluated."""
    train(["--config-file", config, "SOLVER.MAX_ITER", "2", "DATASETS.TEST", "()"])
    return output / "model_final.pth"


def content_of(path):
    return torch.load(path, weights_only=True)


def test_a_model_is_calibrated_as_its_training_would(trained, tmp_path, capsys):
    path, out = trained / "model_final.pth", tmp_path / "calibrated.pth"
    before = path.read_bytes()
    config, sets = str(trained.parent / "small.yaml"), ["DATASETS.TEST", "('digits_train',)"]
    calibrate.main([str(path), "--config-file", config, "--out", str(out), *sets])
    assert path.read_bytes() == before
    expected, found = content_of(path), content_of(out)
    assert found.pop(CARD) == expected.pop(CARD)
    assert found.keys() == expected.keys()
    assert re.search(r"best threshold on digits_train: 0\.\d+", capsys.readouterr().out)


def test_a_model_that_finds_nothing_has_no_calibration(model, config, tmp_path):
    arguments = [str(model), "--config-file", config, "--out", str(tmp_path / "new.pth")]
    nothing = ["MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL", "[0.99, 0.99, 0.99]"]
    message = exit_message(calibrate.main, [*arguments, *nothing])
    assert "no calibration can be fitted" in message
    assert not (tmp_path / "new.pth").exists()
    arguments[-1] = str(model)
    assert "is the source itself" in exit_message(calibrate.main, arguments)


def test_an_exported_model_is_smaller_and_finds_the_same(trained, images, tmp_path, capsys):
    path, out = trained / "model_final.pth", tmp_path / "small.pth"
    export.main([str(path), "--out", str(out)])
    assert content_of(out).keys() == {"model", "classes", CARD}
    assert out.stat().st_size < 0.6 * path.stat().st_size
    assert re.search(r"wrote .*small\.pth: [\d.]+ MiB, \d\d% smaller", capsys.readouterr().out)
    whole, exported = (Detector(p, device="cpu")(images[0]) for p in (path, out))
    assert torch.equal(whole.scores, exported.scores)
    assert len(whole) > 0
    assert "exists already" in exit_message(export.main, [str(path), "--out", str(out)])


def test_only_a_model_is_exported(tmp_path):
    (tmp_path / "a.pth").write_text("a text")
    assert "a.pth" in exit_message(export.main, [str(tmp_path / "a.pth")])
    assert "no such file" in exit_message(export.main, [str(tmp_path / "b.pth")])


def test_predictions_may_be_probabilities(trained, images, tmp_path):
    model = str(trained / "model_final.pth")
    options = ["--calibrated", "--threshold", "0", "--device", "cpu", "--workers", "0"]
    predict.main([model, str(images[0]), *options, "--no-pictures", "--out", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    expected = Detector(model, device="cpu", calibrated=True)(images[0], threshold=0)
    assert [result["score"] for result in results] == expected.scores.tolist()
    assert len(expected) > 0
