"""Every model that YAML builds, built by Detectron2's LazyConfig from the same classes."""

from collections.abc import Sequence

import pytest
import torch
from conftest import CONFIGS
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.fcos import FCOSHead
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from apdet.config import load_config
from apdet.modeling import (
    SSD,
    SSDVGG16,
    RankingCascadeROIHeads,
    RankingFCOS,
    RankingROIHeads,
    RankingRPN,
)
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.matcher import OverlapMatcher
from apdet.modeling.roi_heads import RankingOutputLayers
from apdet.modeling.ssd import DefaultBoxGenerator, SSDHead

WEIGHTS = [10.0, 10.0, 5.0, 5.0]


def retinanet():
    return LazyConfig.load(str(CONFIGS / "lazy" / "digits_retinanet_ap.py")).model


def ssd():
    features = {"conv4_3": 64, "conv7": 128, "conv8_2": 64, "conv9_2": 32}
    model = retinanet()
    model._target_ = SSD
    model.backbone = L(SSDVGG16)(in_channels=3, out_features=list(features), width=0.125, norm="BN")
    model.head_in_features = list(features)
    model.head = L(SSDHead)(
        input_shape=[L(ShapeSpec)(channels=channels) for channels in features.values()],
        num_anchors=[4, 4, 4, 4],
        num_logits="${..num_classes}",
        bbox_pred_init_std=0.001,
    )
    model.anchor_generator = L(DefaultBoxGenerator)(
        sizes=[[20, 36], [36, 60], [60, 90], [90, 120]],
        aspect_ratios=[[2]],
        strides=[8, 16, 32, 64],
        offset=0.5,
    )
    model.anchor_matcher = L(OverlapMatcher)(
        thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=True
    )
    model.update(test_score_thresh=0.01, test_score_thresh_per_level=[])
    return model


def fcos():
    model = retinanet()
    model._target_ = RankingFCOS
    for key in ("anchor_generator", "box2box_transform", "anchor_matcher", "smooth_l1_beta"):
        del model[key]
    model.head = L(FCOSHead)(
        input_shape=[L(ShapeSpec)(channels=64) for _ in range(3)],
        num_classes="${..num_classes}",
        conv_dims=[64, 64],
        norm="GN",
    )
    model.update(box_reg_loss_weight=1.0, test_score_thresh=0.01, test_score_thresh_per_level=[])
    return model


def faster_rcnn():
    model = get_config("common/models/mask_rcnn_fpn.py").model
    model.backbone = retinanet().backbone
    model.backbone.bottom_up.out_features = ["res2", "res3", "res4", "res5"]
    model.proposal_generator.in_features = ["p2", "p3", "p4", "p5"]
    model.proposal_generator.head.in_channels = 64
    model.proposal_generator.post_nms_topk = [2000, 1000]
    model.proposal_generator.anchor_generator.update(
        sizes=[[20], [36], [60], [100]], strides=[4, 8, 16, 32]
    )
    heads = model.roi_heads
    heads._target_ = RankingROIHeads
    for key in ("mask_in_features", "mask_pooler", "mask_head"):
        del heads[key]
    heads.update(num_classes=10, batch_size_per_image=256, positive_fraction=1.0)
    heads.box_in_features = ["p2", "p3"]
    heads.box_pooler.update(scales=[1 / 4, 1 / 8], output_size=5, sampling_ratio=1)
    heads.box_head.input_shape = L(ShapeSpec)(channels=64, height=5, width=5)
    heads.box_head.fc_dims = [256, 256]
    heads.box_predictor = L(RankingOutputLayers)(
        input_shape=L(ShapeSpec)(channels=256),
        cls_loss=L(ClsLoss)(loss="ap_loss", num_classes="${...num_classes}"),
        box2box_transform=L(Box2BoxTransform)(weights=WEIGHTS),
        test_score_thresh=0.01,
        loss_weight={"loss_box_reg": 4.0},
    )
    model.update(pixel_mean=[103.53, 116.28, 123.675], pixel_std=[57.375, 57.12, 58.395])
    return model


def cascade_rcnn_with_ranking_rpn():
    model = faster_rcnn()
    loss = L(ClsLoss)(loss="ap_loss", num_classes=10)
    model.proposal_generator.update(
        _target_=RankingRPN,
        cls_loss={**loss, "num_classes": 1},
        anchor_matcher=L(OverlapMatcher)(
            thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True
        ),
    )
    heads = model.roi_heads
    head, predictor = heads.pop("box_head"), heads.pop("box_predictor")
    del heads["proposal_matcher"]
    heads.update(
        _target_=RankingCascadeROIHeads,
        box_heads=[head] * 3,
        box_predictors=[
            {
                **predictor,
                "cls_loss": loss,
                "cls_agnostic_bbox_reg": True,
                "box2box_transform": L(Box2BoxTransform)(weights=[w * 10, w * 10, w * 5, w * 5]),
            }
            for w in (1.0, 2.0, 3.0)
        ],
        proposal_matchers=[
            L(Matcher)(thresholds=[t], labels=[0, 1], allow_low_quality_matches=False)
            for t in (0.5, 0.6, 0.7)
        ],
    )
    return model


CASCADE = """MODEL.ROI_HEADS.NAME RankingCascadeROIHeads MODEL.PROPOSAL_GENERATOR.NAME RankingRPN
MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True"""
# Of each model: the YAML config, what is overridden in it, and the same as lazy calls.
MODELS = {
    "retinanet": ("retinanet_ap.yaml", [], retinanet),
    "ssd": ("ssd_ap.yaml", ["MODEL.VGG.WIDTH", "0.125"], ssd),
    "fcos": ("fcos_ap.yaml", [], fcos),
    "faster_rcnn": ("faster_rcnn_ap.yaml", [], faster_rcnn),
    "cascade_rcnn": ("faster_rcnn_ap.yaml", CASCADE.split(), cascade_rcnn_with_ranking_rpn),
}
# Where a part is made and replaced on the way, other random numbers are drawn.
REDRAWN = ["faster_rcnn", "cascade_rcnn"]


def batch():
    def image(boxes, classes):
        instances = Instances((128, 128))
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        instances.gt_classes = torch.tensor(classes)
        return {"image": torch.randint(0, 256, (3, 128, 128)).float(), "instances": instances}

    return [image([[8, 9, 36, 40], [50, 40, 100, 110]], [0, 7]), image([[60, 5, 90, 50]], [3])]


def seeded(function, *arguments):
    torch.manual_seed(5)
    return function(*arguments)


def settings(module):
    """Numbers, texts and lists among the attributes of a module; omegaconf's lists are lists."""
    public = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    values = {k: str(list(v)) if isinstance(v, Sequence) else v for k, v in public.items()}
    values = {k: v for k, v in values.items() if isinstance(v, int | float | str)}
    return {k: v for k, v in values.items() if " object at 0x" not in str(v)}


@pytest.mark.parametrize("name", MODELS)
def test_lazy_and_yaml_build_the_same_model(name):
    config, overrides, lazy = MODELS[name]
    overrides = ["MODEL.DEVICE", "cpu", "MODEL.RETINANET.NUM_CLASSES", "10", *overrides]
    overrides += ["MODEL.ROI_HEADS.NUM_CLASSES", "10"]
    cfg = load_config(CONFIGS / "digits" / config, overrides)
    expected, model = seeded(build_model, cfg), seeded(instantiate, lazy())
    assert type(model) is type(expected)
    assert str(model) == str(expected)
    for ours, theirs in zip(model.modules(), expected.modules(), strict=True):
        assert settings(ours) == settings(theirs)
    if name in REDRAWN:
        model.load_state_dict(expected.state_dict())
    weights = model.state_dict()
    assert list(weights) == list(expected.state_dict())
    torch.testing.assert_close(weights, expected.state_dict(), rtol=0, atol=0)

    inputs = batch()
    with EventStorage():
        losses, expected_losses = (seeded(m.train(), inputs) for m in (model, expected))
    assert len(expected_losses) >= 2
    assert all(loss > 0 for loss in expected_losses.values())
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=0)

    with torch.no_grad():
        found, expected_found = (m.eval()(inputs)[0]["instances"] for m in (model, expected))
    assert len(expected_found) > 10
    torch.testing.assert_close(found.scores, expected_found.scores, rtol=0, atol=0)
    boxes, expected_boxes = found.pred_boxes.tensor, expected_found.pred_boxes.tensor
    torch.testing.assert_close(boxes, expected_boxes, rtol=0, atol=0)
