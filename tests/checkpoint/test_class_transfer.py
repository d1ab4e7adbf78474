"""What a detector knows of a class after fine-tuning started: as much as the old one knew of it."""

import logging
import pickle

import pytest
import torch
from conftest import CONFIGS
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from omegaconf import OmegaConf
from torch import nn

from apdet.checkpoint import Checkpointer, resolve_weights_classes, training_classes
from apdet.checkpoint.class_transfer import transfer_class_weights
from apdet.checkpoint.classes import match_classes
from apdet.config import load_config
from apdet.data.builtin import register_voc
from apdet.errors import ArgumentError, UserError
from apdet.modeling.cls_loss import ClsLoss

OLD = ["cat", "dog", "traffic light", "sofa"]
NEW = ["bird", "Traffic_Light", "couch", "fish", "cat"]
SHARED = {"Traffic_Light": "traffic light", "couch": "sofa", "cat": "cat"}


@pytest.fixture(params=["retinanet", "ssd"])
def detector(request, cfg):
    """A config of each meta-architecture; SSD's levels differ in their anchors."""
    if request.param == "ssd":
        options = """MODEL.DEVICE cpu MODEL.VGG.WIDTH 0.0625
            MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS [[2],[2,3],[2,3],[2]]"""
        cfg = load_config(CONFIGS / "digits" / "ssd_ap.yaml", options.split())
        cfg.MODEL.VGG.NORM = ""
    return cfg


def build(cfg, classes, *, loss="ap_loss", seed=0):
    torch.manual_seed(seed)
    cfg = cfg.clone()
    cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.CLS_LOSS.NAME = len(classes), loss
    return build_model(cfg).eval()


def save(model, folder, classes=()):
    # Logits that differ over classes and anchors, as after a training.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("head.cls_score"):
                weight.normal_()
    Checkpointer(model, str(folder), classes=classes).save("old")
    return str(folder / "old.pth")


@torch.no_grad()
def logits(model):
    """(R, L) of an image."""
    torch.manual_seed(1)
    image = torch.rand(3, 64, 64) * 255
    features = model.backbone(model.preprocess_image([{"image": image}]).tensor)
    predictions = model.head([features[name] for name in model.head_in_features])
    levels, _ = model._transpose_dense_predictions(predictions, [model.cls_loss.num_logits, 4])
    return torch.cat(levels, dim=1)[0]


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("loss", ["ap_loss", "ohem_loss"])
def test_the_logits_of_a_shared_class_are_the_old_models(
    detector, tmp_path, caplog, loss, declared
):
    old, new = (build(detector, c, loss=loss, seed=i) for i, c in enumerate((OLD, NEW)))
    path = save(old, tmp_path, [] if declared else OLD)
    arguments = {"classes": NEW, "weights_classes": OLD if declared else []}
    with caplog.at_level(logging.INFO, "apdet"):
        Checkpointer(new, **arguments).load(path)
    # The same but for the classification layer, which its shape leaves as it was.
    anew = build(detector, NEW, loss=loss, seed=1)
    Checkpointer(anew, allow_mismatch=True, classes=[]).load(path)

    theirs, ours, initial = logits(old), logits(new), logits(anew)
    for k, name in enumerate(NEW):
        expected = theirs[:, OLD.index(SHARED[name])] if name in SHARED else initial[:, k]
        torch.testing.assert_close(ours[:, k], expected, msg=name)
    if loss == "ohem_loss":
        torch.testing.assert_close(ours[:, -1], theirs[:, -1])
    assert "takes over 3 of 5 classes: Traffic_Light, couch, cat; it learns anew: bird, fish" in (
        caplog.text
    )


def test_the_same_classes_in_another_order_are_still_told_apart(detector, tmp_path):
    order = [2, 0, 3, 1]
    old, new = build(detector, OLD), build(detector, OLD, seed=1)
    path = save(old, tmp_path, OLD)
    Checkpointer(new, classes=[OLD[i] for i in order]).load(path)
    torch.testing.assert_close(logits(new), logits(old)[:, order])


def test_weights_of_unknown_classes_are_loaded_as_they_are(cfg, tmp_path):
    old, new = build(cfg, OLD), build(cfg, OLD, seed=1)
    Checkpointer(new, classes=OLD[::-1]).load(save(old, tmp_path))
    torch.testing.assert_close(logits(new), logits(old))


def test_a_pickle_of_the_model_zoo_is_taken_over_by_its_data_set(cfg, tmp_path):
    register_voc()
    coco, voc = (
        MetadataCatalog.get(name).thing_classes for name in ("coco_2017_train", "voc_2012_val")
    )
    old, new, path = build(cfg, coco), build(cfg, voc, seed=1), tmp_path / "zoo.pkl"
    arrays = {key: value.numpy() for key, value in old.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    Checkpointer(
        new,
        classes=training_classes(["voc_2007_trainval"]),
        weights_classes=resolve_weights_classes("coco_2017_val"),
    ).load(str(path))
    torch.testing.assert_close(logits(new)[:, voc.index("tvmonitor")], logits(old)[:, 62])


def test_all_of_vocs_classes_are_among_cocos():
    register_voc()
    coco = MetadataCatalog.get("coco_2017_train").thing_classes
    voc = MetadataCatalog.get("voc_2007_test").thing_classes
    same = match_classes(coco, voc)
    assert list(same) == list(range(20))
    renamed = {voc[k]: coco[i] for k, i in same.items() if voc[k] != coco[i]}
    assert renamed == {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
    }


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (["a", "A"], ["A", "a", "b"], {0: 1, 1: 0}),
        (["stop-sign"], ["Stop Sign", "stopsign", "sign"], {0: 0, 1: 0}),
        (["b"], ["a"], {}),
    ],
)
def test_the_very_name_comes_before_the_same_name_in_another_case(theirs, ours, expected):
    assert match_classes(theirs, ours) == expected


def test_a_class_that_may_be_any_of_several_is_an_error():
    with pytest.raises(UserError, match=r"'TV' may be any of \['tv', 'tvmonitor'\]"):
        match_classes(["tv", "tvmonitor"], ["TV"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("coco_2017_trian", "no data set with classes; did you mean .*coco_2017_train"),
        (["cat", "dog", "cat"], r"weights_classes repeats \['cat'\]"),
        (3, "weights_classes is 3; give the name of a data set, or a list"),
    ],
)
def test_a_value_that_names_no_classes_is_an_error(value, message):
    with pytest.raises(ArgumentError, match=message):
        resolve_weights_classes(value)


@pytest.mark.parametrize("value", [None, "", []])
def test_the_classes_of_the_weights_may_be_left_out(value):
    assert resolve_weights_classes(value) == []


def test_classes_of_a_python_config_are_a_list_as_any_other():
    assert resolve_weights_classes(OmegaConf.create(["cat", "dog"])) == ["cat", "dog"]


@pytest.mark.parametrize("names", [[], ["not_registered"]])
def test_classes_of_no_data_set_are_unknown(names):
    assert training_classes(names) == []


def test_an_error_is_told_by_the_keys_that_the_arguments_were_read_from(cfg, tmp_path):
    path, new = save(build(cfg, OLD), tmp_path), build(cfg, NEW)
    with pytest.raises(ArgumentError) as caught:
        Checkpointer(new, classes=NEW, weights_classes=OLD[:2]).load(path)
    keys = {("Checkpointer", "weights_classes"): "MODEL.WEIGHTS_CLASSES"}
    message = caught.value.message(lambda owner, argument: keys.get((owner, argument)))
    assert message.startswith(f"{path}: MODEL.WEIGHTS_CLASSES has 2 classes, which do not fit")
    assert message.endswith("correct MODEL.WEIGHTS_CLASSES, or unset it")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (OLD[:2], r"old\.pth: .* has 2 classes, which do not fit .*cls_score\.weight: 24 for 6"),
        (OLD[:3], r"its 4 logits for 3 classes are with a background .* unset it"),
        (["w", "x", "y", "z"], r"old\.pth: .*Correct weights_classes, or unset it"),
    ],
)
@pytest.mark.parametrize("allow_mismatch", [False, True])
def test_declared_classes_that_do_not_fit_are_an_error(
    cfg, tmp_path, classes, message, allow_mismatch
):
    path, new = save(build(cfg, OLD), tmp_path), build(cfg, NEW)
    arguments = {"classes": NEW, "weights_classes": classes, "allow_mismatch": allow_mismatch}
    with pytest.raises(ArgumentError, match=message):
        Checkpointer(new, **arguments).load(path)


def test_declared_classes_need_a_classification_layer(cfg, tmp_path):
    model = nn.ModuleDict({"backbone": nn.Linear(4, 5)})
    path = save(model, tmp_path)
    with pytest.raises(ArgumentError, match="a ModuleDict does not name its layers with rows"):
        Checkpointer(model, classes=NEW, weights_classes=OLD).load(path)
    Checkpointer(model, classes=NEW).load(save(model, tmp_path, OLD))
    # The model has such a layer, but the weights have none.
    with pytest.raises(ArgumentError, match=r"no head\.cls_score\.\* of this shape"):
        Checkpointer(build(cfg, NEW), classes=NEW, weights_classes=OLD).load(path)


def test_a_model_names_its_layer_itself(tmp_path):
    def detector(classes):
        model = nn.ModuleDict({"classifier": nn.Linear(4, 2 * len(classes))})  # of two anchors
        model.class_layer = "classifier"
        model.cls_loss = ClsLoss(loss="ap_loss", num_classes=len(classes))
        return model

    old, new = detector(OLD), detector(NEW)
    Checkpointer(new, classes=NEW).load(save(old, tmp_path, OLD))
    theirs, ours = (m["classifier"].weight.unflatten(0, (2, -1)) for m in (old, new))
    torch.testing.assert_close(ours[:, 4], theirs[:, 0])  # the cat


# Of four logits an anchor each, so that shapes alone would tell nothing.
@pytest.mark.parametrize(
    ("theirs", "ours", "losses", "message"),
    [
        (
            OLD[:3],
            OLD,
            ("ohem_loss", "ap_loss"),
            r"with a background .* loss are without",
        ),
        (
            OLD,
            OLD[:3],
            ("ap_loss", "ohem_loss"),
            r"without a background .* loss are with a",
        ),
        (OLD, ["w", "x", "y", "z"], ("ap_loss", "ap_loss"), r"its classes are \['cat', .*'w'"),
    ],
)
def test_a_layer_that_means_something_else_starts_anew_only_where_this_is_allowed(
    cfg, tmp_path, theirs, ours, losses, message
):
    path = save(build(cfg, theirs, loss=losses[0]), tmp_path, theirs)
    new = build(cfg, ours, loss=losses[1], seed=1)
    initial = {key: w.clone() for key, w in new.state_dict().items()}
    with pytest.raises(UserError, match=rf"(?s)old\.pth: .*{message}.*set allow_mismatch to True"):
        Checkpointer(new, classes=ours).load(path)
    Checkpointer(new, classes=ours, allow_mismatch=True).load(path)
    saved = torch.load(path, weights_only=True)["model"]
    for key, weight in new.state_dict().items():
        expected = initial if key.startswith("head.cls_score") else saved
        torch.testing.assert_close(weight, expected[key], msg=key)


def test_anything_else_of_another_shape_is_still_an_error(cfg, tmp_path):
    path = save(build(cfg, OLD), tmp_path, OLD)
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    with pytest.raises(UserError) as error:
        Checkpointer(build(cfg, NEW), classes=NEW).load(path)
    for row in ("head.cls_score.bias: (24,) there, (10,) here", "head.bbox_pred.bias: (24,) there"):
        assert row in str(error.value)


def test_a_foreign_file_may_hold_anything_by_the_name_of_classes(cfg, tmp_path):
    old, new, path = build(cfg, OLD), build(cfg, OLD, seed=1), tmp_path / "foreign.pth"
    torch.save({"model": old.state_dict(), "classes": 4}, path)
    Checkpointer(new, classes=OLD[::-1]).load(str(path))
    torch.testing.assert_close(logits(new), logits(old))


@pytest.mark.parametrize(("theirs", "warns"), [(["cat", "dog"], False), (["dog", "cat"], True)])
def test_classes_that_are_told_apart_by_their_order_are_warned_of(caplog, theirs, warns):
    model = nn.ModuleDict({"head": nn.Linear(4, 2)})
    transfer_class_weights(
        model.state_dict(), model, theirs, ["cat", "dog"], declared=False, allow_mismatch=False
    )
    assert ("by their order" in caplog.text) == warns


def two_stage(classes, *options, loss="ap_loss", seed=0):
    """A small Mask R-CNN whose box predictor and masks have rows for each class."""
    torch.manual_seed(seed)
    cfg = load_config(CONFIGS / "digits" / "faster_rcnn_ap.yaml", [*SMALL_RCNN.split(), *options])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.CLS_LOSS.NAME = len(classes), loss
    model = build_model(cfg)
    for predictor in model.roi_heads.box_predictor, model.roi_heads.mask_head.predictor:
        for weight in predictor.parameters():
            nn.init.normal_(weight)
    return model


SMALL_RCNN = """MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 16 MODEL.RESNETS.WIDTH_PER_GROUP 8
    MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 16
    MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.MASK_ON True MODEL.ROI_MASK_HEAD.CONV_DIM 8"""


@pytest.mark.parametrize("loss", ["ap_loss", "ohem_loss"])
def test_boxes_and_masks_of_a_shared_class_are_kept_in_two_stage_detectors(tmp_path, loss):
    old, new = (two_stage(c, loss=loss, seed=i) for i, c in enumerate((OLD, NEW)))
    Checkpointer(old, str(tmp_path), classes=OLD).save("old")
    initial = {key: weight.clone() for key, weight in new.state_dict().items()}
    Checkpointer(new, classes=NEW).load(str(tmp_path / "old.pth"))
    theirs, ours = old.roi_heads, new.roi_heads
    for k, name in enumerate(NEW):
        for layer, rows in (
            ("box_predictor.cls_score", 1),
            ("box_predictor.bbox_pred", 4),
            ("mask_head.predictor", 1),
        ):
            own = ours.get_submodule(layer).weight[rows * k : rows * (k + 1)]
            if name in SHARED:
                i = OLD.index(SHARED[name])
                expected = theirs.get_submodule(layer).weight[rows * i : rows * (i + 1)]
            else:
                expected = initial[f"roi_heads.{layer}.weight"][rows * k : rows * (k + 1)]
            torch.testing.assert_close(own, expected, msg=f"{layer}: {name}")
    if loss == "ohem_loss":
        scores = [heads.box_predictor.cls_score.bias for heads in (ours, theirs)]
        torch.testing.assert_close(scores[0][-1], scores[1][-1])


def test_only_the_layer_that_means_something_else_starts_anew(tmp_path, caplog):
    old, new = two_stage(OLD, loss="ohem_loss"), two_stage(OLD, loss="ap_loss", seed=1)
    Checkpointer(old, str(tmp_path), classes=OLD).save("old")
    path = str(tmp_path / "old.pth")
    with pytest.raises(ArgumentError, match=r"its 5 logits for 4 classes are with a background"):
        Checkpointer(new, classes=OLD[::-1]).load(path)
    initial = new.roi_heads.box_predictor.cls_score.weight.clone()
    Checkpointer(new, classes=OLD[::-1], allow_mismatch=True).load(path)
    theirs, ours = old.roi_heads, new.roi_heads
    assert torch.equal(ours.box_predictor.cls_score.weight, initial)
    expected = theirs.box_predictor.bbox_pred.bias.view(4, 4).flip(0)
    assert torch.equal(ours.box_predictor.bbox_pred.bias.view(4, 4), expected)
    assert torch.equal(ours.mask_head.predictor.bias, theirs.mask_head.predictor.bias.flip(0))
    assert caplog.text.count("starts anew: its 5 logits") == 1


def test_rows_that_only_happen_to_be_as_many_are_not_taken_for_classes(tmp_path):
    def detector(num_anchors, classes):
        model = nn.ModuleDict(
            {"classifier": nn.Linear(4, num_anchors * len(classes)), "neck": nn.Linear(4, 4)}
        )
        model.class_layer = "classifier"
        model.cls_loss = ClsLoss(loss="ap_loss", num_classes=len(classes))
        return model

    path = save(detector(1, OLD), tmp_path, OLD)
    new = detector(2, OLD[:2])
    with pytest.raises(ArgumentError, match=r"4 rows of classifier\.weight do not fit 4 classes"):
        Checkpointer(new, classes=OLD[:2]).load(path)
    initial = new["classifier"].weight.clone()
    Checkpointer(new, classes=OLD[:2], allow_mismatch=True).load(path)
    assert torch.equal(new["classifier"].weight, initial)


def test_a_weight_that_is_a_mere_number_has_another_shape(cfg, tmp_path):
    model = build(cfg, OLD)
    weights = {**model.state_dict(), "head.cls_score.bias": torch.tensor(1.0)}
    torch.save({"model": weights, "classes": OLD}, tmp_path / "old.pth")
    with pytest.raises(ArgumentError, match=r"head\.cls_score\.bias: \(\) there, \(24,\) here"):
        Checkpointer(model, classes=OLD[::-1]).load(str(tmp_path / "old.pth"))
