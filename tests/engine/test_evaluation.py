"""Validation and test sets in a training and in an evaluation alone; expected results."""

import json
import re

import pytest
import torch
from conftest import exit_message

from apdet.cli.train import main
from apdet.config import read_config

VAL = ("DATASETS.VAL", "['digits_train']")
TRAIN = ("SOLVER.MAX_ITER", "4", "TEST.EVAL_PERIOD", "2")


@pytest.fixture
def weights(config, tmp_path):
    """The path of weights that were not trained."""
    path = str(tmp_path / "untrained.pth")
    torch.save({"model": read_config(config).plan().build_model().state_dict()}, path)
    return path


def lines_with(output, key):
    lines = map(json.loads, (output / "metrics.json").read_text().splitlines())
    return {line["iteration"]: line[key] for line in lines if key in line}


def results_in(output):
    return json.loads((output / "results.json").read_text())


def test_the_validation_set_is_evaluated_during_the_training_and_the_test_set_at_its_end(
    config, output
):
    main(["--config-file", config, *TRAIN, *VAL])
    assert list(lines_with(output, "digits_train/bbox/AP")) == [1, 4]
    assert list(lines_with(output, "digits_test/bbox/AP")) == [4]
    assert (output / "model_best.pth").is_file()
    trained = results_in(output)
    assert (trained["test_sets"], trained["validation_sets"]) == (["digits_test"], ["digits_train"])
    assert trained["results"].keys() == {"digits_train", "digits_test"}
    picture = (output / "detections.png").read_bytes()

    main(["--config-file", config, "--eval-only", "--resume", *VAL])
    assert results_in(output) == trained
    assert (output / "detections.png").read_bytes() == picture


def test_expected_results_are_verified_after_the_report_is_written(config, weights, output, capfd):
    def evaluate(*expected):
        arguments = ["--config-file", config, "--eval-only", "MODEL.WEIGHTS", weights]
        return [*arguments, "TEST.EXPECTED_RESULTS", str([list(row) for row in expected])]

    main(evaluate(("bbox", "AP", 0.0, 100.0)))
    assert "are as expected" in (output / "log.txt").read_text()
    (output / "results.json").unlink()
    message = exit_message(main, evaluate(("bbox", "AP", 0.0, 100.0), ("bbox", "AP50", -50, 1)))
    assert "the results are not those of TEST.EXPECTED_RESULTS" in message
    assert re.search(r"EXPECTED_RESULTS: bbox/AP50 [\d.]+, not -50 ± 1$", message)
    assert results_in(output)["results"]["bbox"]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("mode", [[], ["--eval-only", "MODEL.WEIGHTS", ""], ["--dry-run"]])
def test_what_cannot_be_expected_is_refused_before_anything_is_evaluated(config, output, mode):
    keys = ["TEST.EXPECTED_RESULTS", "[['bbox', 'ap', 1.0, 1.0]]"]
    message = exit_message(main, ["--config-file", config, *mode, *keys])
    assert "TEST.EXPECTED_RESULTS expects 'bbox/ap', which is not measured" in message
    assert not list(output.glob("inference/*/*"))
    assert not list(output.glob("model*"))


@pytest.mark.parametrize("mode", [[], ["--dry-run"]])
def test_an_evaluation_on_no_data_set_is_refused(config, weights, mode):
    keys = ["MODEL.WEIGHTS", weights, "DATASETS.TEST", "()"]
    message = exit_message(main, ["--config-file", config, "--eval-only", *mode, *keys])
    assert "DATASETS.TEST is empty, so there is nothing to evaluate" in message


def test_the_metric_of_the_best_checkpoint_does_not_matter_to_an_evaluation_alone(
    config, weights, output
):
    metric = ("TEST.BEST_CHECKPOINT_METRIC", "other_set/bbox/AP")
    main(["--config-file", config, "--eval-only", "MODEL.WEIGHTS", weights, *metric])
    assert results_in(output)["results"]["bbox"]
    message = exit_message(main, ["--config-file", config, "--dry-run", *metric])
    assert "TEST.BEST_CHECKPOINT_METRIC is 'other_set/bbox/AP'" in message
