"""What all ranking losses share: update, the two sums, the steps, several processes."""

from apdet.losses.ranking.error_driven import ranking_loss
from apdet.losses.ranking.steps import Step, build_step, piecewise_step, sigmoid_step

__all__ = ["Step", "build_step", "piecewise_step", "ranking_loss", "sigmoid_step"]
