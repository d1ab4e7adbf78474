"""Builds the model of a plan."""

import logging
import traceback

from torch import nn

from apdet.config.plan import MultiScaleTesting, TrainingPlan
from apdet.engine.prediction_check import check_predictions
from apdet.errors import ArgumentError, UserError
from apdet.modeling.cls_loss import cls_loss_name
from apdet.modeling.tta import with_test_time_augmentation

logger = logging.getLogger(__name__)


def build_model(plan: TrainingPlan) -> nn.Module:
    """Build the model and move it to its device.

    Raises:
        UserError: the model cannot be built; it does not predict what is measured; or the plan
            tests on several scales but the model cannot.
    """
    with plan.naming_keys():
        model = _build(plan)
        if plan.multi_scale:
            # Its errors are raised before the training.
            add_multi_scale_testing(plan.multi_scale, model)
        check_predictions(plan, model)
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info(
        "%s with %s, %s trained parameters",
        plan.architecture,
        cls_loss_name(model),
        f"{num_trained:,}",
    )
    return model


def _build(plan: TrainingPlan) -> nn.Module:
    try:
        return plan.build_model()
    except (UserError, OSError):
        raise
    except Exception as error:  # whatever the code of a model raises at settings it cannot have
        what = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
        reason = " ".join(f"{type(error).__name__}: {what}".split())
        raise ArgumentError(
            "TrainingPlan",
            "the model of {model} cannot be built: {reason}; change its settings, or call again "
            "with --debug to see where it fails",
            reason=reason[:500],
        ) from error


def add_multi_scale_testing(testing: MultiScaleTesting, model: nn.Module) -> nn.Module:
    """Wrap a model so that it detects on several scales, with the settings of a plan."""
    return with_test_time_augmentation(
        model,
        sizes=testing.sizes,
        max_size=testing.max_size,
        flip=testing.flip,
        square=testing.square,
    )
