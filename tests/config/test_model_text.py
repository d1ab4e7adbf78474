"""The config that a model file holds."""

import pytest
import yaml
from conftest import CONFIGS
from detectron2.modeling import build_model

from apdet.config import load_config
from apdet.config.model_text import config_from_text, model_text
from apdet.errors import UserError
from apdet.modeling import named_loss

SMALL = """MODEL.DEVICE cpu MODEL.RETINANET.NUM_CLASSES 3 MODEL.ROI_HEADS.NUM_CLASSES 3
    MODEL.FPN.OUT_CHANNELS 32 MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.RESNETS.STEM_OUT_CHANNELS 8
    MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.VGG.WIDTH 0.0625 MODEL.ROI_BOX_HEAD.FC_DIM 16"""


@pytest.mark.parametrize(
    "name", ["retinanet_ap", "retinanet_ohem", "ssd_ap", "fcos_ap", "faster_rcnn_ap"]
)
def test_a_model_is_built_from_its_text_as_from_its_config(name):
    cfg = load_config(CONFIGS / "digits" / f"{name}.yaml", SMALL.split())
    again = config_from_text(model_text(cfg), "model.pth")
    expected = {key: weight.shape for key, weight in build_model(cfg).state_dict().items()}
    found = {key: weight.shape for key, weight in build_model(again).state_dict().items()}
    assert found == expected
    assert again.INPUT == cfg.INPUT
    assert again.TEST == cfg.TEST


def test_no_path_is_in_the_text(tmp_path):
    options = ["MODEL.WEIGHTS", "secret/w.pth", "OUTPUT_DIR", "secret/o"]
    options += ["DATASETS.REGISTER", "[{'name': 'a', 'root': 'secret'}]"]
    text = model_text(load_config(CONFIGS / "digits" / "retinanet_ap.yaml", options))
    assert "secret" not in text
    assert not {"DATASETS", "OUTPUT_DIR", "SOLVER"} & yaml.safe_load(text).keys()


LOSS = """
import torch

def own_loss(logits, targets, *, sharpness=1.0):
    return (logits * sharpness).sum() * 0.0

def softmax_loss(logits, targets):
    return logits.sum() * 0.0

softmax_loss.softmax = True
"""


@pytest.mark.parametrize(("function", "num_logits"), [("own_loss", 3), ("softmax_loss", 4)])
def test_a_loss_of_ones_own_is_not_needed_to_predict(tmp_path, monkeypatch, function, num_logits):
    (tmp_path / "text_losses.py").write_text(LOSS)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"text_losses:{function}"
    cfg = load_config(
        CONFIGS / "digits" / "retinanet_ap.yaml", [*SMALL.split(), "MODEL.CLS_LOSS.NAME", name]
    )
    with monkeypatch.context() as allowed:
        allowed.setattr(named_loss, "_custom_code_is_allowed", True)
        text = model_text(cfg)
    assert "text_losses" not in text
    model = build_model(config_from_text(text, "model.pth"))
    assert model.cls_loss.num_logits == num_logits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "its config describes no model"),
        ("INPUT: {}", "its config describes no model"),
        ("MODEL: {BACKBONES: 3}", "config in model.pth: unknown config key MODEL.BACKBONES"),
        ("MODEL: !!python/object/apply:os.system [ls]", "not a safe YAML file"),
        ("MODEL: [", "not a safe YAML file"),
        ("MODEL: {CLS_LOSS: {NAME: 'os:system'}}", "its loss is 'os:system', which is not one of"),
    ],
)
def test_a_text_that_is_no_config_is_refused(text, message):
    with pytest.raises(UserError, match=message) as caught:
        config_from_text(text, "model.pth")
    assert "\n" not in str(caught.value)
