"""Evaluators for any data set, and the report at the end of a training."""

from apdet.evaluation.build import build_evaluator
from apdet.evaluation.report import write_report

__all__ = ["build_evaluator", "write_report"]
