"""The data sets that a plan evaluates on, and the keys of their results."""

import difflib
from collections.abc import Sequence
from dataclasses import asdict

from apdet.config.plan import TestSet, TrainingPlan
from apdet.errors import ArgumentError
from apdet.evaluation.build import metric_names
from apdet.evaluation.expected import ExpectedResult, read_expected


def evaluated_sets(plan: TrainingPlan, *, final: bool = True) -> list[TestSet]:
    """The data sets to evaluate on, validation sets first.

    Args:
        plan: the plan.
        final: whether this is the evaluation after the training. During the training, only the
            validation sets are evaluated, if there are any.
    """
    val_sets, test_sets = list(plan.val_sets), list(plan.test_sets)
    sets = val_sets + test_sets if final else val_sets or test_sets
    return list({test_set.name: test_set for test_set in sets}.values())


def result_keys(plan: TrainingPlan, sets: Sequence[TestSet]) -> list[str] | None:
    """The keys of the results on data sets of a plan, such as "bbox/AP".

    If the plan has several data sets, their names lead, as in "digits_test/bbox/AP".

    Returns:
        The keys; None if they are not known, because a data set has an evaluator of its own.
    """
    if any(test_set.build_evaluator is not None for test_set in sets):
        return None
    keys = []
    for test_set in sets:
        for name in metric_names(test_set.name, **asdict(plan.tasks)):
            head, tail = (test_set.name, name) if _has_several(plan) else name.split("/", 1)
            keys += [f"{head}/{tail}", *[f"{head}_TTA/{tail}"] * (plan.multi_scale is not None)]
    return keys


def find_key(plan: TrainingPlan, name: str, sets: Sequence[TestSet]) -> str | None:
    """Find the key of a result by a name, which may lack the data set.

    Args:
        plan: the plan.
        name: a key, or a key without its data set, which then is the first that has the result.
        sets: the data sets of the plan to look at.

    Returns:
        The key; None if there is no such result.
    """
    names = [name, *(f"{s.name}/{name}" for s in sets)] if _has_several(plan) else [name]
    keys = result_keys(plan, sets)
    if keys is None:  # then any name may be right
        has_set = name.startswith(tuple(f"{s.name}/" for s in sets))
        return name if has_set or len(names) == 1 else names[1]
    return next((key for key in names if key in keys), None)


def best_metric_key(plan: TrainingPlan) -> str:
    """The key of the result that chooses the best checkpoint, a result on a validation set.

    Raises:
        ArgumentError: there is no such result.
    """
    sets = evaluated_sets(plan, final=False)
    keys = result_keys(plan, sets)
    if keys == []:  # nothing is measured, so there will be no best checkpoint
        return plan.best_metric
    key = find_key(plan, plan.best_metric, sets)
    if key is None:
        raise ArgumentError(
            "TrainingPlan",
            "{best_metric} is {name!r}, which is not measured; choose one of {choices}",
            name=plan.best_metric,
            choices=_some(plan.best_metric, keys or []),
        )
    return key


def expected_results(plan: TrainingPlan) -> list[ExpectedResult]:
    """The results that the plan expects, each with its whole key.

    Raises:
        ArgumentError: one has another form, or is no result of the plan.
    """
    try:
        results = read_expected(plan.expected_results)
    except ValueError as error:
        raise ArgumentError(
            "TrainingPlan",
            "{expected_results} has {error}; an entry is [task, metric, value, tolerance], such as "
            "[bbox, AP, 38.5, 0.2]",
            error=error,
        ) from error
    sets = [*plan.test_sets, *evaluated_sets(plan)]  # a name without data set is of a test set
    found = []
    for result in results:
        key = find_key(plan, result.key, sets)
        if key is None:
            raise ArgumentError(
                "TrainingPlan",
                "{expected_results} expects {name!r}, which is not measured; choose one of "
                "{choices}",
                name=result.key,
                choices=_some(result.key, result_keys(plan, sets) or []),
            )
        task, _, metric = key.rpartition("/")
        found.append(result._replace(task=task, metric=metric))
    return found


def _has_several(plan: TrainingPlan) -> bool:
    return len(evaluated_sets(plan)) > 1


def _some(name: str, keys: Sequence[str]) -> str:
    """The keys that are most like a name, or the first ones."""
    keys = list(dict.fromkeys(keys))
    return ", ".join(difflib.get_close_matches(name, keys, n=3, cutoff=0.5) or keys[:6])
