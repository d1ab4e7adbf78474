"""The part of a YAML config that a model file holds: the model, its input and its testing."""

from typing import Any

import yaml
from detectron2.config import CfgNode

from apdet.config.python_model import PythonModel, check_loss, read_python_model
from apdet.config.yaml import config_of
from apdet.config.yaml_file import parse_yaml
from apdet.errors import UserError
from apdet.losses import LOSSES
from apdet.modeling.named_loss import stand_in

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
    if loss["NAME"] not in LOSSES:
        loss.update(NAME=stand_in(loss["NAME"]), KWARGS={}, SAMPLER="")
    return yaml.safe_dump(content, sort_keys=True, allow_unicode=True)


def config_from_text(text: str, place: str) -> CfgNode | PythonModel:
    """Read the result of `model_text` or `python_model_text`. It runs no code.

    Args:
        text: YAML.
        place: the model file, for errors.

    Raises:
        UserError: the text is no config, or one with keys of a newer version.
    """
    content: Any = parse_yaml(text, place)
    if isinstance(content, dict) and "model" in content:
        return read_python_model(content, place)
    if not isinstance(content, dict) or "MODEL" not in content:
        raise UserError(f"{place}: its config describes no model; give --config-file")
    config = config_of(content, f"the config in {place}")
    check_loss(config.MODEL.CLS_LOSS.NAME, place)
    return config
