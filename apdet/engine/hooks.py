"""The hooks of the training loop: checkpoints, evaluations and logs."""

import logging
from functools import partial
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.engine.defaults import default_writers
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from apdet.checkpoint import Checkpointer
from apdet.config.plan import TrainingPlan
from apdet.engine.evaluation import evaluate
from apdet.engine.seeding import StepSeeder

logger = logging.getLogger(__name__)


def build_hooks(
    plan: TrainingPlan,
    *,
    model: nn.Module,
    scheduler: LRScheduler | ParamScheduler,
    checkpointer: Checkpointer,
    seeder: StepSeeder,
    results: dict[str, Any],
) -> list[HookBase]:
    """The hooks of a training, in the order in which they are called.

    Args:
        plan: the training.
        model: the model in training.
        scheduler: the schedule of the learning rate.
        checkpointer: writes the checkpoints.
        seeder: sets the seed of each step.
        results: each evaluation replaces its content by the new results.
    """
    schedule = plan.schedule

    def test(*, multi_scale: bool = False) -> dict[str, Any]:
        if not multi_scale:
            results.clear()
        results.update(evaluate(plan, model, multi_scale=multi_scale))
        return results

    built = [
        seeder,
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=scheduler),
        *_precise_bn(plan, model),
    ]
    if comm.is_main_process():
        # Before the evaluation, so that there is a checkpoint even if the evaluation fails.
        built.append(
            hooks.PeriodicCheckpointer(
                checkpointer, schedule.checkpoint_period, max_to_keep=plan.checkpoints_to_keep
            )
        )
    built.append(hooks.EvalHook(schedule.eval_period, test))
    if plan.multi_scale:
        # Only after the training, because it takes many times as long.
        built.append(hooks.EvalHook(0, partial(test, multi_scale=True)))
    if comm.is_main_process():
        built.append(BestCheckpointer(schedule.eval_period, checkpointer, plan.best_metric))
        # The writers come last, so that they also write the results of the evaluation.
        writers = [*default_writers(plan.output_dir, schedule.max_iter), RankingPrinter()]
        built.append(hooks.PeriodicWriter(writers, period=plan.log_period))
    return built


def _precise_bn(plan: TrainingPlan, model: nn.Module) -> list[HookBase]:
    if not plan.precise_bn_iters or not get_bn_modules(model):
        return []
    # The hook has its own loader, so that it takes no batches from the training.
    loader = plan.build_train_loader(seed=0)
    return [hooks.PreciseBN(plan.schedule.eval_period, model, loader, plan.precise_bn_iters)]


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, except that a resumed training remembers the best metric."""

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_metric, self.best_iter = state_dict["best_metric"], state_dict["best_iter"]


class RankingPrinter(EventWriter):
    """Logs the records of `apdet.modeling.ranking.log_ranking` as one line."""

    def __init__(self) -> None:
        self._printed = -1

    def write(self) -> None:
        latest = get_event_storage().latest()
        count, iteration = latest.get("ranking/num_positives", (0, -1))
        if iteration <= self._printed:
            return
        self._printed = iteration
        relevant, _ = latest["ranking/num_relevant_negatives"]
        ap, measured = latest.get("ranking/AP", (float("nan"), -1))
        logger.info(
            " ranking: AP %.1f, %d positives, %d relevant negatives",
            ap if measured == iteration else float("nan"),
            count,
            relevant,
        )
