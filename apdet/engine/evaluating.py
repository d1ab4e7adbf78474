"""The hook that evaluates the model during the training."""

from collections.abc import Callable
from typing import Any

from detectron2.engine import hooks

from apdet.signals import Stopped, StopRequest


class EvalHook(hooks.EvalHook):
    """Detectron2's hook, except that a resumed training makes up for a missed evaluation.

    A signal ends an evaluation at once. A training that fails is not evaluated.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], dict[str, Any]],
        *,
        stop: StopRequest,
        save_now: Callable[[], None],
    ):
        """Set up the hook.

        Args:
            period: iterations between two evaluations; 0: only after the training.
            evaluate: evaluates the model and returns the results.
            stop: whether a signal asked the training to end.
            save_now: writes a checkpoint before an evaluation that fails ends the process.
        """
        super().__init__(period, evaluate)
        self._stop, self._save_now = stop, save_now
        self._evaluated_iter = -1

    def before_train(self) -> None:
        last_iter = self.trainer.iter
        is_due = self._period > 0 and (last_iter + 1) % self._period == 0
        if (
            is_due
            and 0 <= last_iter < self.trainer.max_iter - 1
            and self._evaluated_iter != last_iter
        ):
            self._do_eval()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()

    def _do_eval(self) -> None:
        try:
            with self._stop.at_once():
                super()._do_eval()
        except BaseException as error:
            self._save_now()
            if self._stop.signum and isinstance(error, RuntimeError):
                # The signal ended another process, which this one has waited for.
                raise Stopped(self._stop.signum) from error
            raise
        self._evaluated_iter = self.trainer.iter

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated_iter": self._evaluated_iter} if self._period > 0 else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._evaluated_iter = state_dict["evaluated_iter"]
