"""Certificates for any candidate of the fixed-head problem; imports no solver.

Two independent proofs of (near-)optimality, both per state and in the log domain:

* **KKT.** ∇F(h) + 2λh = 0, λ ≥ 0, λ(‖h‖² − E_H) = 0, ‖h‖² ≤ E_H, with λ fitted here by least
  squares, never taken from the solver. F is convex, so KKT is sufficient.

* **Weak duality.** For every p in the simplex over the other actions, with
  v = Σ_j p_j (w_j − w_k) and H(p) the Shannon entropy, Gibbs' inequality and Cauchy-Schwarz give

      F(h) = max_q [⟨h, Σ q_j (w_j − w_k)⟩ + H(q)] ≥ H(p) + ⟨h, v⟩ ≥ H(p) − √E_H ‖v‖.

  The bound holds for *every* feasible h. At p = softmax of the candidate the first inequality is
  tight, and the gap that is left is √E_H‖v‖ + ⟨h, v⟩.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpm.problem import PeeledProblem, sigmoid, softplus

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Certificate:
    """How far a candidate provably is from optimal.

    Bounds are on the *loss* L = −J = Σ weights · (−log π), so
    ``lower_bound`` ≤ L* ≤ ``upper_bound``.
    """

    stationarity: float
    """max_s ‖∇F + 2λh‖ / Σ_j p_j‖w_j − w_k‖: the KKT residual (Eq. 21), relative to the size
    of the terms that cancel in it. For ``cone="nonnegative"`` the part of the residual that a
    multiplier of h ≥ 0 can absorb is taken out."""
    feasibility: float
    """max_s of (‖h‖² − E_H)₊ / E_H (and of the negative part, for the nonnegative cone)."""
    complementarity: float
    """max_s 2λ(E_H − ‖h‖²)₊ / (√E_H Σ_j p_j‖w_j − w_k‖) (Eq. 22), dimensionless."""
    lower_bound: float
    """Weak-duality bound on the loss of every feasible point."""
    upper_bound: float
    """Loss of the candidate, scaled back into the ball where it sticks out."""
    gap: float
    """upper_bound − lower_bound, computed without the subtraction; never negative."""
    log_odds_gap: float
    """max_s of the gap in F (nats): what ``gap`` means where the loss itself underflows."""
    multipliers: Float
    """(N,) the fitted λ_F of every state."""

    @property
    def relative_gap(self) -> float:
        """``gap / upper_bound``; NaN where the loss has underflowed to 0 (see log_odds_gap)."""
        return self.gap / self.upper_bound if self.upper_bound > 0 else float("nan")

    @property
    def kkt_residual(self) -> float:
        """The worst of stationarity, feasibility and complementarity."""
        return max(self.stationarity, self.feasibility, self.complementarity)


def certify(problem: PeeledProblem, features: ArrayLike) -> Certificate:
    """Certify a candidate from the problem's data alone.

    Parameters
    ----------
    problem
        The problem; its labels, weights and energies are used as they are.
    features
        (N, d) the candidate, from any source.

    Returns
    -------
    Certificate
        With NaN residuals and an infinite gap when any feature is not finite.

    Raises
    ------
    ValueError
        The features do not have shape (N, d).
    """
    h_all = problem.checked_features(features)
    stationarity = feasibility = complementarity = log_odds_gap = 0.0
    lower = upper = gap = 0.0
    multipliers = np.empty(problem.num_states)
    for rows in problem.blocks():
        h = np.asarray(h_all[rows], dtype=np.float64)
        if not np.isfinite(h).all():
            nan = float("nan")
            return Certificate(
                nan, nan, nan, -np.inf, np.inf, np.inf, np.inf, np.full(problem.num_states, nan)
            )
        block = _certify_block(problem, h, rows)
        stationarity = max(stationarity, float(block.stationarity.max()))
        feasibility = max(feasibility, float(block.feasibility.max()))
        complementarity = max(complementarity, float(block.complementarity.max()))
        log_odds_gap = max(log_odds_gap, float(block.log_odds_gap.max()))
        w = problem.weights[rows]
        lower += float(w @ softplus(block.log_odds - block.log_odds_gap))
        upper += float(w @ softplus(block.log_odds))
        gap += float(w @ _loss_gap(block.log_odds, block.log_odds_gap))
        multipliers[rows] = block.multiplier
    return Certificate(
        stationarity, feasibility, complementarity, lower, upper, gap, log_odds_gap, multipliers
    )


def _loss_gap(log_odds: Float, gap: Float) -> Float:
    """softplus(F) − softplus(F − δ) for δ ≥ 0 without cancellation, (n,)."""
    # = −log(1 − σ(F)(1 − e^{−δ})); where the logarithm's argument nears 0, write it as
    # π + σ(F)e^{−δ} instead, log π = −softplus(F) and log σ(F) = −softplus(−F).
    drop = -sigmoid(log_odds) * np.expm1(-gap)
    small = -np.log1p(-np.minimum(drop, 0.5))
    large = -np.logaddexp(-softplus(log_odds), -softplus(-log_odds) - gap)
    return np.where(drop < 0.5, small, large)


@dataclass(frozen=True)
class _Block:
    """Per-state quantities, each (n,)."""

    stationarity: Float
    feasibility: Float
    complementarity: Float
    log_odds: Float
    log_odds_gap: Float
    multiplier: Float


def _certify_block(problem: PeeledProblem, h: Float, rows: slice) -> _Block:
    energy = problem.energies[rows]
    radius = np.sqrt(energy)
    orthant = problem.cone == "nonnegative"

    at = problem.log_odds_block(h, rows)
    square = np.einsum("nd,nd->n", h, h)
    # The spread vanishes only where every competitor with weight equals w_k; so does ∇F then.
    scale = np.where(at.spread > 0, at.spread, 1.0)

    def stationarity_at(multiplier: Float) -> Float:
        residual = at.gradient + 2 * multiplier[:, None] * h
        if orthant:
            # h ≥ 0 allows r = ∇F + 2λh = ν with 0 ≤ ν ⟂ h ≥ 0: the natural residual min(ν, h).
            residual = np.minimum(residual, h * (scale / radius)[:, None])
        return np.asarray(np.sqrt(np.einsum("nd,nd->n", residual, residual)) / scale)

    def complementarity_at(multiplier: Float) -> Float:
        slack = np.maximum(0.0, energy - square)
        return np.asarray(2 * multiplier * slack / (radius * scale))

    with np.errstate(invalid="ignore", divide="ignore"):
        # λ = argmin_{λ ≥ 0} ‖∇F + 2λh‖ …
        fitted = np.maximum(0.0, -np.einsum("nd,nd->n", at.gradient, h) / (2 * square))
    fitted = np.where(square > 0, fitted, 0.0)
    # … unless λ = 0 is the better certificate: strictly inside the ball the fit is rounding over
    # ‖h‖, and times the slack in ‖h‖² it would count against complementarity.
    inactive = stationarity_at(np.zeros_like(fitted))
    active = np.maximum(stationarity_at(fitted), complementarity_at(fitted))
    multiplier = np.where(inactive < active, 0.0, fitted)
    excess = np.maximum(0.0, square / energy - 1)
    if orthant:
        excess = np.maximum(excess, np.maximum(0.0, -h).max(axis=1) / radius)

    # The bounds speak of feasible points: scale back what sticks out by more than rounding.
    inside, inner = h, at
    if (excess > 1e-14).any():
        inside = np.maximum(h, 0.0) if orthant else h
        norm = np.sqrt(np.einsum("nd,nd->n", inside, inside))
        inside = inside * np.minimum(1.0, radius / np.maximum(norm, radius))[:, None]
        inner = problem.log_odds_block(inside, rows)
    # min ⟨h, v⟩ over the ball is −√E_H‖v‖; over its nonnegative part v's negative part counts.
    v = np.minimum(inner.gradient, 0.0) if orthant else inner.gradient
    length = np.sqrt(np.einsum("nd,nd->n", v, v))
    with np.errstate(invalid="ignore", divide="ignore"):
        direction = np.where(length[:, None] > 0, v / length[:, None], 0.0)
    # √E‖v‖ + ⟨h, v⟩ = ‖v‖/(2√E) · (‖h + √E v/‖v‖‖² + E − ‖h‖²): a sum of non-negative terms,
    # so neither cancellation nor rounding can make the gap negative.
    mismatch = inside + radius[:, None] * direction
    slack = np.maximum(0.0, energy - np.einsum("nd,nd->n", inside, inside))
    gap = length / (2 * radius) * (np.einsum("nd,nd->n", mismatch, mismatch) + slack)
    if orthant:
        gap = gap + np.einsum("nd,nd->n", inside, np.maximum(inner.gradient, 0.0))

    return _Block(
        stationarity=stationarity_at(multiplier),
        feasibility=excess,
        complementarity=complementarity_at(multiplier),
        log_odds=inner.value,
        log_odds_gap=gap,
        multiplier=multiplier,
    )
