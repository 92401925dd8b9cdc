"""Nuclear and spectral norm, and the two proximal maps, in packed coordinates.

Packed coordinates are those of :mod:`lpm.free_head_levels`: row 0 carries ``sqrt(c_a) alpha_a``,
a singular value ``|alpha_a|`` of multiplicity ``c_a`` (0 or more); the other rows are a square
matrix with singular values of multiplicity one. Both proximal maps act on singular values alone
(a unitarily invariant function's does: Lewis, 1995), by soft thresholding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SpectralPoint:
    """A packed matrix together with the singular vectors of its core.

    Parameters
    ----------
    packed : (m + 1, m) float array
        The matrix.
    left, right : (m, r) float arrays
        Singular vectors of the core for its positive singular values.
    values : (r,) float array
        Those singular values, largest first.
    alpha : (m,) float array
        The repeated singular values, signed; 0 where the multiplicity is 0.
    """

    packed: Array
    left: Array
    values: Array
    right: Array
    alpha: Array


def shrink(
    packed: Array, multiplicity: Array, threshold: Callable[[Array, Array], float]
) -> SpectralPoint:
    """Soft-threshold all singular values of a packed matrix.

    Parameters
    ----------
    packed : (m + 1, m) float array
        The matrix.
    multiplicity : (m,) float array
        Multiplicity ``c_a`` of each singular value in row 0.
    threshold : callable
        Takes all distinct singular values and their multiplicities, returns what to subtract.
    """
    alpha = packed[0] / np.sqrt(np.maximum(multiplicity, 1.0))
    left, values, right = np.linalg.svd(packed[1:])
    level = threshold(
        np.concatenate([values, np.abs(alpha)]),
        np.concatenate([np.ones_like(values), multiplicity]),
    )
    alpha = np.where(multiplicity > 0, np.sign(alpha) * np.maximum(np.abs(alpha) - level, 0.0), 0.0)
    rank = int(np.count_nonzero(values > level))
    left, values, right = left[:, :rank], values[:rank] - level, right[:rank].T
    shrunk = np.vstack([np.sqrt(multiplicity) * alpha, (left * values) @ right.T])
    return SpectralPoint(shrunk, left, values, right, alpha)


def ball_threshold(radius: float) -> Callable[[Array, Array], float]:
    """Threshold that projects onto the nuclear-norm ball of the given radius."""

    def threshold(values: Array, multiplicity: Array) -> float:
        if float(values @ multiplicity) <= radius:
            return 0.0
        # sum_i c_i (s_i - t)_+ = radius is piecewise linear and decreasing in t: with the i
        # largest values kept, t_i = (sum_{j <= i} c_j s_j - radius) / sum_{j <= i} c_j; the right
        # i is the last with s_i > t_i (Duchi et al., 2008, with multiplicities).
        order = np.argsort(values)[::-1]
        values, multiplicity = values[order], multiplicity[order]
        keep = multiplicity > 0
        values, multiplicity = values[keep], multiplicity[keep]
        levels = (np.cumsum(multiplicity * values) - radius) / np.cumsum(multiplicity)
        return float(levels[np.flatnonzero(values > levels)[-1]])

    return threshold


def nuclear_norm(packed: Array, multiplicity: Array) -> float:
    """Sum of all singular values, multiplicities counted."""
    core = np.linalg.svd(packed[1:], compute_uv=False)
    return float(core.sum() + np.sqrt(multiplicity) @ np.abs(packed[0]))


def spectral_norm(packed: Array, multiplicity: Array) -> float:
    """Largest singular value."""
    core = np.linalg.svd(packed[1:], compute_uv=False)
    repeated = np.abs(packed[0]) / np.sqrt(np.maximum(multiplicity, 1.0))
    return float(max(core[0], repeated.max(where=multiplicity > 0, initial=0.0)))
