"""Bootstrap intervals of numbers, and bands that hold for all entries of some matrices at once.

A bootstrap knows the noise of n samples as well as n − 1 degrees of freedom allow: the quantiles
of its replicates are widened as Student's t is wider than a normal variable. Where several
samples meet in a number, Satterthwaite's degrees of freedom stand for all.

References
----------
Efron, Tibshirani, "An Introduction to the Bootstrap", 1993: basic intervals.
Montiel Olea, Plagborg-Møller, "Simultaneous confidence bands", J. Appl. Econometrics 34(1), 2019.
Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
Bulletin 2(6), 1946.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Float = NDArray[np.float64]

# Differences below this are rounding of solvers and of float64 sums.
ROUNDING = 1e-9


class Interval(NamedTuple):
    """A number and its bootstrap interval (NaN where there is none)."""

    value: float
    lower: float
    upper: float


def degrees_of_freedom(variances: Float, counts: ArrayLike, *, common: bool = False) -> Float:
    """Degrees of freedom of a sum of estimated variances.

    Parameters
    ----------
    variances : (K, ...) array
        What each of K samples contributes.
    counts : (K,) array
        Sizes of the samples, at least 2.
    common
        Whether the samples are of the same units, which vary in all of them at once: together they
        then tell no more than one of them does.

    Returns
    -------
    (...) array, Satterthwaite's (Σ v_k)² / Σ v_k² / (n_k − 1) of independent samples, and
    Σ v_k / Σ v_k / (n_k − 1) of common ones; infinite where nothing varies.
    """
    free = np.asarray(counts, dtype=np.float64).reshape(-1, *[1] * (variances.ndim - 1)) - 1.0
    total = variances.sum(axis=0)
    shares = np.divide(variances, total, out=np.zeros_like(variances), where=total > 0)
    lost = ((shares if common else shares**2) / free).sum(axis=0)
    found: Float = np.divide(1.0, lost, out=np.full_like(lost, math.inf), where=lost > 0)
    return found


def student_ratio(freedom: ArrayLike, level: float) -> Float:
    """How much wider than a normal variable's the central `level` of Student's t is."""
    tail = (1 - level) / 2
    ratio: Float = stats.t.isf(tail, freedom) / stats.norm.isf(tail)
    return ratio


def simultaneous_band(
    value: Mapping[str, Float],
    replicates: Mapping[str, Float],
    level: float,
    freedom: Mapping[str, ArrayLike],
) -> tuple[dict[str, Float], dict[str, Float]]:
    """Simultaneous bias-corrected band over all entries of all matrices.

    Parameters
    ----------
    value
        Matrices by name.
    replicates
        (B, ...) resampled ones.
    level
        Probability that the band holds every entry.
    freedom
        Degrees of freedom behind the entries: the width w of the studentised replicates, which a
        normal variable exceeds with probability p, becomes what a t variable exceeds with p.

    Returns
    -------
    Lower and upper ends by name.
    """
    centre, error, largest = {}, {}, np.zeros(1)
    for name, draws in replicates.items():
        mean, error[name] = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        centre[name] = 2.0 * value[name] - mean
        moves = error[name] > 1e-3 * ROUNDING
        if moves.any():
            studentised = np.abs((draws - mean)[:, moves] / error[name][moves]).max(axis=1)
            largest = np.maximum(largest, studentised)
    tail = stats.norm.sf(np.quantile(largest, level, method="higher"))
    reach = {name: stats.t.isf(tail, freedom[name]) * error[name] for name in centre}
    return (
        {name: centre[name] - reach[name] for name in centre},
        {name: centre[name] + reach[name] for name in centre},
    )


def basic_interval(
    value: float, replicates: Float, level: float, freedom: float = math.inf
) -> Interval:
    """Bias-corrected interval: `value` less the deviations of its replicates.

    Parameters
    ----------
    replicates : (B,) array
        Resampled values. One that is NaN leaves no interval.
    freedom
        Degrees of freedom behind the value, for the deviations from the mean replicate.
    """
    if np.isnan(replicates).any():
        return Interval(value, math.nan, math.nan)
    tail = (1 - level) / 2
    mean = replicates.mean()
    low, high = np.quantile(replicates, [tail, 1 - tail]) - mean
    wider = float(student_ratio(freedom, level))
    centre = 2 * value - mean
    return Interval(value, float(centre - wider * high), float(centre - wider * low))


def error_interval(value: float, noise: Float, level: float) -> Interval:
    """Interval of a seminorm ‖x‖ of differences x, measured as ‖x + e‖ with noise e.

    By the triangle inequality | ‖x + e‖ − ‖x‖ | ≤ ‖e‖, whatever x is: where x is 0 the noise
    alone makes a positive measurement, and where it is not, the interval is wider than it need be.

    Parameters
    ----------
    value
        ‖x + e‖; the interval contains it.
    noise : (B,) array
        ‖e‖ of resamples. One that is NaN leaves no interval.
    level
        Probability, or more, that the interval contains ‖x‖.
    """
    if np.isnan(noise).any():
        return Interval(value, math.nan, math.nan)
    reach = float(np.quantile(noise, level, method="higher"))
    return Interval(value, max(value - reach, 0.0), value + reach)
