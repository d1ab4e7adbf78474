import json

import numpy as np
import pytest
from PIL import Image

from apdet.report.curves import plot_curves, read_curves


@pytest.fixture
def metrics_file(tmp_path):
    def write(*lines, end=""):
        path = tmp_path / "metrics.json"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
        return path

    return write


def step(iteration, loss, **others):
    return {"iteration": iteration, "total_loss": loss, "lr": 0.1, **others}


def test_a_metric_has_its_values_in_the_order_of_iterations(metrics_file):
    file = metrics_file(step(19, 3.0), {"iteration": 29, "bbox/AP": 7.5}, step(39, 2.0))
    curves = read_curves(file)
    assert curves["total_loss"] == ([19, 39], [3.0, 2.0])
    assert curves["bbox/AP"] == ([29], [7.5])


def test_after_a_resumption_the_later_lines_win(metrics_file):
    file = metrics_file(
        step(19, 3.0),
        step(39, 2.0),
        {"iteration": 49, "bbox/AP": 5.0},
        step(59, 1.0),
        {"iteration": 69, "bbox/AP": 6.0},
        step(39, 2.5),  # resumed after iteration 20 or later
        {"iteration": 49, "bbox/AP": 5.5},
        step(79, 0.5),
    )
    curves = read_curves(file)
    assert curves["total_loss"] == ([19, 39, 79], [3.0, 2.5, 0.5])
    assert curves["bbox/AP"] == ([49], [5.5])


def test_an_evaluation_written_after_a_later_step_is_no_resumption(metrics_file):
    file = metrics_file(step(19, 3.0), step(39, 2.0), {"iteration": 29, "bbox/AP": 5.0})
    curves = read_curves(file)
    assert curves["total_loss"] == ([19, 39], [3.0, 2.0])
    assert curves["bbox/AP"] == ([29], [5.0])


def test_two_resumptions_leave_the_last_course(metrics_file):
    first = [step(i, 3.0) for i in range(9, 100, 10)]
    second = [step(i, 2.0) for i in range(59, 80, 10)]
    third = [step(i, 1.0) for i in range(39, 60, 10)]
    iterations, values = read_curves(metrics_file(*first, *second, *third))["total_loss"]
    assert iterations == [9, 19, 29, 39, 49, 59]
    assert values == [3, 3, 3, 1, 1, 1]


def test_of_a_repeated_iteration_nothing_remains(metrics_file):
    file = metrics_file(step(19, 3.0), step(39, 2.0, **{"bbox/AP": 9.0}), step(39, 2.5))
    curves = read_curves(file)
    assert curves["total_loss"] == ([19, 39], [3.0, 2.5])
    assert "bbox/AP" not in curves


def test_lines_that_are_not_whole_are_skipped(metrics_file):
    broken = '{"iteration": 59, "total_lo{"iteration": 79, "total_loss": 1.0}\n[3]\n{"lr": 1}\n{"it'
    file = metrics_file(step(19, 3.0), step(39, 2.0), end=broken)
    assert read_curves(file)["total_loss"] == ([19, 39], [3.0, 2.0])


def test_the_picture_has_its_size_and_follows_the_data(metrics_file, tmp_path):
    pictures = []
    for loss in (2.0, 0.01):
        evaluation = {"iteration": 40, "bbox/AP": 5.0, "digits/bbox/AP50": float("nan")}
        file = metrics_file(step(19, 3.0, loss_cls=float("inf")), step(39, loss), evaluation)
        path = plot_curves(file, tmp_path / "curves.png")
        assert path == tmp_path / "curves.png"
        pictures.append(np.asarray(Image.open(path)))
    assert pictures[0].shape[:2] == (480, 1200)
    assert not np.array_equal(*pictures)


@pytest.mark.parametrize("lines", [[], [{"iteration": 3, "lr": 0.1}], [step(3, float("nan"))]])
def test_without_data_no_picture_is_written(metrics_file, tmp_path, caplog, lines):
    assert plot_curves(metrics_file(*lines), tmp_path / "curves.png") is None
    assert not (tmp_path / "curves.png").exists()
    assert "no losses and no AP" in caplog.text


def test_a_missing_file_is_no_data(tmp_path):
    assert plot_curves(tmp_path / "metrics.json", tmp_path / "curves.png") is None
