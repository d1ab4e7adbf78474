import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from oracles import ap_by_algorithm_1
from torch import nn

import apdet.modeling  # noqa: F401
from apdet import losses
from apdet.errors import UserError
from apdet.losses import ap_loss


def image(boxes=(), classes=()):
    instances = Instances((64, 64))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return {"image": torch.randint(0, 256, (3, 64, 64)).float(), "instances": instances}


def batch():
    return [image([[4, 6, 30, 33], [30, 30, 60, 62]], [0, 2]), image([[10, 10, 40, 50]], [1])]


def as_detectron2s(cfg):
    """The same detector, as Detectron2 itself builds and trains it."""
    cfg = cfg.clone()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    return build_model(cfg)


@pytest.fixture
def focal_cfg(cfg):
    cfg.MODEL.CLS_LOSS.NAME = "focal_loss"
    cfg.MODEL.RETINANET.LOSS_NORMALIZER = "ema"
    cfg.MODEL.RETINANET.BBOX_REG_LOSS_WEIGHT = 1.0
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL = []
    return cfg


def test_with_focal_loss_its_losses_are_those_of_detectron2s_retinanet(focal_cfg):
    ours, theirs = build_model(focal_cfg).train(), as_detectron2s(focal_cfg).train()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    inputs = batch()
    with EventStorage():
        for _ in range(3):  # the moving average moves
            actual, expected = ours(inputs), theirs(inputs)
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)
        sum(actual.values()).backward()
        sum(expected.values()).backward()
    expected_grads = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected_grads[name], rtol=1e-3, atol=1e-6)


def test_its_detections_are_those_of_detectron2s_retinanet(focal_cfg):
    focal_cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.01
    ours, theirs = build_model(focal_cfg).eval(), as_detectron2s(focal_cfg).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    inputs = batch()
    with torch.no_grad():
        for actual, expected in zip(ours(inputs), theirs(inputs), strict=True):
            actual, expected = actual["instances"], expected["instances"]
            assert len(actual) > 10
            torch.testing.assert_close(actual.pred_boxes.tensor, expected.pred_boxes.tensor)
            torch.testing.assert_close(actual.scores, expected.scores)
            torch.testing.assert_close(actual.pred_classes, expected.pred_classes)


def test_one_ranking_spans_all_images_of_the_batch(cfg):
    model, inputs = build_model(cfg).train(), batch()
    seen = {}

    def spy(logits, targets, **kwargs):
        seen.update(logits=logits, targets=targets)
        return ap_loss(logits, targets)

    model.cls_loss.loss = spy
    loss = model(inputs)["loss_cls"].item()
    logits, targets = seen["logits"], seen["targets"]
    assert logits.shape == targets.shape == (2, (64 + 16 + 4) * 6, 3)
    assert loss == pytest.approx(ap_by_algorithm_1(logits, targets)[0].item(), abs=1e-6)
    alone = [ap_by_algorithm_1(logits[i], targets[i])[0].item() for i in range(2)]
    assert loss != pytest.approx(sum(alone) / 2, abs=1e-4)


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize(
    "inputs",
    [
        [image(), image()],
        [image([[5, 5, 20, 20]], [1]), image()],
        [image([[900, 900, 905, 905]], [1])],  # overlaps no anchor
    ],
    ids=["no box in the batch", "no box in an image", "a box far from all anchors"],
)
def test_batches_with_few_or_no_positives_train(cfg, loss, inputs):
    cfg.MODEL.CLS_LOSS.NAME = loss
    model = build_model(cfg).train()
    result = model(inputs)
    sum(result.values()).backward()
    for parameter in model.parameters():
        assert torch.isfinite(parameter.grad).all()
    assert result["loss_cls"].isfinite()
    ranks = loss in ("ap_loss", "auc_loss", "pnp_loss", "ohem_loss")
    if ranks and not any(len(x["instances"]) for x in inputs):
        assert result["loss_cls"] == 0
        assert not model.head.cls_score.weight.grad.any()


def test_a_threshold_a_level_keeps_only_what_is_above_it(cfg):
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL = [1.0, 0.0, 1.0]
    cfg.MODEL.RETINANET.NMS_THRESH_TEST = 1.0
    cfg.TEST.DETECTIONS_PER_IMAGE = 1000
    model = build_model(cfg).eval()
    with torch.no_grad():
        detections = model([image()])[0]["instances"]
    assert len(detections) == 4 * 4 * 6 * 3  # each class of each anchor of p4, and no other


def test_the_box_loss_has_the_weight_of_the_config(cfg):
    model, inputs = build_model(cfg).train(), batch()
    quarter = model(inputs)["loss_box_reg"]
    model.box_reg_loss_weight = 1.0
    torch.testing.assert_close(4 * quarter, model(inputs)["loss_box_reg"])


def test_the_head_starts_as_the_config_says(cfg):
    cfg.MODEL.RETINANET.BBOX_PRED_INIT_STD = 0.001
    head = build_model(cfg).head
    assert head.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert head.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.1)
    torch.testing.assert_close(head.cls_score.bias.sigmoid(), torch.full((18,), 0.01))


def test_a_loss_over_classes_gets_a_logit_for_the_background_and_scores_by_softmax(cfg):
    cfg.MODEL.CLS_LOSS.NAME = "ohem_loss"
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL = [0.0] * 3
    cfg.MODEL.RETINANET.NMS_THRESH_TEST = 1.0
    cfg.MODEL.RETINANET.TOPK_CANDIDATES_TEST = 10_000
    cfg.TEST.DETECTIONS_PER_IMAGE = 10_000
    model, inputs = build_model(cfg).eval(), [image()]
    nn.init.normal_(model.head.cls_score.weight)
    with torch.no_grad():
        detections = model(inputs)[0]["instances"]
        features = model.backbone(model.preprocess_image(inputs).tensor)
        levels = model.head([features[name] for name in model.head_in_features])[0]
    probabilities = [
        level.reshape(6, 4, -1).softmax(1)[:, :3]
        for level in levels  # 6 anchors, 3 + 1 classes
    ]
    expected = torch.cat([x.flatten() for x in probabilities]).sort().values
    torch.testing.assert_close(detections.scores.sort().values, expected)


def test_the_moving_average_of_positives_is_part_of_the_checkpoint(focal_cfg):
    model = build_model(focal_cfg).train()
    model(batch())
    again = build_model(focal_cfg)
    again.load_state_dict(model.state_dict())
    assert again.loss_normalizer == model.loss_normalizer < 100


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
