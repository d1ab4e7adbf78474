"""The layers with rows for each class, as detectors name them."""

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import build_backbone, build_model
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from torch import nn

import apdet.modeling  # noqa: F401
from apdet.config import load_config
from apdet.modeling import ClassLayer
from apdet.modeling.class_layers import class_layers_of

BOXES = "roi_heads.box_predictor"
STAGES = [f"{BOXES}.{stage}.cls_score" for stage in range(3)]
AGNOSTIC = "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True"
MASKS = "MODEL.MASK_ON True"


def build(name, options="", num_classes=7):
    small = ["MODEL.DEVICE", "cpu", "MODEL.VGG.WIDTH", "0.0625", "MODEL.FPN.OUT_CHANNELS", "32"]
    cfg = load_config(CONFIGS / "digits" / f"{name}.yaml", [*small, *options.split()])
    cfg.MODEL.RETINANET.NUM_CLASSES = cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
    return build_model(cfg)


def layers(name, options=""):
    return {layer.name: tuple(layer[1:]) for layer in class_layers_of(build(name, options))}


@pytest.mark.parametrize("heads", ["RankingROIHeads", "StandardROIHeads"])
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {f"{BOXES}.cls_score": 1, f"{BOXES}.bbox_pred": 4}),
        (AGNOSTIC, {f"{BOXES}.cls_score": 1}),
        (
            MASKS,
            {f"{BOXES}.cls_score": 1, f"{BOXES}.bbox_pred": 4, "roi_heads.mask_head.predictor": 1},
        ),
        (
            f"{MASKS} MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK True",
            {f"{BOXES}.cls_score": 1, f"{BOXES}.bbox_pred": 4},
        ),
    ],
)
def test_rows_of_two_stage_detectors(heads, options, expected):
    found = layers("faster_rcnn_ap", f"MODEL.ROI_HEADS.NAME {heads} {options}")
    has_background = heads == "StandardROIHeads"
    assert found == {
        name: (has_background and name.endswith("cls_score"), rows)
        for name, rows in expected.items()
    }


@pytest.mark.parametrize("heads", ["RankingCascadeROIHeads", "CascadeROIHeads"])
def test_every_stage_of_a_cascade_has_rows_for_classes(heads):
    found = layers("faster_rcnn_ap", f"MODEL.ROI_HEADS.NAME {heads} {AGNOSTIC}")
    assert found == dict.fromkeys(STAGES, (heads == "CascadeROIHeads", 1))


@pytest.mark.parametrize("name", ["retinanet_ohem", "ssd_ohem", "retinanet_ap", "fcos_ap"])
def test_a_dense_detector_has_a_background_if_its_loss_has_one(name):
    assert layers(name) == {"head.cls_score": (name.endswith("ohem"), 1)}


def test_detectron2s_dense_detectors_are_known():
    assert layers("retinanet_ap", "MODEL.META_ARCHITECTURE RetinaNet") == {
        "head.cls_score": (False, 1)
    }
    backbone = build_backbone(load_config(CONFIGS / "digits" / "fcos_ap.yaml"))
    shapes = [backbone.output_shape()["p3"]]
    head = FCOSHead(input_shape=shapes, num_classes=3, conv_dims=[32], norm="")
    fcos = FCOS(
        backbone=backbone,
        head=head,
        head_in_features=["p3"],
        num_classes=3,
        pixel_mean=[0.0] * 3,
        pixel_std=[1.0] * 3,
    )
    assert class_layers_of(fcos) == [ClassLayer("head.cls_score")]


def test_the_rows_of_a_layer_are_anchors_times_classes_times_rows_per_class():
    for name in ("retinanet_ohem", "ssd_ap", "faster_rcnn_ap"):
        seven, eight = (build(name, num_classes=k) for k in (7, 8))
        for layer in class_layers_of(seven):
            for key, weight in eight.get_submodule(layer.name).named_parameters():
                rows = len(seven.get_submodule(layer.name).get_parameter(key))
                anchors = (len(weight) - rows) / layer.rows_per_class  # one class more
                assert rows == anchors * (7 + layer.has_background) * layer.rows_per_class
        # Nothing else grows with the number of classes.
        grown = [
            key
            for key, weight in eight.state_dict().items()
            if weight.shape != seven.state_dict()[key].shape
        ]
        names = tuple(f"{layer.name}." for layer in class_layers_of(seven))
        assert grown
        assert all(key.startswith(names) for key in grown)


@pytest.mark.parametrize(
    "change",
    [
        lambda heads: setattr(heads.box_predictor, "use_fed_loss", True),
        lambda heads: setattr(heads, "box_predictor", nn.Linear(2, 2)),
        lambda heads: setattr(heads, "mask_head", nn.Linear(2, 2)),
        lambda heads: setattr(heads, "__class__", type("Other", (type(heads),), {})),
    ],
)
def test_heads_with_parts_that_are_not_known_do_not_say(change):
    model = build("faster_rcnn_ap", f"MODEL.ROI_HEADS.NAME StandardROIHeads {MASKS}")
    change(model.roi_heads)
    assert class_layers_of(model) is None


def test_a_detector_names_its_layers_itself():
    model = nn.ModuleDict({"classifier": nn.Linear(2, 2)})
    assert class_layers_of(model) is None
    model.class_layers = [ClassLayer("classifier", has_background=True)]
    assert class_layers_of(model) == model.class_layers
    outer = nn.Module()
    outer.roi_heads = model
    assert class_layers_of(outer) == [ClassLayer("roi_heads.classifier", has_background=True)]
    assert class_layers_of(torch.nn.Linear(1, 1)) is None
