import pytest
from detectron2.config import get_cfg

from apdet.evaluation import build_evaluator

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
