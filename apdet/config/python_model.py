"""The model of a Python config as text: calls of classes from a fixed list, and their arguments."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from apdet.config.lazy_nodes import plain
from apdet.config.trusted_calls import NAMES, TRUSTED
from apdet.errors import UserError
from apdet.losses import LOSSES
from apdet.modeling import ClsLoss
from apdet.modeling.named_loss import stand_in

_OBJECT = "_object_"  # the key of the name of a class that is an argument


@dataclass(frozen=True)
class PythonModel:
    """The parts of a Python config that build a model and read images.

    Attributes:
        model: the call that builds the model.
        mapper: the call that builds ``dataloader.test.mapper``.
        multi_scale: ``train.multi_scale_testing``.
    """

    model: dict[str, Any]
    mapper: dict[str, Any]
    multi_scale: dict[str, Any] | None

    def build(self, part: str, **changes: Any) -> Any:
        """Build "model" or "mapper", with some arguments changed."""
        return instantiate({**getattr(self, part), **changes})


def parts_of(cfg: DictConfig) -> PythonModel:
    """The parts of a Python config, whatever they call. A UserError if one is missing."""
    mapper = plain(OmegaConf.select(cfg, "dataloader.test.mapper"))
    if not isinstance(mapper, dict) or "_target_" not in mapper:
        raise UserError(
            "dataloader.test.mapper is missing; write it as a call, L(BoxMapper)(is_train=False, "
            "augmentations=[...])"
        )
    return PythonModel(plain(cfg.model), mapper, plain(cfg.train.multi_scale_testing))


def python_model_text(cfg: DictConfig) -> str:
    """Write the model and the input of a Python config.

    Args:
        cfg: the config.

    Returns:
        YAML. Empty if the config calls something that is not in `TRUSTED`, or has an argument that
        is neither a text, a number nor a list or mapping of such.
    """
    try:
        content = _as_text(asdict(parts_of(cfg)))
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    except (KeyError, TypeError, UserError, yaml.YAMLError):
        return ""


def _as_text(value: Any) -> Any:
    """The value with the names of targets. A KeyError if a target is not trusted."""
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    if not isinstance(value, dict):
        return {_OBJECT: NAMES[value]} if callable(value) else value
    if "_target_" not in value:
        return {key: _as_text(item) for key, item in value.items()}
    target = value["_target_"]
    name = NAMES[locate(target) if isinstance(target, str) else target]
    if name == NAMES[ClsLoss]:
        value = _with_named_loss(value)
    arguments = {key: _as_text(item) for key, item in value.items() if key != "_target_"}
    return {"_target_": name, **arguments}


def _with_named_loss(call: dict[str, Any]) -> dict[str, Any]:
    """The call of `ClsLoss` with a loss of apdet. A loss of the user's own has a stand-in."""
    loss = call["loss"]
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", "")
    if name in LOSSES:
        return {**call, "loss": name}
    return {**call, "loss": stand_in(loss), "kwargs": {}}


def read_python_model(content: Mapping[str, Any], place: str) -> PythonModel:
    """Read the result of `python_model_text`, which is parsed.

    Raises:
        UserError: it calls something that is not in `TRUSTED`, or lacks a part.
    """
    parts = {key: _with_targets(content.get(key), place) for key in ("model", "mapper")}
    for key, part in parts.items():
        if not isinstance(part, dict) or "_target_" not in part:
            raise UserError(f"{place}: its config has no call for the {key}; give --config-file")
    return PythonModel(**parts, multi_scale=content.get("multi_scale"))


def _with_targets(value: Any, place: str) -> Any:
    if isinstance(value, list):
        return [_with_targets(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    if _OBJECT in value:
        return _trusted(value[_OBJECT], place)
    node = {key: _with_targets(item, place) for key, item in value.items()}
    if "_target_" in value:
        node["_target_"] = _trusted(value["_target_"], place)
        if node["_target_"] is ClsLoss:
            check_loss(node.get("loss"), place)
    return node


def _trusted(name: object, place: str) -> Callable[..., Any]:
    if not isinstance(name, str) or name not in TRUSTED:
        raise UserError(
            f"{place}: its config calls {name!r}, which may be any code; if you trust it, give "
            "the config that it was trained with: --config-file"
        )
    return TRUSTED[name]


def check_loss(name: object, place: str) -> None:
    """Check that the loss of a model file is one of apdet, even if code of one's own is allowed."""
    if not isinstance(name, str) or name not in LOSSES:
        raise UserError(
            f"{place}: its loss is {name!r}, which is not one of apdet; give the config that it "
            "was trained with: --config-file"
        )
