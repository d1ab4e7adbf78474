"""The part of a YAML config that a model file holds: the model, its input and its testing."""

from typing import Any

import yaml
from detectron2.config import CfgNode

from apdet.config.yaml import config_of
from apdet.config.yaml_file import parse_yaml
from apdet.errors import UserError
from apdet.losses.interface import interface_of
from apdet.modeling.named_loss import find_loss

# They say how the model was trained, or where files are.
_LEFT_OUT = ("OUTPUT_DIR", "DATASETS", "DATALOADER", "SOLVER", "SEED", "VIS_PERIOD")


def model_text(cfg: CfgNode) -> str:
    """Write the part of a config that builds the model and reads images, without any path.

    Args:
        cfg: the config of a training, with the number of classes.
    """
    content = yaml.safe_load(cfg.dump())
    for key in _LEFT_OUT:
        del content[key]
    model = content["MODEL"]
    model["WEIGHTS"], model["WEIGHTS_CLASSES"] = "", None
    loss = model["CLS_LOSS"]
    if ":" in loss["NAME"]:  # the user's own, which is not needed to predict
        softmax = interface_of(find_loss(loss["NAME"])).softmax
        loss.update(NAME="ohem_loss" if softmax else "ap_loss", KWARGS={}, SAMPLER="")
    return yaml.safe_dump(content, sort_keys=True, allow_unicode=True)


def config_from_text(text: str, place: str) -> CfgNode:
    """Read the result of `model_text`. It runs no code.

    Args:
        text: YAML.
        place: the model file, for errors.

    Raises:
        UserError: the text is no config, or one with keys of a newer version.
    """
    content: Any = parse_yaml(text, place)
    if not isinstance(content, dict) or "MODEL" not in content:
        raise UserError(f"{place}: its config describes no model; give --config-file")
    return config_of(content, f"the config in {place}")
