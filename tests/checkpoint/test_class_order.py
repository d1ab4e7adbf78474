"""Evaluating and resuming with the classes in another order: by name, and to the same result."""

import logging

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.checkpoint.classes import are_same_classes
from apdet.config import load_config
from apdet.errors import ArgumentError, UserError

CLASSES = ["cat", "dog", "traffic light", "sofa"]
# The same in another order and by other spellings.
REORDERED = ["couch", "cat", "Traffic_Light", "dog"]
ORDER = [3, 0, 2, 1]
RENAMED = ["cat", "dog", "Traffic_Light", "couch"]  # CLASSES by these spellings

# All predictions are detections.
SMALL = """MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 32 MODEL.RESNETS.WIDTH_PER_GROUP 8
    MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 16
    MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 8 MODEL.VGG.WIDTH 0.0625
    MODEL.RETINANET.NUM_CLASSES 4 MODEL.RETINANET.SCORE_THRESH_TEST 0.0
    MODEL.RETINANET.SCORE_THRESH_TEST_PER_LEVEL [] MODEL.RETINANET.NMS_THRESH_TEST 1.0
    MODEL.RETINANET.TOPK_CANDIDATES_TEST 10000 MODEL.ROI_HEADS.NUM_CLASSES 4
    MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 MODEL.ROI_HEADS.NMS_THRESH_TEST 1.0
    MODEL.RPN.POST_NMS_TOPK_TEST 50 TEST.DETECTIONS_PER_IMAGE 10000"""
KEYPOINTS = """MODEL.KEYPOINT_ON True MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS 2
    MODEL.RPN.POST_NMS_TOPK_TEST 8 MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS (8,)"""
CASCADE = "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True MODEL.ROI_HEADS.NAME "
# {name: config and options}. The last ones are Detectron2's own.
DETECTORS = {
    "retinanet": ("retinanet_ap", ""),
    "retinanet with a background": ("retinanet_ohem", ""),
    "ssd": ("ssd_ap", ""),
    "fcos": ("fcos_ap", ""),
    "mask r-cnn": ("faster_rcnn_ap", "MODEL.MASK_ON True"),
    "keypoint r-cnn": ("faster_rcnn_ap", KEYPOINTS),
    "faster r-cnn with a background": ("faster_rcnn_ap", "MODEL.CLS_LOSS.NAME ohem_loss"),
    "cascade": ("faster_rcnn_ap", f"{CASCADE} RankingCascadeROIHeads"),
    "Detectron2's mask r-cnn": (
        "faster_rcnn_ap",
        "MODEL.ROI_HEADS.NAME StandardROIHeads MODEL.MASK_ON True",
    ),
    "Detectron2's keypoint r-cnn": (
        "faster_rcnn_ap",
        f"MODEL.ROI_HEADS.NAME StandardROIHeads {KEYPOINTS}",
    ),
    "Detectron2's cascade": ("faster_rcnn_ap", f"{CASCADE} CascadeROIHeads"),
    "Detectron2's retinanet": ("retinanet_ap", "MODEL.META_ARCHITECTURE RetinaNet"),
}
CLASS_LAYERS = ("cls_score", "box_predictor", "mask_head.predictor")


def build(name, seed):
    torch.manual_seed(seed)
    config, options = DETECTORS[name]
    model = build_model(load_config(CONFIGS / "digits" / f"{config}.yaml", [
        *SMALL.split(), *options.split()]))  # fmt: skip
    for key, weight in model.named_parameters():
        if any(part in key for part in CLASS_LAYERS):
            nn.init.normal_(weight, std=0.1)  # predictions that tell classes apart
    return model.eval()


@torch.no_grad()
def detections(model, classes):
    """{class: scores, boxes, masks and keypoints} of an image."""
    torch.manual_seed(5)
    (output,) = model([{"image": torch.rand(3, 64, 64) * 255}])
    found = output["instances"]
    assert len(found) >= 4
    parts = [found.scores[:, None], found.pred_boxes.tensor]
    if found.has("pred_masks"):
        parts.append(found.pred_masks.flatten(1).float().mean(1, keepdim=True))
    if found.has("pred_keypoints"):
        parts.append(found.pred_keypoints.flatten(1))
    rows = torch.cat(parts, dim=1)
    return {name: rows[found.pred_classes == k] for k, name in enumerate(classes)}


@pytest.mark.parametrize("name", DETECTORS)
def test_detections_keep_their_names_when_classes_have_another_order(name, tmp_path, caplog):
    trained, evaluated = build(name, seed=0), build(name, seed=1)
    Checkpointer(trained, str(tmp_path), classes=CLASSES).save("model")
    with caplog.at_level(logging.INFO, "apdet"):
        Checkpointer(evaluated, classes=REORDERED).load_to_evaluate(
            str(tmp_path / "model.pth"), resume=False
        )
    expected = detections(trained, RENAMED)
    torch.testing.assert_close(detections(evaluated, REORDERED), expected)
    assert caplog.text.count("mapped by name") == 1


def test_the_same_order_changes_no_bit_and_is_not_mentioned(tmp_path, caplog):
    trained, evaluated = build("mask r-cnn", seed=0), build("mask r-cnn", seed=1)
    Checkpointer(trained, str(tmp_path), classes=CLASSES).save("model")
    with caplog.at_level(logging.INFO, "apdet"):
        Checkpointer(evaluated, str(tmp_path), classes=CLASSES).load_to_evaluate("", resume=True)
    assert "classes" not in caplog.text
    for key, weight in evaluated.state_dict().items():
        assert torch.equal(weight, trained.state_dict()[key]), key


def test_weights_with_the_prefix_of_data_parallel_are_mapped_too(tmp_path):
    trained, evaluated = build("retinanet", seed=0), build("retinanet", seed=1)
    weights = {f"module.{key}": weight for key, weight in trained.state_dict().items()}
    torch.save({"model": weights, "classes": CLASSES}, tmp_path / "model.pth")
    Checkpointer(evaluated, classes=REORDERED).load_to_evaluate(
        str(tmp_path / "model.pth"), resume=False
    )
    torch.testing.assert_close(detections(evaluated, REORDERED), detections(trained, RENAMED))


def test_a_layer_of_classes_that_is_missing_is_not_overlooked(tmp_path):
    model = build("retinanet", seed=0)
    weights = model.state_dict()
    del weights["head.cls_score.bias"]
    torch.save({"model": weights, "classes": CLASSES}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"model\.pth: it lacks head\.cls_score\.bias"):
        Checkpointer(model, classes=REORDERED).load(str(tmp_path / "model.pth"), strict=True)


def optimizer_of(name, model):
    if name == "SGD":
        return torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(model.parameters(), lr=0.003, amsgrad=True)


def batch(order):
    """Two images, whose classes are numbered in an order of ``CLASSES``."""
    torch.manual_seed(3)
    images = []
    for labels in ([0, 1, 2], [3, 1]):
        corners = torch.rand(len(labels), 2) * 30
        boxes = Boxes(torch.cat([corners, corners + 15 + torch.rand(len(labels), 2) * 15], dim=1))
        instances = Instances((64, 64), gt_boxes=boxes)
        instances.gt_classes = torch.tensor([order.index(k) for k in labels])
        instances.gt_masks = BitMasks(torch.rand(len(labels), 64, 64) > 0.5)
        images.append({"image": torch.rand(3, 64, 64) * 255, "instances": instances})
    return images


def train(model, optimizer, order, steps):
    losses = []
    for step in steps:
        model.train()
        torch.manual_seed(step)
        with EventStorage():
            loss = sum(model(batch(order)).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_the_state_moved_with_the_weights(old, new):
    (model, optimizer), (resumed, other) = old, new
    num_moved = 0
    for (key, theirs), ours in zip(model.named_parameters(), resumed.parameters(), strict=True):
        if any(part in key for part in CLASS_LAYERS):
            rows = [(theirs == row).view(len(theirs), -1).all(1).nonzero().item() for row in ours]
            num_moved += rows != sorted(rows)
            for name, state in optimizer.state[theirs].items():
                expected = state[rows] if state.dim() else state
                assert torch.equal(other.state[ours][name], expected), (key, name)
    assert num_moved >= 2


@pytest.mark.parametrize("optimizer_name", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", ["retinanet with a background", "mask r-cnn", "cascade"])
def test_a_training_resumed_with_reordered_classes_goes_on_like_the_uninterrupted_one(
    name, optimizer_name, tmp_path
):
    model, resumed = build(name, seed=0), build(name, seed=1)
    optimizer, other = (optimizer_of(optimizer_name, m) for m in (model, resumed))
    train(model, optimizer, [0, 1, 2, 3], range(3))
    Checkpointer(model, str(tmp_path), classes=CLASSES, optimizer=optimizer).save("model_2")
    Checkpointer(resumed, str(tmp_path), classes=REORDERED, optimizer=other).resume_or_load("")
    assert_the_state_moved_with_the_weights((model, optimizer), (resumed, other))

    expected = train(model, optimizer, [0, 1, 2, 3], range(3, 5))
    losses = train(resumed, other, ORDER, range(3, 5))
    # Rounding grows with each step, since sums over classes have another order.
    assert losses == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (CLASSES, CLASSES[:3]),
        (CLASSES, [*CLASSES, "bird"]),
        (CLASSES, [*CLASSES[:3], "bird"]),
        (["TV", "tv", "cat", "dog"], ["tvmonitor", "tv", "cat", "dog"]),  # it may be any of two
        (["cat"] * 4, CLASSES),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_other_classes_are_refused_and_both_lists_are_named(theirs, ours, resume, tmp_path):
    model = build("retinanet", seed=0)
    Checkpointer(model, str(tmp_path), classes=theirs).save("model")
    checkpointer = Checkpointer(model, str(tmp_path), classes=ours)
    path = str(tmp_path / "model.pth")
    with pytest.raises(ArgumentError) as caught:
        checkpointer.load(path, strict=True, resuming=resume)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/model.pth: it was trained on other classes: ")
    assert f"{len(theirs)} {theirs} in the checkpoint, {len(ours)} {ours} in the data" in message
    assert ("start a new training" in message) == resume
    assert ("in weights_classes" in message) != resume


def test_of_long_lists_the_first_dozen_is_named(tmp_path):
    model = build("retinanet", seed=0)
    Checkpointer(model, str(tmp_path), classes=[f"class {k}" for k in range(80)]).save("model")
    with pytest.raises(UserError, match=r"'class 11'\] and 68 more in the checkpoint, 4 \['cat'"):
        Checkpointer(model, classes=CLASSES).load_to_evaluate(str(tmp_path / "model.pth"), resume=0)


def test_other_names_of_the_same_classes_can_be_declared_to_evaluate_but_not_to_resume(tmp_path):
    trained, evaluated = build("retinanet", seed=0), build("retinanet", seed=1)
    Checkpointer(trained, str(tmp_path), classes=list("abcd")).save("model")
    checkpointer = Checkpointer(
        evaluated, str(tmp_path), classes=REORDERED, weights_classes=RENAMED
    )
    checkpointer.load_to_evaluate(str(tmp_path / "model.pth"), resume=False)
    torch.testing.assert_close(detections(evaluated, REORDERED), detections(trained, RENAMED))
    # They are the classes of the weights that the training started from.
    with pytest.raises(UserError, match="trained on other classes"):
        checkpointer.load_to_evaluate("", resume=True)


def test_the_names_in_a_checkpoint_go_before_those_of_the_weights_that_its_training_started_from(
    tmp_path,
):
    trained, evaluated = build("retinanet", seed=0), build("retinanet", seed=1)
    Checkpointer(trained, str(tmp_path), classes=CLASSES).save("model")
    Checkpointer(evaluated, classes=CLASSES, weights_classes=CLASSES[::-1]).load_to_evaluate(
        str(tmp_path / "model.pth"), resume=False
    )
    torch.testing.assert_close(detections(evaluated, CLASSES), detections(trained, CLASSES))


@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_without_names_is_taken_in_the_given_order_and_the_log_says_so_once(
    resume, tmp_path, caplog
):
    trained, loaded = build("retinanet", seed=0), build("retinanet", seed=1)
    Checkpointer(trained, str(tmp_path)).save("model")
    with caplog.at_level(logging.INFO, "apdet"):
        Checkpointer(loaded, str(tmp_path), classes=CLASSES).load_to_evaluate(
            str(tmp_path / "model.pth"), resume=resume
        )
    torch.testing.assert_close(detections(loaded, CLASSES), detections(trained, CLASSES))
    assert caplog.text.count("do not say their classes") == 1


def test_weights_without_names_that_a_training_starts_from_are_mentioned_only_if_they_have_classes(
    tmp_path, caplog
):
    trained, loaded = build("retinanet", seed=0), build("retinanet", seed=1)
    Checkpointer(trained, str(tmp_path)).save("model")
    Checkpointer(nn.ModuleDict({"backbone": trained.backbone}), str(tmp_path)).save("backbone")
    with caplog.at_level(logging.INFO, "apdet"):
        Checkpointer(loaded, classes=CLASSES).load(str(tmp_path / "backbone.pth"))
        assert "do not say their classes" not in caplog.text
        Checkpointer(loaded, classes=CLASSES).load(str(tmp_path / "model.pth"))
    assert caplog.text.count("do not say their classes") == 1


@pytest.mark.parametrize("classes", [4, "cat", [0, 1, 2, 3], {"cat": 0}, [None], []])
def test_classes_of_another_type_are_refused_where_they_matter(classes, tmp_path):
    model = build("retinanet", seed=0)
    torch.save({"model": model.state_dict(), "classes": classes}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"model\.pth: its 'classes' are .*, not a list of names"):
        Checkpointer(model, classes=CLASSES).load(str(tmp_path / "model.pth"), strict=True)
    Checkpointer(model, classes=CLASSES).load(str(tmp_path / "model.pth"))


@pytest.mark.parametrize("resume", [False, True])
def test_another_number_of_classes_is_an_error_even_where_mismatches_are_allowed(resume, tmp_path):
    trained = build("retinanet", seed=0)
    Checkpointer(trained, str(tmp_path)).save("model")
    cfg = load_config(CONFIGS / "digits" / "retinanet_ap.yaml", SMALL.split())
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    checkpointer = Checkpointer(
        build_model(cfg), str(tmp_path), classes=CLASSES[:3], allow_mismatch=True
    )
    with pytest.raises(UserError, match="another class count"):
        checkpointer.load_to_evaluate(str(tmp_path / "model.pth"), resume=resume)


def test_a_detector_that_does_not_name_its_layers_must_have_the_order_of_the_checkpoint(tmp_path):
    model = nn.ModuleDict({"head": nn.Linear(4, 2)})
    Checkpointer(model, str(tmp_path), classes=["cat", "dog"]).save("model")
    path = str(tmp_path / "model.pth")
    Checkpointer(model, classes=["Cat", "dog"]).load_to_evaluate(path, resume=False)
    with pytest.raises(
        UserError, match=r"another order: 2 \['cat', 'dog'\] .*, 2 \['dog', 'cat'\] .* ModuleDict"
    ):
        Checkpointer(model, classes=["dog", "cat"]).load_to_evaluate(path, resume=False)


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        (["a", "b"], ["B", "a"], True),
        (["a"], ["a", "A"], False),
        (["a", "A"], ["a"], False),
        (["a", "A"], ["A", "a"], True),
        (["a b", "a-b"], ["ab", "c"], False),
        ([], [], True),
    ],
)
def test_classes_are_the_same_if_each_matches_exactly_one(theirs, ours, same):
    assert are_same_classes(theirs, ours) == same
