"""What a model file says of its model: the config, and how the model did in its evaluation."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from apdet import __version__
from apdet.checkpoint.weights_file import read_torch
from apdet.errors import UserError
from apdet.files import whole_file

CARD = "card"  # its key in a checkpoint


@dataclass(frozen=True)
class ModelCard:
    """All that is needed, beside weights and classes, to use a trained model.

    Attributes:
        config: the model and its input as YAML, see `apdet.config.model_text`. Empty: the model is
            of a Python config.
        version: the version of apdet that wrote the file.
        metrics: {name: number} of the last evaluation, such as {"bbox/AP": 48.7}, in percent.
        evaluated_on: the data set that chose the thresholds; empty: the model was not evaluated.
        threshold: the score threshold with the best F1 at IoU 0.5; None: it is not known.
        class_thresholds: {class: threshold} of the classes with enough objects.
        calibration: {class: (a, b, c)}, the maps from scores to probabilities of
            `apdet.evaluation.calibration`; the class "" stands for all others. Empty: there are
            none.
    """

    config: str = ""
    version: str = __version__
    metrics: Mapping[str, float] = field(default_factory=dict)
    evaluated_on: str = ""
    threshold: float | None = None
    class_thresholds: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """The card as text, numbers and mappings, which a checkpoint can hold."""
        return asdict(self)


def read_card(checkpoint: Mapping[str, Any], path: str) -> ModelCard | None:
    """Read the card of a checkpoint.

    Args:
        checkpoint: the content of the file.
        path: the file, for errors.

    Returns:
        The card. None: the file has none, as those of other programs and of apdet up to 0.3.

    Raises:
        UserError: it is damaged, or was written by a later version in another form.
    """
    content = checkpoint.get(CARD)
    if content is None:
        return None
    known = {part.name: part for part in fields(ModelCard)}
    version = content.get("version") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not all(map(_is_valid, content, content.values())):
        written = f"apdet {version}" if isinstance(version, str) else "another program"
        raise UserError(
            f"{path}: what it says of its model cannot be read; it was written by {written}, and "
            f"this is {__version__}. Give --config-file, or use the version that wrote it"
        )
    # A later version may say more.
    return ModelCard(**{key: value for key, value in content.items() if key in known})


def _is_valid(key: object, value: object) -> bool:
    match key:
        case "config" | "version" | "evaluated_on":
            return isinstance(value, str)
        case "threshold":
            return value is None or _is_number(value)
        case "metrics" | "class_thresholds":
            return isinstance(value, Mapping) and all(
                isinstance(name, str) and _is_number(number) for name, number in value.items()
            )
        case "calibration":
            return isinstance(value, Mapping) and all(map(_is_map, value, value.values()))
    return isinstance(key, str)


def _is_map(name: object, numbers: object) -> bool:
    """Whether this is a class with the three numbers of a strictly increasing map."""
    if not isinstance(name, str) or not isinstance(numbers, list | tuple) or len(numbers) != 3:
        return False
    if not all(map(_is_number, numbers)):
        return False
    a, b, c = numbers
    return min(a, b) >= 0 and a + b > 0 and math.isfinite(a + b + c)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def write_card(path: str | os.PathLike, card: ModelCard) -> None:
    """Write what a checkpoint says of its model, unless it says that already.

    If the process is interrupted, the previous file remains.

    Raises:
        UserError: the file cannot be read or written.
    """
    content = read_torch(os.fspath(path))
    if content.get(CARD) != card.content():
        with whole_file(path) as file:
            torch.save({**content, CARD: card.content()}, file)
