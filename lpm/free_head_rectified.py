"""The layer-peeled model with a learned head and rectified features, solved in closed form.

    min_{H >= 0, W}  sum_k p_k CE(W h_k, k)
    subject to       (1/K) sum_k ||h_k||^2 <= E_H,  (1/K) sum_k ||w_k||^2 <= E_W

with class shares p and d >= K. *For any shares* there is an optimum whose features are orthogonal,
h_k = a_k e_k: only lengths react to imbalance, and a class whose length is 0 has vanished.

Proof. Column i of H, over the classes, is some u_i >= 0, column i of W some v_i, and the logits are
Z = sum_i u_i v_i^T. By AM-GM the norm bounds allow exactly the Z with gauge
min sum_i ||u_i|| ||v_i|| <= tau = K sqrt(E_H E_W). With u_i = e_i the gauge is at most
sum_k ||Z_k|| over rows, and for a row of length t_k the best one is t_k (e_k - 1/K) normalised,
with loss ``phi(t) = log(1 + (K - 1) e^{-c t})``, ``c = sqrt(K / (K - 1))``. What remains is

    min sum_k p_k phi(t_k)   subject to  sum_k t_k <= tau,  t >= 0.

At its solution row k of the gradient G of the loss is p_k phi'(t_k) times that unit vector. Unit
vectors of different rows have negative inner products, so for u >= 0, ||u|| = 1,
``||G^T u||^2 <= sum_k u_k^2 ||G_k||^2 <= mu^2`` with mu the multiplier: no atom u v^T of the gauge
descends faster than those in use, and the loss is convex in Z. So the point is globally optimal.

Balanced shares give the orthogonal frame of rectified features and a simplex-ETF head, with
``cos(h_k, w_k) = sqrt((K - 1) / K)``. Orthogonality under imbalance is also found by H. Dang,
T. Tran, T. Nguyen, N. Ho, "Neural collapse for cross-entropy class-imbalanced learning with
unconstrained ReLU features model", ICML 2024, there with weight decay for norm bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from lpm.free_head import check_positive
from lpm.free_head_levels import Array


@dataclass(frozen=True, eq=False)
class RectifiedSolution:
    """An optimum of the learned-head model with rectified features.

    Parameters
    ----------
    features : (K, K) float array
        H, one row a class: diagonal, not negative.
    head : (K, K) float array
        W, one row a class.
    lengths : (K,) float array
        t_k, the norm of row k of the logits; 0 for a class that has vanished.
    objective : float
        Cross-entropy, weighted by class shares.
    gap : float
        Bound on objective minus optimum; not negative.
    multiplier : float
        ``-d objective / d tau``.
    """

    features: Array
    head: Array
    lengths: Array
    objective: float
    gap: float
    multiplier: float


def solve_free_head_rectified(
    shares: ArrayLike, feature_energy: float, head_energy: float
) -> RectifiedSolution:
    """Solve the model of the module docstring.

    Parameters
    ----------
    shares : (K,) array
        Positive weights of the classes, K >= 2; only ratios matter.
    feature_energy, head_energy : float
        E_H and E_W, positive.

    Raises
    ------
    ValueError
        If a parameter is out of range; the message names the number.
    """
    p = np.array(shares, dtype=np.float64)
    if p.ndim != 1 or len(p) < 2 or not (np.isfinite(p) & (p > 0)).all():
        raise ValueError(
            f"shares must be at least two positive numbers, got {p.tolist()}; leave out classes "
            f"without samples"
        )
    p /= p.sum()
    k = len(p)
    ratio = np.sqrt(check_positive("feature_energy", feature_energy)) / np.sqrt(
        check_positive("head_energy", head_energy)
    )
    budget = k * float(np.sqrt(feature_energy) * np.sqrt(head_energy))
    rate = float(np.sqrt(k / (k - 1.0)))

    def lengths(log_mu: float) -> Array:
        """Solve p c (K - 1) / (e^{ct} + K - 1) = mu, or 0 where the pull is weaker at t = 0."""
        # e^{ct} = (K - 1) (p c / mu - 1); log(e^x - 1) = x + log(1 - e^{-x}).
        x = np.maximum(np.log(p * rate) - log_mu, np.log(k / (k - 1.0)))
        grown: Array = np.log(k - 1.0) + x + np.log1p(-np.exp(-x))
        return np.maximum(grown, 0.0) / rate

    top = float(np.log(p.max() * rate * (k - 1.0) / k))  # above it every length is 0
    low = top - 1.0
    while float(lengths(low).sum()) < budget:
        low = top - 2.0 * (top - low)
    log_mu = brentq(lambda at: float(lengths(at).sum()) - budget, low, top, xtol=1e-14)
    t = lengths(log_mu)
    mu = float(np.exp(log_mu))
    slack = budget - float(t.sum())
    t *= budget / float(t.sum())
    objective = float(p @ np.logaddexp(0.0, np.log(k - 1.0) - rate * t))
    directions = np.sqrt(k / (k - 1.0)) * (np.eye(k) - 1.0 / k)
    return RectifiedSolution(
        features=np.diag(np.sqrt(t * ratio)),
        head=directions * np.sqrt(t / ratio),
        lengths=t,
        objective=objective,
        gap=mu * abs(slack) + 8.0 * k * float(np.finfo(np.float64).eps) * objective,
        multiplier=mu,
    )
