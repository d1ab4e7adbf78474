"""What the training loop does beside the steps of the optimizer."""

import logging

from detectron2.engine import hooks
from detectron2.utils.events import EventWriter, get_event_storage

logger = logging.getLogger(__name__)


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, which remembers the best metric over a resume."""

    def state_dict(self):
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state_dict):
        self.best_metric, self.best_iter = state_dict["best_metric"], state_dict["best_iter"]


class RankingPrinter(EventWriter):
    """Prints what `apdet.modeling.ranking.log_ranking` recorded, as one line."""

    def __init__(self):
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
