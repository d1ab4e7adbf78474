"""The hooks of the training loop: checkpoints, evaluations and logs."""

from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.engine.defaults import default_writers
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from apdet.checkpoint import Checkpointer
from apdet.checkpoint.card import ModelCard
from apdet.config.plan import TrainingPlan
from apdet.engine.checkpointing import BestCheckpointer, PeriodicCheckpointer
from apdet.engine.evaluated_card import CardWriter, evaluated_card
from apdet.engine.evaluating import EvalHook
from apdet.engine.evaluation import evaluate
from apdet.engine.folder_guard import FolderGuard
from apdet.engine.learning_rate import LRScheduler
from apdet.engine.result_keys import best_metric_key, evaluated_sets
from apdet.engine.seeding import StepSeeder
from apdet.engine.stopping import StopHook
from apdet.engine.writing import PeriodicWriter, RankingPrinter
from apdet.signals import StopRequest


def build_hooks(
    plan: TrainingPlan,
    *,
    model: nn.Module,
    schedule: LRScheduler,
    checkpointer: Checkpointer,
    seeder: StepSeeder,
    results: dict[str, Any],
    stop: StopRequest,
) -> list[HookBase]:
    """The hooks of a training, in the order in which they are called.

    Args:
        plan: the training.
        model: the model in training.
        schedule: changes the learning rate.
        checkpointer: writes the checkpoints.
        seeder: sets the seed of each step.
        results: each evaluation replaces its content by the new results.
        stop: whether a signal asked the training to end.
    """
    periodic = PeriodicCheckpointer(
        checkpointer, plan.schedule.checkpoint_period, num_to_keep=plan.checkpoints_to_keep or 0
    )
    return [
        seeder,
        hooks.IterationTimer(),
        schedule,
        *_precise_bn(plan, model),
        # Before the evaluation, so that there is a checkpoint even if the evaluation fails.
        periodic,
        StopHook(stop, periodic.save_now),
        *_evaluations(plan, model, results=results, stop=stop, save_now=periodic.save_now),
        *(_writers(plan, checkpointer, results) if comm.is_main_process() else ()),
    ]


def _precise_bn(plan: TrainingPlan, model: nn.Module) -> list[HookBase]:
    if not plan.precise_bn_iters or not get_bn_modules(model):
        return []
    # The hook has its own loader, so that it takes no batches from the training.
    loader = plan.build_train_loader(seed=0)
    return [_PreciseBN(plan.schedule.eval_period, model, loader, plan.precise_bn_iters)]


class _PreciseBN(hooks.PreciseBN):
    """Detectron2's hook, except that it always takes the same batches, also after a resume."""

    def update_stats(self) -> None:
        self._data_iter = None
        super().update_stats()


def _evaluations(
    plan: TrainingPlan,
    model: nn.Module,
    *,
    results: dict[str, Any],
    stop: StopRequest,
    save_now: Callable[[], None],
) -> list[HookBase]:
    def test(*, multi_scale: bool = False) -> dict[str, Any]:
        if not multi_scale:
            results.clear()
        final = get_event_storage().iter >= plan.schedule.max_iter
        results.update(evaluate(plan, model, final=final, multi_scale=multi_scale))
        return results

    eval_hook = partial(EvalHook, stop=stop, save_now=save_now)
    built: list[HookBase] = [eval_hook(plan.schedule.eval_period, test)]
    if plan.multi_scale:
        # Only after the training, because it takes many times as long.
        built.append(eval_hook(0, partial(test, multi_scale=True)))
    if comm.is_main_process():
        return [FolderGuard(plan.output_dir), *built, FolderGuard(plan.output_dir)]
    return built


def _writers(
    plan: TrainingPlan, checkpointer: Checkpointer, results: dict[str, Any]
) -> list[HookBase]:
    """They come last, so that they also write the results of the evaluation."""
    periods = plan.schedule
    writers = [*default_writers(plan.output_dir, periods.max_iter), RankingPrinter()]
    val_sets = [val_set.name for val_set in evaluated_sets(plan, final=False)]

    def describe() -> ModelCard | None:
        return checkpointer.card and evaluated_card(plan, checkpointer.card, results)

    return [
        BestCheckpointer(
            periods.eval_period,
            checkpointer,
            best_metric_key(plan),
            data_sets=val_sets,
            describe=describe,
        ),
        CardWriter(plan.output_dir, describe),
        PeriodicWriter(writers, output_dir=plan.output_dir, period=plan.log_period),
    ]
