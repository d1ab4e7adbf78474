"""`apdet convert` against torchvision's own models."""

import errno
import sys
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from conftest import exit_message, weights_in
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import build_resnet_backbone
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import cfgs, make_layers

from apdet.checkpoint.checkpointer import Checkpointer
from apdet.checkpoint.convert import convert, recognise
from apdet.cli.convert import main
from apdet.config import load_config
from apdet.errors import UserError
from apdet.modeling.backbones.vgg import SSDVGG16

RESNETS = {
    "ResNet-18": (BasicBlock, [2, 2, 2, 2], {}),
    "ResNet-50": (Bottleneck, [3, 4, 6, 3], {}),
    "ResNeXt-50 4x16d": (Bottleneck, [3, 4, 6, 3], {"groups": 4, "width_per_group": 16}),
}


def run(source, out, *arguments):
    main([str(source), str(out), *arguments])


def error_of(source, out, *arguments):
    return exit_message(run, source, out, *arguments)


def printed_config(printed, folder):
    """The config that has the lines of the report."""
    lines = printed.split("put into the config:\n")[1].rsplit("\nwrote ", 1)[0]
    (folder / "printed.yaml").write_text(lines)
    return load_config(folder / "printed.yaml")


def states(name):
    """A state dict of torchvision's model, of ones that take no memory."""
    with torch.device("meta"):
        state = getattr(torchvision.models, name)().state_dict()
    return {key: torch.ones((), dtype=w.dtype).expand(w.shape) for key, w in state.items()}


def vgg_features():
    return nn.ModuleDict({"features": make_layers(cfgs["D"])})


def ramp(*shape):
    """(*) float: 3 i + j at the first index i and the others, counted through, j; of few bytes."""
    columns = torch.Size(shape[1:]).numel()
    base = torch.arange(3 * shape[0] + columns, dtype=torch.float32)
    matrix = base.as_strided((shape[0], columns), (3, 1))
    return matrix if len(shape) == 2 else matrix.view(shape)


def randomise_norms(model):
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for value in (norm.weight, norm.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (norm.bias, norm.running_mean):
                nn.init.normal_(value)


def resnet_features(model, x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    features = {}
    for i in range(1, 5):
        x = features[f"res{i + 1}"] = getattr(model, f"layer{i}")(x)
    return features


@torch.no_grad()
@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_with_the_printed_config_has_torchvisions_features(name, tmp_path, capsys):
    block, layers, width = RESNETS[name]
    theirs = ResNet(block, layers, **width).eval()
    randomise_norms(theirs)
    torch.save(theirs.state_dict(), tmp_path / "source.pth")
    run(tmp_path / "source.pth", tmp_path / "out.pth")
    printed = capsys.readouterr().out
    num_weights = sum("num_batches" not in key for key in theirs.state_dict()) - 2
    assert f"{name} with torchvision's names: matched {num_weights} of {num_weights}" in printed
    assert "left out, not of the backbone:\n  fc.weight\n  fc.bias\n" in printed

    cfg = printed_config(printed, tmp_path)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    ours = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    # As in a detector, where the names begin with a prefix.
    detector = nn.ModuleDict({"backbone": nn.Sequential(OrderedDict(bottom_up=ours))})
    Checkpointer(detector).load(cfg.MODEL.WEIGHTS, strict=True)

    assert cfg.INPUT.FORMAT == "RGB"
    pixels = torch.randint(0, 256, (1, 3, 64, 48)).double()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    preset = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    prepared = torchvision.transforms.functional.normalize(pixels / 255, preset.mean, preset.std)
    expected = resnet_features(theirs.double(), prepared)
    features = ours.double()((pixels - mean) / std)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("resnet18", "ResNet-18"),
        ("resnet34", "ResNet-34"),
        ("resnet50", "ResNet-50"),
        ("resnet101", "ResNet-101"),
        ("resnet152", "ResNet-152"),
        ("resnext50_32x4d", "ResNeXt-50 32x4d"),
        ("resnext101_32x8d", "ResNeXt-101 32x8d"),
        ("wide_resnet50_2", "ResNet-50 1x128d"),
    ],
)
def test_all_of_torchvisions_resnets_fit_by_name_and_shape(model, name):
    state = states(model)
    architecture = recognise(state)
    shapes = {architecture.rename(key, w): tuple(w.shape) for key, w in state.items()}
    assert architecture.name == name
    assert architecture.shapes.items() <= shapes.items()
    unused = {name for name in shapes.keys() - architecture.shapes.keys() if "num_" not in name}
    assert unused == {"fc.weight", "fc.bias"}


def test_the_config_of_a_resnext_says_its_depth_groups_and_width():
    assert recognise(states("resnext101_32x8d")).settings["RESNETS"] == {
        "DEPTH": 101,
        "STRIDE_IN_1X1": False,
        "NUM_GROUPS": 32,
        "WIDTH_PER_GROUP": 8,
    }


@torch.no_grad()
def test_a_vgg16_has_torchvisions_features():
    theirs = vgg_features()
    conversion = convert(theirs.state_dict())
    ours = SSDVGG16(in_channels=3, out_features=["conv4_3", "conv7"])
    missing = ours.load_state_dict(conversion.weights, strict=False).missing_keys
    assert missing == ["conv4_3_scale", *conversion.missing]

    image = torch.randn(1, 3, 48, 32)
    relu4_3, relu5_3 = (theirs["features"][:end](image) for end in (23, 30))
    torch.testing.assert_close(ours(image)["conv4_3"], 20 * F.normalize(relu4_3))
    last = []
    ours.conv5_3.register_forward_hook(lambda module, inputs, output: last.append(output))
    ours(image)
    torch.testing.assert_close(last[0], relu5_3)
    assert (conversion.architecture.input_format, conversion.architecture.author) == (
        "RGB",
        "torchvision",
    )


@pytest.mark.parametrize(
    ("author", "fc6", "fc7", "last", "shapes"),
    [
        ("torchvision", "classifier.0", "classifier.3", "classifier.6", ((25088,), (4096,))),
        ("timm", "pre_logits.fc1", "pre_logits.fc2", "head.fc", ((512, 7, 7), (4096, 1, 1))),
    ],
)
def test_fc6_and_fc7_are_subsampled(author, fc6, fc7, last, shapes):
    state = {key: w for key, w in states("vgg16").items() if key.startswith("features.")}
    state |= {f"{fc6}.weight": ramp(4096, *shapes[0]), f"{fc7}.weight": ramp(4096, *shapes[1])}
    bias = torch.arange(4096.0)
    state |= {f"{fc6}.bias": bias, f"{fc7}.bias": -bias, f"{last}.weight": torch.ones(9, 4096)}
    conversion = convert(state)
    assert conversion.architecture.author == author
    assert conversion.missing == []
    assert list(conversion.left_out) == [f"{last}.weight"]

    weights = conversion.weights
    out, in6, in7, three = (torch.arange(float(n)) for n in (1024, 512, 1024, 3))
    row, column = 7 * 3 * three[:, None], 3 * three
    expected = 3 * 4 * out.view(-1, 1, 1, 1) + 49 * in6.view(-1, 1, 1) + row + column
    torch.testing.assert_close(weights["conv6.weight"], expected, rtol=0, atol=0)
    expected = 3 * 4 * out.view(-1, 1, 1, 1) + 4 * in7.view(-1, 1, 1)
    torch.testing.assert_close(weights["conv7.weight"], expected, rtol=0, atol=0)
    assert weights["conv6.bias"].tolist() == list(range(0, 4096, 4))
    assert weights["conv7.bias"].tolist() == [-i for i in range(0, 4096, 4)]


@pytest.mark.parametrize("prefix", ["features.", ""])
def test_without_fully_connected_layers_conv6_and_conv7_are_reported(prefix, tmp_path, capsys):
    state = {
        key.replace("features.", prefix): weight
        for key, weight in states("vgg16").items()
        if key.startswith("features.")
    }
    torch.save(state, tmp_path / "source.pth")
    run(tmp_path / "source.pth", tmp_path / "out.pth")
    printed = capsys.readouterr().out
    assert "matched 26 of 30 weights" in printed
    names = "\n  conv6.weight\n  conv6.bias\n  conv7.weight\n  conv7.bias\n"
    assert f"not in the source, so they start from random or default values:{names}" in printed
    assert printed_config(printed, tmp_path).INPUT.FORMAT == "RGB"
    assert len(weights_in(tmp_path / "out.pth")) == 26


KERAS = {  # as tf2onnx names them
    "functional_1/block1_conv1_1/convolution/ReadVariableOp:0": (64, 3, 3, 3),
    "functional_1/block1_conv1_1/Squeeze:0": (64,),
    "functional_1/block1_conv2_1/convolution/ReadVariableOp:0": (64, 64, 3, 3),
    "functional_1/block1_conv2_1/Squeeze:0": (64,),
    "functional_1/dense_1/Cast/ReadVariableOp:0": (8, 4),
}


def test_the_onnx_file_of_a_keras_vgg16_is_of_bgr_images(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    state = {key: torch.randn(shape) for key, shape in KERAS.items()}
    arrays = [onnx.numpy_helper.from_array(w.numpy(), key) for key, w in state.items()]
    arrays.append(onnx.numpy_helper.from_array(torch.tensor([0, 1]).numpy(), "starts"))
    graph = onnx.helper.make_graph([], "vgg16", [], [], initializer=arrays)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "source.onnx")
    run(tmp_path / "source.onnx", tmp_path / "out.pth")
    printed = capsys.readouterr().out
    assert "VGG-16 with Keras's names: matched 4 of 30 weights" in printed
    assert "left out, not of the backbone:\n  functional_1/dense_1/Cast/Read" in printed
    names = ["conv1_1.weight", "conv1_1.bias", "conv1_2.weight", "conv1_2.bias"]
    expected = dict(zip(names, state.values(), strict=False))
    torch.testing.assert_close(weights_in(tmp_path / "out.pth"), expected)
    cfg = printed_config(printed, tmp_path)
    assert cfg.INPUT.FORMAT == "BGR"
    assert cfg.MODEL.PIXEL_MEAN == [103.939, 116.779, 123.68]
    assert cfg.MODEL.PIXEL_STD == [1.0, 1.0, 1.0]


def test_keras_names_are_told_by_block_and_convolution():
    conversion = convert({key: torch.ones(shape) for key, shape in KERAS.items()})
    assert list(conversion.weights) == [
        "conv1_1.weight", "conv1_1.bias", "conv1_2.weight", "conv1_2.bias",
    ]  # fmt: skip
    assert list(conversion.left_out) == ["functional_1/dense_1/Cast/ReadVariableOp:0"]


def test_a_safetensors_file_converts_as_a_pth_does(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state = {key: torch.randn(w.shape) for key, w in list(states("vgg16").items())[:6]}
    torch.save(state, tmp_path / "source.pth")
    safetensors.save_file(state, tmp_path / "source.safetensors")
    for suffix in ("pth", "safetensors"):
        run(tmp_path / f"source.{suffix}", tmp_path / f"of_{suffix}.pth")
    of_pth, of_safetensors = (weights_in(tmp_path / f"of_{s}.pth") for s in ("pth", "safetensors"))
    torch.testing.assert_close(of_safetensors, of_pth, rtol=0, atol=0)


@pytest.mark.parametrize(("suffix", "package"), [("safetensors", "safetensors"), ("onnx", "onnx")])
def test_a_package_that_is_missing_is_named(suffix, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / f"source.{suffix}").touch()
    message = error_of(tmp_path / f"source.{suffix}", tmp_path / "out.pth")
    assert f"source.{suffix}: to read it, pip install {package}" in message


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_wrapped_prefixed_and_half_precision_weights_become_plain_float32(tmp_path, wrap, dtype):
    state = {"features.0.weight": torch.randn(64, 3, 3, 3).to(dtype)}
    torch.save(wrap({f"module.{key}": w for key, w in state.items()}), tmp_path / "source.pt")
    run(tmp_path / "source.pt", tmp_path / "new" / "out.pth")
    checkpoint = torch.load(tmp_path / "new" / "out.pth", weights_only=True)
    weight = state["features.0.weight"].float()
    torch.testing.assert_close(checkpoint["model"], {"conv1_1.weight": weight}, rtol=0, atol=0)
    assert checkpoint["__author__"] == "torchvision"
    assert checkpoint["matching_heuristics"] is True


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.pth"
    torch.save({"features.0.bias": torch.arange(64.0)}, path)
    return path


def test_a_dry_run_reports_and_writes_nothing(source, tmp_path, capsys):
    run(source, tmp_path / "new" / "out.pth", "--dry-run")
    printed = capsys.readouterr().out
    assert "matched 1 of 30 weights" in printed
    assert printed.endswith("nothing was written\n")
    assert [path.name for path in tmp_path.iterdir()] == ["source.pth"]


def test_what_exists_is_replaced_only_if_asked(source, tmp_path):
    out = tmp_path / "out.pth"
    out.write_text("precious")
    assert "out.pth: exists already" in error_of(source, out)
    assert out.read_text() == "precious"
    run(source, out, "--overwrite")
    assert list(weights_in(out)) == ["conv1_1.bias"]
    assert "source.pth: is the source itself" in error_of(source, source, "--overwrite")


def test_a_write_that_fails_leaves_what_was_there(source, tmp_path, monkeypatch):
    def fill_the_disk(data, file):
        file.write(b"half of i")
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out.pth"
    out.write_text("precious")
    monkeypatch.setattr(torch, "save", fill_the_disk)
    assert "out.pth: No space left on device; free space" in error_of(source, out, "--overwrite")
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pth", "source.pth"]


VGG_WEIGHT = {"features.0.weight": torch.ones(64, 3, 3, 3)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "of its 0 weights none"),
        ({"conv1_1.weight": torch.ones(64, 3, 3, 3)}, "of its 1 weights, e.g. conv1_1.weight"),
        ([1, 2], "holds a list, not weights"),
        ({"epoch": 3}, "'epoch' is a int, not a weight"),
        ({0: torch.ones(1)}, "0 is a Tensor, not a weight"),
        (VGG_WEIGHT | {"features.1.running_mean": torch.ones(64)}, "with batch normalisation"),
        (VGG_WEIGHT | {"features.16.weight": torch.ones(1)}, "features.16.weight has no counterp"),
        (
            {"features.0.weight": torch.ones(64, 1, 3, 3)},
            "features.0.weight has shape (64, 1, 3, 3), but conv1_1.weight has (64, 3, 3, 3)",
        ),
        (
            {"classifier.0.weight": torch.ones(8, 8)} | VGG_WEIGHT,
            "has shape (8, 8), but conv6.weight is made of (4096, 25088) or (4096, 512, 7, 7)",
        ),
        (
            {"block1_conv1/kernel": torch.ones(3, 3, 3, 64)},
            "block1_conv1/kernel has shape (3, 3, 3, 64), but conv1_1.weight has (64, 3, 3, 3)",
        ),
        (VGG_WEIGHT | {"0.weight": torch.ones(1)}, "0.weight would be conv1_1.weight"),
        ({"features.0.bias": torch.full((64,), torch.nan)}, "features.0.bias has NaN"),
        ({"features.0.bias": torch.ones(64, dtype=torch.int8)}, "features.0.bias is of torch.int8"),
        ({"layer1.0.conv1.weight": torch.ones(1)}, "have (1, 0, 0, 0) basic blocks"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_written(data, message, tmp_path):
    torch.save(data, tmp_path / "source.pth")
    error = error_of(tmp_path / "source.pth", tmp_path / "out.pth")
    assert message in error
    assert "source.pth: " in error
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("key", ["layer1.0.se.fc1.weight", "conv1.3.weight"])
def test_a_resnet_with_more_than_detectron2s_is_refused(key):
    with pytest.raises(UserError, match=f"{key} has no counterpart in ResNet-18"):
        convert(states("resnet18") | {key: torch.ones(1)})


def test_a_resnet_with_group_normalisation_is_refused():
    state = {key: w for key, w in states("resnet18").items() if "running_" not in key}
    with pytest.raises(UserError, match="take a ResNet with batch normalisation"):
        convert(state)


@pytest.mark.parametrize("conv2", [None, torch.ones(64), torch.ones(64, 0, 3, 3)])
def test_a_resnet_whose_width_cannot_be_told_is_refused(conv2):
    state = states("resnet50")
    del state["layer1.0.conv2.weight"]
    if conv2 is not None:
        state["layer1.0.conv2.weight"] = conv2
    with pytest.raises(UserError, match=r"layer1\.0\.conv2\.weight, a convolution that tells"):
        convert(state)


def test_what_a_resnet_lacks_is_reported():
    state = states("resnet18")
    del state["layer4.0.downsample.1.running_var"]
    assert convert(state).missing == ["res5.0.shortcut.norm.running_var"]


@pytest.mark.parametrize("name", ["source.pth", "source.safetensors", "source.onnx"])
def test_a_broken_file_is_named(name, tmp_path):
    if not name.endswith(".pth"):
        pytest.importorskip(name.split(".")[1])
    (tmp_path / name).write_bytes(b"\xffnot weights at all")
    assert f"{name}: " in error_of(tmp_path / name, tmp_path / "out.pth")


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("gone.pth", "out.pth", "gone.pth: no such file"),
        ("weights.h5", "out.pth", "weights.h5: its name ends in none of .pth, .pt, .safetensors"),
        ("gone.pth", "out.pkl", "out.pkl: Detectron2 goes by the suffix; call it .pth"),
    ],
)
def test_a_file_name_that_will_not_do_is_named(source, out, message, tmp_path):
    assert message in error_of(tmp_path / source, tmp_path / out)
