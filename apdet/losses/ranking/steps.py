"""The steps a ranking is counted with: piecewise-linear stand-ins for "is s_j above s_i?"."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

# How far the piecewise-linear sigmoid may lie from the true one.
SIGMOID_ERROR = 1e-4


class Step(NamedTuple):
    """A rising piecewise-linear function H from 0 to 1, with H(x) + H(-x) = 1.

    Attributes:
        knots: (M,) where its slope changes, ascending. H is 0 below the first, 1 above the last.
        values: (M,) H at the knots, from 0 to 1.
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]


def piecewise_step(delta: float) -> Step:
    """``clamp(x / (2 delta) + 1/2, 0, 1)``, Eq. 21 of arXiv:2008.07294.

    Raises:
        ValueError: ``delta`` is not above 0, or not finite.
    """
    if not 0 < delta < math.inf:
        raise ValueError(f"delta must be > 0, got {delta}")
    return Step((-delta, delta), (0.0, 1.0))


@lru_cache
def sigmoid_step(k: float) -> Step:
    """``1 / (1 + exp(-x / k))``, Eq. 54 of arXiv:2008.07294, to within ``SIGMOID_ERROR``.

    The sigmoid is interpolated between some 100 knots and cut off where it comes within that error
    of 0 and 1. All that is computed from it is exact for this step.

    Raises:
        ValueError: ``k`` is not above 0, or not finite.
    """
    if not 0 < k < math.inf:
        raise ValueError(f"k must be > 0, got {k}")
    # A chord of width w errs by w^2 |H''| / 8, so as much everywhere if the knots lie as dense
    # as sqrt(|H''| / (8 error)); a fifth denser where H'' changes within a chord.
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
def build_step(name: str, *, delta: float, k: float) -> Step:
    """The step called "piecewise" (with ``delta``) or "sigmoid" (with ``k``).

    Raises:
        ValueError: another name, or a width that is not above 0.
    """
    if name == "piecewise":
        return piecewise_step(delta)
    if name == "sigmoid":
        return sigmoid_step(k)
    raise ValueError(f"step must be 'piecewise' or 'sigmoid', got {name!r}")
