"""The optimum of Eq. (1) for one state with a fixed head and given Q, found and bounded.

V(h) = Σ_a π(a|h) Q_a over ‖h‖² ≤ E_H is not concave; but with Δ_a = max Q − Q_a ≥ 0 the *shortfall*

    R(h) = max Q − V(h) = Σ_a π_a Δ_a,      ψ(h) = log R = log Σ_a Δ_a e^{z_a} − log Σ_a e^{z_a},

z = W h, stays of order one in its logarithm where R underflows (R ~ e^{−ρK/(K−1)}), and yields a
global bound. For c > 0 split the actions into P = {a: Δ_a > c} and M, the rest:

    R(h) ≥ c   iff   Σ_{b∈P} (Δ_b − c) e^{z_b} ≥ Σ_{a∈M} (c − Δ_a) e^{z_a}
               if    Σ_{a∈M} (c − Δ_a) e^{−L_a} ≤ 1,  L_a ≤ log Σ_{b∈P} (Δ_b − c) e^{z_b − z_a}.

The last function of h is convex, so L_a comes from weak duality as in `lpm.certificate`: for any
p in the simplex on P, Gibbs' inequality and Cauchy-Schwarz give
L_a = H(p) + Σ p_b log(Δ_b − c) − √E_H ‖Σ_b p_b (w_b − w_a)‖.

The bound is *tight* when M is one action, that is when the best action is unique and the optimal
V exceeds the second best action value: {R ≤ c} is then a convex set and what the search finds is
certified as the global maximum. It is tight at ρ = 0 too. In between, and with ties, it is an
honest upper bound and the answer is called local.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpm.expected_return import angle, checked_values
from lpm.log_ratio import LogRatio, conditions, log_sum_exp, minimise
from lpm.problem import checked_head

Float = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
# Relative to the size of the terms that cancel in the KKT residual (plus eps per unit of logit).
_STATIONARY = 1e-12
# A candidate whose shortfall is within this relative distance of the bound is called global.
_GLOBAL = 1e-9


class Optimality(Enum):
    """What is proved of the answer; the value of each member is the advice."""

    GLOBAL = "the global upper bound meets the value (relative to max Q - value, up to rounding)"
    LOCAL = (
        "the best of the local maxima found, first and second order conditions hold; the global "
        "maximum is at most upper_bound: more starts can only help"
    )
    UNFINISHED = (
        "a first or second order condition fails at the best point found: raise starts or "
        "max_iterations; upper_bound holds all the same"
    )

    @property
    def advice(self) -> str:
        """The sentence for the user."""
        return str(self.value)


@dataclass(frozen=True)
class ExpectedReturnOptimum:
    """The best feature found for Eq. (1), what is proved of it, and how Theorem 1's one fares."""

    features: Float
    """(d,) h, in the span of the centred head (other components do not change π)."""
    value: float
    """V(h) = Σ π_a Q_a."""
    log_shortfall: float
    """log(max Q − V(h)), accurate where the difference underflows."""
    upper_bound: float
    """No feasible feature has a larger V (see the module's docstring)."""
    log_shortfall_bound: float
    """log of a lower bound on max Q − V over the ball; ≤ ``log_shortfall``."""
    label: int
    """k, the best action, the first of several."""
    angle: float
    """Angle in radians between h and w_k − w̄; NaN where either is zero."""
    aligned_value: float
    """V at √E_H·(w_k − w̄)/‖w_k − w̄‖, for an ETF the optimum of Eq. (2) (Eq. 27)."""
    aligned_log_excess: float
    """log of (max Q − aligned_value)/(max Q − value): the price of alignment in nats."""
    aligned_regret: float
    """value − aligned_value, computed without the subtraction."""
    stationarity: float
    """‖∇ψ + νh‖ relative to the terms that cancel in it, ν ≥ 0 fitted by least squares."""
    curvature: float
    """Least eigenvalue of the Lagrangian's Hessian of ψ, features in units of √E_H, on the
    tangent space of an active ball (+inf if that is empty): ≥ 0 is necessary, > 0 sufficient."""
    optimality: Optimality
    """Global, local, or neither, with advice."""
    stats: Mapping[str, float | int] = field(default_factory=dict)
    """``starts``, ``iterations``, ``local_maxima`` (distinct log-shortfalls found) and ``ties``."""


def maximise_expected_return(
    head: ArrayLike,
    action_values: ArrayLike,
    feature_energy: float,
    rng: np.random.Generator,
    *,
    starts: int = 16,
    max_iterations: int = 200,
) -> ExpectedReturnOptimum:
    """Maximise Eq. (1) for one state: Σ_a π(a|h) Q_a over ‖h‖² ≤ E_H, the head fixed.

    A local search on log(max Q − V) with exact gradient and Hessian, from structured starts
    (h along w_k for every best action k; the gradient at 0; the end of a homotopy in the radius
    from 0; the large-ρ limit problem, which is convex) and random ones, followed by a second
    order check (saddles are left along their negative curvature) and a global bound.

    Parameters
    ----------
    head
        (K, d) W, any head.
    action_values
        (K,) Q, any numbers that are not all equal; ties are exact equality.
    feature_energy
        E_H > 0.
    rng
        Draws the random starts; the structured ones do not depend on it.
    starts
        Number of random starts, ≥ 0.
    max_iterations
        Newton steps for each search.

    Returns
    -------
    ExpectedReturnOptimum

    Raises
    ------
    ValueError
        Shapes that disagree, non-finite numbers, all values equal (every feature is optimal),
        an energy that is not positive, or starts < 0.
    """
    w = checked_head(head)
    q = checked_values(action_values, len(w))
    energy = float(feature_energy)
    if not (np.isfinite(energy) and energy > 0):
        raise ValueError(
            f"feature_energy must be > 0 and finite, got {energy}: the ball ‖h‖² ≤ E_H must have "
            "an interior"
        )
    if starts < 0:
        raise ValueError(f"starts must be >= 0, got {starts}")
    # In the span of the centred head with features in units of √E_H: logits = coordinates @ u,
    # ‖u‖ ≤ 1, and ρ sits in the coordinates.
    centred = w - w.mean(axis=0)
    _, singular, basis = np.linalg.svd(centred, full_matrices=False)
    basis = basis[singular > singular[0] * max(centred.shape) * _EPS]
    coordinates = np.sqrt(energy) * centred @ basis.T
    shortfall = q.max() - q
    label = int(q.argmax())
    with np.errstate(divide="ignore"):
        log_gap = np.log(shortfall)
    ratio = LogRatio(coordinates, log_gap[None], np.zeros((1, len(q))))

    best_actions = np.flatnonzero(shortfall == 0)
    points = _structured_starts(ratio, best_actions, q, max_iterations)
    random = rng.standard_normal((starts, coordinates.shape[1]))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    # Inside the ball where ρ is large: further out π saturates and ψ is a plateau.
    points = np.vstack([points, min(1.0, 8.0 / ratio.reach) * random])
    found, iterations = minimise(ratio, points, max_iterations)
    report = conditions(ratio, found)
    tolerance = _STATIONARY + 4 * _EPS * ratio.reach
    flat = 1e-10 * (1 + ratio.reach) ** 2
    for _ in range(4):
        best = int(report.value.argmin())
        if report.curvature[best] >= -flat:
            break
        # A saddle: leave it both ways along its negative curvature.
        push = 0.1 * report.direction[best]
        more, steps = minimise(ratio, found[best] + np.stack([push, -push]), max_iterations)
        iterations += steps
        found = np.vstack([found, more])
        report = conditions(ratio, found)

    # Rounding decides among equally good points: prefer the most stationary of them.
    near = report.value <= report.value.min() + 8 * _EPS * (1 + ratio.reach)
    best = int(np.where(near, report.residual, np.inf).argmin())
    stationary = report.residual <= tolerance
    maxima = np.sort(report.value[stationary & (report.curvature >= -flat)])
    distinct = int((np.diff(maxima, prepend=-np.inf) > 1e-9 * (1 + ratio.reach)).sum())

    u, log_shortfall = found[best], float(report.value[best])
    bound = min(_log_shortfall_bound(coordinates, shortfall, log_shortfall), log_shortfall)
    if not (stationary[best] and report.curvature[best] >= -flat):
        optimality = Optimality.UNFINISHED
    elif log_shortfall - bound <= _GLOBAL:
        optimality = Optimality.GLOBAL
    else:
        optimality = Optimality.LOCAL

    own = coordinates[label]
    length = float(np.linalg.norm(own))
    aligned = own / length if length > 0 else np.zeros_like(own)
    excess = float(ratio.value(aligned[None])[0][0]) - log_shortfall
    return ExpectedReturnOptimum(
        features=np.sqrt(energy) * u @ basis,
        value=float(q.max() - np.exp(log_shortfall)),
        log_shortfall=log_shortfall,
        upper_bound=float(q.max() - np.exp(bound)),
        log_shortfall_bound=bound,
        label=label,
        angle=angle(u, own),
        aligned_value=float(q.max() - np.exp(log_shortfall + excess)),
        aligned_log_excess=excess,
        aligned_regret=_exp_difference(log_shortfall + excess, log_shortfall),
        stationarity=float(report.residual[best]),
        curvature=float(report.curvature[best]),
        optimality=optimality,
        stats={
            "starts": len(points),
            "iterations": iterations,
            "local_maxima": distinct,
            "ties": len(best_actions),
        },
    )


def _structured_starts(
    ratio: LogRatio, best_actions: NDArray[np.intp], q: Float, max_iterations: int
) -> Float:
    """(B, r): aligned, steepest ascent at 0, end of the radius homotopy, large-ρ limit."""
    coordinates = ratio.coordinates
    aligned = coordinates[best_actions]
    steepest = (q - q.mean()) @ coordinates
    norm = float(np.linalg.norm(steepest))
    # All of Q in the kernel of Wᵀ: V is stationary at 0, and any direction will do.
    steepest = steepest / norm if norm > 0 else np.eye(len(steepest))[0]
    # ρ → ∞: the other actions' share of the denominator vanishes; what is left is convex.
    limit = LogRatio(coordinates, ratio.numerator, _one_hot(best_actions, len(q)))
    outer, _ = minimise(limit, np.zeros(aligned.shape), max_iterations)

    path, scale = steepest[None], min(1.0, 1.0 / max(ratio.reach, 1e-300))
    while scale < 1.0:
        path, _ = minimise(ratio.scaled(scale), path, max_iterations)
        scale = min(1.0, 2 * scale)
    lengths = np.linalg.norm(aligned, axis=1, keepdims=True)
    aligned = aligned / np.where(lengths > 0, lengths, 1.0)
    return np.vstack([aligned, steepest[None], path, outer])


def _one_hot(actions: NDArray[np.intp], num_classes: int) -> Float:
    """(B, K) log of the indicator of one action each."""
    offsets = np.full((len(actions), num_classes), -np.inf)
    offsets[np.arange(len(actions)), actions] = 0.0
    return offsets


def _log_shortfall_bound(coordinates: Float, shortfall: Float, log_best: float) -> float:
    """log of a lower bound on R over the unit ball, from the module's docstring.

    ``log_best`` is log R at a candidate: no bound can exceed it, so it is where c starts.
    """
    reach = 2 * float(np.linalg.norm(coordinates, axis=1).max())
    # The logits carry an error of eps·reach, and so does every logarithm below.
    rounding = 8 * _EPS * (1 + reach)
    low, high, trial = -np.inf, log_best, log_best
    for _ in range(40):
        bound = _bound_from_duals_at(coordinates, shortfall, trial)
        low = max(low, bound)
        if bound < trial - rounding:
            high = min(high, trial)
        # The first trial is exact where the bound is tight; elsewhere six digits will do.
        if not low < high - max(rounding, 1e-6):
            break
        trial = (low + high) / 2
    return low - rounding


def _bound_from_duals_at(coordinates: Float, shortfall: Float, log_c: float) -> float:
    """The largest log c' ≤ log c that the optimal p of the problems at c certify.

    For c' ≤ c no action leaves P, so p stays a probability vector on it, and every action of M
    at c' has a p; the condition Σ_M (c' − Δ_a) e^{−L_a(c')} ≤ 1 is sound for any p and its left
    side increases with c'.
    """
    c = float(np.exp(log_c))
    plus = np.flatnonzero(shortfall > c)
    minus = np.flatnonzero(shortfall <= c)
    if len(plus) == 0:
        # exp(log R) rounds to max Δ or above only when all of R's weight is there.
        return _bound_from_duals_at(coordinates, shortfall, log_c - 1e-9)
    numerator = np.full((1, len(shortfall)), -np.inf)
    numerator[0, plus] = np.log(shortfall[plus] - c)
    convex = LogRatio(coordinates, numerator, _one_hot(minus, len(shortfall)))
    u, _ = minimise(convex, np.zeros((len(minus), coordinates.shape[1])), 100)
    _, p, _ = convex.value(u)
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1)
    distance = np.linalg.norm(p @ coordinates - coordinates[minus], axis=1)

    def log_condition(log_c: float) -> float:
        c = float(np.exp(log_c))
        used = (shortfall[minus] < c) | (shortfall[minus] == 0)
        offsets = np.log(shortfall[plus] - c)
        lower = entropy[used] + p[used][:, plus] @ offsets - distance[used]
        # log(c − Δ_a); c itself may underflow, but then every Δ_a in use is 0.
        gaps = shortfall[minus][used]
        weight = np.where(gaps > 0, np.log(np.where(gaps > 0, c - gaps, 1.0)), log_c)
        return float(log_sum_exp((weight - lower)[None])[0][0])

    if log_condition(log_c) <= 0:
        return log_c
    low, high, step = log_c, log_c, 1.0
    while log_condition(low) > 0:  # ends: the left side goes to 0 with c'
        high, low, step = low, low - step, 2 * step
    for _ in range(100):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if log_condition(middle) <= 0 else (low, middle)
    return low


def _exp_difference(x: float, y: float) -> float:
    """exp(x) − exp(y), without cancellation where x ≈ y."""
    if abs(x - y) < 1:
        return float(np.exp(y) * np.expm1(x - y))
    return float(np.exp(x) - np.exp(y))
