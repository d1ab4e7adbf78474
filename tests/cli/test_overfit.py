"""Every architecture learns eight images by heart, and knows them still when loaded again."""

import json

import pytest
from conftest import CONFIGS

from apdet.cli.train import main
from apdet.data.digits import CLASSES, write_digits

CONFIG = """
_BASE_: {configs}/digits/{leaf}.yaml
MODEL: {{DEVICE: cpu}}
DATASETS:
  REGISTER:
    - {{name: eight, format: voc, root: d, split: train, classes: {classes}}}
  TRAIN: [eight]
  TEST: [eight]
SOLVER: {{MAX_ITER: 120, WARMUP_ITERS: 20, CHECKPOINT_PERIOD: 60}}
TEST: {{EVAL_PERIOD: 0}}
OUTPUT_DIR: {output}
"""
FEWER_ROIS = """
MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 64 MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT 1.0
SOLVER.IMS_PER_BATCH 8 SOLVER.BASE_LR 0.05
"""
CASCADE = """
MODEL.ROI_HEADS.NAME RankingCascadeROIHeads MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True
MODEL.PROPOSAL_GENERATOR.NAME RankingRPN
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leaf", "keys"),
    [
        ("retinanet_ap", ""),
        ("ssd_ap", ""),
        ("fcos_ap", "SOLVER.MAX_ITER 400 "),
        ("faster_rcnn_ap", FEWER_ROIS),
        ("faster_rcnn_ap", FEWER_ROIS + CASCADE),
    ],
    ids=["retinanet", "ssd", "fcos", "faster_rcnn", "cascade_rcnn"],
)
def test_it_learns_eight_images_by_heart(tmp_path, leaf, keys):
    write_digits(tmp_path / "d", num_train=8, num_test=1, size=128, seed=0)
    output, elsewhere = tmp_path / "output", tmp_path / "eval"
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(configs=CONFIGS, leaf=leaf, classes=CLASSES, output=output))
    arguments = ["--config-file", str(path)]
    main([*arguments, *keys.split()])
    results = json.loads((output / "results.json").read_text())["results"]
    assert results["bbox"]["AP50"] >= 90
    final = str(output / "model_final.pth")
    keys += f"MODEL.WEIGHTS {final} OUTPUT_DIR {elsewhere}"
    main([*arguments, "--eval-only", *keys.split()])
    assert json.loads((elsewhere / "results.json").read_text())["results"] == results
