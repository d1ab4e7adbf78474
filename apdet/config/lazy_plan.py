"""The training plan of a Python config."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from apdet.config.clipping import clip_gradients
from apdet.config.lazy import build
from apdet.config.lazy_evaluation import evaluated_sets, evaluation_tasks
from apdet.config.lazy_nodes import changed, plain, target_name, target_names
from apdet.config.names import SHARED
from apdet.config.plan import Loader, MultiScaleTesting, TrainingPlan, Weights
from apdet.config.python_model import python_model_text
from apdet.config.schedule import Schedule, scale
from apdet.data.register import register
from apdet.errors import UserError
from apdet.modeling.contract import num_classes_of


def plan_from_lazy(cfg: DictConfig, *, num_processes: int | None = None) -> TrainingPlan:
    """Register the data sets of a Python config, scale its schedule, and make the training plan.

    Args:
        cfg: the result of :func:`load_lazy_config`. Its schedule is scaled in place.
        num_processes: the number of processes of the training; None: those that run now.

    Raises:
        UserError: the data sets cannot be read, or the schedule cannot be scaled.
    """
    sets = plain(cfg.datasets)
    classes = register(sets["register"], train=sets["train"], val=sets["val"], test=sets["test"])
    schedule, train = _scale(cfg, num_processes or comm.get_world_size()), cfg.train
    return TrainingPlan(
        config=cfg,
        key_of=partial(lazy_key, cfg),
        output_dir=train.output_dir,
        device=train.device,
        seed=train.seed,
        architecture=target_name(cfg.model._target_),
        classes=classes,
        train_sets=sets["train"],
        test_sets=evaluated_sets(cfg, "test"),
        val_sets=evaluated_sets(cfg, "val"),
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
        ddp=plain(train.ddp),
        cudnn_benchmark=train.get("cudnn_benchmark", False),
        weights=Weights(
            train.init_checkpoint, plain(train.weights_classes), train.allow_weight_mismatch
        ),
        tasks=evaluation_tasks(cfg),
        multi_scale=_multi_scale(cfg),
        expected_results=plain(train.expected_results),
        model_text=partial(python_model_text, cfg),
    )


def _scale(cfg: DictConfig, num_processes: int) -> Schedule:
    """Scale the batch size, the learning rate and the schedule to the training, in place.

    ``lr_multiplier`` needs no change: its times are fractions of the training.
    """
    train, loader = cfg.train, cfg.dataloader.train
    schedule = Schedule(
        base_lr=cfg.optimizer.get("lr", 0.0),
        max_iter=train.max_iter,
        checkpoint_period=train.checkpointer.period,
        eval_period=train.eval_period,
    )
    if not train.reference_batch_size and not train.reference_world_size:
        return schedule
    if loader.get("total_batch_size") is None:
        raise UserError(
            "train.reference_batch_size and train.reference_world_size need "
            "dataloader.train.total_batch_size"
        )
    schedule, loader.total_batch_size = scale(
        schedule,
        batch_size=loader.total_batch_size,
        reference_batch_size=train.reference_batch_size,
        reference_world_size=train.reference_world_size,
        num_processes=num_processes,
    )
    if "lr" in cfg.optimizer:
        cfg.optimizer.lr = schedule.base_lr
    train.max_iter, train.eval_period = schedule.max_iter, schedule.eval_period
    train.checkpointer.period = schedule.checkpoint_period
    if train.reference_batch_size:
        train.reference_batch_size = loader.total_batch_size
    else:
        train.reference_world_size = num_processes
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
    optimizer = build(changed(cfg, {"optimizer.params.model": model}), "optimizer")
    # 0.1 also took the keys in capital letters, as YAML has them.
    clipping = {
        key.lower(): value for key, value in (plain(cfg.train.clip_gradients) or {}).items()
    }
    return clip_gradients(optimizer, **clipping) if clipping else optimizer


def _train_loader(cfg: DictConfig, *, seed: int, start_iter: int = 0) -> Loader:
    """Build the training batches. A loader without ``start_iter`` starts from its first batch."""
    changes = {"train.seed": seed}
    for key, value in (("seed", seed), ("start_iter", start_iter)):
        if key in cfg.dataloader.train:
            changes[f"dataloader.train.{key}"] = value
    return build(changed(cfg, changes), "dataloader.train")


def _multi_scale(cfg: DictConfig) -> MultiScaleTesting | None:
    node = cfg.train.multi_scale_testing
    if node is None:
        return None
    if not OmegaConf.is_dict(OmegaConf.select(cfg, "dataloader.test.mapper")):
        raise UserError(
            "train.multi_scale_testing needs images in their original size: write "
            "dataloader.test.mapper as a call, L(BoxMapper)(is_train=False, augmentations=[...])"
        )
    try:
        return MultiScaleTesting(**plain(node))
    except TypeError as error:  # not a mapping, or one with other keys
        raise UserError(
            f"train.multi_scale_testing is {plain(node)}; give sizes and max_size, and flip and "
            "square if need be: {sizes: [400, 500], max_size: 833}"
        ) from error


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
    paths = [path for path, node in _calls(cfg, "") if owner in target_names(node._target_)]
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
