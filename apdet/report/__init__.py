"""What a training leaves behind to be looked at: results, curves, pictures of detections."""

from apdet.report.report import write_report, write_results

__all__ = ["write_report", "write_results"]
