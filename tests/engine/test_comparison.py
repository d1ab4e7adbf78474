import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from apdet.engine import comparison
from apdet.engine.comparison import (
    Comparison,
    Outcome,
    Run,
    Variant,
    best_base_lr,
    read_outcome,
    summarise,
)
from apdet.errors import UserError

METRICS = {"AP": 40.0, "AP50": 60.0, "AP75": 41.0}
FAILED = Outcome({}, ([], []), None)
AP, FOCAL = Variant("ap", ()), Variant("focal", ())
RUN = Run(AP, 0.1, 1)


def outcome(ap, seconds=60.0):
    metrics = {"AP": ap, "AP50": ap + 20, "AP75": ap + 1}
    return Outcome(metrics, ([9, 19], [ap / 2, ap]), seconds)


def test_the_best_learning_rate_has_the_highest_ap_failures_aside():
    outcomes = {
        Run(AP, 0.1, 1): outcome(30.0),
        Run(AP, 0.3, 1): outcome(40.0),
        Run(AP, 0.9, 1): FAILED,
        Run(FOCAL, 0.1, 1): outcome(50.0),
        Run(FOCAL, 0.3, 1): outcome(float("nan")),
    }
    assert best_base_lr(AP, outcomes) == 0.3
    assert best_base_lr(FOCAL, outcomes) == 0.1


def test_a_summary_has_the_outcomes_of_one_learning_rate_in_the_order_of_seeds():
    outcomes = {Run(AP, 0.3, seed): outcome(ap) for seed, ap in [(3, 46.0), (1, 40.0), (2, 43.0)]}
    outcomes |= {Run(AP, 0.3, 4): FAILED, Run(AP, 0.1, 1): outcome(20.0)}
    outcomes[Run(FOCAL, 0.3, 1)] = outcome(50.0)
    row = summarise(AP, 0.3, outcomes)
    assert (row["loss"], row["base_lr"], row["failed"]) == ("ap", 0.3, 1)
    assert row["AP"] == [40.0, 43.0, 46.0]
    assert row["AP75"] == [41.0, 44.0, 47.0]
    assert row["curves"][2] == ([9, 19], [23.0, 46.0])
    assert row["AP_of_seed_1_by_base_lr"] == {0.3: 40.0, 0.1: 20.0}


def test_of_several_test_sets_the_first_counts(tmp_path):
    results = {"one": {"bbox": METRICS}, "two": {"bbox": {**METRICS, "AP": None}}}
    report = {"results": results, "test_sets": ["one", "two"]}
    (tmp_path / "results.json").write_text(json.dumps(report))
    lines = [{"iteration": 9, "one/bbox/AP": 40.0, "two/bbox/AP": 1.0}]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_outcome(tmp_path, 5.0) == Outcome(METRICS, ([9], [40.0]), 5.0)


def test_the_test_set_is_compared_and_the_validation_set_chooses_the_learning_rate(tmp_path):
    def read(folder, ap, val_ap):
        results = {
            "val": {"bbox": {**METRICS, "AP": val_ap}},
            "test": {"bbox": {**METRICS, "AP": ap}},
        }
        report = {"results": results, "test_sets": ["test"], "validation_sets": ["val"]}
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(report))
        lines = [
            {"iteration": 4, "val/bbox/AP": 1.0},
            {"iteration": 9, "val/bbox/AP": val_ap, "test/bbox/AP": ap},
        ]
        (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_outcome(folder, 5.0)

    low = read(tmp_path / "low", ap=40.0, val_ap=50.0)
    high = read(tmp_path / "high", ap=45.0, val_ap=30.0)
    assert low.metrics["AP"] == 40.0
    assert low.curve == ([4, 9], [1.0, 50.0])
    outcomes = {Run(AP, 0.1, 1): low, Run(AP, 0.9, 1): high}
    assert best_base_lr(AP, outcomes) == 0.1
    assert summarise(AP, 0.1, outcomes)["AP"] == [40.0]


class Trainings:
    """Replaces the call of a training; records the commands and leaves what a training leaves."""

    def __init__(self):
        self.commands, self.return_code, self.succeeds, self.seconds = [], 0, True, 0.0

    def start(self, command, *, stdout, stderr):
        self.commands.append(command)
        time.sleep(self.seconds)
        if self.succeeds:
            folder = Path(command[-1])
            report = {"results": {"bbox": METRICS}, "test_sets": ["pets"]}
            (folder / "results.json").write_text(json.dumps(report))
            (folder / "metrics.json").write_text("")
        return SimpleNamespace(wait=lambda: self.return_code)


@pytest.fixture
def trainings(monkeypatch):
    trainings = Trainings()
    monkeypatch.setattr(comparison.subprocess, "Popen", trainings.start)
    return trainings


def arguments_in(out, iterations="90"):
    return lambda run: [
        "--resume",
        "SOLVER.MAX_ITER",
        iterations,
        "OUTPUT_DIR",
        str(run.folder(out)),
    ]


def train(out, iterations="90"):
    ((run, result),) = Comparison(out, arguments_in(out, iterations)).train([RUN], jobs=1)
    assert run == RUN
    return result


@pytest.fixture
def state_file(tmp_path):
    path = RUN.folder(tmp_path) / "comparison.json"
    path.parent.mkdir(parents=True)
    return path


def test_a_finished_training_is_not_run_again(trainings, tmp_path):
    first, second = train(tmp_path), train(tmp_path)
    assert not first.finished_before
    assert second == first._replace(finished_before=True)
    assert first.metrics == METRICS
    train_command = [sys.executable, "-m", "apdet.cli", "train"]
    assert trainings.commands == [[*train_command, *arguments_in(tmp_path)(RUN)]]


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_a_finished_training_whose_results_are_lost_is_resumed(trainings, tmp_path, content):
    train(tmp_path)
    results = RUN.folder(tmp_path) / "results.json"
    results.unlink() if content is None else results.write_text(content)
    assert train(tmp_path).metrics == METRICS
    assert len(trainings.commands) == 2


def test_a_failed_training_is_run_again(trainings, tmp_path):
    trainings.succeeds, trainings.return_code = False, 1
    assert train(tmp_path).metrics == {}
    trainings.succeeds, trainings.return_code = True, 0
    assert train(tmp_path).metrics == METRICS
    assert len(trainings.commands) == 2


def test_a_killed_training_ends_the_comparison_and_is_resumed_by_the_next(trainings, tmp_path):
    trainings.succeeds, trainings.return_code = False, -9
    with pytest.raises(UserError, match=r"ap, lr 0.1, seed 1 was killed \(signal 9\); call again"):
        train(tmp_path)
    (RUN.folder(tmp_path) / "last_checkpoint").write_text("model_0000049.pth")
    trainings.succeeds, trainings.return_code = True, 0
    resumed = train(tmp_path)
    assert (resumed.metrics, resumed.seconds) == (METRICS, None)
    assert train(tmp_path) == resumed._replace(finished_before=True)


@pytest.mark.parametrize("return_code", [130, 143, -9])
def test_a_training_that_a_signal_ended_has_not_failed(trainings, tmp_path, return_code):
    trainings.succeeds, trainings.return_code = False, return_code
    with pytest.raises(UserError, match="call again to go on"):
        train(tmp_path)


def test_a_training_with_other_arguments_is_refused(trainings, tmp_path):
    train(tmp_path)
    with pytest.raises(UserError, match="holds a training with other settings; name another --out"):
        train(tmp_path, iterations="91")
    assert len(trainings.commands) == 1


@pytest.mark.parametrize(("seconds", "is_run"), [({"seconds": 12.5}, False), ({}, True)])
def test_the_state_that_version_0_1_wrote_is_recognised(
    trainings, tmp_path, state_file, seconds, is_run
):
    arguments = arguments_in(tmp_path)(RUN)
    trainings.start(arguments, stdout=None, stderr=None)
    trainings.commands.clear()
    state_file.write_text(json.dumps({"command": arguments, **seconds}))
    assert train(tmp_path).finished_before is not is_run
    assert len(trainings.commands) == is_run
    with pytest.raises(UserError, match="other settings"):
        train(tmp_path, iterations="91")


@pytest.mark.parametrize(
    "text", ["", '{"command": ["--res', "[]", '{"seconds": 3}', '{"command": [], "seconds": "x"}']
)
def test_a_broken_state_is_a_training_that_has_not_begun(
    trainings, tmp_path, state_file, caplog, text
):
    state_file.write_text(text)
    assert train(tmp_path).metrics == METRICS
    assert f"{state_file} is empty or broken, so the training counts as not begun" in caplog.text
    assert len(trainings.commands) == 1
    assert train(tmp_path).finished_before


def test_after_an_error_no_more_trainings_start(trainings, tmp_path):
    trainings.succeeds, trainings.return_code, trainings.seconds = False, -2, 0.1
    runs = [Run(AP, 0.1, seed) for seed in range(1, 20)]
    with pytest.raises(UserError, match="was killed"):
        list(Comparison(tmp_path, arguments_in(tmp_path)).train(runs, jobs=1))
    assert len(trainings.commands) < len(runs)
