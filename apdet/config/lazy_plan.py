"""The training plan of a Python config."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from apdet.config.clipping import clip_gradients
from apdet.config.lazy import build
from apdet.config.names import SHARED
from apdet.config.plan import Loader, MultiScaleTesting, TestSet, TrainingPlan, Weights
from apdet.config.schedule import Schedule
from apdet.data.register import register
from apdet.errors import UserError
from apdet.modeling.contract import num_classes_of


def plan_from_lazy(cfg: DictConfig) -> TrainingPlan:
    """Register the data sets of a Python config, scale its schedule, and make the training plan.

    Args:
        cfg: the result of :func:`load_lazy_config`. Its schedule is scaled in place.

    Raises:
        UserError: the data sets cannot be read.
    """
    sets = OmegaConf.to_container(cfg.datasets, resolve=True)
    assert isinstance(sets, dict)
    classes = register(sets.get("register", []), train=sets["train"], test=sets["test"])
    schedule, train = _scale(cfg), cfg.train
    return TrainingPlan(
        config=cfg,
        key_of=partial(lazy_key, cfg),
        output_dir=train.output_dir,
        device=train.device,
        seed=train.seed,
        architecture=_name(cfg.model._target_),
        classes=classes,
        train_sets=sets["train"],
        test_sets=_test_sets(cfg),
        load_train_dicts=partial(build, cfg, "dataloader.train.dataset"),
        build_model=partial(_build_model, cfg, classes),
        build_optimizer=partial(_build_optimizer, cfg),
        build_lr_scheduler=lambda optimizer: build(cfg, "lr_multiplier"),
        build_train_loader=partial(_train_loader, cfg),
        schedule=schedule,
        log_period=train.log_period,
        checkpoints_to_keep=train.checkpointer.get("max_to_keep"),
        best_metric=train.best_checkpoint_metric,
        precision=train.amp.precision if train.amp.enabled else "",
        ddp=_plain(train.ddp),
        weights=Weights(
            train.init_checkpoint, _plain(train.weights_classes), train.allow_weight_mismatch
        ),
        multi_scale=_multi_scale(train.multi_scale_testing),
    )


def _scale(cfg: DictConfig) -> Schedule:
    """Scale the learning rate and the schedule to the batch size, in place.

    ``lr_multiplier`` needs no change: its times are fractions of the training.
    """
    train, loader = cfg.train, cfg.dataloader.train
    schedule = Schedule(
        base_lr=cfg.optimizer.get("lr", 0.0),
        max_iter=train.max_iter,
        checkpoint_period=train.checkpointer.period,
        eval_period=train.eval_period,
    )
    reference = train.reference_batch_size
    if not reference:
        return schedule
    batch_size = loader.get("total_batch_size")
    if batch_size is None:
        raise UserError("train.reference_batch_size needs dataloader.train.total_batch_size")
    schedule = schedule.scaled(reference_batch_size=reference, batch_size=batch_size)
    if "lr" in cfg.optimizer:
        cfg.optimizer.lr = schedule.base_lr
    train.max_iter, train.eval_period = schedule.max_iter, schedule.eval_period
    train.checkpointer.period = schedule.checkpoint_period
    train.reference_batch_size = batch_size
    return schedule


def _build_model(cfg: DictConfig, classes: Sequence[str]) -> nn.Module:
    model = build(cfg, "model").to(cfg.train.device)
    num_classes = num_classes_of(model)
    if num_classes is not None and num_classes != len(classes):
        raise UserError(
            f"the model has num_classes={num_classes}, but the data sets have {len(classes)}: "
            f"{list(classes)}"
        )
    return model


def _build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    optimizer = build(_changed(cfg, {"optimizer.params.model": model}), "optimizer")
    # 0.1 also took the keys in capital letters, as YAML has them.
    clipping = {
        key.lower(): value for key, value in (_plain(cfg.train.clip_gradients) or {}).items()
    }
    return clip_gradients(optimizer, **clipping) if clipping else optimizer


def _train_loader(cfg: DictConfig, *, seed: int, start_iter: int = 0) -> Loader:
    """Build the training batches. A loader without ``start_iter`` starts from its first batch."""
    changes = {"train.seed": seed}
    for key, value in (("seed", seed), ("start_iter", start_iter)):
        if key in cfg.dataloader.train:
            changes[f"dataloader.train.{key}"] = value
    return build(_changed(cfg, changes), "dataloader.train")


def _test_sets(cfg: DictConfig) -> list[TestSet]:
    """The test set of ``dataloader.test``. A Python config has only one."""
    return [
        TestSet(name, partial(_test_loader, cfg), partial(_evaluator, cfg))
        for name in cfg.datasets.test[:1]
    ]


def _test_loader(cfg: DictConfig, *, resize: bool = True) -> Loader:
    changes: dict[str, Any] = {} if resize else {"dataloader.test.mapper.augmentations": []}
    return build(_changed(cfg, changes), "dataloader.test")


def _evaluator(cfg: DictConfig, folder: str) -> DatasetEvaluator:
    has_folder = "output_folder" in cfg.dataloader.evaluator
    changes = {"dataloader.evaluator.output_folder": folder} if has_folder else {}
    return build(_changed(cfg, changes), "dataloader.evaluator")


def _changed(cfg: DictConfig, changes: Mapping[str, Any]) -> DictConfig:
    """Copy the config, and set the keys of ``changes`` in the copy."""
    changed = copy.deepcopy(cfg)
    for key, value in changes.items():
        parent, _, name = key.rpartition(".")
        OmegaConf.select(changed, parent)[name] = value
    return changed


def _multi_scale(node: DictConfig | None) -> MultiScaleTesting | None:
    if node is None:
        return None
    try:
        return MultiScaleTesting(**_plain(node))
    except TypeError as error:  # not a mapping, or one with other keys
        raise UserError(
            f"train.multi_scale_testing is {_plain(node)}; give sizes and max_size, and flip and "
            "square if need be: {sizes: [400, 500], max_size: 833}"
        ) from error


def _plain(value: Any) -> Any:
    is_config = isinstance(value, DictConfig | ListConfig)
    return OmegaConf.to_container(value, resolve=True) if is_config else value


def lazy_key(cfg: DictConfig, owner: str, argument: str) -> str | None:
    """Find the key that an argument is read from; None if there is no such key, or several.

    Args:
        cfg: the config.
        owner: the function or class that has the argument.
        argument: the name of the argument.
    """
    shared = SHARED.get(f"{owner}.{argument}")
    if shared:
        return shared[1]
    paths = [path for path, node in _calls(cfg, "") if owner in _names(node._target_)]
    # If several calls have this target, the argument may come from any of them.
    return f"{paths[0]}.{argument}" if len(paths) == 1 else None


def _calls(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Find all calls in ``node`` and below, with their paths in the config."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        items = [(str(key), key) for key in node]
    elif isinstance(node, ListConfig):
        items = [(str(i), i) for i in range(len(node))]
    else:
        return
    for name, key in items:
        child = node._get_node(key)
        yield from _calls(child, f"{path}.{name}" if path else name)


def _name(target: Any) -> str:
    """The name of a call's target. The target is an object or its dotted name."""
    return getattr(target, "__name__", str(target).rpartition(".")[2])


def _names(target: Any) -> list[str]:
    """The name of a call's target; for a class, also the names of its base classes."""
    found = locate(target) if isinstance(target, str) else target
    return [base.__name__ for base in found.__mro__] if inspect.isclass(found) else [_name(target)]
