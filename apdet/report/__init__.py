"""Writes reports: results, curves, pictures of detections, and comparisons of losses."""

from apdet.report.results import write_results
from apdet.report.write import write_report

__all__ = ["write_report", "write_results"]
