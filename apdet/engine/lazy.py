"""Training, evaluation and trial of what a LazyConfig describes; see :mod:`apdet.config.lazy`."""

import logging
from collections.abc import Sequence

import torch
from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model, default_writers
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from apdet.checkpoint.checkpointer import Checkpointer, build_checkpointer
from apdet.config.lazy import as_yaml_config, build
from apdet.engine.hooks import BestCheckpointer, RankingPrinter
from apdet.engine.mixed_precision import build_stepper
from apdet.engine.seeding import StepSeeder
from apdet.errors import UserError
from apdet.report import write_report

logger = logging.getLogger(__name__)


def train(cfg: DictConfig, classes: Sequence[str], *, resume: bool) -> dict:
    """Train, evaluate, and write the report; returns the results of the last evaluation.

    Args:
        cfg: as of :func:`load_lazy_config`, with its data sets registered.
        classes: of the data sets.
        resume: whether to go on from the last checkpoint in ``train.output_dir``, if there is one,
            with the batches that would have followed; else from ``train.init_checkpoint``.

    Raises:
        UserError: a part that cannot be built, or the loss or weights are not finite any more.
    """
    if cfg.train.seed < 0:
        cfg.train.seed = comm.shared_random_seed()
    node, model = as_yaml_config(cfg), build_model(cfg, classes)
    optimizer = build_optimizer(cfg, model)
    # DistributedDataParallel takes no device_ids for a model on the CPU.
    devices = {"device_ids": None} if cfg.train.device == "cpu" else {}
    model = create_ddp_model(model, **cfg.train.ddp, **devices)
    trainer = build_stepper(node, model, build(cfg, "dataloader.train"), optimizer)
    checkpointer = build_checkpointer(node, model, cfg.train.output_dir, trainer=trainer)
    seeder, results = StepSeeder(cfg.train.seed), {}
    trainer.register_hooks([seeder, *build_hooks(cfg, model, checkpointer, results)])
    start_iter = _resume_or_load(cfg, trainer, checkpointer, seeder, resume)
    try:
        trainer.train(start_iter, cfg.train.max_iter)
    except FloatingPointError as error:
        last = checkpointer.get_checkpoint_file() or "none yet"
        raise UserError(
            f"iteration {trainer.iter}: {error}. Last good checkpoint: {last}. "
            "Try a lower optimizer.lr, or train.clip_gradients"
        ) from error
    _report(cfg, results)
    return results


def evaluate(cfg: DictConfig, classes: Sequence[str], *, resume: bool) -> dict:
    """Evaluate ``train.init_checkpoint``, or with ``resume`` the last one of the training.

    Raises:
        UserError: there is no checkpoint, or it does not fit.
    """
    model = build_model(cfg, classes)
    checkpointer = Checkpointer(model, cfg.train.output_dir)
    checkpointer.load_to_evaluate(cfg.train.init_checkpoint, resume=resume)
    results = _test(cfg, model)
    _report(cfg, results)
    return results


def try_out(cfg: DictConfig, classes: Sequence[str]) -> dict[str, float]:
    """One training step and one image of the test set; prints and returns the losses.

    Raises:
        UserError: as a training would.
    """
    model = build_model(cfg, classes).train()
    build_checkpointer(as_yaml_config(cfg), model).load(cfg.train.init_checkpoint)
    optimizer = build_optimizer(cfg, model)
    losses = model(next(iter(build(cfg, "dataloader.train"))))
    sum(losses.values()).backward()
    optimizer.step()
    with torch.no_grad():
        detections = model.eval()(next(iter(build(cfg, "dataloader.test"))))[0]["instances"]
    values = {key: value.item() for key, value in losses.items()}
    print(", ".join(f"{key} {value:.4f}" for key, value in values.items()))
    print(f"{len(detections)} detections on the first image of {cfg.datasets.test[0]}")
    print("dry run: all is well, nothing was written")
    return values


def build_model(cfg: DictConfig, classes: Sequence[str]) -> nn.Module:
    """The model, on its device.

    Raises:
        UserError: it has another number of classes than the data sets.
    """
    model = build(cfg, "model").to(cfg.train.device)
    num_classes = getattr(getattr(model, "roi_heads", model), "num_classes", len(classes))
    if num_classes != len(classes):
        raise UserError(
            f"the model has num_classes={num_classes}, but the data sets have {len(classes)}: "
            f"{list(classes)}"
        )
    return model


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the model's parameters, clipping gradients as ``train`` has it."""
    cfg.optimizer.params.model = model
    return maybe_add_gradient_clipping(as_yaml_config(cfg), build(cfg, "optimizer"))


def build_hooks(
    cfg: DictConfig, model: nn.Module, checkpointer: Checkpointer, results: dict
) -> list[HookBase]:
    """What the training does beside its steps.

    Args:
        cfg: the config.
        model: to evaluate.
        checkpointer: of the training.
        results: of the last evaluation, to be filled in.
    """

    def test() -> dict:
        results.update(_test(cfg, model))
        return results

    built = [hooks.IterationTimer(), hooks.LRScheduler(scheduler=build(cfg, "lr_multiplier"))]
    evaluation = hooks.EvalHook(cfg.train.eval_period, test)
    if not comm.is_main_process():
        return [*built, evaluation]
    writers = [*default_writers(cfg.train.output_dir, cfg.train.max_iter), RankingPrinter()]
    metric = cfg.train.best_checkpoint_metric
    return [
        *built,
        # Before the evaluation: if that fails, there is a checkpoint to look into.
        hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
        evaluation,
        BestCheckpointer(cfg.train.eval_period, checkpointer, metric),
        hooks.PeriodicWriter(writers, period=cfg.train.log_period),
    ]


def _resume_or_load(
    cfg: DictConfig,
    trainer: TrainerBase,
    checkpointer: Checkpointer,
    seeder: StepSeeder,
    resume: bool,
) -> int:
    """Returns the iteration to start from."""
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=resume)
    if not (resume and checkpointer.has_checkpoint()):
        return 0
    start_iter, cfg.train.seed = trainer.iter + 1, seeder.seed
    # A loader that cannot start anywhere, as Detectron2's own, starts anew.
    if "start_iter" in cfg.dataloader.train:
        cfg.dataloader.train.start_iter = start_iter
        trainer.reset_data_loader(lambda: build(cfg, "dataloader.train"))
    return start_iter


def _test(cfg: DictConfig, model: nn.Module) -> dict:
    loader, evaluator = build(cfg, "dataloader.test"), build(cfg, "dataloader.evaluator")
    results = inference_on_dataset(model, loader, evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results


def _report(cfg: DictConfig, results: dict) -> None:
    paths = write_report(as_yaml_config(cfg), results)
    if comm.is_main_process():
        logger.info("See %s", ", ".join(str(path) for path in paths))
