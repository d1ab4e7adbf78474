"""Reports a comparison of losses: a table, and a picture of AP over iterations."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from apdet.files import whole_file

METRICS = ("AP", "AP50", "AP75")


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay out the rows of a comparison as in Table 2 of the AP-loss paper (arXiv:2008.07294).

    Args:
        rows: made by `apdet.engine.comparison_outcome.summarise`.

    Returns:
        A table in Markdown with the learning rate, the mean and standard deviation of each metric
        over the seeds in percent, and the minutes of a training.
    """
    cells = []
    for row in rows:
        minutes = [seconds / 60 for seconds in row["seconds"] if seconds is not None]
        cells.append(
            [
                row["loss"],
                f"{row['base_lr']:g}",
                *(_mean_and_deviation(row[name]) for name in METRICS),
                f"{statistics.mean(minutes):.1f}" if minutes else "",
            ]
        )
    headers = ["Training loss", "lr", *METRICS, "min"]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True)


def _mean_and_deviation(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else "failed"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def plot_comparison(rows: Sequence[Mapping[str, Any]], out_png: Path) -> None:
    """Draw AP over iterations: the mean over the seeds, and a band of one standard deviation.

    Args:
        rows: made by `apdet.engine.comparison_outcome.summarise`.
        out_png: the picture to write.
    """
    figure = Figure(figsize=(7, 4.8), dpi=100, layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if not row["curves"]:
            continue
        iterations = row["curves"][0][0]
        aps = np.array([values for x, values in row["curves"] if x == iterations])  # (seeds, T)
        mean = aps.mean(axis=0)
        deviation = aps.std(axis=0, ddof=1) if len(aps) > 1 else np.zeros_like(mean)
        label = f"{row['loss']}, lr {row['base_lr']:g}"
        (line,) = axes.plot(iterations, mean, marker="o", markersize=4, label=label)
        axes.fill_between(
            iterations, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.15
        )
    axes.set(xlabel="iteration", ylabel="AP (%)", title="AP during the training")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False)
    with whole_file(out_png) as file:
        figure.savefig(file, format="png")
