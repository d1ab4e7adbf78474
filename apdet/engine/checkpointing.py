"""The hooks that write checkpoints: those to resume from, and the best one."""

import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from apdet.checkpoint import Checkpointer
from apdet.checkpoint.card import ModelCard
from apdet.checkpoint.run_folder import remove_old_checkpoints
from apdet.checkpoint.weights_file import read_whole
from apdet.errors import ArgumentError, UserError

logger = logging.getLogger(__name__)


class PeriodicCheckpointer(HookBase):
    """Writes the checkpoints to resume from: every ``period`` iterations, and after the last one.

    Unlike Detectron2's hook, it also counts the checkpoints from before a training was resumed, and
    makes up for a final checkpoint that is missing because the training was killed before it. All
    processes have the hook, but only the main one writes.

    Attributes:
        saved_iter: the iteration of the last checkpoint; -1: there is none.
    """

    def __init__(self, checkpointer: Checkpointer, period: int, *, num_to_keep: int = 0):
        """Set up the hook.

        Args:
            checkpointer: writes the checkpoints.
            period: iterations between two checkpoints.
            num_to_keep: number of periodic checkpoints to keep; 0: all.

        Raises:
            ArgumentError: ``num_to_keep`` is below 0.
        """
        if num_to_keep < 0:
            raise ArgumentError(
                "TrainingPlan",
                "{checkpoints_to_keep} is {value}; give a number of checkpoints, or 0 to keep all",
                value=num_to_keep,
            )
        self.checkpointer, self.period, self.num_to_keep = checkpointer, period, num_to_keep
        self.saved_iter = -1

    def before_train(self) -> None:
        self.saved_iter = self.trainer.iter
        if self.trainer.start_iter >= self.trainer.max_iter:
            resumed_from = os.path.basename(self.checkpointer.get_checkpoint_file())
            if resumed_from != "model_final.pth":
                self._save("model_final")

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if (iteration + 1) % self.period == 0:
            self._save(f"model_{iteration:07d}")
            if self.num_to_keep and comm.is_main_process():
                remove_old_checkpoints(self.checkpointer.save_dir, keep=self.num_to_keep)
        if iteration + 1 >= self.trainer.max_iter:
            self._save("model_final")

    def save_now(self) -> None:
        """Save the last finished iteration, unless that is done."""
        last_iter = self.trainer.last_iter
        if self.saved_iter < last_iter:
            self._save(f"model_{last_iter:07d}")

    def _save(self, name: str) -> None:
        self.checkpointer.save(name, iteration=self.trainer.iter)
        self.saved_iter = self.trainer.iter


class BestCheckpointer(hooks.BestCheckpointer):
    """Writes ``model_best.pth`` together with its metric, which a resumed training reads from it.

    The file is never the one to resume from: an evaluation comes after the checkpoint of its
    iteration, so a training that is killed in between makes the evaluation again.
    """

    def __init__(
        self,
        period: int,
        checkpointer: Checkpointer,
        metric: str,
        *,
        data_sets: Sequence[str],
        describe: Callable[[], ModelCard | None] = lambda: None,
    ):
        """Set up the hook.

        Args:
            period: iterations between two evaluations; 0: only after the training.
            checkpointer: writes the checkpoint.
            metric: the key of the result that chooses the checkpoint.
            data_sets: the names of the data sets of the result. Results on others do not count.
            describe: what the file shall say of the model after an evaluation.
        """
        super().__init__(period, checkpointer, metric)
        self.best_metric: float | None = None
        self.best_iter: int | None = None
        self._describe = describe
        self._chosen_by = {"val_metric": metric, "data_sets": list(data_sets)}

    def before_train(self) -> None:
        if self.trainer.start_iter > 0:
            self._recall()
        if self._val_metric in self.trainer.storage.latest():  # made up for after an interruption
            self._best_checking()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._best_checking()

    def _recall(self) -> None:
        """Take the metric of the file, if it is better than that of the resumed checkpoint.

        The file may be newer than that checkpoint. Versions up to 0.2 wrote the metric of the
        previous best checkpoint into the file.
        """
        path = os.path.join(self._checkpointer.save_dir, f"{self._file_prefix}.pth")
        try:
            content = read_whole(path) if os.path.isfile(path) else None
        except UserError as error:
            logger.warning(f"The next evaluation replaces the best checkpoint: {error}")
            content = None
        if content is None:
            self.best_metric = self.best_iter = None
            return
        resumed = self.best_metric, self.best_iter
        try:
            self.load_state_dict(content["trainer"]["hooks"][type(self).__qualname__])
        except (AttributeError, LookupError, TypeError, ValueError):
            return  # it has no state of this hook
        best_before = resumed[0]
        if best_before is not None and (self.best_metric is None or best_before > self.best_metric):
            self.best_metric, self.best_iter = resumed

    def _best_checking(self) -> None:
        metric, iteration = self.trainer.storage.latest().get(self._val_metric, (None, None))
        if metric is None or math.isnan(metric):
            how = "was not measured" if metric is None else "is nan, for want of objects"
            logger.warning(f"{self._val_metric} {how}, so it chooses no {self._file_prefix}.pth")
            return
        best_before, best_iter_before = self.best_metric, self.best_iter
        if best_before is not None and metric <= best_before:
            logger.info(
                f"{self._val_metric} is {metric:.5f}, not better than {best_before:.5f} "
                f"@ iteration {best_iter_before}"
            )
        elif self._update_best(metric, iteration):
            # Only now, so that the file holds its own metric.
            self._checkpointer.save(
                self._file_prefix,
                to_resume=False,
                card=self._describe(),
                iteration=self.trainer.last_iter,
            )
            before = "" if best_before is None else f", better than {best_before:.5f}"
            logger.info(f"Saved best model: {self._val_metric} is {metric:.5f}{before}")

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.best_metric, "best_iter": self.best_iter, **self._chosen_by}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if any(state_dict.get(key, value) != value for key, value in self._chosen_by.items()):
            logger.info("The former best model was chosen by another result, so it is replaced")
            return
        metric, iteration = state_dict["best_metric"], state_dict["best_iter"]
        if not isinstance(metric, float | int | None):
            raise ValueError(f"its best metric is {metric!r}, not a number")
        self.best_metric, self.best_iter = metric, iteration
