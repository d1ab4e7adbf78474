import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from apdet.errors import UserError
from apdet.evaluation.build import build_evaluator, inference_folder
from apdet.report import write_report, write_results

BOX = [10, 10, 60, 60]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


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


def test_a_folder_that_cannot_be_written_to_is_the_users_error(output, tmp_path):
    output.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=rf"{output}: File exists; remove the file"):
        write_report(output, {}, test_sets=["pets"])


def test_a_picture_that_cannot_be_written_is_one_warning_without_a_traceback(
    output, caplog, full_file
):
    output.mkdir()
    (output / "metrics.json").write_text('{"iteration": 19, "total_loss": 1.0, "lr": 0.1}')
    (output / f"curves.png.{os.getpid()}.tmp").symlink_to(full_file)
    (written,) = write_report(output, {}, test_sets=[])
    assert written.name == "results.json"
    (record,) = [record for record in caplog.records if "curves" in record.message]
    assert f"{output}/curves.png: No space left on device; free space" in record.message
    assert record.exc_info is None


def test_the_report_has_results_curves_and_detections(
    register, make_image, make_output, evaluate, picture, output, tmp_path
):
    images = [make_image("a", [BOX], [0], file_name=picture("a", 160, 200))]
    register("pets", images, evaluator_type="voc")
    evaluator = build_evaluator("pets", inference_folder(output, "pets"))
    results = evaluate(evaluator, images, [make_output([BOX], [0.1], [0])])
    line = {"iteration": 19, "total_loss": 1.0, "lr": 0.1}
    (output / "metrics.json").write_text(json.dumps(line) + "\n")

    paths = write_report(output, results, test_sets=["pets"])

    names = ["results.json", "curves.png", "detections.png"]
    assert paths == [output / name for name in names]
    assert all(path.is_file() for path in paths)
    written = json.loads(paths[0].read_text())
    assert written["test_sets"] == ["pets"]
    assert written["results"]["voc"]["mAP50_area"] == pytest.approx(100)
    assert written["results"]["voc"]["AP50_area-dog"] is None


def test_what_is_missing_is_left_out(output):
    assert [path.name for path in write_report(output, None, test_sets=["pets"])] == [
        "results.json"
    ]
    assert [path.name for path in write_report(output, {}, test_sets=[])] == ["results.json"]


def test_a_picture_that_fails_is_logged_and_left_out(
    register, make_image, output, tmp_path, caplog
):
    register("pets", [make_image("a", file_name=tmp_path / "gone.jpg")])
    folder = output / "inference" / "pets"
    folder.mkdir(parents=True)
    (folder / "coco_instances_results.json").write_text("[]")
    assert [path.name for path in write_report(output, {}, test_sets=["pets"])] == ["results.json"]
    assert "gone.jpg" in caplog.text


@pytest.mark.parametrize("tta", [False, True])
def test_predictions_for_an_evaluation_server_are_packed(register, make_image, output, caplog, tta):
    server_set = {"evaluator_type": "voc", "year": 2012, "split": "test", "annotated": False}
    register("voc_hidden", [make_image("2008_000001")], **server_set)
    folders = [inference_folder(output, "voc_hidden", tta=flag) for flag in {False, tta}]
    for folder in map(Path, folders):
        folder.mkdir(parents=True)
        (folder / "coco_instances_results.json").write_text("[]")
    with caplog.at_level("INFO"):
        paths = write_report(output, {}, test_sets=["voc_hidden"], tta=tta)
    archives = [Path(folder) / "results_VOC2012_test.tar.gz" for folder in folders]
    assert [path for path in paths if path.suffix == ".gz"] == archives
    for archive in archives:
        assert f"Submit {archive} to the evaluation server of PASCAL VOC" in caplog.text


def test_the_archive_for_coco_has_the_name_of_the_method(register, make_image, output, tmp_path):
    file = tmp_path / "image_info_test-dev2017.json"
    file.write_text(json.dumps({"images": [{"id": 1}], "categories": []}))
    register("dev", [make_image(1)], json_file=str(file), evaluator_type="coco")
    folder = Path(inference_folder(output, "dev"))
    folder.mkdir(parents=True)
    (folder / "coco_instances_results.json").write_text("[]")
    for options, method in [({}, "apdet"), ({"method": "SSD"}, "SSD")]:
        paths = write_report(output, {}, test_sets=["dev"], **options)
        assert folder / f"detections_test-dev2017_{method}_results.zip" in paths
