"""The steps of the ranking losses: piecewise-linear functions in place of the step at 0."""

import math
import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# The default widths of the steps, in logits.
DEFAULT_DELTA = 1.0
DEFAULT_K = 0.5
# Maximum error of the piecewise-linear sigmoid.
SIGMOID_ERROR = 1e-4


class Step(NamedTuple):
    """A rising piecewise-linear function H from 0 to 1, with H(x) + H(-x) = 1.

    Attributes:
        knots: (M,) the points where the slope changes, ascending. H is 0 below the first knot and 1
            above the last knot.
        values: (M,) the values of H at the knots, from 0 to 1.
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]


@lru_cache
def tensors_of(step: Step, device: torch.device) -> tuple[Tensor, Tensor]:
    """The knots and values of a step, (M,) float64 each, on a device."""
    # Cached, because a copy to the device makes the host wait.
    knots = torch.tensor(step.knots, dtype=torch.float64, device=device)
    values = torch.tensor(step.values, dtype=torch.float64, device=device)
    return knots, values


def piecewise_step(delta: float) -> Step:
    """The step ``clamp(x / (2 delta) + 1/2, 0, 1)``, Eq. 21 of arXiv:2008.07294.

    Raises:
        ValueError: ``delta`` is not above 0, or not finite.
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be > 0, got {delta}")
    return Step((-delta, delta), (0.0, 1.0))


@lru_cache
def sigmoid_step(k: float) -> Step:
    """The step ``1 / (1 + exp(-x / k))``, Eq. 54 of arXiv:2008.07294, up to ``SIGMOID_ERROR``.

    The sigmoid is interpolated between about 100 knots. Where it differs from 0 or 1 by less than
    the error, it is set to 0 or 1. Ranks and gradients are exact for the interpolated step.

    Raises:
        ValueError: ``k`` is not above 0, or not finite.
    """
    if not 0 < k < math.inf:
        raise ValueError(f"k must be > 0, got {k}")
    # A chord of width w has an error of w^2 |H''| / 8. The error is the same everywhere if the
    # density of the knots is sqrt(|H''| / (8 error)). H'' changes within a chord, so the density is
    # a fifth higher.
    end = math.log(1 / SIGMOID_ERROR)
    x = np.linspace(0, end, 10_001)
    value = 1 / (1 + np.exp(-x))
    curvature = value * (1 - value) * (2 * value - 1)
    density = 1.2 * np.sqrt(curvature / (8 * SIGMOID_ERROR))
    chords = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(x))])
    upper = np.interp(np.linspace(0, chords[-1], math.ceil(chords[-1]) + 1), chords, x)[1:]
    knots = k * np.concatenate([-upper[::-1], [0], upper])
    values = 1 / (1 + np.exp(-knots / k))
    values[[0, -1]] = 0, 1
    return Step(tuple(knots.tolist()), tuple(values.tolist()))


@torch.compiler.disable
def choose_step(name: str, *, delta: float | None, k: float | None) -> Step:
    """Build the step that the arguments of a loss describe.

    Args:
        name: "piecewise" or "sigmoid".
        delta: half-width of the piecewise step, in logits; None: 1.
        k: width of the sigmoid step, in logits; None: 0.5.

    Raises:
        ValueError: the name is unknown, a width is not above 0, or the width belongs to the other
            step.
    """
    if name not in ("piecewise", "sigmoid"):
        raise ValueError(f"step must be 'piecewise' or 'sigmoid', got {name!r}")
    if name == "piecewise" and k is not None:
        raise ValueError(f"k={k} is a width of the sigmoid step; the piecewise step has delta")
    if name == "sigmoid" and delta is not None:
        raise ValueError(f"delta={delta} is a width of the piecewise step; the sigmoid step has k")
    if name == "piecewise":
        return piecewise_step(DEFAULT_DELTA if delta is None else delta)
    return sigmoid_step(DEFAULT_K if k is None else k)


@torch.compiler.disable
def build_step(name: str, *, delta: float | None = None, k: float | None = None) -> Step:
    """Call `choose_step` for a ranking loss that was written for apdet 0.1.

    Such a loss always gives both widths. The width of the other step is ignored, with a
    DeprecationWarning.
    """
    if delta is not None and k is not None:
        message = (
            "build_step is given delta and k, but a step has one width: give the other as None"
        )
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        delta, k = (delta, None) if name == "piecewise" else (None, k)
    return choose_step(name, delta=delta, k=k)
