import pytest
import torch
from detectron2.config import get_cfg
from detectron2.evaluation.testing import flatten_results_dict

from apdet.evaluation import build_evaluator
from apdet.evaluation.build import metric_names

BOX = [10, 10, 60, 60]


def cfg_of(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


@pytest.mark.parametrize(
    ("metadata", "metrics"),
    [
        ({"evaluator_type": "voc"}, {"bbox", "voc"}),
        ({"evaluator_type": "pascal_voc"}, {"bbox", "voc"}),
        ({"evaluator_type": "coco"}, {"bbox"}),
        ({}, {"bbox"}),
        ({"evaluator_type": "voc", "annotated": False}, set()),
    ],
)
def test_voc_metrics_are_for_annotated_sets_in_voc_format(
    register, make_image, make_output, evaluate, tmp_path, metadata, metrics
):
    images = [make_image("a", [BOX], [0])]
    register("pets", images, **metadata)
    evaluator = build_evaluator(cfg_of(tmp_path), "pets")
    results = evaluate(evaluator, images, [make_output([BOX], [0.9], [0])])
    assert results.keys() == metrics
    assert (tmp_path / "inference" / "pets" / "coco_instances_results.json").is_file()


def test_predictions_go_to_the_folder_that_is_asked_for(
    register, make_image, make_output, evaluate, tmp_path
):
    images = [make_image("a", [BOX], [0])]
    register("pets", images, evaluator_type="coco")
    evaluator = build_evaluator(cfg_of(tmp_path), "pets", str(tmp_path / "elsewhere"))
    evaluate(evaluator, images, [make_output()])
    assert (tmp_path / "elsewhere" / "coco_instances_results.json").is_file()
    assert not (tmp_path / "inference").exists()


@pytest.mark.parametrize("classes", [["cat"], ["cat", "dog", "50"]])
@pytest.mark.parametrize("limit", [100, 300])
@pytest.mark.parametrize("masks", ["", "asked for", "there"])
@pytest.mark.parametrize(
    "metadata",
    [{"evaluator_type": "voc"}, {"evaluator_type": "coco"}, {"annotated": False}],
)
def test_the_names_of_metrics_are_those_of_the_results(
    register, make_image, make_output, evaluate, tmp_path, classes, limit, masks, metadata
):
    images = [make_image("a", [BOX], [0])]
    output = make_output([BOX], [0.9], [0])
    if masks == "there":
        images[0]["annotations"][0]["segmentation"] = [[10, 10, 60, 10, 60, 60]]
        output["instances"].pred_masks = torch.ones(1, 160, 200, dtype=torch.bool)
    register("pets", images, thing_classes=classes, **metadata)
    options = {"masks": bool(masks), "detections_per_image": limit}
    results = evaluate(build_evaluator("pets", str(tmp_path), **options), images, [output])
    assert sorted(metric_names("pets", **options)) == sorted(flatten_results_dict(results))
    assert bool(results) == ("annotated" not in metadata)


def test_the_names_of_metrics_of_keypoints(register, make_image, make_output, evaluate, tmp_path):
    images = [make_image("a", [BOX], [0])]
    images[0]["annotations"][0]["keypoints"] = [30.5, 30.5, 2]
    output = make_output([BOX], [0.9], [0])
    output["instances"].pred_keypoints = torch.tensor([[[30.5, 30.5, 1.0]]])
    register("pets", images, thing_classes=["cat"])
    options = {"keypoints": True, "keypoint_oks_sigmas": [0.1], "detections_per_image": 300}
    evaluator = build_evaluator("pets", str(tmp_path), **options)
    results = evaluate(evaluator, images, [output])
    assert sorted(metric_names("pets", **options)) == sorted(flatten_results_dict(results))
    assert results["keypoints"]["AP"] == pytest.approx(100)
