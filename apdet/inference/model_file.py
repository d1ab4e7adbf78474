"""Loads a model file: the model, the names of its classes, and what the file says of it."""

import os
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.checkpoint.card import ModelCard, read_card
from apdet.checkpoint.checkpoint_file import read_checkpoint
from apdet.checkpoint.classes import read_classes
from apdet.config.model_text import config_from_text
from apdet.config.prediction import Prediction, prediction_of
from apdet.config.python_model import PythonModel
from apdet.config.read import read_config
from apdet.errors import UserError
from apdet.evaluation.calibration import BetaMap, Calibration
from apdet.files import check_regular_file
from apdet.modeling import ClsLoss
from apdet.modeling.contract import num_classes_of


@dataclass(frozen=True)
class LoadedModel:
    """The content of a model file.

    Attributes:
        path: the file.
        model: the model with its weights, on its device, not in training.
        classes: the names of its classes, in order; numbers if they are not known.
        card: what the file says of the model.
        prediction: how to predict with it.
    """

    path: str
    model: nn.Module
    classes: list[str]
    card: ModelCard
    prediction: Prediction

    def calibration(self) -> Calibration:
        """The calibration. A UserError if the file holds none."""
        maps = {name: BetaMap(*numbers) for name, numbers in self.card.calibration.items()}
        if "" not in maps:
            raise UserError(
                f"{self.path}: holds no calibration, because the model was not evaluated, or none "
                "of its detections was right; use the scores, or `apdet calibrate`"
            )
        of_classes = {k: maps[name] for k, name in enumerate(self.classes) if name in maps}
        return Calibration(maps[""], of_classes)


def load_model(path: str, config_file: str | os.PathLike = "", *, device: str) -> LoadedModel:
    """Load a model file. It runs no code.

    Args:
        path: a checkpoint of a training.
        config_file: the config of the model; empty: the one that the file holds.
        device: the device of the model.

    Raises:
        UserError: the file is no model, or holds no config and none is given; or the config is of
            another model.
    """
    check_regular_file(path)
    content = read_checkpoint(path)
    card = read_card(content, path) or ModelCard(version="")
    classes = read_classes(content.get("classes"))
    prediction = prediction_of(
        _config(card, path, config_file), device=device, num_classes=len(classes) or None
    )
    model = _build(prediction, path).eval()
    classes = classes or [str(k) for k in range(num_classes_of(model) or 0)]
    _Loader(model, content, classes=classes).load(path, checkpointables=[], strict=True)
    return LoadedModel(path, model, classes, card, prediction)


class _Loader(Checkpointer):
    """Loads content that was read already, without the state of losses, which do not predict."""

    def __init__(self, model: nn.Module, content: dict[str, Any], *, classes: list[str]):
        super().__init__(model, classes=classes)
        own = model.state_dict()
        losses = tuple(f"{n}." for n, part in model.named_modules() if isinstance(part, ClsLoss))
        weights = content["model"].items()
        kept = {key: value for key, value in weights if key in own or not key.startswith(losses)}
        self._content = {**content, "model": kept}

    def _load_file(self, filename: str) -> dict[str, Any]:
        return self._content


def _config(
    card: ModelCard, path: str, config_file: str | os.PathLike
) -> CfgNode | DictConfig | PythonModel:
    if config_file:
        return read_config(config_file).content
    if not card.config:
        raise UserError(
            f"{path}: holds no config, as models of apdet up to 0.3 and of Python configs that "
            "call code of one's own; give the one that it was trained with: --config-file"
        )
    return config_from_text(card.config, path)


def _build(prediction: Prediction, path: str) -> nn.Module:
    try:
        return prediction.build_model()
    except UserError:
        raise
    except Exception as error:  # whatever code raises at arguments that it cannot have
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{path}: its model cannot be built: {reason[:500]}; give the config that it was "
            "trained with: --config-file"
        ) from error
