import json

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg

from apdet.errors import UserError
from apdet.evaluation import build_evaluator
from apdet.report import write_report
from apdet.report.report import write_results

BOX = [10, 10, 60, 60]


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.DATASETS.TEST = ("pets",)
    return cfg


def test_results_come_back_as_they_were_and_nan_as_null(tmp_path):
    results = {"bbox": {"AP": 12.5, "APl": float("nan"), "AP50": np.float32(0.5)}}
    path = write_results(tmp_path / "new", results, iterations=90, sizes=(torch.tensor(1.5),))
    expected = {"bbox": {"AP": 12.5, "APl": None, "AP50": 0.5}}
    assert json.loads(path.read_text()) == {"results": expected, "iterations": 90, "sizes": [1.5]}
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_results_that_cannot_be_written_leave_the_former_ones(tmp_path):
    path = write_results(tmp_path, {"bbox": {"AP": 1.0}})
    with pytest.raises(TypeError):
        write_results(tmp_path, {"bbox": {"AP": object()}})
    assert json.loads(path.read_text()) == {"results": {"bbox": {"AP": 1.0}}}


def test_a_folder_that_cannot_be_written_to_is_the_users_error(tmp_path, cfg):
    (tmp_path / "output").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write results"):
        write_report(cfg, {})


def test_the_report_has_results_curves_and_detections(
    register, make_image, make_output, evaluate, picture, tmp_path, cfg
):
    images = [make_image("a", [BOX], [0], file_name=picture("a", 160, 200))]
    register("pets", images, evaluator_type="voc")
    evaluator = build_evaluator(cfg, "pets")
    results = evaluate(evaluator, images, [make_output([BOX], [0.1], [0])])
    line = {"iteration": 19, "total_loss": 1.0, "lr": 0.1}
    (tmp_path / "output" / "metrics.json").write_text(json.dumps(line) + "\n")

    paths = write_report(cfg, results)

    names = ["results.json", "curves.png", "detections.png"]
    assert paths == [tmp_path / "output" / name for name in names]
    assert all(path.is_file() for path in paths)
    written = json.loads(paths[0].read_text())
    assert written["test_sets"] == ["pets"]
    assert written["results"]["voc"]["mAP50_area"] == pytest.approx(100)
    assert written["results"]["voc"]["AP50_area-dog"] is None


def test_what_is_missing_is_left_out(register, make_image, tmp_path, cfg):
    assert [path.name for path in write_report(cfg, None)] == ["results.json"]
    cfg.DATASETS.TEST = ()
    assert [path.name for path in write_report(cfg, {})] == ["results.json"]


def test_a_picture_that_fails_is_logged_and_left_out(register, make_image, tmp_path, cfg, caplog):
    register("pets", [make_image("a", file_name=tmp_path / "gone.jpg")])
    folder = tmp_path / "output" / "inference" / "pets"
    folder.mkdir(parents=True)
    (folder / "coco_instances_results.json").write_text("[]")
    assert [path.name for path in write_report(cfg, {})] == ["results.json"]
    assert "gone.jpg" in caplog.text
