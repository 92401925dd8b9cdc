"""Proven upper bounds on max F over the ball, for states that repel their action.

F is convex, so the points that `lpm.signed` finds are local maxima; these bounds say how much
better anything else can be. For a simplex ETF the maximum is known exactly (`lpm.negative_weight`).
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from lpm.negative_weight import etf_largest_log_odds

Float = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_ETF_TOLERANCE = 1e-9
_BRANCH_CLASSES = 6  # the simplex that is cut up has K − 2 dimensions


def upper_bound(
    coordinates: Float,
    k: int,
    radius: float,
    defect: float,
    found: float,
    tolerance: float,
    branch_nodes: int,
) -> tuple[float, int]:
    """A proven upper bound on max F over the ball, and the simplices spent on it.

    Parameters
    ----------
    coordinates
        (K, r) rows of the centred head in a basis of their span.
    k
        The action that is repelled.
    radius
        √E_H.
    defect
        `lpm.frames.etf_defect` of the head.
    found, tolerance
        F at the best point known, and how far above it a bound is good enough.
    branch_nodes
        Simplices to spend at most.
    """
    num_classes = len(coordinates)
    differences = np.delete(coordinates, k, axis=0) - coordinates[k]
    # ⟨h, w_j − w_k⟩ ≤ R‖w_j − w_k‖ for each j at once. Rounding: R‖D_j‖·eps and a few of log's.
    lengths = radius * np.linalg.norm(differences, axis=1)
    rounding = 8 * _EPS * (1 + float(lengths.max()))
    top = float(lengths.max())
    bounds = [top + math.log(float(np.exp(lengths - top).sum())) + rounding]
    if defect <= _ETF_TOLERANCE:
        # max F = max_q H(q) + R√(qᵀGq), G the Gram matrix of the differences D. Its entries, four
        # of WWᵀ's each, are within 4·defect·E_W of the exact frame's; q sums to one, so qᵀGq is
        # too, and its root, at least √E_W·K/(K−1) for the frame, within 4·defect·√E_W. Twice
        # that covers the error of E_W itself.
        head_energy = float(np.mean(np.einsum("kd,kd->k", coordinates, coordinates)))
        rho = radius * math.sqrt(head_energy)
        exact = etf_largest_log_odds(num_classes, rho)
        bounds.append(exact + 8 * rho * defect + rounding)
    else:
        bounds.append(_quadratic_bound(differences, radius) + rounding)
    bound, used = min(bounds), 0
    if bound > found + tolerance and 3 <= num_classes <= _BRANCH_CLASSES and branch_nodes > 0:
        refined, used = _branch_and_bound(differences, radius, found, tolerance, branch_nodes)
        bound = min(bound, refined + rounding)
    return bound, used


def _quadratic_bound(differences: Float, radius: float) -> float:
    """Upper bound on F over the ball from a quadratic that lies above it everywhere.

    diag(p) − ppᵀ ⪯ ½(I − 11ᵀ/m) for every p in the simplex (Böhning 1992), so with the
    differences D, D̄ their mean and B = ½(D − D̄)ᵀ(D − D̄),

        F(h) ≤ log m + ⟨D̄, h⟩ + ½hᵀBh.

    Its maximum over the ball has no duality gap (a trust-region problem), and every
    λ > λ_max(B) bounds it: log m + ½D̄ᵀ(λI − B)⁻¹D̄ + ½λR². For an ETF it is tight for ρ ≤ 2.
    """
    mean = differences.mean(axis=0)
    centred = differences - mean
    curvature, vectors = np.linalg.eigh(0.5 * centred.T @ centred)
    linear = vectors.T @ mean
    size = float(np.linalg.norm(linear))
    largest = float(max(curvature[-1], 0.0))

    def dual(multiplier: float) -> float:
        return 0.5 * float(linear @ (linear / (multiplier - curvature))) + (
            0.5 * multiplier * radius**2
        )

    def slope(multiplier: float) -> float:
        step = linear / (multiplier - curvature)
        return radius**2 - float(step @ step)

    low = largest + 1e-12 * (largest + size / radius)
    high = largest + 2 * size / radius + low - largest
    multiplier = low
    if slope(low) < 0:  # convex in λ: the root of its slope is the least bound
        multiplier = float(brentq(slope, low, high, xtol=1e-15 * high, rtol=4 * _EPS))
    return math.log(len(differences)) + dual(multiplier)


def _branch_and_bound(
    differences: Float, radius: float, found: float, tolerance: float, max_nodes: int
) -> tuple[float, int]:
    """Upper bound on max F by simplicial branch and bound on F's dual form (Horst 1976).

    max_h F = max_q H(q) + R‖Dᵀq‖ over the simplex of m = K − 1 weights, the h best for given q
    being R·Dᵀq/‖Dᵀq‖. On a sub-simplex T with vertices q_i and barycentre q̄ the norm, convex,
    lies below the affine function with its values at the q_i, and the entropy, concave, below its
    tangent at q̄, which is the cross-entropy −Σ_j q_j log q̄_j. The sum of the two is affine, so

        max over T ≤ max_i [−Σ_j q_ij log q̄_j + R‖Dᵀq_i‖].

    The error is quadratic in T's diameter. Simplices that cannot beat ``found`` by more than
    ``tolerance`` are closed, the rest are halved at their longest edge.
    """
    m = len(differences)
    simplices = np.eye(m)[None]
    closed, nodes = -np.inf, 0
    first, second = np.triu_indices(m, 1)
    while True:
        barycentre = simplices.mean(axis=1)
        norms = radius * np.linalg.norm(simplices @ differences, axis=2)
        # A coordinate of q̄ is zero only where it is in every q_i: 0·log 0 = 0.
        log_barycentre = np.log(np.where(barycentre > 0, barycentre, 1.0))
        bounds = (norms - np.einsum("nij,nj->ni", simplices, log_barycentre)).max(axis=1)
        nodes += len(simplices)
        is_open = bounds > found + tolerance
        closed = max(closed, float(bounds[~is_open].max(initial=-np.inf)))
        if not is_open.any():
            return closed, nodes
        if nodes + 2 * int(is_open.sum()) > max_nodes:
            return max(closed, float(bounds.max())), nodes
        parents = simplices[is_open]
        edges = np.linalg.norm(parents[:, first] - parents[:, second], axis=2).argmax(axis=1)
        a, b = first[edges], second[edges]
        rows = np.arange(len(parents))
        middle = 0.5 * (parents[rows, a] + parents[rows, b])
        left, right = parents.copy(), parents.copy()
        left[rows, a] = middle
        right[rows, b] = middle
        simplices = np.concatenate([left, right])
