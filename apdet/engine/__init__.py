"""Training and evaluation: Detectron2's loop with exact resuming, a dry run and a report."""

from apdet.engine.trainer import Trainer

__all__ = ["Trainer"]
