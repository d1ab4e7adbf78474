import itertools

import pytest
import torch
from conftest import CONFIGS
from detectron2.config import LazyCall, instantiate
from detectron2.data.transforms import ResizeTransform
from detectron2.modeling import build_backbone, build_model
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from oracles import ap_by_algorithm_1
from torch import nn
from torch.nn import functional

from apdet import losses
from apdet.checkpoint.checkpointer import Checkpointer
from apdet.config import load_config
from apdet.errors import UserError
from apdet.modeling import RankingFCOS
from apdet.modeling.cls_loss import ClsLoss
from apdet.modeling.tta import with_test_time_augmentation

LEVELS = ["p3", "p4", "p5"]


@pytest.fixture
def cfg():
    """An FCOS of few weights for three classes."""
    options = """MODEL.DEVICE cpu MODEL.RETINANET.NUM_CLASSES 3 MODEL.FPN.OUT_CHANNELS 32
        MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RESNETS.STEM_OUT_CHANNELS 8
        MODEL.RESNETS.RES2_OUT_CHANNELS 16"""
    return load_config(CONFIGS / "digits" / "fcos_ap.yaml", options.split())


@pytest.fixture
def focal_cfg(cfg):
    cfg.MODEL.CLS_LOSS.NAME = "focal_loss"
    cfg.MODEL.RETINANET.LOSS_NORMALIZER = "ema"
    return cfg


@pytest.fixture
def all_points(cfg):
    """The config of a detector that drops no point and no class."""
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.RETINANET.NMS_THRESH_TEST = 1.0
    cfg.MODEL.RETINANET.TOPK_CANDIDATES_TEST = cfg.TEST.DETECTIONS_PER_IMAGE = 10_000
    return cfg


def image(boxes=(), classes=(), side=64):
    instances = Instances((side, side))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return {"image": torch.randint(0, 256, (3, side, side)).float(), "instances": instances}


def batch():
    return [image([[4, 6, 60, 63], [30, 30, 50, 62]], [0, 2]), image([[10, 10, 40, 50]], [1])]


def build(cfg):
    """Untrained, with outputs that differ from point to point."""
    model = build_model(cfg)
    for conv in (model.head.cls_score, model.head.bbox_pred, model.head.ctrness):
        nn.init.normal_(conv.weight, std=0.1)
    return model


def with_detectron2s(cfg):
    """Our detector, and Detectron2's own with its defaults and the same weights."""
    ours, backbone = build(cfg), build_backbone(cfg)
    shapes = [backbone.output_shape()[name] for name in LEVELS]
    theirs = FCOS(
        backbone=backbone,
        head=FCOSHead(input_shape=shapes, num_classes=3, conv_dims=[32, 32], norm="GN"),
        head_in_features=LEVELS,
        num_classes=3,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
    weights = ours.state_dict()
    weights.pop("loss_normalizer", None)
    theirs.load_state_dict(weights)
    return ours, theirs


def test_with_focal_loss_its_losses_are_those_of_detectron2s_fcos(focal_cfg):
    ours, theirs = with_detectron2s(focal_cfg)
    total, expected_total = 0, 0
    with EventStorage():
        for inputs in (batch(), [image(), image()], batch()):  # the moving average moves
            actual, expected = ours(inputs), theirs(inputs)
            for mine, other in [("cls", "cls"), ("box_reg", "loc"), ("centerness", "ctr")]:
                actual_loss, expected_loss = actual[f"loss_{mine}"], expected[f"loss_fcos_{other}"]
                torch.testing.assert_close(actual_loss, expected_loss, rtol=1e-5, atol=0)
            total += sum(actual.values())
            expected_total += sum(expected.values())
    total.backward()
    expected_total.backward()
    expected_grads = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected_grads[name], rtol=1e-3, atol=1e-6)


def test_its_detections_are_those_of_detectron2s_fcos(focal_cfg):
    focal_cfg.MODEL.RETINANET.SCORE_THRESH_TEST, focal_cfg.MODEL.RETINANET.PRIOR_PROB = 0.2, 0.2
    ours, theirs = with_detectron2s(focal_cfg)
    inputs = batch()
    with torch.no_grad():
        for actual, expected in zip(ours.eval()(inputs), theirs.eval()(inputs), strict=True):
            actual, expected = actual["instances"], expected["instances"]
            assert len(actual) > 10
            torch.testing.assert_close(actual.pred_boxes.tensor, expected.pred_boxes.tensor)
            torch.testing.assert_close(actual.scores, expected.scores)
            torch.testing.assert_close(actual.pred_classes, expected.pred_classes)


def predictions(model, inputs):
    """Logits (N, R, L), deltas (N, R, 4), centerness (N, R, 1)."""
    features = model.backbone(model.preprocess_image(inputs).tensor)
    outputs = model.head([features[name] for name in LEVELS])
    return [torch.cat([x.flatten(2).transpose(1, 2) for x in levels], dim=1) for levels in outputs]


def positives(box, side, radius=1.5):
    """Of an image of side x side pixels, (R,) bool, and the points, (R, 2)."""
    x1, y1, x2, y2 = box
    is_positive, points = [], []
    for stride, low, high in [(8, 0, 64), (16, 64, 128), (32, 128, float("inf"))]:
        coordinates = range(stride // 2, side, stride)
        for y, x in itertools.product(coordinates, coordinates):
            sides = (x - x1, y - y1, x2 - x, y2 - y)
            distance = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
            near = min(sides) > 0 and distance < radius * stride
            is_positive.append(near and low < max(sides) < high)
            points.append((x, y))
    return torch.tensor(is_positive), torch.tensor(points)


def test_one_ranking_spans_all_points_and_classes_of_the_batch(cfg):
    boxes, classes = [[4.0, 6, 60, 63], [10.0, 10, 40, 50]], [0, 1]
    inputs = [image([box], [k]) for box, k in zip(boxes, classes, strict=True)]
    model = build(cfg)
    loss = model(inputs)["loss_cls"].item()
    logits = predictions(model, inputs)[0].detach()
    targets = torch.zeros(2, 64 + 16 + 4, 3)
    for i in range(2):
        targets[i, positives(boxes[i], 64)[0], classes[i]] = 1
    assert loss == pytest.approx(ap_by_algorithm_1(logits, targets)[0].item(), abs=1e-6)
    alone = [ap_by_algorithm_1(logits[i], targets[i])[0].item() for i in range(2)]
    assert loss != pytest.approx(sum(alone) / 2, abs=1e-4)


@pytest.mark.parametrize(
    ("box", "radius", "num_positives"),
    [
        ((8, 8, 40, 56), 1.5, 4),
        ((8, 8, 40, 56), 2.5, 16),
        ((16, 16, 128, 136), 1.5, 2 + 8),  # on p3 and p4
        ((10, 10, 230, 250), 1.5, 3 + 9),  # on p4 and p5
    ],
)
def test_centerness_is_learned_at_the_positives(cfg, box, radius, num_positives):
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = radius
    model, inputs = build(cfg), [image([box], [1], side=256)]
    loss = model(inputs)["loss_centerness"]
    is_positive, points = positives(box, 256, radius)
    assert is_positive.sum() == num_positives
    (x, y), (x1, y1, x2, y2) = points[is_positive].unbind(1), box
    expected = (torch.minimum(x - x1, x2 - x) / torch.maximum(x - x1, x2 - x)) ** 0.5
    expected *= (torch.minimum(y - y1, y2 - y) / torch.maximum(y - y1, y2 - y)) ** 0.5
    logits = predictions(model, inputs)[2][0, is_positive, 0]
    expected_loss = functional.binary_cross_entropy_with_logits(logits, expected)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=0)
    loss.backward()
    assert model.head.ctrness.weight.grad.any()
    assert model.head.cls_score.weight.grad is None


def test_the_box_loss_alone_has_the_weight_of_the_config(cfg):
    model, inputs = build(cfg), batch()
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT = 3.0
    weighted = build(cfg)
    weighted.load_state_dict(model.state_dict())
    once, thrice = model(inputs), weighted(inputs)
    torch.testing.assert_close(3 * once["loss_box_reg"], thrice["loss_box_reg"])
    torch.testing.assert_close(once["loss_centerness"], thrice["loss_centerness"])


def test_the_head_starts_as_the_config_says(cfg):
    cfg.MODEL.RETINANET.NUM_CONVS, cfg.MODEL.RETINANET.PRIOR_PROB = 3, 0.2
    head = build_model(cfg).head
    assert sum(isinstance(layer, nn.Conv2d) for layer in head.cls_subnet) == 3
    assert sum(isinstance(layer, nn.GroupNorm) for layer in head.cls_subnet) == 3
    torch.testing.assert_close(head.cls_score.bias.sigmoid(), torch.full((3,), 0.2))


def test_a_loss_over_classes_scores_by_softmax_and_centerness(all_points):
    all_points.MODEL.CLS_LOSS.NAME = "ohem_loss"
    model, inputs = build(all_points).eval(), [image()]
    nn.init.constant_(model.head.bbox_pred.bias, 5)  # no box is empty
    with torch.no_grad():
        detections = model(inputs)[0]["instances"]
        logits, _, centerness = predictions(model, inputs)
    assert logits.shape == (1, 64 + 16 + 4, 4)
    expected = (logits.softmax(2)[..., :3] * centerness.sigmoid()).sqrt()
    torch.testing.assert_close(detections.scores.sort().values, expected.flatten().sort().values)


NO_POSITIVE = {
    "no box in the batch": [image(), image()],
    "a box between all points": [image([[5, 5, 8, 8]], [1])],
}


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("inputs", NO_POSITIVE.values(), ids=NO_POSITIVE)
def test_batches_without_positives_train(cfg, loss, inputs):
    cfg.MODEL.CLS_LOSS.NAME = loss
    model = build(cfg)
    result = model(inputs)
    sum(result.values()).backward()
    assert all(value.isfinite() for value in result.values())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert result["loss_box_reg"] == result["loss_centerness"] == 0
    if loss in ("ap_loss", "auc_loss", "pnp_loss", "ohem_loss"):
        assert result["loss_cls"] == 0
        assert not model.head.cls_score.weight.grad.any()


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_every_loss_trains_with_and_without_boxes_in_an_image(cfg, loss):
    cfg.MODEL.CLS_LOSS.NAME = loss
    model = build(cfg)
    sum(model([*batch(), image()]).values()).backward()
    for parameter in model.parameters():  # all have a gradient, as several processes need it
        assert parameter.grad.isfinite().all()
    assert model.head.cls_score.weight.grad.any()


@pytest.mark.parametrize("layers", [["cls_score"], ["cls_score", "bbox_pred", "ctrness"]])
def test_nan_is_told(cfg, layers):
    model = build(cfg)
    for name in layers:
        nn.init.constant_(getattr(model.head, name).bias, float("nan"))
    with pytest.raises(FloatingPointError):
        model(batch())


def test_a_class_out_of_range_is_told(cfg):
    with pytest.raises(ValueError, match="class 4, but the model has only 3"):
        build(cfg)([image([[5, 5, 40, 40]], [4])])


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_mixed_precision_stands_boxes_of_any_size(cfg, precision):
    model, inputs = build(cfg), [image([[8, 8, 40, 56]], [1])]
    nn.init.constant_(model.head.bbox_pred.bias, 100)  # strides: an area above 65504
    expected = model(inputs)
    with torch.autocast("cpu", dtype=precision):
        actual = model(inputs)
    sum(actual.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    torch.testing.assert_close(actual["loss_box_reg"], expected["loss_box_reg"], rtol=1e-3, atol=0)


def test_the_moving_average_of_positives_is_part_of_the_checkpoint(focal_cfg, tmp_path):
    model = build(focal_cfg)
    model([image([[8, 8, 40, 56]], [1])])  # of 4 positives
    Checkpointer(model, str(tmp_path)).save("last")
    again = build(focal_cfg)
    assert again.loss_normalizer == 300
    Checkpointer(again).load(str(tmp_path / "last.pth"), strict=True)
    assert again.loss_normalizer.item() == pytest.approx(0.9 * 300 + 0.1 * 4)


# Each class of each point of p4, and no other; and the best of them.
@pytest.mark.parametrize(("topk", "num_detections"), [(10_000, 4 * 4 * 3), (7, 7)])
def test_a_threshold_a_level_keeps_only_what_is_above_it(all_points, topk, num_detections):
    all_points.MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL = [1.0, 0.0, 1.0]
    all_points.MODEL.RETINANET.TOPK_CANDIDATES_TEST = topk
    model = build(all_points).eval()
    nn.init.constant_(model.head.bbox_pred.bias, 5)  # no box is empty
    with torch.no_grad():
        detections = model([image()])[0]["instances"]
    assert len(detections) == num_detections


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("LOSS_NORMALIZER", "mean", "loss_normalizer is 'mean'; choose 'batch' or 'ema'"),
        (
            "SCORE_THRESH_TEST_PER_LEVEL",
            [0.1],
            "test_score_thresh_per_level has 1 values for the 3 levels",
        ),
    ],
)
def test_wrong_settings_are_named_when_the_model_is_built(cfg, key, value, message):
    cfg.MODEL.RETINANET[key] = value
    with pytest.raises(UserError, match=message):
        build_model(cfg)


def test_it_is_made_without_a_config_file_too(cfg):
    backbone = build_backbone(cfg)
    shapes = [backbone.output_shape()[name] for name in LEVELS]
    cls_loss = LazyCall(ClsLoss)(loss="ohem_loss", num_classes=3)
    lazy = LazyCall(RankingFCOS)(
        backbone=backbone,
        head=LazyCall(FCOSHead)(input_shape=shapes, num_classes=4, conv_dims=[32], norm="GN"),
        head_in_features=LEVELS,
        cls_loss=cls_loss,
        num_classes=3,
        pixel_mean=[0, 0, 0],
        pixel_std=[1, 1, 1],
    )
    assert instantiate(lazy)(batch())["loss_cls"] > 0


def test_tta_at_one_scale_is_ordinary_testing_at_that_scale(cfg):
    model, pixels = build(cfg).eval(), torch.randint(0, 256, (3, 64, 80), dtype=torch.uint8)
    augmented = with_test_time_augmentation(model, sizes=[96], max_size=1000, flip=False)
    actual = augmented([{"image": pixels}])[0]["instances"]
    resize = ResizeTransform(64, 80, 96, 120)
    resized = torch.tensor(resize.apply_image(pixels.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    with torch.no_grad():
        expected = model([{"image": resized, "height": 64, "width": 80}])[0]["instances"]
    assert len(actual) == len(expected) > 10
    assert torch.equal(actual.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(actual.scores, expected.scores)


def test_fine_tuning_takes_over_the_classes_it_shares(cfg, tmp_path):
    old, new = build(cfg), build(cfg)
    Checkpointer(old, str(tmp_path), classes=["cat", "dog", "cow"]).save("old")
    Checkpointer(new, classes=["cow", "fox", "cat"]).load(str(tmp_path / "old.pth"))
    actual, expected = new.head.cls_score.weight, old.head.cls_score.weight
    assert torch.equal(actual[[0, 2]], expected[[2, 0]])
    assert not torch.equal(actual[1], expected[1])
    assert torch.equal(new.head.ctrness.weight, old.head.ctrness.weight)


def test_its_points_are_counted_by_level_and_matched(cfg):
    box = [8.0, 8, 40, 56]
    counts, labels = build(cfg).match_anchors([image([box], [1]), image()])
    assert counts == {"p3": 64, "p4": 16, "p5": 4}
    expected = torch.full((2, 64 + 16 + 4), 3)
    expected[0, positives(box, 64)[0]] = 1
    assert torch.equal(labels, expected)
