"""Two-stage detectors: the box predictor alone, and whole models on small images."""

import pytest
import torch
from conftest import CONFIGS
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, pairwise_iou
from detectron2.utils.events import EventStorage
from oracles import ap_by_algorithm_1
from torch.nn import functional as F  # noqa: N812

import apdet.modeling  # noqa: F401
from apdet import losses
from apdet.config import load_config
from apdet.errors import UserError
from apdet.modeling.cls_loss import ClsLoss, cls_loss_name
from apdet.modeling.ranking import ranking_targets
from apdet.modeling.roi_heads import RankingOutputLayers
from apdet.modeling.tta import with_test_time_augmentation

SIDE = 64


def predictor(loss="ap_loss", kind=RankingOutputLayers, **kwargs):
    """Of three classes, from eight features of a RoI."""
    if kind is RankingOutputLayers:
        kwargs["cls_loss"] = ClsLoss(loss=loss, num_classes=3)
    else:
        kwargs["num_classes"] = 3
    transform = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))
    return kind(ShapeSpec(channels=8), box2box_transform=transform, **kwargs)


def rois(*gt_classes):
    """Proposals of an image; 3 is the background. A box of a positive lies near the proposal."""
    instances = Instances((SIDE, SIDE))
    corner = torch.arange(len(gt_classes)).float()[:, None]
    boxes = torch.cat([corner, corner, corner + 20, corner + 30], dim=1)
    instances.proposal_boxes = Boxes(boxes)
    instances.gt_boxes = Boxes(boxes + 2)
    instances.gt_classes = torch.tensor(gt_classes, dtype=torch.int64)
    return instances


def image(boxes=(), classes=()):
    instances = Instances((SIDE, SIDE))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    masks = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    instances.gt_masks = BitMasks(masks)
    # Two of each object, both visible: its upper left corner and its centre.
    corners = instances.gt_boxes.tensor[:, :2]
    points = torch.stack([corners + 1, instances.gt_boxes.get_centers()], dim=1)
    instances.gt_keypoints = Keypoints(F.pad(points, (0, 1), value=2.0))
    return {"image": torch.randint(0, 256, (3, SIDE, SIDE)).float(), "instances": instances}


def batch():
    return [image([[4, 6, 30, 33], [30, 30, 60, 62]], [0, 2]), image([[10, 10, 40, 50]], [1])]


KINDS = {
    "faster": [],
    "cascade": [
        *("MODEL.ROI_HEADS.NAME", "RankingCascadeROIHeads"),
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
    ],
    "mask": [
        *("MODEL.MASK_ON", "True", "MODEL.ROI_MASK_HEAD.CONV_DIM", "8"),
        *("MODEL.ROI_MASK_HEAD.NUM_CONV", "1"),
    ],
    "keypoint": [
        *("MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "2"),
        *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(8,)"),
        *("MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", "0"),
    ],
    "ranking RPN": ["MODEL.PROPOSAL_GENERATOR.NAME", "RankingRPN"],
}


def config(kind="faster", *overrides):
    """A Faster R-CNN of few weights for 64 x 64 images of three classes."""
    small = f"""MODEL.DEVICE cpu MODEL.ROI_HEADS.NUM_CLASSES 3 MODEL.FPN.OUT_CHANNELS 16
    MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RESNETS.STEM_OUT_CHANNELS 8
    MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 48
    INPUT.MIN_SIZE_TEST {SIDE} INPUT.MAX_SIZE_TEST {SIDE}""".split()
    path = CONFIGS / "digits" / "faster_rcnn_ap.yaml"
    return load_config(path, [*small, *KINDS[kind], *overrides])


def train_step(model, inputs):
    with EventStorage():
        result = model(inputs)
    sum(result.values()).backward()
    return result


def test_its_loss_is_one_ranking_over_all_rois_and_classes():
    layers = predictor()
    features = torch.randn(9, 8)
    proposals = [rois(0, 3, 3, 2, 3), rois(3, 1, 3, 3)]
    predictions = layers(features)
    targets = F.one_hot(torch.tensor([0, 3, 3, 2, 3, 3, 1, 3, 3]), 4)[:, :3]
    loss, gradient = ap_by_algorithm_1(predictions[0], targets)
    actual = layers.losses(predictions, proposals)
    assert actual["loss_cls"].item() == pytest.approx(loss.item(), abs=1e-6)
    (grad,) = torch.autograd.grad(actual["loss_cls"], predictions[0])
    torch.testing.assert_close(grad.double(), gradient.reshape(9, 3).double(), atol=1e-6, rtol=0)


def test_its_box_loss_and_boxes_are_detectron2s():
    ours, theirs = predictor(loss_weight=0.5), predictor(kind=FastRCNNOutputLayers, loss_weight=0.5)
    theirs.bbox_pred.load_state_dict(ours.bbox_pred.state_dict())
    features, proposals = torch.randn(5, 8), [rois(0, 3, 1), rois(3, 2)]
    with EventStorage():
        actual = ours.losses(ours(features), proposals)
        expected = theirs.losses(theirs(features), proposals)
    assert actual.keys() == expected.keys()
    torch.testing.assert_close(actual["loss_box_reg"], expected["loss_box_reg"])
    full = predictor()
    full.load_state_dict(ours.state_dict())
    torch.testing.assert_close(
        2 * actual["loss_cls"], full.losses(full(features), proposals)["loss_cls"]
    )
    boxes = ours.predict_boxes(ours(features), proposals)
    for mine, other in zip(boxes, theirs.predict_boxes(theirs(features), proposals), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(("loss", "num_logits"), [("ap_loss", 3), ("ohem_loss", 4)])
def test_scores_are_those_of_the_loss_and_the_background_is_out_of_the_way(loss, num_logits):
    layers, features = predictor(loss), torch.randn(5, 8)
    predictions = layers(features)
    assert predictions[0].shape == (5, num_logits)
    probs = layers.predict_probs(predictions, [rois(0, 3, 1), rois(3, 2)])
    assert [len(p) for p in probs] == [3, 2]
    logits = predictions[0]
    expected = logits.sigmoid() if loss == "ap_loss" else logits.softmax(1)[:, :3]
    torch.testing.assert_close(torch.cat(probs)[:, :3], expected)
    detections, _ = layers.inference(predictions, [rois(0, 3, 1), rois(3, 2)])
    assert all(d.pred_classes.max() < 3 for d in detections)


def test_it_starts_from_the_prior():
    layers = predictor(prior_prob=0.2)
    torch.testing.assert_close(layers.cls_score.bias.sigmoid(), torch.full((3,), 0.2))
    assert not predictor("ohem_loss").cls_score.bias.any()


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize(
    "proposals",
    [[rois(), rois()], [rois(3, 3), rois(3)], [rois(1), rois(0, 2)]],
    ids=["no RoI", "no positive", "no negative RoI"],
)
def test_batches_without_rois_or_positives_train(loss, proposals):
    layers = predictor(loss)
    num_rois = sum(map(len, proposals))
    result = layers.losses(layers(torch.randn(num_rois, 8)), proposals)
    assert all(value.isfinite() for value in result.values())
    sum(result.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in layers.parameters())
    if num_rois == 0:
        assert not any(parameter.grad.any() for parameter in layers.parameters())
        detections, _ = layers.inference(layers(torch.randn(0, 8)), proposals)
        assert [len(d) for d in detections] == [0, 0]


def test_scores_that_are_nan_and_classes_out_of_range_are_refused():
    layers = predictor()
    with pytest.raises(FloatingPointError):
        layers.losses(layers(torch.full((2, 8), torch.nan)), [rois(0, 3)])
    with pytest.raises(ValueError, match="a ground truth has class 4"):
        layers.losses(layers(torch.randn(2, 8)), [rois(4, 3)])


@pytest.mark.parametrize("kind", KINDS)
def test_whole_detectors_train_and_detect(kind):
    model = build_model(config(kind)).train()
    result = train_step(model, batch())
    assert all(loss.isfinite() for loss in result.values())
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused
    with torch.no_grad():
        detections = model.eval()(batch())
    for found in detections:
        assert found["instances"].pred_boxes.tensor.isfinite().all()
        assert found["instances"].has("pred_masks") == (kind == "mask")
        assert found["instances"].has("pred_keypoints") == (kind == "keypoint")


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_boxes_train(kind):
    model = build_model(config(kind)).train()
    for inputs in ([image(), image()], [image([[5, 5, 30, 40]], [1]), image()]):
        result = train_step(model, inputs)
        assert all(loss.isfinite() for loss in result.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_all_positives_are_sampled_and_the_rest_are_negatives():
    model = build_model(config("faster", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "30")).train()
    boxes = torch.tensor([[5.0, 5, 35, 35]]) + torch.arange(100)[:, None] / 50
    inputs = Instances((SIDE, SIDE), proposal_boxes=Boxes(boxes))
    inputs.objectness_logits = torch.zeros(100)
    gt = Instances((SIDE, SIDE), gt_boxes=Boxes(boxes[:1]), gt_classes=torch.tensor([1]))
    with EventStorage():
        (sampled,) = model.roi_heads.label_and_sample_proposals([inputs], [gt])
    assert (sampled.gt_classes == 1).sum() == 30  # by Detectron2's default it were a quarter


def test_every_stage_of_a_cascade_ranks_by_itself():
    model = build_model(config("cascade")).train()
    layers = model.roi_heads.box_predictor
    assert len({id(stage.cls_loss) for stage in layers}) == len(layers) == 3
    weights = [stage.box2box_transform.weights for stage in layers]
    assert [w[0] for w in weights] == [10.0, 20.0, 30.0]
    result = train_step(model, batch())
    assert {f"loss_cls_stage{k}" for k in range(3)} < result.keys()


def test_the_objectness_of_a_ranking_rpn_is_ranked_over_all_anchors():
    cfg = config("ranking RPN")
    model, inputs = build_model(cfg).train(), batch()
    rpn, seen = model.proposal_generator, {}

    def spy(logits, targets, **kwargs):
        seen.update(logits=logits, targets=targets)
        return losses.ap_loss(logits, targets, **kwargs)

    rpn.cls_loss.loss = spy
    loss = train_step(model, inputs)["loss_rpn_cls"].item()
    num_anchors = (256 + 64 + 16 + 4) * 3
    assert seen["logits"].shape == (2, num_anchors, 1)
    expected = ap_by_algorithm_1(seen["logits"], seen["targets"])[0].item()
    assert loss == pytest.approx(expected, abs=1e-6)

    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    anchors = rpn.anchor_generator([features[name] for name in rpn.in_features])
    labels, _ = rpn.label_and_sample_anchors(anchors, [x["instances"] for x in inputs])
    labels = torch.stack(labels)
    assert (labels == 0).sum() > 2 * cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE  # not sampled
    expected = ranking_targets(torch.where(labels >= 0, 1 - labels, labels).long(), 1)
    assert torch.equal(seen["targets"], expected)


def test_what_does_not_fit_a_two_stage_detector_is_refused():
    with pytest.raises(UserError, match=r"^cls_loss ohem_loss needs .*one logit for"):
        build_model(config("ranking RPN", "MODEL.CLS_LOSS.NAME", "ohem_loss"))
    for key in ("USE_FED_LOSS", "USE_SIGMOID_CE"):
        with pytest.raises(UserError, match=f"{key} chooses a loss of Detectron2, but Ranking"):
            build_model(config("faster", f"MODEL.ROI_BOX_HEAD.{key}", "True"))


def test_the_loss_of_a_model_is_named():
    assert cls_loss_name(build_model(config("faster", "MODEL.CLS_LOSS.NAME", "pnp_loss"))) == (
        "pnp_loss"
    )
    theirs = build_model(config("faster", "MODEL.ROI_HEADS.NAME", "StandardROIHeads"))
    assert cls_loss_name(theirs) == "Detectron2's own loss"


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"keypoint"}))
@torch.no_grad()
def test_of_several_scales_one_is_ordinary_testing(kind):
    model = build_model(config(kind)).eval()
    for name, weight in model.roi_heads.named_parameters():
        if "cls_score.weight" in name:
            torch.nn.init.normal_(weight, std=0.3)  # scores that differ
    inputs = [{"image": image()["image"].byte(), "height": SIDE, "width": SIDE}]
    expected = model(inputs)[0]["instances"]
    augmented = with_test_time_augmentation(model, sizes=[SIDE], max_size=1000, flip=False)
    assert not augmented.training
    actual = augmented(inputs)[0]["instances"]
    assert len(actual) == len(expected) > 10
    assert actual.get_fields().keys() == expected.get_fields().keys()
    torch.testing.assert_close(actual.pred_boxes.tensor, expected.pred_boxes.tensor)
    for field in expected.get_fields().keys() - {"pred_boxes"}:
        torch.testing.assert_close(actual.get(field), expected.get(field))


def test_keypoints_are_not_tested_on_several_scales():
    with pytest.raises(UserError, match=r"^model: Detectron2 merges no keypoints"):
        with_test_time_augmentation(
            build_model(config("keypoint")), sizes=[SIDE], max_size=1000, flip=True
        )


def test_several_scales_need_no_config_and_keep_the_settings_of_the_model():
    limits = ["TEST.DETECTIONS_PER_IMAGE", "7", "MODEL.ROI_HEADS.NMS_THRESH_TEST", "0.3"]
    model = build_model(config("cascade", *limits)).eval()
    for name, weight in model.roi_heads.named_parameters():
        if "cls_score.weight" in name:
            torch.nn.init.normal_(weight, std=0.3)  # scores that differ
    augmented = with_test_time_augmentation(model, sizes=[SIDE, 96], max_size=1000, flip=True)
    inputs = [{"image": image()["image"].byte(), "height": SIDE, "width": SIDE}]
    with torch.no_grad():
        found = augmented(inputs)[0]["instances"]
    assert len(found) == 7
    for k in range(3):
        boxes = found.pred_boxes[found.pred_classes == k]
        iou = pairwise_iou(boxes, boxes).fill_diagonal_(0)
        assert iou.numel() == 0 or iou.max() <= 0.3
