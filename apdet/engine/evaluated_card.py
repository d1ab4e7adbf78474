"""Writes into the model files how the model did in its evaluation, and its score thresholds."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict

from apdet.checkpoint.card import ModelCard, write_card
from apdet.config.plan import TrainingPlan
from apdet.engine.result_keys import evaluated_sets
from apdet.errors import UserError
from apdet.evaluation.build import inference_folder
from apdet.evaluation.calibration import (
    Calibration,
    Judged,
    cross_calibrate,
    detection_ece,
    fit_calibration,
    judge,
)
from apdet.evaluation.coco import PREDICTIONS
from apdet.evaluation.operating_point import best_f1_threshold, class_thresholds
from apdet.report.selection import read_evaluated

logger = logging.getLogger(__name__)


def evaluated_card(plan: TrainingPlan, card: ModelCard, results: Mapping[str, Any]) -> ModelCard:
    """Add the results of the last evaluation, the thresholds with the best F1, and the calibration.

    The first validation set chooses the thresholds and fits the calibration, or the first test set
    if there is none.

    Args:
        plan: the plan.
        card: what the model file says before the evaluation.
        results: the results of the evaluation.
    """
    numbers = {k: float(v) for k, v in flatten_results_dict(dict(results)).items() if _is_known(v)}
    card = replace(card, metrics=numbers)
    sets = evaluated_sets(plan, final=False)
    if not sets:
        return card
    try:
        return replace(card, **_measure(plan, sets[0].name, numbers))
    except UserError as error:  # such as an evaluator of the user's own, which writes no such file
        logger.warning(f"No score threshold is written to the model file: {error}")
    except Exception:  # it must not end a long training
        logger.exception("No score threshold is written to the model file")
    return card


def _measure(plan: TrainingPlan, name: str, numbers: Mapping[str, float]) -> dict[str, Any]:
    """What the detections on a data set say: thresholds and calibration."""
    found = read_evaluated(name, Path(inference_folder(plan.output_dir, name), PREDICTIONS))
    best = best_f1_threshold(*found)
    if best is None:
        return {}
    judged = judge(*found)
    return {
        "metrics": {**numbers, **_calibration_errors(judged)},
        "evaluated_on": name,
        "threshold": best[0],
        "class_thresholds": {plan.classes[k]: t for k, t in class_thresholds(*found).items()},
        "calibration": _maps(fit_calibration(judged), plan.classes),
    }


def _maps(calibration: Calibration | None, classes: Sequence[str]) -> dict[str, list[float]]:
    """The maps as a card has them."""
    if calibration is None:
        return {}
    of_classes = {classes[k]: own for k, own in calibration.of_classes.items()}
    maps = {"": calibration.overall, **of_classes}
    return {name: [own.a, own.b, own.c] for name, own in maps.items()}


def _calibration_errors(judged: Judged) -> dict[str, float]:
    """The calibration error of the scores, and of probabilities of maps from other images."""
    probabilities = cross_calibrate(judged)
    if probabilities is None:
        return {}
    return {
        "calibration/D-ECE of scores": detection_ece(judged.scores, judged.right),
        "calibration/D-ECE": detection_ece(probabilities, judged.right),
    }


def _is_known(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


class CardWriter(HookBase):
    """After the last evaluation, writes its results and thresholds into ``model_final.pth``."""

    def __init__(self, folder: str, describe: Callable[[], ModelCard | None]):
        """Set up the hook.

        Args:
            folder: the output folder.
            describe: what the file shall say of the model.
        """
        self.path, self.describe = Path(folder, "model_final.pth"), describe

    def after_train(self) -> None:
        card = self.describe() if self.trainer.iter >= self.trainer.max_iter else None
        if card and self.path.is_file():
            write_card(self.path, card)
