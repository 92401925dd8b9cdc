r"""A negative weight under a simplex ETF, solved exactly.

The state maximises F(h) over the ball (`lpm.signed`). Write h = R(−cos α·ŵ_k + sin α·t), t ⊥ w_k a
unit vector in the span, m = K − 1, κ = √(K(K−2))/(K−1) and c_j = ⟨t, ê_j⟩, where the ê_j are the
directions of the other w_j orthogonal to w_k, themselves a simplex ETF of m vectors. Then

    F = ρ cos α·K/(K−1) + log Σ_{j≠k} exp(β c_j),   β = ρκ sin α,   Σc_j = 0, Σc_j² = m/(m−1).

For given α only Σ exp(βc_j) is left. Its stationarity under the two constraints, e^{βc_j} affine
in c_j, leaves two values of c at most; as the third derivative of exp is positive, the
largest sum has one large c and m − 1 equal small ones (Cîrtoaje's equal-variable theorem, J.
Inequal. Pure Appl. Math. 8(1):15, 2007): t = ê_j, c = (1, −1/(m−1), …). So the feature leans
from −w_k towards *one* competitor or none, and one scalar decides:

    tan α = κ(K−1)/K · L'(β),  ρ = β/(κ sin α),  L(β) = log(e^β + (m−1)e^{−β/(m−1)}).

As β → 0, ρ → K − 1. For K = 3 ρ(β) increases from there: the symmetry breaks continuously.
For K ≥ 4 it first falls to a fold and −w_k is overtaken by a distant state, a first-order
transition at the ρ_c of `critical_rho_negative_weight`, before it becomes unstable at K − 1.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar

_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class NegativeWeightTransition:
    """Where −w_k stops being the feature of a negative weight, for a simplex-ETF head.

    For K = 3 all three ρ are 2, the angle is 0 and the transition is continuous.
    """

    num_classes: int
    fold: float
    """ρ from which the leaning state exists as a local maximum (the upper branch's spinodal)."""
    critical: float
    """ρ_c: −w_k is the global maximum of F below, the leaning state above."""
    spinodal: float
    """ρ = K − 1: −w_k is a local maximum of F on the sphere below, not above."""
    angle: float
    """Radians by which the feature turns away from −w_k at ρ_c."""


def negative_weight_transition(num_classes: int) -> NegativeWeightTransition:
    """The transition of the negative-weight problem for a simplex ETF of K ≥ 3 vectors.

    Source: the symmetry reduction in this module's docstring. Both sides of ρ_c are values of the
    same function of one scalar β, so ρ_c is the root of their difference along the branch.

    Raises
    ------
    ValueError
        K < 3: for K = 2 the maximiser is −√(E_H/E_W)·w_k at every ρ, there is no transition.
    """
    if num_classes < 3:
        raise ValueError(
            f"num_classes must be >= 3, got {num_classes}: with two actions F is linear and "
            "-w_k is optimal at every rho"
        )
    spinodal = float(num_classes - 1)
    if num_classes == 3:
        # log(2 cosh) is even, so the cubic term that makes the transition jump vanishes, and
        # the quartic one is negative: ρ(β) increases from 2.
        return NegativeWeightTransition(3, spinodal, spinodal, spinodal, 0.0)
    fold_beta = _fold_beta(num_classes)
    high = fold_beta
    while _advantage(num_classes, high) <= 0:
        high *= 2.0
    beta = brentq(lambda b: _advantage(num_classes, b), fold_beta, high, xtol=1e-14, rtol=4 * _EPS)
    return NegativeWeightTransition(
        num_classes=num_classes,
        fold=_branch(num_classes, fold_beta)[0],
        critical=_branch(num_classes, beta)[0],
        spinodal=spinodal,
        angle=_branch(num_classes, beta)[1],
    )


def critical_rho_negative_weight(num_classes: int) -> float:
    """ρ_c up to which h = −√(E_H/E_W)·w_k is optimal for a negative weight, ETF head of K ≥ 3.

    K = 3: 2 exactly; K = 4: 2.834222697605…. `negative_weight_transition` has the two spinodals
    beside it.

    Raises
    ------
    ValueError
        K < 3.
    """
    return negative_weight_transition(num_classes).critical


def _branch(num_classes: int, beta: float) -> tuple[float, float]:
    """ρ and α of the state leaning towards one competitor, at β > 0."""
    k = num_classes
    kappa = math.sqrt(k * (k - 2)) / (k - 1)
    x = -math.expm1(-beta * (k - 1) / (k - 2))  # 1 − e^{−β m/(m−1)}
    slope = x / (1 + (k - 2) * (1 - x))  # L'(β)
    alpha = math.atan(kappa * (k - 1) / k * slope)
    return beta / (kappa * math.sin(alpha)), alpha


def _advantage(num_classes: int, beta: float) -> float:
    """F of the leaning state at β minus F at −w_k, at the leaning state's ρ."""
    k = num_classes
    rho, alpha = _branch(k, beta)
    # L(β) − log m, and 1 − cos α = 2 sin²(α/2).
    gain = beta + math.log1p((k - 2) * math.expm1(-beta * (k - 1) / (k - 2)) / (k - 1))
    return gain - rho * k / (k - 1) * 2 * math.sin(alpha / 2) ** 2


def _fold_beta(num_classes: int) -> float:
    """argmin of ρ(β); ρ is flat there, so its own error is the square of this one's."""
    if num_classes == 3:
        return 0.0
    # L' saturates once e^{−β m/(m−1)}·m is small: the fold lies below β = 2 log m + 4.
    upper = 2 * math.log(num_classes) + 4
    found = minimize_scalar(
        lambda b: _branch(num_classes, b)[0],
        bounds=(1e-3, upper),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(found.x)


def etf_largest_log_odds(num_classes: int, rho: float) -> float:
    """max F over the ball for a simplex ETF, exactly: the optimum for a negative weight.

    Parameters
    ----------
    num_classes
        K ≥ 2.
    rho
        ρ = √(E_H·E_W) > 0.

    Returns
    -------
    The larger of log(K−1) + ρK/(K−1), reached at −√(E_H/E_W)·w_k, and the value of the state
    leaning towards one competitor where it exists (module docstring).
    """
    k = num_classes
    if k < 2 or not rho > 0:
        raise ValueError(f"needs num_classes >= 2 and rho > 0, got {num_classes} and {rho}")
    symmetric = math.log(k - 1) + rho * k / (k - 1)
    if k == 2:
        return symmetric
    low = _fold_beta(k)
    if rho <= (_branch(k, low)[0] if low > 0 else 2.0):
        return symmetric
    # ρ(β) increases beyond the fold, and ρ ≥ β/κ bounds β.
    beta = brentq(
        lambda b: _branch(k, b)[0] - rho, max(low, 1e-9), max(2 * low, rho), rtol=4 * _EPS
    )
    # At the ρ asked for: the root's error enters squared, F being stationary in α.
    alpha = _branch(k, beta)[1]
    kappa = math.sqrt(k * (k - 2)) / (k - 1)
    b = rho * kappa * math.sin(alpha)
    leaning = (
        rho * math.cos(alpha) * k / (k - 1)
        + b
        + math.log1p((k - 2) * math.exp(-b * (k - 1) / (k - 2)))
    )
    return max(symmetric, leaning)
