"""The hook that writes metrics to the log, ``metrics.json`` and TensorBoard."""

import logging
import os
import threading
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.events import EventWriter, JSONWriter, get_event_storage

from apdet.errors import UserError
from apdet.files import naming_file

logger = logging.getLogger(__name__)


class PeriodicWriter(HookBase):
    """Detectron2's hook, except that a full disk ends the training with an error of one line."""

    def __init__(self, writers: Sequence[EventWriter], *, output_dir: str, period: int):
        """Set up the hook.

        Args:
            writers: they write the metrics.
            output_dir: the folder of their files.
            period: iterations between two calls of the writers.
        """
        self.writers, self.output_dir, self.period = writers, output_dir, period
        self._excepthook = threading.excepthook

    def before_train(self) -> None:
        # The thread of TensorBoard keeps its error, and its writer raises it at the next call.
        threading.excepthook = self._report_unless_disk

    def after_step(self) -> None:
        next_iter = self.trainer.iter + 1
        if next_iter % self.period == 0 or next_iter == self.trainer.max_iter:
            for writer in self.writers:
                with naming_file(self._file_of(writer)):
                    writer.write()

    def after_train(self) -> None:
        # What an error or a signal ends is reported already, so further errors would only hide it.
        is_cut_short = self.trainer.iter < self.trainer.max_iter
        try:
            for writer in self.writers:
                with suppress(UserError) if is_cut_short else nullcontext():
                    self._finish(writer)
        finally:
            threading.excepthook = self._excepthook

    def _finish(self, writer: EventWriter) -> None:
        with naming_file(self._file_of(writer)):
            try:
                writer.write()
            finally:
                writer.close()

    def _file_of(self, writer: EventWriter) -> str:
        name = "metrics.json" if isinstance(writer, JSONWriter) else ""
        return os.path.join(self.output_dir, name)

    def _report_unless_disk(self, args: Any) -> None:
        if not isinstance(args.exc_value, OSError):
            self._excepthook(args)


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
