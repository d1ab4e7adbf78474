"""What detectors tell about themselves, and what Detectron2's own do not."""

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY, build_model
from detectron2.structures import Boxes, Instances, pairwise_iou

import apdet.modeling  # noqa: F401
from apdet.config import load_config
from apdet.modeling.contract import class_layer_of, match_anchors, num_classes_of

DENSE = {"RankingRetinaNet": "retinanet_ap", "SSD": "ssd_ap", "RankingFCOS": "fcos_ap"}


def config(name, *overrides):
    small = ["MODEL.DEVICE", "cpu", "MODEL.VGG.WIDTH", "0.0625", "MODEL.FPN.OUT_CHANNELS", "32"]
    return load_config(CONFIGS / "digits" / f"{name}.yaml", [*small, *overrides])


def batch(cfg):
    images = []
    for boxes in ([[4.0, 6, 60, 63], [30.0, 30, 50, 62]], []):
        instances = Instances((128, 128), gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
        instances.gt_classes = torch.arange(len(boxes))
        images.append({"image": torch.zeros(3, 128, 128), "instances": instances})
    return images


@pytest.mark.parametrize("architecture", DENSE)
def test_a_dense_detector_names_its_class_layer_whose_rows_are_anchors_times_logits(architecture):
    model = build_model(config(DENSE[architecture], "MODEL.RETINANET.NUM_CLASSES", "7"))
    assert type(model).__name__ == architecture
    assert num_classes_of(model) == 7
    rows = [
        len(weight)
        for name, weight in model.state_dict().items()
        if name.startswith(f"{class_layer_of(model)}.")
    ]
    assert rows
    cells = model.anchor_generator.num_anchors
    assert set(rows) == {anchors * model.cls_loss.num_logits for anchors in cells}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *((name, []) for name in DENSE.values()),
        ("faster_rcnn_ap", []),
        ("faster_rcnn_ap", ["MODEL.ROI_HEADS.NAME", "RankingCascadeROIHeads"]),
    ],
)
def test_the_number_of_classes_is_read_from_the_key_that_is_named(name, overrides):
    cfg = config(name, *overrides)
    owner = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    if name == "faster_rcnn_ap":
        owner = ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)
        cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    cfg.merge_from_list([owner.num_classes_key, 7])
    assert num_classes_of(build_model(cfg)) == 7


@pytest.mark.parametrize("name", ["retinanet_ap", "ssd_ap"])
def test_anchors_are_counted_by_level_and_matched_by_overlap(name):
    cfg = config(name, "MODEL.RETINANET.NUM_CLASSES", "3")
    model, inputs = build_model(cfg), batch(cfg)
    matches = match_anchors(model, inputs)
    features = model.backbone(model.preprocess_image(inputs).tensor)
    anchors = model.anchor_generator([features[level] for level in cfg.MODEL.RETINANET.IN_FEATURES])
    assert list(matches.num_anchors) == cfg.MODEL.RETINANET.IN_FEATURES
    assert list(matches.num_anchors.values()) == [len(level) for level in anchors]
    iou = pairwise_iou(inputs[0]["instances"].gt_boxes, Boxes.cat(anchors))
    labels = matches.labels
    assert labels.shape == (2, iou.shape[1])
    positive = (iou >= 0.5).any(0) | (iou == iou.max(1, keepdim=True).values).any(0)
    assert torch.equal((labels[0] >= 0) & (labels[0] < 3), positive)
    assert (labels[1] == 3).all()  # an image without boxes has only background


def test_detectors_of_detectron2_are_served_with_less():
    model = build_model(config("retinanet_ap", "MODEL.META_ARCHITECTURE", "RetinaNet"))
    assert num_classes_of(model) == 80
    assert class_layer_of(model) is None
    assert match_anchors(model, []) is None
    assert num_classes_of(torch.nn.Linear(1, 1)) is None
