"""A fixed simplex-ETF head under an *average* norm bound: how long each state's feature is.

    min  sum_s omega_s CE(W h_s, k_s)   subject to  (1/S) sum_s ||h_s||^2 <= E_H,

with W a simplex ETF of row energy E_W, S states, omega_s > 0. Given the length r of h_s, Theorem 1
(whose proof needs a bound on that state alone) makes ``h_s = r w_k / ||w_k||`` optimal, with loss
``phi(r) = log(1 + (K - 1) e^{-c r})``, ``c = sqrt(E_W) K / (K - 1)``. Directions survive the
average bound, equal lengths do not: what remains is the convex problem

    min  sum_s omega_s phi(r_s)   subject to  sum_s r_s^2 <= S E_H.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from lpm.free_head import check_positive
from lpm.free_head_levels import EPS, Array


@dataclass(frozen=True)
class AverageNormSolution:
    """Optimal feature lengths for a fixed ETF head under an average norm bound.

    Parameters
    ----------
    lengths : (S,) float array
        ``||h_s||``; the direction is that of the head row of the state's action.
    objective : float
        ``sum_s omega_s CE``.
    multiplier : float
        ``-d objective / d (S E_H)``.
    gap : float
        Lagrangian bound on objective minus optimum; positive, rounding included.
    """

    lengths: Array
    objective: float
    multiplier: float
    gap: float


def average_norm_lengths(
    weights: ArrayLike, num_classes: int, feature_energy: float, head_energy: float
) -> AverageNormSolution:
    """Solve the average-norm problem of the module docstring.

    Parameters
    ----------
    weights : (S,) float array
        omega_s, positive; only ratios affect the lengths.
    num_classes : int
        K >= 2.
    feature_energy, head_energy : float
        E_H and E_W, positive.

    Raises
    ------
    ValueError
        If a parameter is out of range; the message names the number.
    """
    omega = np.array(weights, dtype=np.float64)
    if omega.ndim != 1 or omega.size == 0:
        raise ValueError(f"weights must be a nonempty vector, got shape {omega.shape}")
    bad = ~(np.isfinite(omega) & (omega > 0))
    if bad.any():
        s = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"weights must be positive and finite, but weights[{s}] = {omega[s]:g}; leave out "
            f"states of weight 0 (any feature is optimal there)"
        )
    if isinstance(num_classes, bool) or num_classes != int(num_classes) or num_classes < 2:
        raise ValueError(f"num_classes must be a whole number >= 2, got {num_classes!r}")
    k = float(num_classes)
    budget = omega.size * check_positive("feature_energy", feature_energy)
    rate = float(np.sqrt(check_positive("head_energy", head_energy))) * k / (k - 1.0)

    def log_pull(r: Array) -> Array:
        """Logarithm of -omega phi'(r) = omega c (K - 1) / (e^{c r} + K - 1): decreasing."""
        pull: Array = np.log(omega * rate * (k - 1.0)) - np.logaddexp(rate * r, np.log(k - 1.0))
        return pull

    def lengths(log_mu: float) -> Array:
        """Solve -omega phi'(r) = mu r for every state, by bisection on the decreasing log ratio."""
        low, high = np.zeros_like(omega), np.full_like(omega, np.sqrt(budget) * (1.0 + 4.0 * EPS))
        for _ in range(1100):  # halves at most down to the smallest float
            middle = 0.5 * (low + high)
            if not np.any((middle > low) & (middle < high)):
                break
            with np.errstate(divide="ignore"):
                up = log_pull(middle) - np.log(middle) > log_mu
            low, high = np.where(up, middle, low), np.where(up, high, middle)
        return 0.5 * (low + high)

    # Longer than sqrt(budget / S) everywhere at mu_low, shorter at mu_high.
    even = np.full_like(omega, np.sqrt(budget / omega.size))
    candidates = log_pull(even) - np.log(even)
    low, high = float(candidates.min()), float(candidates.max())

    def excess(log_mu: float) -> float:
        r = lengths(log_mu)
        return float(r @ r) - budget

    log_mu = (
        low
        if high - low <= 4.0 * EPS * abs(low)
        else brentq(
            excess, low - 1e-12 * (1.0 + abs(low)), high + 1e-12 * (1.0 + abs(high)), xtol=1e-15
        )
    )
    r = lengths(log_mu)
    mu = float(np.exp(log_mu))

    def value(at: Array) -> float:
        return float(omega @ np.logaddexp(0.0, np.log(k - 1.0) - rate * at))

    # The r of any mu minimises the Lagrangian, whose minimum bounds the optimum from below.
    dual = value(r) + 0.5 * mu * (float(r @ r) - budget)
    r = r * np.sqrt(budget / float(r @ r))
    objective = value(r)
    rounding = EPS * (omega.size + 8.0 + rate * float(r.max())) * (objective + mu * budget)
    return AverageNormSolution(r, objective, 0.5 * mu, max(objective - dual, 0.0) + rounding)
