"""The model of a Python config as text."""

import pytest
import torch
from conftest import CONFIGS
from detectron2.config import LazyCall
from torch import nn

from apdet import losses
from apdet.config.lazy import build, load_lazy_config
from apdet.config.model_text import config_from_text
from apdet.config.prediction import prediction_of
from apdet.config.python_model import python_model_text
from apdet.errors import UserError
from apdet.modeling import named_loss

LAZY = sorted((CONFIGS / "lazy").glob("*.py"))


@pytest.fixture
def config():
    return load_lazy_config(str(CONFIGS / "lazy" / "digits_ssd_ap.py"))


def model_of(text):
    return prediction_of(config_from_text(text, "model.pth"), device="cpu").build_model()


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.stem)
def test_a_model_is_built_from_its_text_as_from_its_config(path):
    cfg = load_lazy_config(str(path))
    found, expected = model_of(python_model_text(cfg)), build(cfg, "model")
    assert shapes(found) == shapes(expected)


def shapes(model):
    return {key: weight.shape for key, weight in model.state_dict().items()}


def test_images_are_read_as_in_the_evaluation(config):
    found = prediction_of(config_from_text(python_model_text(config), "model.pth"), device="cpu")
    expected = build(config, "dataloader.test.mapper")
    assert str(found.mapper.augmentations) == str(expected.augmentations)
    assert found.mapper.image_format == expected.image_format
    assert not found.mapper_without_resize.augmentations.augs
    assert found.multi_scale is None
    config.train.multi_scale_testing = {"sizes": [64, 96], "max_size": 200}
    found = prediction_of(config_from_text(python_model_text(config), "model.pth"), device="cpu")
    assert (found.multi_scale.sizes, found.multi_scale.max_size) == ([64, 96], 200)


def own_loss(logits, targets):
    return logits.sum() * 0.0


def softmax_loss(logits, targets):
    return logits.sum() * 0.0


softmax_loss.softmax = True


@pytest.mark.parametrize(
    ("loss", "num_logits"), [(own_loss, 10), (softmax_loss, 11), (losses.focal_loss, 10)]
)
def test_a_loss_of_ones_own_is_not_needed_to_predict(config, loss, num_logits):
    config.model.cls_loss.loss = loss
    config.model.head.num_logits = num_logits
    text = python_model_text(config)
    assert "own_loss" not in text
    assert "softmax_loss" not in text
    assert model_of(text).cls_loss.num_logits == num_logits


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.update(own=LazyCall(nn.Conv2d)(in_channels=1)),
        lambda model: model.update(own=lambda: 1),
        lambda model: model.update(own=torch.ones(2)),
        lambda model: model.update(_target_="os.system"),
    ],
)
def test_a_config_with_anything_else_is_not_written(config, change):
    change(config.model)
    assert python_model_text(config) == ""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{_target_: os.system, command: ls}", "calls 'os.system', which may be any code"),
        ("{_target_: apdet.SSD, head: {_target_: builtins.eval}}", "calls 'builtins.eval'"),
        ("{_target_: apdet.SSD, head: [{_object_: os.system}]}", "calls 'os.system'"),
        ("{_target_: [apdet.SSD]}", "which may be any code"),
        ("{backbone: 3}", "no call for the model"),
        ("3", "no call for the model"),
    ],
)
def test_a_text_calls_nothing_but_what_is_trusted(model, message):
    text = f"model: {model}\nmapper: {{_target_: apdet.BoxMapper}}\n"
    with pytest.raises(UserError, match=message):
        config_from_text(text, "model.pth")


@pytest.mark.parametrize("loss", ["os:system", "[os:system]", "null"])
def test_the_loss_of_a_text_cannot_name_code(config, monkeypatch, loss):
    monkeypatch.setattr(named_loss, "_custom_code_is_allowed", True)
    text = python_model_text(config).replace("loss: ap_loss", f"loss: {loss}")
    with pytest.raises(UserError, match=r"its loss is .*, which is not one of apdet"):
        config_from_text(text, "model.pth")
