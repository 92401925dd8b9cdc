"""Gram matrices of class means and head in units of the energies, and their angles and norms."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from analysis.overlay_measure import Float, Measured, Statistics
from analysis.overlay_model import Prediction

GRAMS = ("features", "centred", "head", "cross")

# Vectors shorter than this, relative to the roots of the energies, have no direction.
_SHORT = 1e-6

# About an angle of 0 noise in m directions makes 1 − cos χ²_m / m times its mean, the bias:
# above 3 times with a probability below 1 % for m >= 6, and few directions make little bias.
_NEAR_EDGE = 3.0


def measured_grams(found: Statistics, measured: Measured) -> dict[str, Float]:
    """Gram matrices of the measured class means and head, (B, ., .) each."""
    head = (measured.head @ measured.head.T)[None]
    nothing = np.empty(0)
    parts = Prediction(found.gram, head, found.cross, nothing, nothing, nothing)
    return scaled_grams(parts, found.energy, measured)


def scaled_grams(parts: Prediction, energy: ArrayLike, measured: Measured) -> dict[str, Float]:
    """Gram matrices in the units that `analysis.overlay` defines, (B, ., .) each."""
    scale = np.reshape(np.asarray(energy, dtype=np.float64), (-1, 1, 1))
    middle = parts.features - parts.features.mean(axis=1, keepdims=True)
    middle = middle - middle.mean(axis=2, keepdims=True)
    diagonal = np.einsum("bkk->b", middle)[:, None, None] / middle.shape[1]
    # One action, or class means that coincide to rounding, leave no shape.
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = np.where(diagonal > _SHORT**2 * scale, middle / diagonal, 0.0)
    return {
        "features": parts.features / scale,
        "centred": shape,
        "head": parts.head / measured.head_energy,
        "cross": parts.cross / np.sqrt(scale * measured.head_energy),
    }


def row_norms(gram: Float) -> Float:
    """Norms (B, K) of the vectors behind Gram matrices (B, K, K)."""
    squares: Float = np.maximum(np.einsum("bkk->bk", gram), 0.0)
    return np.sqrt(squares)


def pair_cosines(name: str, grams: dict[str, Float]) -> Float:
    """Cosines (B, ., .) between the vectors of a Gram matrix, row by column.

    NaN between a vector and itself, and where one of the two has no direction.
    """
    rows = columns = row_norms(grams["features" if name == "cross" else name])
    if name == "cross":
        columns = row_norms(grams["head"])
    lengths = rows[:, :, None] * columns[:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.where(lengths > _SHORT, grams[name] / lengths, math.nan)
    if name != "cross":
        cosines[:, np.eye(cosines.shape[1], dtype=bool)] = math.nan
    return np.clip(cosines, -1.0, 1.0)


def degrees(cosines: Float) -> Float:
    """Angles of cosines; those beyond ±1 are at the end."""
    angles: Float = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    return angles


def gram_errors(
    name: str, observed: dict[str, Float], predicted: dict[str, Float]
) -> tuple[Float, Float]:
    """Observed − predicted angles in degrees (B, ., .), NaN as in `pair_cosines`, and norms (B, K).

    ``cross`` has no norms.
    """
    angles = degrees(pair_cosines(name, observed)) - degrees(pair_cosines(name, predicted))
    if name == "cross":
        return angles, np.empty((len(angles), 0))
    return angles, row_norms(observed[name]) - row_norms(predicted[name])


def angle_noise(name: str, observed: dict[str, Float], again: dict[str, Float], fair: int) -> Float:
    """By how much resampling turns the observed angles (1, ., .), degrees (B, ., .).

    An angle of 0 or 180° cannot be crossed, so that a noisy one lies on one side of the truth and
    resamples about it say little of how far. Cosines have no such edge: the bias that the first
    `fair` resamples show is taken off them, and noise added there. Where a cosine is within
    `_NEAR_EDGE` times its bias of ±1, the truth may be there and is taken to be.
    """
    cosine, moved = pair_cosines(name, observed), pair_cosines(name, again)
    noise = moved - cosine
    bias = noise[:fair].mean(axis=0)
    at_edge = 1.0 - np.abs(cosine) <= _NEAR_EDGE * np.abs(bias)
    truth = np.where(at_edge, np.sign(cosine), np.clip(cosine - bias, -1.0, 1.0))
    return degrees(truth + noise) - degrees(truth)
