r"""Where the minority classes of a two-level layer-peeled model coincide (R1) and vanish (R2).

K_A majority classes of R n samples and K_B minority classes of n samples, K = K_A + K_B,
constraint ``||Z||_* <= tau = K sqrt(E_H E_W)``, ``w_A = R / (K_A R + K_B)`` and
``w_B = 1 / (K_A R + K_B)``. In the coordinates of :mod:`lpm.free_head_levels` the optimum is
alpha_A, alpha_B and a core with rows orthogonal to ``(sqrt(K_A), sqrt(K_B))``, hence
``core = c v^T``, ``v = (sqrt(K_B), -sqrt(K_A)) / sqrt(K)``: four scalars. Its gradient is
``g v^T`` with ``g = (-w_A sqrt(K K_B) q_AB, w_B sqrt(K K_A) q_BA)`` and, for the two alphas,
``-w_A (K_A q_AA + K_B q_AB)`` and, at ``alpha_B = 0`` where all q_BB equal p_BB, ``-w_B``. With the
multiplier mu, optimality reads: ``-g = mu c / ||c||`` (or ``||g|| <= mu`` at c = 0), and an alpha's
gradient is -mu (or at least -mu where alpha = 0).

**R1.** The minority has coincided (alpha_B = 0) iff ``w_B <= mu`` (Fang et al., 2021, show that it
does for R large; Hong & Ling, 2023, give the threshold in the penalised model). At R1,
``mu = w_B``. Write x = -c_2 and divide by mu:

    x / ||c|| = sqrt(K K_A) q_BA,   1 / q_BA = K_A + K_B exp(x sqrt(K / K_A) / K_B)
    =>  ||c|| = x (K_A + K_B exp(...)) / sqrt(K K_A)        increasing in x,
    cos := c_1 / ||c|| = R sqrt(K K_B) q_AB,                increasing in x,
    1 = R (K_A q_AA + K_B q_AB),   (K_A - 1) alpha_A + ||c|| = tau.

Eliminating R leaves one equation,

    cos (K_A exp((c_1 sqrt(K / K_B) - alpha_A) / K_A) + K_B) = sqrt(K K_B),

whose left side increases in x: from ``sqrt(K_B / K) (K_A e^{-...} + K_B) < sqrt(K K_B)`` at x = 0
to more than ``sqrt(K_B / K) K`` where alpha_A = 0. So R1 exists, is finite and unique. For
``K_A = 1`` there is no alpha_A, and x solves ``||c|| = tau``.

**R2.** Minority features and head rows are zero iff c = 0 too. Then ``alpha_A = tau / (K_A - 1)``,
``q_BA = 1 / K``, ``q_AB = 1 / D``, ``D = e^{alpha - alpha/K_A} + (K_A - 1) e^{-alpha/K_A} + K_B``,
``mu = w_A C / D`` with ``C = K_A e^{-alpha/K_A} + K_B``, and ``||g|| <= mu`` reads

    R^2 (C^2 - K K_B) / D^2 >= K_A / K.

So ``R2 = D sqrt(K_A / (K (C^2 - K K_B)))`` if ``C^2 > K K_B``; else the minority never vanishes.
(``w_B <= mu`` follows, as ``C <= K``: R2 >= R1.)
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from lpm.free_head import check_positive


def minority_collapse_ratio(
    K_A: int,
    K_B: int,
    feature_energy: float,
    head_energy: float,
) -> float:
    """R1: the imbalance from which all minority classes share one head row and one feature.

    Parameters
    ----------
    K_A, K_B : int
        Number of majority (at least 1) and minority (at least 2) classes.
    feature_energy, head_energy : float
        E_H and E_W, positive.

    Returns
    -------
    float
        Ratio of majority to minority counts; above 1, finite.

    Raises
    ------
    ValueError
        If a number of classes or an energy is out of range, or R1 exceeds the largest float.
    """
    K_A, K_B = _check_class_numbers(K_A, K_B, fewest_minorities=2)
    total = K_A + K_B
    tau = total * _mean_norm(feature_energy, head_energy)
    root_a, root_b = np.sqrt(total * K_A), np.sqrt(total * K_B)
    rate = np.sqrt(total / K_A) / K_B

    def norm(x: float) -> float:
        return float(x * (K_A + K_B * np.exp(rate * x)) / root_a)

    def parts(x: float) -> tuple[float, float, float]:
        """cos, alpha_A, and the exponent (c_1 sqrt(K / K_B) - alpha_A) / K_A."""
        sine = root_a / (K_A + K_B * np.exp(rate * x))
        cosine = np.sqrt(1.0 - sine * sine)
        alpha = (tau - norm(x)) / (K_A - 1) if K_A > 1 else 0.0
        return cosine, alpha, (norm(x) * cosine * np.sqrt(total / K_B) - alpha) / K_A

    def excess(x: float) -> float:
        cosine, _, exponent = parts(x)
        # Logarithms of both sides, so that large norms cannot overflow.
        left = np.log(cosine) + np.logaddexp(np.log(K_A) + exponent, np.log(K_B))
        return float(left - np.log(root_b))

    # ||c|| >= x sqrt(K / K_A) brackets the x where ||c|| = tau, and so alpha_A = 0.
    ceiling = min(tau / np.sqrt(total / K_A), np.log1p(tau * root_a) / rate + 1.0 / rate)
    accuracy = {"xtol": 1e-300, "rtol": 4.0 * np.finfo(np.float64).eps, "maxiter": 1000}
    top = brentq(lambda x: norm(x) - tau, 0.0, ceiling, **accuracy)
    x = top if K_A == 1 else brentq(excess, 0.0, top, **accuracy)
    cosine, alpha, exponent = parts(x)
    # R = cos / (sqrt(K K_B) q_AB), 1 / q_AB = e^{alpha + E} + (K_A - 1) e^E + K_B.
    terms = [alpha + exponent, np.log(K_B)] + ([np.log(K_A - 1) + exponent] if K_A > 1 else [])
    log_ratio = float(np.log(cosine) - np.log(root_b) + np.logaddexp.reduce(terms))
    return _exponential("R1", log_ratio)


def minority_vanishing_ratio(
    K_A: int,
    K_B: int,
    feature_energy: float,
    head_energy: float,
) -> float:
    """R2: the imbalance from which minority head rows and features are exactly zero.

    Parameters
    ----------
    K_A, K_B : int
        Number of majority and minority classes, at least 1 each.
    feature_energy, head_energy : float
        E_H and E_W, positive.

    Returns
    -------
    float
        Ratio of majority to minority counts, or inf if they never vanish; always inf for one
        majority class.

    Raises
    ------
    ValueError
        If a number of classes or an energy is out of range, or R2 exceeds the largest float.
    """
    K_A, K_B = _check_class_numbers(K_A, K_B, fewest_minorities=1)
    total = K_A + K_B
    tau = total * _mean_norm(feature_energy, head_energy)
    if K_A == 1:
        return float("inf")  # something must carry the norm
    alpha = tau / (K_A - 1)
    spread = K_A * np.exp(-alpha / K_A) + K_B
    surplus = spread * spread - total * K_B
    if surplus <= 0.0:
        return float("inf")
    terms = [alpha - alpha / K_A, np.log(K_A - 1) - alpha / K_A, np.log(K_B)]
    log_ratio = np.logaddexp.reduce(terms) + 0.5 * (np.log(K_A / total) - np.log(surplus))
    return _exponential("R2", float(log_ratio))


def vanishing_energy(K_A: int, K_B: int, head_energy: float) -> float:
    """E_H from which on minority heads never vanish: R2 is finite below it, infinite above.

    R2 is finite iff K_A e^{-alpha / K_A} + K_B > sqrt(K K_B), alpha = tau / (K_A - 1): solved for
    E_H = (tau / K)^2 / E_W.

    Parameters
    ----------
    K_A, K_B : int
        Number of majority and minority classes, at least 1 each.
    head_energy : float
        E_W, positive.

    Returns
    -------
    float
        0 for one majority class, which never lets the others vanish.

    Raises
    ------
    ValueError
        If a number of classes or the energy is out of range.
    """
    K_A, K_B = _check_class_numbers(K_A, K_B, fewest_minorities=1)
    total = K_A + K_B
    alpha = -K_A * np.log((np.sqrt(total * K_B) - K_B) / K_A)
    tau = (K_A - 1) * alpha
    return float((tau / total) ** 2 / check_positive("head_energy", head_energy))


def _check_class_numbers(majority: int, minority: int, fewest_minorities: int) -> tuple[int, int]:
    for name, number, fewest in (("K_A", majority, 1), ("K_B", minority, fewest_minorities)):
        if isinstance(number, bool) or number != int(number) or number < fewest:
            raise ValueError(f"{name} must be a whole number >= {fewest}, got {number!r}")
    return int(majority), int(minority)


def _mean_norm(feature_energy: float, head_energy: float) -> float:
    """Return ``sqrt(E_H E_W)``."""
    return float(
        np.sqrt(check_positive("feature_energy", feature_energy))
        * np.sqrt(check_positive("head_energy", head_energy))
    )


def _exponential(name: str, logarithm: float) -> float:
    if logarithm > np.log(np.finfo(np.float64).max):
        raise ValueError(f"{name} = exp({logarithm:g}) is beyond floating point; lower energies")
    return float(np.exp(logarithm))
