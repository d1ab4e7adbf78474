"""What a Python config evaluates: its data sets, and what is measured on them."""

from dataclasses import fields
from functools import partial
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf

from apdet.config.lazy import build
from apdet.config.lazy_nodes import changed, plain, target_names
from apdet.config.plan import EvaluationTasks, Loader, TestSet
from apdet.errors import UserError

# Where a model has the number of detections that it keeps of an image.
_DETECTIONS_PER_IMAGE = (
    "max_detections_per_image",
    "roi_heads.box_predictor.test_topk_per_image",
    "roi_heads.box_predictors.0.test_topk_per_image",
)
_TASKS = {field.name for field in fields(EvaluationTasks)}


def evaluated_sets(cfg: DictConfig, kind: str) -> list[TestSet]:
    """The test sets or validation sets.

    The loader and the evaluator of each are ``dataloader.test`` and ``dataloader.evaluator``, with
    the data set in place of the first test set.

    Args:
        cfg: the config.
        kind: "test" or "val".

    Raises:
        UserError: loader or evaluator do not refer to ``datasets.test``, so they cannot serve for
            another data set than the first test set.
    """
    sets = []
    for name in cfg.datasets[kind]:
        if name not in cfg.datasets.test[:1]:
            _check_refers_to_test(cfg, f"datasets.{kind}", name)
        own = changed(cfg, {"datasets.test": [name]})
        build_evaluator = None if _has_our_evaluator(own) else partial(_evaluator, own)
        sets.append(TestSet(name, partial(_test_loader, own), build_evaluator))
    return sets


def _check_refers_to_test(cfg: DictConfig, key: str, name: str) -> None:
    for part in ("test", "evaluator"):
        if "datasets.test" not in str(OmegaConf.to_container(cfg.dataloader[part], resolve=False)):
            raise UserError(
                f"{key} names {name!r}, but dataloader.{part} is of one data set; write "
                "'${datasets.test.0}' for the name of the data set in it"
            )


def evaluation_tasks(cfg: DictConfig) -> EvaluationTasks:
    """What the evaluator measures, on as many detections as the model keeps of an image."""
    names = [*cfg.datasets.test, *cfg.datasets.val]
    cfg = changed(cfg, {"datasets.test": names[:1]})
    if not names or not _has_our_evaluator(cfg):
        return EvaluationTasks()
    limits = (OmegaConf.select(cfg.model, path) for path in _DETECTIONS_PER_IMAGE)
    limit = next((limit for limit in limits if limit is not None), 100)
    node = plain(cfg.dataloader.evaluator)
    given = {name: node[name] for name in _TASKS & node.keys()}
    return EvaluationTasks(**{"detections_per_image": limit, **given})


def _test_loader(cfg: DictConfig, *, resize: bool = True) -> Loader:
    changes: dict[str, Any] = {} if resize else {"dataloader.test.mapper.augmentations": []}
    return build(changed(cfg, changes), "dataloader.test")


def _evaluator(cfg: DictConfig, folder: str) -> DatasetEvaluator:
    has_folder = "output_folder" in cfg.dataloader.evaluator
    changes = {"dataloader.evaluator.output_folder": folder} if has_folder else {}
    return build(changed(cfg, changes), "dataloader.evaluator")


def _has_our_evaluator(cfg: DictConfig) -> bool:
    """Whether ``dataloader.evaluator`` is what the engine builds by itself."""
    node = cfg.dataloader.evaluator
    target = locate(node._target_) if isinstance(node._target_, str) else node._target_
    return (
        [target.__module__, *target_names(target)] == ["apdet.evaluation.build", "build_evaluator"]
        and node.get("dataset_name") in cfg.datasets.test[:1]
        and node.keys() <= {"_target_", "dataset_name", "output_folder", *_TASKS}
    )
