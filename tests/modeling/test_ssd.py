from types import SimpleNamespace

import pytest
import torch
import torchvision
from conftest import CONFIGS
from detectron2.modeling import build_anchor_generator, build_model
from detectron2.structures import Boxes, Instances
from torchvision.models.detection import ssd as torchvision_ssd
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from apdet import losses
from apdet.config import load_config
from apdet.errors import UserError
from apdet.modeling import SSDVGG16

SIDES = {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}
NAMES = ["conv4_3", "conv7", *(f"conv{i}_2" for i in range(8, 13))]


def torchvisions(size):
    """torchvision's backbone of SSD300; that of SSD512 has the layers of its paper."""
    vgg = torchvision.models.vgg16().features
    backbone = torchvision_ssd.SSDFeatureExtractorVGG(vgg, highres=size == 512)
    if size == 512:
        for i, stride in [(3, 2), (4, 2), (5, 1)]:
            backbone.extra[i][2].stride, backbone.extra[i][2].padding = (stride,) * 2, (1, 1)
    return backbone


@pytest.mark.parametrize("size", [300, 512])
def test_the_features_are_torchvisions_for_the_same_weights(size):
    theirs = torchvisions(size)
    ours = SSDVGG16(in_channels=3, out_features=NAMES[: len(SIDES[size])], input_size=size)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(other)
        image = torch.randn(1, 3, 300, 300)
        actual, expected = ours(image), theirs(image)
    assert len(actual) == len(expected)
    for mine, other in zip(actual.values(), expected.values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [300, 512])
def test_the_features_have_the_sizes_of_the_paper(size):
    names = NAMES[: len(SIDES[size])]
    backbone = SSDVGG16(in_channels=3, out_features=names, input_size=size, width=1 / 64)
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, size, size))
    assert [x.shape[-1] for x in features.values()] == list(SIDES[size])
    for name, shape in backbone.output_shape().items():
        assert shape.channels == features[name].shape[1]


@pytest.mark.parametrize(("size", "num_boxes"), [(300, 8732), (512, 24564)])
def test_the_default_boxes_are_torchvisions(size, num_boxes):
    cfg = load_config(CONFIGS / f"Base-SSD{size}-AP.yaml")
    cfg.MODEL.VGG.WIDTH = 1 / 64
    backbone = SSDVGG16(cfg, SimpleNamespace(channels=3))
    shapes = [backbone.output_shape()[name] for name in cfg.MODEL.RETINANET.IN_FEATURES]
    features = [torch.zeros(1, 1, side, side) for side in SIDES[size]]
    ours = Boxes.cat(build_anchor_generator(cfg, shapes)(features)).tensor
    sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    theirs = DefaultBoxGenerator(
        cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS,
        scales=[s / size for s, _ in sizes] + [sizes[-1][1] / size],
        steps=[shape.stride for shape in shapes],
        clip=False,
    )
    (expected,) = theirs(ImageList(torch.zeros(1, 3, size, size), [(size, size)]), features)
    assert len(ours) == num_boxes
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)


@pytest.fixture
def ssd_cfg():
    """An SSD of few weights for 128 x 128 images of three classes."""
    cfg = load_config(CONFIGS / "digits" / "ssd_ap.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    cfg.MODEL.VGG.WIDTH, cfg.MODEL.VGG.NORM = 1 / 16, ""
    return cfg


def image(boxes=(), classes=(), side=128):
    instances = Instances((side, side))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return {"image": torch.randint(0, 256, (3, side, side)).float(), "instances": instances}


def batch():
    return [
        image([[4, 6, 60, 66], [50, 70, 80, 90]], [0, 2]),
        image([[10, 10, 90, 100]], [1]),
        image(),
    ]


def test_with_ohem_its_losses_are_those_of_torchvisions_ssd(ssd_cfg):
    ssd_cfg.MODEL.CLS_LOSS.NAME = "ohem_loss"
    ssd_cfg.MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT = 1.0
    model, inputs = build_model(ssd_cfg).train(), batch()
    for conv in [*model.head.cls_score, *model.head.bbox_pred]:
        torch.nn.init.normal_(conv.weight, std=0.3)
    actual = model(inputs)

    features = model.backbone(model.preprocess_image(inputs).tensor)
    features = [features[name] for name in model.head_in_features]
    logits, deltas = (
        torch.cat([x.permute(0, 2, 3, 1).reshape(3, -1, num) for x in levels], dim=1)
        for levels, num in zip(model.head(features), (4, 4), strict=True)
    )
    anchors = Boxes.cat(model.anchor_generator(features)).tensor
    matched = []
    for x in inputs:  # an anchor's object, or -1: a best anchor for each object, and any from 0.5
        iou = torchvision.ops.box_iou(x["instances"].gt_boxes.tensor, anchors)
        best = iou.argmax(0) if len(iou) else torch.zeros(len(anchors), dtype=torch.int64)
        match = iou.amax(0) >= 0.5 if len(iou) else torch.zeros(len(anchors), dtype=torch.bool)
        for row in iou:
            match |= row == row.max()
        matched.append(torch.where(match, best, -1))
    # torchvision's background is class 0.
    expected = torchvision_ssd.SSD.compute_loss(
        SimpleNamespace(
            box_coder=torchvision.models.detection._utils.BoxCoder((10, 10, 5, 5)),
            neg_to_pos_ratio=3,
        ),
        [
            {"boxes": x["instances"].gt_boxes.tensor, "labels": x["instances"].gt_classes + 1}
            for x in inputs
        ],
        {"cls_logits": logits[..., [3, 0, 1, 2]], "bbox_regression": deltas},
        [anchors] * 3,
        matched,
    )
    torch.testing.assert_close(actual["loss_cls"], expected["classification"])
    torch.testing.assert_close(actual["loss_box_reg"], expected["bbox_regression"])


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_it_trains_with_every_loss_and_detects(ssd_cfg, loss):
    ssd_cfg.MODEL.CLS_LOSS.NAME = loss
    model = build_model(ssd_cfg).train()
    for inputs in (batch(), [image(), image()]):
        result = model(inputs)
        sum(result.values()).backward()
        assert result["loss_cls"].isfinite()
        assert all(p.grad.isfinite().all() for p in model.parameters())
    ssd_cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    with torch.no_grad():
        detections = build_model(ssd_cfg).eval()([{**image(), "height": 256, "width": 64}])
    detections = detections[0]["instances"]
    assert len(detections) == 100
    assert detections.image_size == (256, 64)
    assert detections.pred_boxes.tensor[:, 3].max() > 64
    assert (detections.scores > 0).all()


def test_the_head_starts_as_the_config_says(ssd_cfg):
    head = build_model(ssd_cfg).head
    weights = torch.cat([conv.weight.flatten() for conv in head.bbox_pred])
    assert weights.std().item() == pytest.approx(0.001, rel=0.1)
    for conv in head.cls_score:
        torch.testing.assert_close(conv.bias.sigmoid(), torch.full((3 * 4,), 0.01))


def test_frozen_stages_do_not_move_and_the_others_do(ssd_cfg):
    ssd_cfg.MODEL.BACKBONE.FREEZE_AT, ssd_cfg.MODEL.VGG.NORM = 2, "BN"
    model = build_model(ssd_cfg).train()
    before = {name: x.clone() for name, x in model.backbone.named_buffers()}
    sum(model(batch()).values()).backward()
    for name, parameter in model.backbone.named_parameters():
        frozen = name.startswith(("conv1_", "conv2_"))
        assert (parameter.grad is None) == frozen, name
    for name, buffer in model.backbone.named_buffers():
        if name.endswith("running_mean"):
            assert torch.equal(buffer, before[name]) == name.startswith(("conv1_", "conv2_"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.VGG.INPUT_SIZE", 400, r"^input_size is 400; choose one of \[300, 512\]"),
        ("MODEL.VGG.INPUT_SIZE", 300, "out_features has 'conv12_2'; VGG-16 with input_size 300"),
        ("MODEL.RETINANET.IN_FEATURES", ["p3"], "out_features has 'p3'; VGG-16 .*'conv4_3'"),
    ],
)
def test_wrong_settings_are_named_when_the_model_is_built(key, value, message):
    cfg = load_config(CONFIGS / "Base-SSD512-AP.yaml", ["MODEL.VGG.WIDTH", "0.1"])
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        build_model(cfg)


def test_an_image_that_is_too_small_is_named(ssd_cfg):
    model = SSDVGG16(in_channels=3, out_features=["conv10_2"], input_size=300, width=1 / 64)
    with pytest.raises(UserError, match="an image of 64 x 80 is too small for conv10_2; resize"):
        model(torch.zeros(1, 3, 64, 80))
