"""A file of which next to nothing fits is refused, and honest partial files are not."""

import pickle

import pytest
import torch
from conftest import CONFIGS
from detectron2.modeling import build_model
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.config import load_config
from apdet.errors import UserError

SMALL = """MODEL.DEVICE cpu MODEL.FPN.OUT_CHANNELS 16 MODEL.RESNETS.WIDTH_PER_GROUP 8
    MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 16
    MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.VGG.WIDTH 0.0625"""


def build(name="retinanet_ap", *options, norm="FrozenBN", seed=0):
    torch.manual_seed(seed)
    cfg = load_config(CONFIGS / "digits" / f"{name}.yaml", [*SMALL.split(), *options])
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.VGG.NORM = norm
    return build_model(cfg)


def save(weights, folder):
    torch.save({"model": weights}, folder / "weights.pth")
    return str(folder / "weights.pth")


def foreign(*keys):
    return {key: torch.ones(3) for key in keys}


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", ""])
@pytest.mark.parametrize("allow_mismatch", [False, True])
@pytest.mark.parametrize("keys", [[], ["foo.weight"], ["layer1.0.conv1.weight", "fc.bias"]])
def test_a_file_of_which_nothing_fits_is_refused(tmp_path, norm, allow_mismatch, keys):
    model = build(norm=norm)
    num_weights = sum("num_batches" not in key for key in model.state_dict())
    with pytest.raises(UserError) as caught:
        Checkpointer(model, allow_mismatch=allow_mismatch).load(save(foreign(*keys), tmp_path))
    message = str(caught.value)
    assert f"0 of the {len(keys)} weights of the file fit the {num_weights} weights of" in message
    assert f"The file has {', '.join(keys) or 'no weight'}; the model has backbone." in message
    assert "Give weights a checkpoint of this model or of its backbone" in message
    assert "\n" not in message


def test_none_of_the_weights_fit_by_the_names_that_detectron2_gives_to_those_of_caffe2(tmp_path):
    weights = {key: weight.numpy() for key, weight in build(norm="BN").state_dict().items()}
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps({"blobs": weights}))
    with pytest.raises(UserError, match=r"pkl: 0 of the \d+ weights of the file fit"):
        Checkpointer(build()).load(str(tmp_path / "weights.pkl"))


def test_a_file_of_which_next_to_nothing_fits_is_refused(tmp_path):
    model = build()
    weights = {f"net.{key}": weight for key, weight in model.state_dict().items()}
    for key in ("backbone.fpn_lateral3.weight", "head.bbox_pred.bias"):
        weights[key] = weights.pop(f"net.{key}")
    with pytest.raises(UserError, match=r"2 of the \d+ weights of the file fit .* has net\.back"):
        Checkpointer(model).load(save(weights, tmp_path))


def test_weights_of_another_width_are_refused_even_where_mismatches_are_allowed(tmp_path):
    wide = build(norm="BN").state_dict()
    weights = {
        key: weight.repeat_interleave(2, dim=0) if weight.dim() else weight
        for key, weight in wide.items()
    }
    with pytest.raises(UserError, match="0 of the"):
        Checkpointer(build(norm="BN"), allow_mismatch=True).load(save(weights, tmp_path))


def loads(weights, model, folder, **arguments):
    """Load a partial file, and check that all that it shares with the model has been taken."""
    Checkpointer(model, **arguments).load(save(weights, folder))
    loaded = model.state_dict()
    shared = [key for key in weights if key in loaded and weights[key].shape == loaded[key].shape]
    assert shared
    for key in shared:
        torch.testing.assert_close(loaded[key], weights[key], msg=key)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("left_out", ["head.", "res5.", "running_", "norm."])
def test_a_backbone_alone_or_a_part_of_it_is_accepted(tmp_path, norm, left_out):
    weights = {
        key: weight
        for key, weight in build(norm=norm).state_dict().items()
        if key.startswith("backbone.bottom_up.") and left_out not in key
    }
    loads(weights | foreign("fc.weight", "fc.bias"), build(norm=norm, seed=1), tmp_path)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("faster_rcnn_ap", "retinanet_ap"),
        ("retinanet_ap", "fcos_ap"),
        ("fcos_ap", "faster_rcnn_ap"),
    ],
)
def test_a_checkpoint_of_another_detector_with_the_same_backbone_is_accepted(
    tmp_path, theirs, ours
):
    options = ["MODEL.FPN.OUT_CHANNELS", "32"]
    loads(
        build(theirs, *options).state_dict(),
        build(ours, *options, seed=1),
        tmp_path,
        allow_mismatch=True,  # heads of the same name differ in their shape
    )


def test_a_checkpoint_of_a_detector_with_another_backbone_is_refused(tmp_path):
    with pytest.raises(UserError, match="of the file fit the"):
        Checkpointer(build("ssd_ap")).load(save(build("faster_rcnn_ap").state_dict(), tmp_path))


def test_a_backbone_in_a_large_file_of_many_tasks_is_accepted(tmp_path):
    weights = build().state_dict()
    backbone = {key: w for key, w in weights.items() if key.startswith("backbone.")}
    tasks = foreign(*(f"task{i}.{key}" for i in range(9) for key in weights))
    loads(backbone | tasks, build(seed=1), tmp_path)


def test_a_checkpoint_whose_classes_are_all_new_is_accepted(tmp_path):
    weights = build("retinanet_ap", "MODEL.RETINANET.NUM_CLASSES", "10").state_dict()
    torch.save({"model": weights, "classes": list("abcdefghij")}, tmp_path / "old.pth")
    new = build("retinanet_ap", "MODEL.RETINANET.NUM_CLASSES", "3", seed=1)
    Checkpointer(new, classes=list("xyz"), allow_mismatch=True).load(str(tmp_path / "old.pth"))
    key = "backbone.fpn_lateral3.weight"
    assert torch.equal(new.state_dict()[key], weights[key])


def test_an_imagenet_backbone_with_the_names_of_caffe2_is_accepted(tmp_path):
    """Such files have scales and biases of batch normalisation, but no statistics."""
    model = build()
    stem = {f"res_conv1_bn_{part}": torch.full((8,), 2.0).numpy() for part in "sb"}
    blobs = {
        "conv1_w": torch.ones(8, 3, 7, 7).numpy(),
        **stem,
        "fc1000_w": torch.ones(9, 9).numpy(),
    }
    for name, weight in model.backbone.bottom_up.named_parameters():
        if "shortcut.weight" in name:
            stage, block = name.split(".")[:2]
            blobs[f"{stage}_{block}_branch1_w"] = weight.detach().numpy() + 1
    (tmp_path / "R.pkl").write_bytes(pickle.dumps({"blobs": blobs}))
    Checkpointer(model).load(str(tmp_path / "R.pkl"))
    assert (model.backbone.bottom_up.stem.conv1.norm.weight == 2).all()


def test_names_with_the_prefix_of_data_parallel_are_counted(tmp_path):
    weights = {f"module.{key}": weight for key, weight in build().state_dict().items()}
    model = build(seed=1)
    Checkpointer(model).load(save(weights, tmp_path))
    for key, weight in model.state_dict().items():
        assert torch.equal(weight, weights[f"module.{key}"])


def test_a_small_model_needs_no_batch_normalisation_to_be_refused(tmp_path):
    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    with pytest.raises(UserError, match="0 of the 1 weights of the file fit the 4 weights"):
        Checkpointer(model).load(save(foreign("other.weight"), tmp_path))


def test_a_url_can_ask_for_detectron2s_heuristics_for_names(tmp_path, monkeypatch):
    model, target = build(), build(seed=1)
    prefix = "backbone.bottom_up."
    backbone = {
        key.removeprefix(prefix): weight
        for key, weight in model.state_dict().items()
        if key.startswith(prefix)
    }
    path = save(backbone, tmp_path)
    checkpointer = Checkpointer(target)
    monkeypatch.setattr(checkpointer.path_manager, "get_local_path", lambda url, **_: path)
    with pytest.raises(UserError, match="0 of the"):
        checkpointer.load("https://example.org/weights.pth")
    checkpointer.load("https://example.org/weights.pth?matching_heuristics=True")
    for key, weight in backbone.items():
        assert torch.equal(target.state_dict()[prefix + key], weight)
