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


def pair_angles(inner: Float, rows: Float, columns: Float) -> Float:
    """Angles (B, K, J) in degrees from inner products and norms; NaN without a direction."""
    lengths = rows[:, :, None] * columns[:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(lengths > _SHORT, inner / lengths, math.nan)
    angles: Float = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return angles


def gram_errors(
    name: str, observed: dict[str, Float], predicted: dict[str, Float]
) -> tuple[Float, Float, Float]:
    """Mean and largest |difference| of angles in degrees, mean |difference| of norms, (B,) each.

    Pairs of different vectors, all pairs for ``cross``; NaN where no pair has two directions, and
    for the norms of ``cross``.
    """
    angles, norms = [], []
    for grams in (observed, predicted):
        if name == "cross":
            rows, columns = row_norms(grams["features"]), row_norms(grams["head"])
            angles.append(pair_angles(grams[name], rows, columns))
            continue
        rows = row_norms(grams[name])
        norms.append(rows)
        own = pair_angles(grams[name], rows, rows)
        own[:, np.eye(own.shape[1], dtype=bool)] = math.nan
        angles.append(own)
    error = np.abs(angles[0] - angles[1])
    error = error.reshape(len(error), -1)
    defined = ~np.isnan(error)
    total = np.where(defined, error, 0.0)
    with np.errstate(invalid="ignore"):
        mean = total.sum(axis=1) / defined.sum(axis=1)
    worst = np.where(defined.any(axis=1), total.max(axis=1), math.nan)
    length = np.abs(norms[0] - norms[1]).mean(axis=1) if norms else np.full_like(mean, math.nan)
    return mean, worst, length
