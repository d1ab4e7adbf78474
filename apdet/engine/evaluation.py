"""Evaluates a model or a checkpoint on the data sets of a plan, and writes the report."""

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from torch import nn

from apdet.checkpoint import Checkpointer, resolve_weights_classes
from apdet.config.plan import TestSet, TrainingPlan
from apdet.data.worker_errors import errors_of_workers
from apdet.engine.evaluation_check import check_evaluation
from apdet.engine.model import add_multi_scale_testing, build_model
from apdet.engine.result_keys import evaluated_sets, expected_results
from apdet.errors import ArgumentError
from apdet.evaluation import build_evaluator
from apdet.evaluation.build import inference_folder
from apdet.evaluation.expected import ExpectedResult, compare_with_expected
from apdet.report import write_report

logger = logging.getLogger(__name__)


@errors_of_workers()
def evaluate(
    plan: TrainingPlan, model: nn.Module, *, final: bool = True, multi_scale: bool = False
) -> dict[str, Any]:
    """Evaluate a model on the data sets of a plan. All processes must call this function.

    Args:
        plan: the plan with the data sets and the output folder.
        model: the detector, which may be in DistributedDataParallel.
        final: whether this is the evaluation after the training, on validation and test sets.
            During the training, only the validation sets are evaluated, if there are any.
        multi_scale: whether to test on several scales, with the settings ``plan.multi_scale``.

    Returns:
        The results by task, such as {"bbox": {"AP": ...}}, in percent. If the plan has several data
        sets, the results by data set and task. With ``multi_scale`` each name ends in "_TTA", so
        that the results can be merged with those on one scale. Empty on all processes but the
        first.
    """
    if multi_scale:
        logger.info("Evaluating on several scales; names of results end in _TTA")
        assert plan.multi_scale is not None
        model = add_multi_scale_testing(plan.multi_scale, model)
    results: dict[str, Any] = OrderedDict()
    for test_set in evaluated_sets(plan, final=final):
        folder = inference_folder(plan.output_dir, test_set.name, tta=multi_scale)
        loader = test_set.build_loader(resize=not multi_scale)
        evaluator = _build_evaluator(plan, test_set, folder)
        results[test_set.name] = inference_on_dataset(model, loader, evaluator)
        if comm.is_main_process():
            logger.info("Evaluation results for %s in csv format:", test_set.name)
            print_csv_format(results[test_set.name])
    if len(evaluated_sets(plan)) == 1:
        (results,) = results.values()
    return {f"{name}_TTA": result for name, result in results.items()} if multi_scale else results


def _build_evaluator(plan: TrainingPlan, test_set: TestSet, folder: str) -> DatasetEvaluator:
    if test_set.build_evaluator is not None:
        return test_set.build_evaluator(folder)
    return build_evaluator(test_set.name, folder, **asdict(plan.tasks))


def evaluate_checkpoint(plan: TrainingPlan, *, resume: bool) -> dict[str, Any]:
    """Evaluate a checkpoint on all validation and test sets, and write the report.

    Args:
        plan: the plan with the weights, the data sets and the output folder.
        resume: whether to evaluate the last checkpoint in the output folder, if there is one, and
            not the weights of the plan.

    Returns:
        The results, see :func:`evaluate`.

    Raises:
        UserError: there is no checkpoint, it does not fit the model, a data set has no ground
            truth, or the results are not the expected ones.
    """
    with plan.naming_keys():
        model = load_to_evaluate(plan, resume=resume)
        results = evaluate(plan, model)
        if plan.multi_scale:
            results.update(evaluate(plan, model, multi_scale=True))
        report(plan, results)
    return results


def load_to_evaluate(plan: TrainingPlan, *, resume: bool) -> nn.Module:
    """Check the data sets, and load the checkpoint that `evaluate_checkpoint` evaluates.

    Raises:
        UserError: as `evaluate_checkpoint`, or there is no data set to evaluate on.
    """
    if not evaluated_sets(plan):
        raise ArgumentError(
            "TrainingPlan", "{test_sets} is empty, so there is nothing to evaluate; name a data set"
        )
    check_evaluation(plan)
    model = build_model(plan)
    Checkpointer(
        model,
        plan.output_dir,
        classes=plan.classes,
        weights_classes=resolve_weights_classes(plan.weights.classes),
    ).load_to_evaluate(plan.weights.path, resume=resume)
    return model


def report(plan: TrainingPlan, results: dict[str, Any]) -> None:
    """Write the report of a training or an evaluation, and verify the results.

    Only the main process does that.

    Raises:
        ArgumentError: the results are not those that the plan expects.
    """
    if not comm.is_main_process():
        return
    paths = write_report(
        plan.output_dir,
        results,
        test_sets=[test_set.name for test_set in plan.test_sets],
        val_sets=[val_set.name for val_set in plan.val_sets],
        tta=plan.multi_scale is not None,
        method=plan.architecture,
    )
    logger.info("See %s", ", ".join(str(path) for path in paths))
    if expected := expected_results(plan):
        _verify(expected, results)


def _verify(expected: Sequence[ExpectedResult], results: Mapping[str, Any]) -> None:
    wrong = compare_with_expected(expected, flatten_results_dict(results))
    if wrong is not None:
        raise ArgumentError(
            "TrainingPlan",
            "the results are not those of {expected_results}: {wrong}",
            wrong=wrong,
        )
    logger.info(f"The results are verified: {len(expected)} are as expected")
