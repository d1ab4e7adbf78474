"""Evaluates a model or a checkpoint on all test sets of a plan, and writes the report."""

import logging
from collections import OrderedDict
from dataclasses import asdict
from typing import Any

from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.config.plan import TestSet, TrainingPlan
from apdet.engine.model import add_multi_scale_testing, build_model
from apdet.evaluation import build_evaluator
from apdet.evaluation.build import inference_folder
from apdet.report import write_report

logger = logging.getLogger(__name__)


def evaluate(plan: TrainingPlan, model: nn.Module, *, multi_scale: bool = False) -> dict[str, Any]:
    """Evaluate a model on all test sets. All processes must call this function.

    Args:
        plan: the plan with the test sets and the output folder.
        model: the detector, which may be in DistributedDataParallel.
        multi_scale: whether to test on several scales, with the settings ``plan.multi_scale``.

    Returns:
        The results by task, such as {"bbox": {"AP": ...}}, in percent. With several test sets, the
        results by test set and task. With ``multi_scale`` each name ends in "_TTA", so that the
        results can be merged with those on one scale. Empty on all processes but the first.
    """
    if multi_scale:
        logger.info("Evaluating on several scales; names of results end in _TTA")
        model = add_multi_scale_testing(plan, model)
    results: dict[str, Any] = OrderedDict()
    for test_set in plan.test_sets:
        folder = inference_folder(plan.output_dir, test_set.name, tta=multi_scale)
        loader = test_set.build_loader(resize=not multi_scale)
        evaluator = _build_evaluator(plan, test_set, folder)
        results[test_set.name] = inference_on_dataset(model, loader, evaluator)
        if comm.is_main_process():
            logger.info("Evaluation results for %s in csv format:", test_set.name)
            print_csv_format(results[test_set.name])
    if len(results) == 1:
        (results,) = results.values()
    return {f"{name}_TTA": result for name, result in results.items()} if multi_scale else results


def _build_evaluator(plan: TrainingPlan, test_set: TestSet, folder: str) -> DatasetEvaluator:
    if test_set.build_evaluator is not None:
        return test_set.build_evaluator(folder)
    return build_evaluator(test_set.name, folder, **asdict(plan.tasks))


def evaluate_checkpoint(plan: TrainingPlan, *, resume: bool) -> dict[str, Any]:
    """Evaluate a checkpoint on all test sets, and write the report.

    Args:
        plan: the plan with the weights, the test sets and the output folder.
        resume: whether to evaluate the last checkpoint in the output folder, if there is one, and
            not the weights of the plan.

    Returns:
        The results, see :func:`evaluate`.

    Raises:
        UserError: there is no checkpoint, or it does not fit the model.
    """
    with plan.naming_keys():
        model = build_model(plan)
        Checkpointer(model, plan.output_dir).load_to_evaluate(plan.weights.path, resume=resume)
        results = evaluate(plan, model)
        if plan.multi_scale:
            results.update(evaluate(plan, model, multi_scale=True))
    report(plan, results)
    return results


def report(plan: TrainingPlan, results: dict[str, Any]) -> None:
    """Write the report of a training or an evaluation, and log the paths of its files."""
    if not comm.is_main_process():
        return
    paths = write_report(
        plan.output_dir,
        results,
        test_sets=[test_set.name for test_set in plan.test_sets],
        tta=plan.multi_scale is not None,
        method=plan.architecture,
    )
    logger.info("See %s", ", ".join(str(path) for path in paths))
