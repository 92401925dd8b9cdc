"""Hyperspherical codes a learned head approaches when ``dim < K - 1`` and norms are large.

As the norm grows, the balanced per-vector model maximises the smallest *one-versus-rest distance*
``dist(w_k, conv{w_j : j != k})`` (Jiang et al., 2024, "Generalized neural collapse for a large
number of classes"). That distance is a convex quadratic program, solved exactly here; the regular
polygon, the cross-polytope and the icosahedron are references with known values.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from lpm.free_head_levels import Array


def class_margins(vectors: Array) -> Array:
    """Distance of each vector from the convex hull of the others.

    Parameters
    ----------
    vectors : (K, d) float array
        At least two vectors.

    Returns
    -------
    (K,) float array
        Zero for a vector inside the hull.

    Raises
    ------
    ValueError
        If there are fewer than two vectors, or an entry is not finite.
    """
    points = np.asarray(vectors, dtype=np.float64)
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(f"vectors must be (K, d) with K >= 2, got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("vectors has entries that are not finite")
    margins = np.empty(len(points))
    for k in range(len(points)):
        rest = np.delete(points, k, axis=0) - points[k]
        scale = float(np.abs(rest).max())
        if scale == 0.0:
            margins[k] = 0.0
            continue
        # Least distance programming (Lawson & Hanson, 1974, chapter 23): over u = s lambda with
        # lambda in the simplex, ||P^T u||^2 + (sum u - 1)^2 = s^2 ||P^T lambda||^2 + (s - 1)^2 is
        # smallest at the lambda nearest to the origin whatever s; an active-set method is exact.
        system = np.vstack([rest.T / scale, np.ones(len(rest))])
        target = np.zeros(len(system))
        target[-1] = 1.0
        solution, _ = nnls(system, target)
        margins[k] = np.linalg.norm(rest.T @ (solution / solution.sum()))
    return margins


def regular_polygon(num_classes: int) -> Array:
    """Vertices (K, 2) of the regular polygon; margin ``1 - cos(2 pi / K)`` for K >= 3."""
    angles = 2.0 * np.pi * np.arange(num_classes) / num_classes
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def cross_polytope(dim: int) -> Array:
    """Vertices (2 dim, dim), plus and minus each axis; margin 1 for dim >= 2."""
    return np.vstack([np.eye(dim), -np.eye(dim)])


def icosahedron() -> Array:
    """Vertices (12, 3) of the regular icosahedron; margin ``1 - 1 / sqrt(5)``."""
    golden = (1.0 + np.sqrt(5.0)) / 2.0
    corners = [(0.0, s, t * golden) for s in (1.0, -1.0) for t in (1.0, -1.0)]
    vertices = [np.roll(corner, shift) for shift in range(3) for corner in corners]
    unit: Array = np.array(vertices) / np.sqrt(1.0 + golden**2)
    return unit
