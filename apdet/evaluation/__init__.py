"""Evaluates detections: metrics, matching, the operating point and submission archives."""

from apdet.evaluation.build import build_evaluator

__all__ = ["build_evaluator"]
