"""`tools/train_net.py` with two-stage detectors, on a few small images of digits."""

import json
import re

import pytest
import torch
from conftest import CONFIGS, exit_message, weights_in

from apdet.cli.train import main
from apdet.config import load_config
from apdet.config.yaml_plan import plan_from_yaml
from apdet.data.digits import CLASSES, write_digits
from apdet.engine.model import build_model
from apdet.errors import UserError

SMALL = """
_BASE_: {root}/digits/faster_rcnn_ap.yaml
MODEL:
  DEVICE: cpu
  FPN: {{OUT_CHANNELS: 16}}
  RESNETS: {{WIDTH_PER_GROUP: 8, STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 16}}
  ROI_BOX_HEAD: {{FC_DIM: 16}}
  ROI_MASK_HEAD: {{CONV_DIM: 8, NUM_CONV: 1}}
DATASETS:
  REGISTER:
    - {{name: t_train, format: coco, json: d/masks_train.json, images: d/JPEGImages}}
    - {{name: t_test, format: coco, json: d/masks_test.json, images: d/JPEGImages}}
  TRAIN: [t_train]
  TEST: [t_test]
INPUT: {{RANDOM_FLIP: horizontal, FIXED_SIZE_TRAIN: [64, 64], MIN_SIZE_TEST: 64, MAX_SIZE_TEST: 64}}
SOLVER:
  IMS_PER_BATCH: 2
  REFERENCE_BATCH_SIZE: 2
  BASE_LR: 0.001
  MAX_ITER: 4
  CHECKPOINT_PERIOD: 2
TEST: {{EVAL_PERIOD: 0}}
OUTPUT_DIR: {output}
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Digits, each with a mask: the lower half of its box."""
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder / "d", num_train=8, num_test=4, size=64, seed=0)
    for split in ("train", "test"):
        content = json.loads((folder / "d" / f"coco_{split}.json").read_text())
        for annotation in content["annotations"]:
            x, y, w, h = annotation["bbox"]
            x1, middle, y1 = x + w, y + h / 2, y + h
            annotation["segmentation"] = [[x, middle, x1, middle, x1, y1, x, y1]]
        (folder / "d" / f"masks_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def config(digits, tmp_path):
    path = digits / "small.yaml"
    path.write_text(SMALL.format(root=CONFIGS, output=tmp_path / "output"))
    return str(path)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


def train(config, *arguments):
    return main(["--config-file", config, *map(str, arguments)])


def results_in(folder):
    return json.loads((folder / "results.json").read_text())["results"]


ARCHITECTURES = {
    "faster": ["SEED", -1],  # any seed, which a resumed training takes from its checkpoint
    "mask": ["MODEL.MASK_ON", True],
    "cascade": [
        *("MODEL.ROI_HEADS.NAME", "RankingCascadeROIHeads"),
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
        *("MODEL.PROPOSAL_GENERATOR.NAME", "RankingRPN"),
    ],
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_it_trains_resumes_and_is_evaluated(config, output, tmp_path, kind):
    keys = ARCHITECTURES[kind]
    train(config, *keys)
    middle, final = (weights_in(output / f"model_{name}.pth") for name in ("0000001", "final"))
    assert any(not final[name].equal(middle[name]) for name in final if "cls_score" in name)

    # As if it had been interrupted half-way; RoIs and flips are drawn at random.
    (output / "model_final.pth").unlink()
    (output / "last_checkpoint").write_text("model_0000001.pth")
    train(config, "--resume", *keys)
    assert "Starting training from iteration 2" in (output / "log.txt").read_text()
    resumed = weights_in(output / "model_final.pth")
    torch.testing.assert_close(resumed, final, rtol=0, atol=0)

    trained, elsewhere = results_in(output), tmp_path / "eval"
    train(
        config, "--eval-only", *keys,
        "MODEL.WEIGHTS", output / "model_final.pth", "OUTPUT_DIR", elsewhere,
    )  # fmt: skip
    assert results_in(elsewhere) == trained
    assert ("segm" in trained) == (kind == "mask")
    assert f"AP-{CLASSES[0]}" in trained["bbox"]


def test_masks_are_asked_for_where_there_are_none(config, digits):
    entries = [
        {"name": f"t_{split}", "format": "voc", "root": f"{digits}/d", "split": split}
        for split in ("train", "test")
    ]
    entries[0]["classes"] = CLASSES
    message = exit_message(train, config, "MODEL.MASK_ON", True, "DATASETS.REGISTER", entries)
    assert "an object has no usable mask" in message
    assert "MODEL.MASK_ON to False" in message


def test_boxes_and_masks_of_several_scales_are_merged(config, output):
    keys = ["MODEL.MASK_ON", True]
    train(config, *keys)
    alone = results_in(output)
    tta = ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", (64, 96)]
    train(config, "--eval-only", "--resume", *keys, *tta)
    both = results_in(output)
    assert {"bbox", "segm", "bbox_TTA", "segm_TTA"} == both.keys()
    assert both["bbox"] == pytest.approx(alone["bbox"], nan_ok=True)
    boxes, merged = (
        {tuple(found["bbox"]) for found in json.loads(path.read_text()) if found["segmentation"]}
        for folder in ("inference", "inference_TTA")
        for path in [output / folder / "t_test" / "coco_instances_results.json"]
    )
    assert len(merged) > 10
    assert merged - boxes  # found at the other scale alone


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["MODEL.KEYPOINT_ON", True], "Detectron2 merges no keypoints"),
        (["TEST.AUG.MIN_SIZES", ()], "TEST.AUG.MIN_SIZES is []; give at least one size"),
        (["MODEL.META_ARCHITECTURE", "SemanticSegmentor"], "not for SemanticSegmentor"),
    ],
)
def test_what_cannot_be_merged_is_said_before_the_training(config, keys, message):
    plan = plan_from_yaml(load_config(config, ["TEST.AUG.ENABLED", True, *keys]))
    with pytest.raises(UserError, match=re.escape(message)):
        build_model(plan)
