"""What a detector's predictions are worth: evaluators, matching, the operating point."""

from apdet.evaluation.build import build_evaluator

__all__ = ["build_evaluator"]
