"""The parts that all ranking losses share.

A ranking loss is a short function of the ranks of the positives. `error_driven` turns the function
into a loss with a gradient. Read the files in this order:

* `error_driven`: the loss, its gradient, and the autograd function that joins them;
* `entries`: finds the positive and the ignored scores of a batch;
* `rank_sums`: the two sums over all scores, by bins instead of by pairs;
* `steps`: the step functions that count how far one score is above another;
* `distributed`: one ranking over several processes;
* `binning`: finds the bin of each score quickly.
"""

from apdet.losses.ranking.error_driven import Criterion, ranking_loss
from apdet.losses.ranking.steps import Step, build_step, choose_step, piecewise_step, sigmoid_step

__all__ = [
    "Criterion",
    "Step",
    "build_step",
    "choose_step",
    "piecewise_step",
    "ranking_loss",
    "sigmoid_step",
]
