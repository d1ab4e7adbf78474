"""Calibrates a trained model on other data than that of its training."""

import tempfile
from dataclasses import replace

import torch

from apdet.checkpoint.card import CARD, ModelCard, read_card
from apdet.checkpoint.weights_file import read_whole
from apdet.config.plan import TrainingPlan
from apdet.engine.evaluated_card import evaluated_card
from apdet.engine.evaluation import evaluate, load_to_evaluate
from apdet.errors import UserError
from apdet.files import whole_file


def calibrate(plan: TrainingPlan, model_file: str, out: str) -> ModelCard:
    """Evaluate a model, and write it with thresholds and a calibration for these data.

    The first validation set of the plan is used, or the first test set if there is none.

    Args:
        plan: the plan with the data sets. Its output folder is not used.
        model_file: the model. It is not changed.
        out: the file to write.

    Returns:
        What the new file says of the model.

    Raises:
        UserError: the model cannot be loaded or does not fit the plan, the data set has no ground
            truth, its detections are all right or all wrong, or the file cannot be written.
    """
    content = read_whole(model_file)
    former = read_card(content, model_file) or ModelCard(config=plan.model_text())
    with tempfile.TemporaryDirectory() as scratch:
        weights = replace(plan.weights, path=model_file)
        plan = replace(plan, output_dir=scratch, weights=weights, multi_scale=None)
        with plan.naming_keys():
            model = load_to_evaluate(plan, resume=False)
            results = evaluate(plan, model, final=False)
        fresh = replace(former, threshold=None, class_thresholds={}, calibration={})
        card = evaluated_card(plan, fresh, results)
    if not card.calibration:
        raise UserError(
            f"{model_file}: no calibration can be fitted, because no detection is right, or none "
            "is wrong, or higher scores are not more often right; use more data"
        )
    content.setdefault("classes", list(plan.classes))
    with whole_file(out) as file:
        torch.save({**content, CARD: card.content()}, file)
    return card
