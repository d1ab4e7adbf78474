"""Detectron2's training loop with exact resuming, the best checkpoint and a report."""

import logging
import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from apdet.checkpoint import Checkpointer, resolve_weights_classes
from apdet.checkpoint.card import ModelCard
from apdet.config.plan import TrainingPlan
from apdet.config.yaml_plan import plan_from_yaml
from apdet.engine.checkpointing import PeriodicCheckpointer
from apdet.engine.evaluation import report
from apdet.engine.evaluation_check import check_evaluation, log_validation
from apdet.engine.folder_guard import FolderGuard
from apdet.engine.hooks import build_hooks
from apdet.engine.learning_rate import LRScheduler, build_scheduler
from apdet.engine.loop import run_loop
from apdet.engine.messages import (
    divergence,
    how_to_go_on,
    how_to_use,
    settings_without_effect,
)
from apdet.engine.mixed_precision import build_stepper
from apdet.engine.model import build_model
from apdet.engine.seeding import StepSeeder
from apdet.signals import Stopped, StopRequest

logger = logging.getLogger(__name__)


class Trainer(TrainerBase):
    """Trains the detector of a plan.

    * A resumed training has the batches and random numbers of an uninterrupted one.
    * Mixed precision and several processes work on any device.
    * ``model_best.pth`` is kept, and a report is written at the end.

    Attributes:
        results: the results of the last evaluation, see :func:`apdet.engine.evaluation.evaluate`.
    """

    def __init__(self, plan: TrainingPlan | CfgNode, *, stop: StopRequest | None = None):
        """Build all parts of the training.

        Args:
            plan: the plan, or a YAML config whose data sets are registered.
            stop: whether a signal asks the training to end, see :func:`apdet.signals.stop_signals`.
                None: signals keep the effect that they have.

        Raises:
            UserError: a part of the training cannot be built.
        """
        super().__init__()
        self.plan = plan = plan_from_yaml(plan) if isinstance(plan, CfgNode) else plan
        self.seeder = StepSeeder(plan.seed if plan.seed >= 0 else comm.shared_random_seed())
        self.start_iter, self.max_iter = 0, plan.schedule.max_iter
        self.results: dict[str, Any] = {}
        self.stop = stop or StopRequest()
        with plan.naming_keys():
            check_evaluation(plan)
            log_validation(plan)
            self._trainer = self._build_stepper()
            self.scheduler = build_scheduler(
                plan.build_lr_scheduler, self.optimizer, max_iter=self.max_iter
            )
            self._schedule = LRScheduler(scheduler=self.scheduler)
            self.checkpointer = Checkpointer(
                self.model,
                plan.output_dir,
                allow_mismatch=plan.weights.allow_mismatch,
                classes=plan.classes,
                weights_classes=resolve_weights_classes(plan.weights.classes),
                card=ModelCard(config=plan.model_text()),
                trainer=weakref.proxy(self),
            )
            self.register_hooks(
                build_hooks(
                    plan,
                    model=self.model,
                    schedule=self._schedule,
                    checkpointer=self.checkpointer,
                    seeder=self.seeder,
                    results=self.results,
                    stop=self.stop,
                )
            )

    def _build_stepper(self) -> SimpleTrainer:
        plan = self.plan
        model = build_model(plan)
        optimizer = plan.build_optimizer(model)
        data_loader = plan.build_train_loader(seed=self.seeder.seed)
        # DistributedDataParallel takes no device_ids for a model on the CPU.
        devices = {"device_ids": None} if plan.device == "cpu" else {}
        model = create_ddp_model(model, **plan.ddp, **devices)
        return build_stepper(
            model, data_loader, optimizer, precision=plan.precision, device=plan.device
        )

    @property
    def model(self) -> nn.Module:
        """The model, inside DistributedDataParallel if there are several processes."""
        return self._trainer.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the model."""
        return self._trainer.optimizer

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in the output folder, or load the plan's weights.

        Args:
            resume: whether to continue from a checkpoint if there is one. The batches then continue
                where the interrupted training stopped.

        Raises:
            UserError: the checkpoint or the weights cannot be loaded.
        """
        with self.plan.naming_keys():
            self.checkpointer.resume_or_load(self.plan.weights.path, resume=resume)
        for message in settings_without_effect(
            self.plan, start_iter=self.start_iter, seed=self.seeder.seed
        ):
            logger.warning(message)
        if self.start_iter > 0:
            self._trainer.reset_data_loader(
                lambda: self.plan.build_train_loader(
                    seed=self.seeder.seed, start_iter=self.start_iter
                )
            )

    def train(self) -> dict[str, Any]:
        """Train, evaluate, and write the report.

        Returns:
            The results of the last evaluation.

        Raises:
            UserError: the loss or a weight is NaN or infinite, or a file cannot be written.
            Stopped: a signal asked the training to end. Its last checkpoint is written.
        """
        with self.plan.naming_keys():
            try:
                run_loop(self, self.stop)
            except FloatingPointError as error:
                last = self.checkpointer.get_checkpoint_file()
                raise divergence(error, iteration=self.iter, checkpoint=last) from error
            except Stopped as stopped:
                periodic = next(h for h in self._hooks if isinstance(h, PeriodicCheckpointer))
                stopped.note = how_to_go_on(finished=self.last_iter, saved=periodic.saved_iter)
                raise
        logger.info("Training is done.")
        with self.plan.naming_keys():
            report(self.plan, self.results)
            logger.info(how_to_use(self.plan.output_dir))
        for hook in self._hooks:
            if isinstance(hook, FolderGuard):
                hook.check()  # the report, too, makes the folder anew
        return self.results

    def run_step(self) -> None:
        """Make one step of the optimizer."""
        self._trainer.iter = self.iter
        self._trainer.run_step()

    @property
    def data_loader(self) -> Iterable[list[dict[str, Any]]]:
        """The batches of this process, from the next step on."""
        return self._trainer.data_loader

    def try_step(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        """Make the next step only, to see whether a training would work. Nothing is written.

        Args:
            batch: the images of this process, in Detectron2's format.

        Returns:
            {name: value} of the losses.

        Raises:
            UserError: the loss is NaN or infinite.
        """
        self._trainer.reset_data_loader(lambda: [batch])
        self.iter = self.start_iter
        with EventStorage(self.iter) as self.storage:
            self.seeder.before_step()
            try:
                self.run_step()
            except FloatingPointError as error:
                raise divergence(error, iteration=self.iter, checkpoint="") from error
            values = {name: value for name, (value, _) in self.storage.latest().items()}
        return {name: value for name, value in values.items() if "loss" in name}

    def state_dict(self) -> dict[str, Any]:
        """The last finished iteration, and the state of the optimizer and the hooks."""
        state = {**super().state_dict(), "_trainer": self._trainer.state_dict()}
        return {**state, "iteration": self.last_iter}

    @property
    def last_iter(self) -> int:
        """The last finished iteration, or the one of the present step."""
        return min(self.iter, max(self.start_iter, self.max_iter) - 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`, but keep the schedule and the settings of the plan."""
        super().load_state_dict(state_dict)
        # Up to 0.2, a best checkpoint from after the training counted one iteration too many.
        if state_dict.get("hooks", {}).get("LRScheduler", {}).get("last_epoch") == self.iter:
            self.iter -= 1
        self.start_iter = self.iter + 1
        # apdet 0.1 saved trainings of Python configs without the key "_trainer".
        stepper = state_dict.get("_trainer", state_dict)
        stepper = {key: value for key, value in stepper.items() if key != "hooks"}
        load = partial(self._trainer.load_state_dict, stepper)
        self._schedule.resume(self.optimizer, load, num_steps=self.start_iter)
