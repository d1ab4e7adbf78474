"""Reads the losses and APs of a training from ``metrics.json``, and draws their curves."""

import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apdet.files import whole_file

logger = logging.getLogger(__name__)

Curve = tuple[list[int], list[float]]  # iterations, ascending, and the values at them

# {metric to draw: name in the legend}.
AP_LABELS = {
    "bbox/AP": "AP",
    "bbox/AP50": "AP50",
    "voc/mAP50_area": "VOC AP50",
    "ranking/AP": "AP of the training ranking",
}


def read_curves(metrics_file: str | os.PathLike) -> dict[str, Curve]:
    """Read every metric in a ``metrics.json`` of Detectron2, which has a JSON mapping per line.

    A resumed training appends to the file. Lines from before the interruption are left out if
    their iterations were repeated. Incomplete lines, which a crash may leave, are skipped.

    Returns:
        {name of a metric: curve}.
    """
    kept: list[tuple[int, dict[str, Any]]] = []
    last_step = -1
    for iteration, metrics in _read_lines(metrics_file):
        # Detectron2 may write an evaluation after a later training step. So only a training step
        # that goes back in time shows that the training was resumed.
        if _is_step(metrics):
            if iteration <= last_step:
                kept = [line for line in kept if line[0] < iteration]
            last_step = iteration
        kept.append((iteration, metrics))

    points: dict[str, dict[int, float]] = {}
    for iteration, metrics in kept:
        for key, value in metrics.items():
            if isinstance(value, int | float):
                points.setdefault(key, {})[iteration] = float(value)
    curves = {}
    for key, values in points.items():
        iterations = sorted(values)
        curves[key] = (iterations, [values[i] for i in iterations])
    return curves


def _read_lines(metrics_file: str | os.PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
    for line in Path(metrics_file).read_text(errors="replace").splitlines():
        try:
            metrics = json.loads(line)
        except ValueError:
            continue
        if isinstance(metrics, dict) and isinstance(metrics.get("iteration"), int):
            yield metrics.pop("iteration"), metrics


def _is_step(metrics: dict[str, Any]) -> bool:
    return "lr" in metrics or any(key.startswith(("loss", "total_loss")) for key in metrics)


def plot_curves(metrics_file: str | os.PathLike, out_png: str | os.PathLike) -> Path | None:
    """Draw the losses and APs of a training over its iterations.

    Args:
        metrics_file: Detectron2's ``metrics.json``. It may be missing.
        out_png: the picture to write.

    Returns:
        The path of the picture. None if there is nothing to draw; no picture is written then.
    """
    curves = read_curves(metrics_file) if os.path.isfile(metrics_file) else {}
    losses = _losses(curves)
    aps = _aps(curves)
    if not losses and not aps:
        logger.warning(f"{metrics_file}: no losses and no AP to draw")
        return None

    figure = Figure(figsize=(12, 4.8), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, losses, "Loss", "no losses were logged")
    if _wants_log(losses):
        left.set_yscale("log")
    _draw(right, aps, "Average precision (%)", "nothing was evaluated yet")
    right.set_ylim(bottom=0)
    with whole_file(out_png) as file:
        figure.savefig(file, format="png")
    return Path(out_png)


def _losses(curves: dict[str, Curve]) -> dict[str, Curve]:
    keys = [key for key in curves if "loss" in key.rsplit("/", 1)[-1] and _is_drawable(curves[key])]
    return {key: curves[key] for key in sorted(keys, key=lambda key: (key != "total_loss", key))}


def _aps(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Select the AP curves by label. With several test sets, keys and labels name the test set."""
    aps = {}
    for suffix, label in AP_LABELS.items():
        for key in sorted(curves):
            if (key == suffix or key.endswith(f"/{suffix}")) and _is_drawable(curves[key]):
                data_set = key.removesuffix(suffix).rstrip("/")
                aps[f"{label}, {data_set}" if data_set else label] = curves[key]
    return aps


def _is_drawable(curve: Curve) -> bool:
    return any(math.isfinite(value) for value in curve[1])


def _wants_log(losses: dict[str, Curve]) -> bool:
    """Whether the losses are positive and span a range that is too wide for a linear axis."""
    values = [value for _, curve in losses.values() for value in curve if math.isfinite(value)]
    return bool(values) and min(values) > 0 and max(values) > 30 * min(values)


def _draw(axes: Axes, curves: dict[str, Curve], title: str, if_empty: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for label, (iterations, values) in curves.items():
        is_total = label == "total_loss"
        # Mark the points of short curves: evaluations are few.
        marker = "o" if len(values) <= 30 else None
        style = {"color": "black", "linewidth": 2} if is_total else {"linewidth": 1.5}
        axes.plot(iterations, values, label=label, marker=marker, markersize=4, **style)
    if curves:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, if_empty, ha="center", va="center", transform=axes.transAxes)
