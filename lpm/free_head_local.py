"""Local solver of the learned-head model where it is not convex in the logits.

Two cases: ``dim < K - 1``, where the rank of the logits is a constraint, and a norm bound on every
single vector. The second has a convex form for ``dim >= 2 K`` (Srebro, Rennie & Jaakkola, 2005):
with ``rho = sqrt(E_H E_W)`` the logits range over the ball ``gamma_2(Z) <= rho`` of the max norm.
Its dual norm obeys, for all positive a and b,

    gamma_2^*(G) <= (1/2) (sum a + sum b) ||D_a^(-1/2) G D_b^(-1/2)||_2,

so ``f(Z) - f* <= <G, Z> + rho gamma_2^*(G)`` certifies a candidate of any dimension. At a critical
point ``-G W = diag(lambda) H`` and ``-G^T H = diag(nu) W``; with a and b proportional to lambda and
nu the bound is zero iff ``[[diag lambda, G], [G^T, diag nu]]`` is positive semidefinite: then a
local solution is the global one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lpm.free_head_gap import rounding_allowance
from lpm.free_head_levels import Array, LevelLoss, Levels

_ITERATIONS = 5000


@dataclass(frozen=True)
class LocalResult:
    """Best of the local solutions.

    Parameters
    ----------
    features, head : (K, d) float arrays
        H and W.
    objective : float
        Cross-entropy.
    gap : float
        Bound on objective minus optimum from the max norm's dual; inf for the mean constraint.
    """

    features: Array
    head: Array
    objective: float
    gap: float


def minimise_local(
    counts: Array,
    feature_energy: float,
    head_energy: float,
    dim: int,
    *,
    per_vector: bool,
    starts: int,
    rng: np.random.Generator,
) -> LocalResult:
    """Search from ``starts`` Gaussian points by L-BFGS and keep the best.

    Parameters
    ----------
    counts : (K,) float array
        Samples of each class.
    feature_energy, head_energy : float
        E_H and E_W.
    dim : int
        Dimension of both factors.
    per_vector : bool
        Bound every vector, not the mean of their squares.
    starts : int
        Number of searches.
    rng : numpy.random.Generator
        Draws their starting points.
    """
    levels = Levels.keep_all(counts)
    loss = LevelLoss(levels, np.ones(len(counts)))
    # A ball in dim dimensions is the shadow of a sphere in dim + 1: one hidden coordinate turns
    # each bound into an equality, and dividing by the norm removes the constraint.
    shape = (2, len(counts), dim + 1 if per_vector else dim)
    radii = np.sqrt([feature_energy, head_energy])
    if not per_vector:
        radii = radii * np.sqrt(len(counts))

    def norms(free: Array) -> Array:
        axes = 2 if per_vector else (1, 2)
        length: Array = np.sqrt((free * free).sum(axis=axes, keepdims=True))
        return length

    def factors(free: Array) -> Array:
        scaled: Array = (radii[:, None, None] * free / norms(free))[:, :, :dim]
        return scaled

    def objective(flat: Array) -> tuple[float, Array]:
        free = flat.reshape(shape)
        features, head = factors(free)
        evaluation = loss.evaluate(_packed(features @ head.T))
        gradient = evaluation.gradient[1:]
        slope = np.zeros(shape)
        slope[0, :, :dim] = gradient @ head
        slope[1, :, :dim] = gradient.T @ features
        # Derivative of x / ||x||: project out x, divide by the norm.
        unit = free / norms(free)
        axes = 2 if per_vector else (1, 2)
        radial = (slope * unit).sum(axis=axes, keepdims=True)
        pulled = radii[:, None, None] * (slope - radial * unit) / norms(free)
        # Minimising log f keeps steps meaningful where f itself is 1e-20.
        return float(np.log(evaluation.value)), pulled.ravel() / evaluation.value

    best: NDArray[np.float64] | None = None
    best_value = np.inf
    for _ in range(starts):
        start = rng.standard_normal(shape)
        found = minimize(
            objective,
            start.ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS, "maxfun": _ITERATIONS, "ftol": 0.0, "gtol": 1e-11},
        )
        if found.fun < best_value:
            best, best_value = found.x, float(found.fun)
    assert best is not None
    features, head = factors(best.reshape(shape))
    evaluation = loss.evaluate(_packed(features @ head.T))
    gap = np.inf
    if per_vector:
        packed = _packed(features @ head.T)
        rounding = rounding_allowance(evaluation, packed, radii[0] * radii[1] * len(counts))
        bound = max_norm_gap(evaluation.gradient[1:], features, head, feature_energy, head_energy)
        gap = max(bound, 0.0) + rounding
    return LocalResult(features, head, evaluation.value, gap)


def max_norm_gap(
    gradient: Array, features: Array, head: Array, feature_energy: float, head_energy: float
) -> float:
    """Bound ``f(Z) - f*`` over the max-norm ball, from the gradient at ``Z = H W^T``.

    Parameters
    ----------
    gradient : (K, K) float array
        G at the logits.
    features, head : (K, d) float arrays
        H and W, each row within its energy.
    feature_energy, head_energy : float
        E_H and E_W.
    """
    rho = np.sqrt(feature_energy * head_energy)
    # Critical-point multipliers, times the energies: both sum to -<G, Z>.
    a = -(features * (gradient @ head)).sum(axis=1)
    b = -(head * (gradient.T @ features)).sum(axis=1)
    inner = -float(a.sum())
    bounds = []
    # Any positive a, b are valid; a vanishing multiplier needs a floor, and several are tried.
    size = rho * float(np.abs(gradient).max())
    if size == 0.0:
        return 0.0
    for share in 10.0 ** -np.arange(15.0):
        floor = share * size
        left, right = np.maximum(a, floor) / rho, np.maximum(b, floor) / rho
        scaled = gradient / np.sqrt(np.outer(left, right))
        dual = 0.5 * (left.sum() + right.sum()) * np.linalg.norm(scaled, 2)
        bounds.append(inner + rho * float(dual))
    return float(min(bounds))


def _packed(logits: Array) -> Array:
    """Packed coordinates when every class is its own level."""
    return np.vstack([np.zeros(len(logits)), logits])
