"""Bootstrap intervals of numbers, and bands that hold for all entries of some matrices at once.

References
----------
Efron, Tibshirani, "An Introduction to the Bootstrap", 1993: basic and percentile intervals.
Montiel Olea, Plagborg-Møller, "Simultaneous confidence bands", J. Appl. Econometrics 34(1), 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# Differences below this are rounding of solvers and of float64 sums.
ROUNDING = 1e-9


class Interval(NamedTuple):
    """A number and its bootstrap interval (NaN where there is none)."""

    value: float
    lower: float
    upper: float


def simultaneous_band(
    value: Mapping[str, Float], replicates: Mapping[str, Float], level: float
) -> tuple[dict[str, Float], dict[str, Float]]:
    """Simultaneous bias-corrected band over all entries of all matrices."""
    centre, error, largest = {}, {}, np.zeros(1)
    for name, draws in replicates.items():
        mean, error[name] = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        centre[name] = 2.0 * value[name] - mean
        moves = error[name] > 1e-3 * ROUNDING
        if moves.any():
            studentised = np.abs((draws - mean)[:, moves] / error[name][moves]).max(axis=1)
            largest = np.maximum(largest, studentised)
    width = float(np.quantile(largest, level))
    return (
        {name: centre[name] - width * error[name] for name in centre},
        {name: centre[name] + width * error[name] for name in centre},
    )


def basic_interval(value: float, replicates: Float, level: float) -> Interval:
    """Bias-corrected interval: `value` less the quantiles of (replicate − value)."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(2 * value - high), float(2 * value - low))


def percentile_interval(value: float, replicates: Float, level: float) -> Interval:
    """Quantiles of the replicates, which stay where they are possible; NaN if one is NaN."""
    if np.isnan(replicates).any():
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
