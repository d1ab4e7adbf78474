"""Checks, before a training or an evaluation, that the model predicts what is measured."""

from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from apdet.config.plan import TrainingPlan
from apdet.engine.result_keys import evaluated_sets
from apdet.errors import ArgumentError, UserError
from apdet.modeling.contract import num_keypoints_of, predicts

_NUM_COCO_SIGMAS = 17


def check_predictions(plan: TrainingPlan, model: nn.Module) -> None:
    """Check that the model predicts the masks or the keypoints that are measured.

    Raises:
        UserError: it predicts none, its number of keypoints is not that of the data sets or of
            the OKS sigmas, or the data sets have keypoints of other names.
    """
    if plan.tasks.masks and predicts(model, "mask") is False:
        raise _error("{masks} is True, but {model} predicts no masks; set it to False", model=model)
    if plan.tasks.keypoints and predicts(model, "keypoint") is False:
        raise _error(
            "{keypoints} is True, but {model} predicts no keypoints; set it to False", model=model
        )
    num = num_keypoints_of(model)
    if num is not None:
        _check_keypoints(plan, num)


def _error(template: str, *, model: nn.Module, **values: object) -> ArgumentError:
    return ArgumentError("build_evaluator", template, model=type(model).__name__, **values)


def _check_keypoints(plan: TrainingPlan, num: int) -> None:
    names = list(dict.fromkeys([*plan.train_sets, *(s.name for s in evaluated_sets(plan))]))
    for name in names:
        found = _num_keypoints(name)
        if found not in (None, num):
            raise ArgumentError(
                "BaseKeypointRCNNHead",
                "{num_keypoints} is {num}, but the objects of {name!r} have {found} keypoints; "
                "give the same number, or take the data set out",
                num=num,
                name=name,
                found=found,
            )
    _check_same_names(names)
    if plan.tasks.keypoints and evaluated_sets(plan):
        _check_sigmas(plan.tasks.keypoint_oks_sigmas, num)


def _check_same_names(dataset_names: Sequence[str]) -> None:
    keypoints = {name: MetadataCatalog.get(name).get("keypoint_names") for name in dataset_names}
    listed = {name: list(found) for name, found in keypoints.items() if found is not None}
    for name, found in listed.items():
        first, expected = next(iter(listed.items()))
        if found != expected:
            raise UserError(
                f"the data set {first!r} has the keypoints {expected}, but {name!r} has {found}; a "
                "model has one list of keypoints, so give both the same"
            )


def _num_keypoints(dataset_name: str) -> int | None:
    """The number of keypoints of an object; None if the data set does not tell."""
    names = MetadataCatalog.get(dataset_name).get("keypoint_names")
    if names is not None:
        return len(names)
    boxes = [
        box for image in DatasetCatalog.get(dataset_name) for box in image.get("annotations", [])
    ]
    return max(len(box.get("keypoints", [])) // 3 for box in boxes) if boxes else None


def _check_sigmas(sigmas: Sequence[float], num_keypoints: int) -> None:
    if (len(sigmas) or _NUM_COCO_SIGMAS) != num_keypoints:
        raise ArgumentError(
            "build_evaluator",
            "{keypoint_oks_sigmas} has {found} values{meaning}, but the model predicts {num} "
            "keypoints; give one sigma for each, such as 0.05 (see cocodataset.org, OKS)",
            found=len(sigmas),
            meaning="" if sigmas else ", which means those of COCO's 17 keypoints",
            num=num_keypoints,
        )
