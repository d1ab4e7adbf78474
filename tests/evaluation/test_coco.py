import json
import math

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apdet.errors import UserError
from apdet.evaluation.coco import build_coco_evaluator

CLASSES = ["cat", "dog", "cow"]
METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
SMALL, MEDIUM, LARGE = [5, 5, 25, 25], [30, 5, 80, 60], [60, 30, 180, 150]


def outputs_of(images, detections, make_output):
    return [make_output(*detections[image["image_id"]]) for image in images]


def perfect_outputs(images, make_output):
    """Detections of all boxes that are not to be ignored."""
    outputs = []
    for image in images:
        kept = [a for a in image["annotations"] if not a["iscrowd"]]
        boxes, classes = [a["bbox"] for a in kept], [a["category_id"] for a in kept]
        outputs.append(make_output(boxes, [0.3] * len(boxes), classes))
    return outputs


def coco_file(path, images, *, category_ids=(0, 1, 2), first_id=1, whole=True):
    """Write a COCO file of dataset dicts in XYXY; ``whole`` files have all optional fields."""
    annotations = []
    for image in images:
        for a in image["annotations"]:
            x0, y0, x1, y1 = a["bbox"]
            entry = {
                "id": first_id + len(annotations),
                "image_id": image["image_id"],
                "category_id": category_ids[a["category_id"]],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            if whole or a["iscrowd"]:
                entry.update(area=(x1 - x0) * (y1 - y0), iscrowd=a["iscrowd"])
            annotations.append(entry)
    content = {
        "info": {},
        "images": [{"id": i["image_id"], "height": 160, "width": 200} for i in images],
        "categories": [
            {"id": i, "name": name} for i, name in zip(category_ids, CLASSES, strict=True)
        ],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    return str(path)


def pycocotools_stats(truth_file, detections, max_detections=100):
    """The twelve numbers and the AP of each class, in percent, of pycocotools alone.

    Its first number and its sixth are of 100 detections, whatever ``max_detections`` is.
    """
    results = [
        {
            "image_id": image_id,
            "category_id": int(label),
            "bbox": np.float32([x0, y0, x1 - x0, y1 - y0]).tolist(),
            "score": float(score),
        }
        for image_id, found in detections.items()
        for (x0, y0, x1, y1), score, label in zip(*found, strict=True)
    ]
    truth = COCO(truth_file)
    coco_eval = COCOeval(truth, truth.loadRes(results), "bbox")
    coco_eval.params.maxDets[2] = max_detections
    coco_eval.evaluate()
    coco_eval.accumulate()
    coco_eval.summarize()
    precision = coco_eval.eval["precision"][:, :, :, 0, -1]
    return 100 * coco_eval.stats, [100 * precision[:, :, k].mean() for k in range(len(CLASSES))]


@pytest.mark.parametrize("string_ids", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools_on_a_file_written_by_hand(
    random_case, register, make_output, evaluate, tmp_path, seed, string_ids
):
    images, detections = random_case(seed, string_ids=string_ids)
    register("pets", images)

    evaluator = build_coco_evaluator("pets", str(tmp_path))
    results = evaluate(evaluator, images, outputs_of(images, detections, make_output))["bbox"]

    stats, per_class = pycocotools_stats(coco_file(tmp_path / "truth.json", images), detections)
    stats = np.where(stats < 0, np.nan, stats)
    np.testing.assert_allclose([results[m] for m in METRICS], stats[:6], atol=1e-4)
    np.testing.assert_allclose([results[f"AP-{n}"] for n in CLASSES], per_class, atol=1e-4)
    assert 0 < results["AP"] < 100


def test_a_perfect_detector_scores_100_at_every_size_there_is(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image("a", [SMALL, MEDIUM], [0, 1]), make_image("b", [MEDIUM], [2])]
    register("pets", images)
    outputs = perfect_outputs(images, make_output)
    results = evaluate(build_coco_evaluator("pets", str(tmp_path)), images, outputs)["bbox"]
    assert math.isnan(results.pop("APl"))
    np.testing.assert_allclose(list(results.values()), 100)
    assert set(results) == {*METRICS, *(f"AP-{name}" for name in CLASSES)} - {"APl"}


def test_difficult_boxes_are_neither_hits_nor_misses(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image("a", [SMALL, LARGE], [0, 0], ignored=[0, 1])]
    register("pets", images)
    evaluator = build_coco_evaluator("pets", str(tmp_path))
    missed = [make_output([SMALL], [0.5], [0])]
    assert evaluate(evaluator, images, missed)["bbox"]["AP"] == pytest.approx(100)
    found = [make_output([LARGE, SMALL], [0.9, 0.5], [0, 0])]
    assert evaluate(evaluator, images, found)["bbox"]["AP"] == pytest.approx(100)


def test_no_detection_at_all_is_an_ap_of_0_where_there_are_objects(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image("a", [SMALL], [0]), make_image("b", [LARGE], [1])]
    register("pets", images)
    outputs = [make_output(), make_output()]
    results = evaluate(build_coco_evaluator("pets", str(tmp_path)), images, outputs)["bbox"]
    assert [results[m] for m in ("AP", "AP50", "AP75", "APs", "APl")] == [0] * 5
    assert [results["AP-cat"], results["AP-dog"]] == [0, 0]
    assert math.isnan(results["APm"])
    assert math.isnan(results["AP-cow"])


@pytest.mark.parametrize("detected", [True, False])
def test_annotated_images_without_objects_give_nan(
    register, make_image, make_output, evaluate, tmp_path, detected
):
    images = [make_image("a"), make_image("b")]
    register("empty", images, annotated=True)
    outputs = [make_output([SMALL], [0.9], [0]) if detected else make_output(), make_output()]
    results = evaluate(build_coco_evaluator("empty", str(tmp_path)), images, outputs)["bbox"]
    assert all(math.isnan(results[metric]) for metric in METRICS)


@pytest.mark.parametrize("detected", [True, False])
def test_an_unannotated_set_gets_its_predictions_written_and_no_results(
    register, make_image, make_output, evaluate, tmp_path, detected
):
    images = [make_image("a")]
    register("raw", images, annotated=False)
    outputs = [make_output([SMALL], [0.5], [1]) if detected else make_output()]
    assert evaluate(build_coco_evaluator("raw", str(tmp_path)), images, outputs) == {}
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    expected = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "score": 0.5}
    assert written == ([expected] if detected else [])


def test_a_single_class_has_its_own_ap_too(register, make_image, make_output, evaluate, tmp_path):
    images = [make_image("a", [SMALL, LARGE], [0, 0])]
    register("cats", images, thing_classes=["cat"])
    outputs = [make_output([SMALL], [0.5], [0])]
    results = evaluate(build_coco_evaluator("cats", str(tmp_path)), images, outputs)["bbox"]
    assert 0 < results["AP-cat"] == results["AP"] < 100


def test_boxes_may_come_as_xywh(register, make_image, make_output, evaluate, tmp_path):
    images = [make_image(1, [SMALL, MEDIUM], [0, 1])]
    outputs = perfect_outputs(images, make_output)
    for annotation in images[0]["annotations"]:
        x0, y0, x1, y1 = annotation["bbox"]
        annotation.update(bbox=[x0, y0, x1 - x0, y1 - y0], bbox_mode=BoxMode.XYWH_ABS)
    register("pets", images)
    results = evaluate(build_coco_evaluator("pets", str(tmp_path)), images, outputs)["bbox"]
    assert results["AP"] == pytest.approx(100)


def test_a_second_evaluator_does_not_read_what_the_first_converted(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image("a", [SMALL], [0])]
    register("pets", images)
    build_coco_evaluator("pets", str(tmp_path / "first"))
    assert MetadataCatalog.get("pets").get("json_file") is None

    images.append(make_image("b", [LARGE], [1]))
    evaluator = build_coco_evaluator("pets", str(tmp_path / "second"))
    results = evaluate(evaluator, images, perfect_outputs(images, make_output))["bbox"]
    assert results["AP"] == pytest.approx(100)
    assert results["AP-dog"] == pytest.approx(100)


@pytest.mark.parametrize("converted", [True, False])
def test_classes_may_be_in_another_order_than_their_category_ids(
    register, make_image, make_output, evaluate, tmp_path, converted
):
    images = [make_image(1, [SMALL, MEDIUM, LARGE], [0, 1, 2])]
    category_ids = [9, 5, 7]
    file = coco_file(tmp_path / "truth.json", images, category_ids=category_ids)
    source = {} if converted else {"json_file": file}
    mapping = {category: k for k, category in enumerate(category_ids)}
    register("pets", images, thing_dataset_id_to_contiguous_id=mapping, **source)
    outputs = [make_output([SMALL, LARGE], [0.5, 0.6], [0, 2])]
    evaluator = build_coco_evaluator("pets", str(tmp_path / "out"))
    results = evaluate(evaluator, images, outputs)["bbox"]
    np.testing.assert_allclose([results[f"AP-{name}"] for name in CLASSES], [100, 0, 100])
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [result["category_id"] for result in written] == [9, 7]


def test_a_coco_file_may_count_from_0_and_leave_out_optional_fields(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image(1, [SMALL, LARGE], [0, 1])]
    file = coco_file(tmp_path / "truth.json", images, first_id=0, whole=False)
    mapping = {k: k for k in range(3)}
    register("pets", images, json_file=file, thing_dataset_id_to_contiguous_id=mapping)
    outputs = perfect_outputs(images, make_output)
    results = evaluate(build_coco_evaluator("pets", str(tmp_path)), images, outputs)["bbox"]
    assert results["AP"] == pytest.approx(100)


def test_categories_the_model_does_not_know_do_not_count_and_are_logged(
    register, make_image, make_output, evaluate, tmp_path, caplog
):
    images = [make_image(1, [SMALL, LARGE], [0, 1])]
    file = coco_file(tmp_path / "truth.json", images)
    register(
        "cats",
        images,
        json_file=file,
        thing_classes=["cat"],
        thing_dataset_id_to_contiguous_id={0: 0},
    )
    outputs = [make_output([SMALL], [0.5], [0])]
    results = evaluate(build_coco_evaluator("cats", str(tmp_path)), images, outputs)["bbox"]
    assert results["AP"] == pytest.approx(100)
    assert "cats: 1 objects are not measured" in caplog.text
    assert "{'dog': 1}" in caplog.text


def test_a_coco_file_without_annotations_is_unannotated(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image(1)]
    file = tmp_path / "test-dev.json"
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES)]
    file.write_text(json.dumps({"images": [{"id": 1}], "categories": categories}))
    register("raw", images, json_file=str(file))
    outputs = [make_output([SMALL], [0.5], [0])]
    assert evaluate(build_coco_evaluator("raw", str(tmp_path)), images, outputs) == {}


def crowded_case(num_objects, make_image):
    """An image of 12 x 8 pixel boxes of one class, and perfect detections of them."""
    boxes = [[16.0 * (i % 12), 8.0 * (i // 12), 16.0 * (i % 12) + 12, 8.0 * (i // 12) + 6]
             for i in range(num_objects)]  # fmt: skip
    classes = [0] * num_objects
    scores = np.linspace(0.9, 0.5, num_objects).tolist()
    return [make_image("a", boxes, classes)], {"a": (boxes, scores, classes)}


@pytest.mark.parametrize(("kept", "recall"), [(1000, 1.0), (150, 0.625)])
def test_beside_ap_at_100_stands_the_ap_of_all_detections(
    register, make_image, make_output, evaluate, tmp_path, caplog, kept, recall
):
    images, detections = crowded_case(240, make_image)
    boxes, scores, classes = detections["a"]
    register("pets", images)
    evaluator = build_coco_evaluator("pets", str(tmp_path), detections_per_image=kept)
    outputs = [make_output(boxes[:kept], scores[:kept], classes[:kept])]
    with caplog.at_level("INFO"):
        results = evaluate(evaluator, images, outputs)["bbox"]
    # COCO samples the precision, which is 1 up to the last recall, at 0, 0.01 .. 1.
    at_100 = 100 * len(np.arange(0, 100 / 240, 0.01)) / 101
    assert results["AP"] == results["AP-cat"] == pytest.approx(at_100)
    samples = 1 + math.floor(100 * recall)
    assert results[f"AP@{kept}"] == pytest.approx(100 * samples / 101)
    assert f"AP@{kept}" in caplog.text


@pytest.mark.parametrize("seed", range(2))
def test_the_other_metrics_have_the_same_bits_and_the_ap_of_all_is_that_of_pycocotools(
    random_case, register, make_output, evaluate, tmp_path, seed
):
    images, detections = random_case(seed, num_images=6)
    # More than 100 detections of a class in an image: copies with slightly lower scores.
    more = {
        image_id: [
            np.vstack([boxes] * 60),
            np.concatenate([scores - i / 1e6 for i in range(60)]),
            np.concatenate([classes] * 60),
        ]
        for image_id, (boxes, scores, classes) in detections.items()
    }
    register("pets", images)
    outputs = outputs_of(images, more, make_output)

    def results_with(limit):
        evaluator = build_coco_evaluator("pets", str(tmp_path), detections_per_image=limit)
        return evaluate(evaluator, images, outputs)["bbox"]

    usual, both = results_with(100), results_with(1000)
    ap_of_all = both.pop("AP@1000")
    assert both == pytest.approx(usual, rel=0, abs=0, nan_ok=True)  # bit by bit
    truth = coco_file(tmp_path / "truth.json", images)
    _, per_class = pycocotools_stats(truth, more, max_detections=1000)
    assert ap_of_all == pytest.approx(np.mean(per_class), abs=1e-4)
    assert ap_of_all != usual["AP"]


def test_without_a_detection_the_ap_of_all_is_0_too(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image("a", [SMALL], [0])]
    register("pets", images)
    evaluator = build_coco_evaluator("pets", str(tmp_path), detections_per_image=300)
    assert evaluate(evaluator, images, [make_output()])["bbox"]["AP@300"] == 0


def test_ids_that_are_partly_strings_are_evaluated(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image("a", [SMALL], [0]), make_image(7, [MEDIUM], [1]), make_image("7")]
    register("pets", images)
    outputs = perfect_outputs(images, make_output)
    results = evaluate(build_coco_evaluator("pets", str(tmp_path)), images, outputs)["bbox"]
    assert results["AP"] == pytest.approx(100)


def test_string_ids_in_a_users_own_coco_file_are_numbered(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image("a", [SMALL], [0]), make_image("b", [MEDIUM], [1])]
    file = coco_file(tmp_path / "truth.json", images)
    register("pets", images, json_file=file)
    evaluator = build_coco_evaluator("pets", str(tmp_path / "out"))
    results = evaluate(evaluator, images, perfect_outputs(images, make_output))["bbox"]
    assert results["AP"] == pytest.approx(100)
    written = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [result["image_id"] for result in written] == [1, 2]
    assert MetadataCatalog.get("pets").json_file == file


def test_an_interrupted_evaluation_leaves_the_former_predictions_whole(
    register, make_image, make_output, evaluate, tmp_path, monkeypatch
):
    images = [make_image("a", [SMALL], [0])]
    register("pets", images)
    outputs = perfect_outputs(images, make_output)
    evaluate(build_coco_evaluator("pets", str(tmp_path)), images, outputs)
    file = tmp_path / "coco_instances_results.json"
    former = file.read_bytes()

    def interrupt(descriptor):
        raise KeyboardInterrupt

    evaluator = build_coco_evaluator("pets", str(tmp_path))
    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(evaluator, images, [make_output()])
    assert file.read_bytes() == former
    assert not list(tmp_path.glob("*.tmp"))


def test_predictions_on_an_image_or_a_class_of_another_data_set_are_refused(
    register, make_image, make_output, evaluate, tmp_path
):
    register("pets", [make_image("a", [SMALL], [0])])
    for image, k, name in [(make_image("b"), 0, "image_id 'b'"), (make_image("a"), 3, "3")]:
        evaluator = build_coco_evaluator("pets", str(tmp_path))
        with pytest.raises(UserError, match=f"{name}, which pets does not have"):
            evaluate(evaluator, [image], [make_output([SMALL], [0.5], [k])])
