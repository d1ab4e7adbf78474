import io
import json
import re
import subprocess
import zipfile

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.pascal_voc import CLASS_NAMES

from apdet.errors import UserError
from apdet.evaluation.build import build_evaluator, inference_folder
from apdet.evaluation.submission import write_submission

SERVER_SETS = {"evaluator_type": "voc", "year": 2012, "split": "test", "annotated": False}
CLASSES = list(CLASS_NAMES)
BOX = [10.25, 0.0, 60.5, 160.0]
# image id -> boxes, scores, classes
FOUND = {
    "2008_000001": ([BOX, [0.125, 3.5, 7.75, 9.0]], [0.875, 1.5e-6], [14, 0]),
    "2008_000005": ([], [], []),
    "2008_000010": ([[199.0, 159.0, 200.0, 160.0]], [0.8750001], [14]),
}


@pytest.fixture
def predict(make_image, make_output, evaluate, tmp_path):
    """Evaluates ``FOUND`` on a registered set; returns the folder of the predictions."""

    def run(name, found=FOUND):
        images = [make_image(image_id) for image_id in found]
        folder = inference_folder(tmp_path / "output", name)
        evaluator = build_evaluator(name, folder)
        assert evaluate(evaluator, images, [make_output(*f) for f in found.values()]) == {}
        return folder

    return run


@pytest.fixture
def voc_test(register, make_image):
    images = [make_image(image_id) for image_id in FOUND]
    for image in images:
        del image["annotations"]
    register("voc_hidden", images, **SERVER_SETS, thing_classes=CLASSES)
    return "voc_hidden"


def unpack(archive, folder):
    """{path in the archive: text}, by the tar of the system."""
    folder.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


LINE = re.compile(r"(\d{4}_\d{6}) ([01]\.\d{6,}) (\d+\.\d+) (\d+\.\d+) (\d+\.\d+) (\d+\.\d+)\n")


def test_vocs_archive_gives_the_predictions_back(predict, voc_test, tmp_path):
    archive = write_submission(voc_test, predict(voc_test), "Any")
    files = unpack(archive, tmp_path / "unpacked")
    assert files.keys() == {
        f"results/VOC2012/Main/comp4_det_test_{name}.txt" for name in CLASS_NAMES
    }
    expected = sorted(
        (image_id, CLASSES[k], score, box)
        for image_id, found in FOUND.items()
        for box, score, k in zip(*found, strict=True)
    )
    actual = []
    for path, text in files.items():
        name = path.removesuffix(".txt").split("_")[-1]
        assert "".join(m.group() for m in LINE.finditer(text)) == text
        for image_id, score, x0, y0, x1, y1 in LINE.findall(text):
            # Pixels from 1 on, the last one included, as in VOC's own annotations.
            box = [float(x0) - 1, float(y0) - 1, float(x1), float(y1)]
            actual.append((image_id, name, float(score), box))
    assert len(actual) == len(expected) == 3
    for found, truth in zip(sorted(actual), expected, strict=True):
        assert found[:2] == truth[:2]
        assert found[2] == pytest.approx(truth[2], rel=1e-7, abs=1e-9)
        assert found[3] == pytest.approx(truth[3], abs=1e-3)
    assert files["results/VOC2012/Main/comp4_det_test_cat.txt"] == ""


def test_scores_that_differ_by_little_keep_their_order(predict, voc_test, tmp_path):
    files = unpack(write_submission(voc_test, predict(voc_test), "Any"), tmp_path / "unpacked")
    people = files["results/VOC2012/Main/comp4_det_test_person.txt"].splitlines()
    scores = {line.split()[0]: float(line.split()[1]) for line in people}
    assert scores["2008_000010"] > scores["2008_000001"]


def test_nothing_detected_at_all_is_twenty_empty_files(predict, voc_test, tmp_path):
    folder = predict(voc_test, dict.fromkeys(FOUND, ([], [], [])))
    files = unpack(write_submission(voc_test, folder, "Any"), tmp_path / "unpacked")
    assert list(files.values()) == [""] * 20


def test_coco_test_dev_is_zipped_as_its_server_names_it(register, predict, make_image, tmp_path):
    file = tmp_path / "image_info_test-dev2017.json"
    categories = [{"id": 10 * k, "name": str(k)} for k in range(3)]
    file.write_text(json.dumps({"images": [{"id": 1}], "categories": categories}))
    ids = {"thing_dataset_id_to_contiguous_id": {0: 0, 10: 1, 20: 2}}
    register("dev", [make_image(1)], json_file=str(file), evaluator_type="coco", **ids)
    archive = write_submission("dev", predict("dev", {1: ([BOX], [0.5], [2])}), "SSD")
    assert archive.name == "detections_test-dev2017_SSD_results.zip"
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as unzipped:
        assert unzipped.namelist() == ["detections_test-dev2017_SSD_results.json"]
        (result,) = json.loads(unzipped.read("detections_test-dev2017_SSD_results.json"))
    x, y, width, height = result.pop("bbox")
    assert [x, y, x + width, y + height] == BOX
    assert result == {"image_id": 1, "category_id": 20, "score": 0.5}


def test_detectron2s_test_sets_of_coco_have_a_server_and_its_others_none(tmp_path):
    for name in ("coco_2017_val", "coco_2017_train", "voc_2007_test"):
        assert name in MetadataCatalog.list()
        assert write_submission(name, tmp_path, "Any") is None
    with pytest.raises(UserError, match="evaluate on coco_2017_test-dev first"):
        write_submission("coco_2017_test-dev", tmp_path, "Any")


def test_a_set_of_ones_own_without_annotations_has_no_server(register, make_image, tmp_path):
    register("mine", [make_image("a")], evaluator_type="voc", annotated=False)
    assert write_submission("mine", tmp_path, "Any") is None


def test_predictions_on_another_set_are_refused(predict, voc_test, register, make_image):
    folder = predict(voc_test)
    register("voc_fewer", [make_image("2008_000005")], **SERVER_SETS, thing_classes=CLASSES)
    with pytest.raises(UserError, match="not in voc_fewer"):
        write_submission("voc_fewer", folder, "Any")


def test_an_archive_that_cannot_be_written_is_named(predict, voc_test, tmp_path):
    folder = predict(voc_test)
    (tmp_path / "output/inference/voc_hidden/results_VOC2012_test.tar.gz").mkdir()
    with pytest.raises(UserError, match=r"test\.tar\.gz: Is a directory; remove the folder"):
        write_submission(voc_test, folder, "Any")
