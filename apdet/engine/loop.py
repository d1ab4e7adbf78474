"""Detectron2's training loop, except for how it ends early."""

import logging

from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage

from apdet.data.worker_errors import errors_of_workers
from apdet.engine.connecting import noticing_lost_connections
from apdet.signals import StopRequest

logger = logging.getLogger(__name__)


def run_loop(trainer: TrainerBase, stop: StopRequest) -> None:
    """Make all steps from ``trainer.start_iter`` to ``trainer.max_iter``.

    ``trainer.iter`` is the present step. Before the first step it is the last one that was made
    earlier, -1 if there is none. It is at least ``trainer.max_iter`` only after all steps were
    made.

    Args:
        trainer: its hooks are called before, in and after the training.
        stop: a signal waits for the end of a step.
    """
    logger.info("Starting training from iteration %d", trainer.start_iter)
    trainer.iter = trainer.start_iter - 1
    with EventStorage(trainer.iter) as trainer.storage:
        try:
            with noticing_lost_connections():
                trainer.before_train()
                with stop.deferred(), errors_of_workers(stop):
                    _make_steps(trainer)
            trainer.iter = max(trainer.max_iter, trainer.start_iter)
        finally:
            trainer.after_train()


def _make_steps(trainer: TrainerBase) -> None:
    for iteration in range(trainer.start_iter, trainer.max_iter):
        trainer.iter = iteration
        trainer.before_step()
        trainer.run_step()
        trainer.after_step()
