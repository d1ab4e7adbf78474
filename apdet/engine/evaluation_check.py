"""Checks, before a training or an evaluation, that there will be results."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog

from apdet.config.plan import TrainingPlan
from apdet.engine.result_keys import (
    best_metric_key,
    evaluated_sets,
    expected_results,
    result_keys,
)
from apdet.errors import ArgumentError, UserError
from apdet.evaluation.ground_truth import is_declared_unannotated

logger = logging.getLogger(__name__)


def check_evaluation(plan: TrainingPlan) -> None:
    """Check that every data set gives results, and that the expected results exist.

    Raises:
        UserError: a data set has no objects and is not declared as unannotated, or what is expected
            is no result.
    """
    for test_set in evaluated_sets(plan):
        # Another evaluator than ours may need no objects.
        if test_set.build_evaluator is None:
            _check_objects(plan, test_set.name)
    expected_results(plan)


def log_validation(plan: TrainingPlan) -> None:
    """Log which data sets choose the best checkpoint, and by which result.

    Raises:
        ArgumentError: there is no such result.
    """
    sets = evaluated_sets(plan, final=False)
    if not sets:
        return
    val, test = (plan.key_of("TrainingPlan", key) or key for key in ("val_sets", "test_sets"))
    why = "" if plan.val_sets else f" {val} is empty, so {test} serves."
    names = ", ".join(val_set.name for val_set in sets)
    key = best_metric_key(plan)
    if result_keys(plan, sets) == []:
        logger.info(f"{names} has no annotations, so no best checkpoint is chosen: {val} is empty")
        return
    logger.info(f"Validation on {names}: {key} chooses the best checkpoint.{why}")


def _check_objects(plan: TrainingPlan, name: str) -> None:
    """Check that there are objects to detect, and say if there are more than can be detected."""
    dataset_dicts = DatasetCatalog.get(name)
    counts = {image["file_name"]: _count_objects(image) for image in dataset_dicts}
    if not any(counts.values()):
        images = f"{len(counts)} images{_ignored_boxes(dataset_dicts)}"
        if name in {val_set.name for val_set in plan.val_sets}:
            raise UserError(
                f"the validation set {name!r} has no object to detect in its {images}, so it "
                "cannot choose the best checkpoint; annotate it, or correct its paths"
            )
        if not is_declared_unannotated(name, dataset_dicts):
            raise ArgumentError(
                "register",
                "the test set {name!r} has no object to detect in its {images}, so there is "
                "nothing to measure; annotate it, correct its paths, or declare `annotated: false` "
                "in its entry of {entries} to only write predictions",
                name=name,
                images=images,
            )
    limit = plan.tasks.detections_per_image
    if crowded := [file for file, count in counts.items() if count > limit]:
        key = plan.key_of("EvaluationTasks", "detections_per_image") or "detections_per_image"
        logger.warning(
            f"{name}: {len(crowded)} images have more than {limit} objects, first {crowded[0]}. "
            f"Not all of them can be found: {key} is {limit}"
        )


def _ignored_boxes(dataset_dicts: Sequence[Mapping[str, Any]]) -> str:
    """Say how many boxes there are, in images of which no box is an object to detect."""
    count = sum(len(image.get("annotations", ())) for image in dataset_dicts)
    return f" ({count} boxes are difficult or crowds, which do not count)" if count else ""


def _count_objects(image: Mapping[str, Any]) -> int:
    return sum(not annotation.get("iscrowd") for annotation in image.get("annotations", []))
