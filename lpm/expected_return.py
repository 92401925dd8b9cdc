"""The policy gradient's own objective, Eq. (1), for one state with a fixed head and given Q.

Eq. (1) asks for max V(h) = Σ_a π(a|h) Q_a over ‖h‖² ≤ E_H, Eq. (2) for max Q_k·log π(k|h) with k
the best action. They are different functions with different maximisers: here are both, and what is
known of the first in closed form. `lpm.expected_return_optimum` finds its maximum.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpm.problem import checked_head

Float = NDArray[np.float64]


def policy(head: ArrayLike, features: ArrayLike) -> Float:
    """(K,) π(a|h) = softmax(W h) for a (K, d) head and (d,) features."""
    w, h = checked_head(head), np.asarray(features, dtype=np.float64)
    if h.shape != w.shape[1:]:
        raise ValueError(f"features must have shape (d,) = {w.shape[1:]}, got {h.shape}")
    z = w @ h
    e = np.exp(z - z.max())
    return np.asarray(e / e.sum())


def expected_return(head: ArrayLike, action_values: ArrayLike, features: ArrayLike) -> float:
    """One state's term of Eq. (1): V = Σ_a π(a|h) Q_a.

    Parameters
    ----------
    head, action_values, features
        (K, d), (K,) and (d,).
    """
    pi = policy(head, features)
    return float(pi @ checked_values(action_values, len(pi)))


def peeled_return(head: ArrayLike, action_values: ArrayLike, features: ArrayLike) -> float:
    """One state's term of Eq. (2): Q_k · log π(k|h), k the best action.

    Parameters
    ----------
    head, action_values, features
        (K, d), (K,) and (d,).
    """
    w = checked_head(head)
    q = checked_values(action_values, len(w))
    policy(w, features)  # checks the shape
    z = w @ np.asarray(features, dtype=np.float64)
    k = int(q.argmax())
    return float(q[k] * (z[k] - z.max() - np.log(np.exp(z - z.max()).sum())))


def split_coefficients(policy: ArrayLike, action_values: ArrayLike) -> Float:
    """(K,) coefficients of the gradient split of Sec. 4.2: ∇_h V = Σ_a π_a (Q_a − V) w_a.

    The paper calls the term of the best action attraction and the others repulsion, which
    needs V between the best value and all others; an action with Q_a > V attracts. For
    Q = (1, .9, 0) and the uniform policy the signs are (+, +, −). They sum to zero.

    Parameters
    ----------
    policy, action_values
        (K,) probabilities and values.

    Raises
    ------
    ValueError
        The policy is not a probability vector.
    """
    pi = np.asarray(policy, dtype=np.float64)
    if pi.ndim != 1 or not ((pi >= 0).all() and abs(pi.sum() - 1) <= 1e-9):
        raise ValueError(
            f"policy must be (K,) probabilities, got shape {pi.shape} with sum {pi.sum():.12g}: "
            "pass softmax(W h), not logits"
        )
    q = checked_values(action_values, len(pi))
    # π_a Σ_b π_b (Q_a − Q_b): a common offset of Q cancels before anything is multiplied.
    return np.asarray(pi * ((q[:, None] - q) @ pi))


def gradient_angle(
    head: ArrayLike, action_values: ArrayLike, features: ArrayLike | None = None
) -> float:
    """Angle in radians between the gradients in h of Eq. (1) and, where Q_k > 0, of Eq. (2).

    With an ETF at h = 0 it is arccos of `small_rho_cosine`; 54.8° for Q = (1, .9, 0).

    Parameters
    ----------
    head, action_values
        (K, d) and (K,).
    features
        (d,) where to compare; h = 0 by default.

    Returns
    -------
    In [0, π]; NaN where one of the gradients is zero.
    """
    w = checked_head(head)
    q = checked_values(action_values, len(w))
    pi = policy(w, np.zeros(w.shape[1]) if features is None else features)
    centred = w - pi @ w
    return angle(split_coefficients(pi, q) @ centred, centred[int(q.argmax())])


def small_rho_cosine(action_values: ArrayLike) -> float:
    """lim_{ρ→0} cos∠(h, w_k) = √(K/(K−1))·Q̃_k/‖Q̃‖ for an ETF, Q̃ = Q − mean, k the best.

    At h = 0, ∇V = (1/K) Σ_a Q̃_a w_a; an ETF has ‖Σ Q̃_a w_a‖² = E_W·K/(K−1)·‖Q̃‖² and
    ⟨Σ Q̃_a w_a, w_k⟩ = E_W·K/(K−1)·Q̃_k as ΣQ̃ = 0 (Eq. 10).

    Parameters
    ----------
    action_values
        (K,) Q, not all equal; with a tie of the best the limit holds for each of them.
    """
    q = checked_values(action_values, None)
    k = len(q)
    # max Q̃ from differences, so that a large common offset of Q costs no digits.
    shortfall = q.max() - q
    deviation = shortfall - shortfall.mean()
    return float(np.sqrt(k / (k - 1)) * shortfall.mean() / np.linalg.norm(deviation))


def large_rho_angle(action_values: ArrayLike, rho: ArrayLike) -> Float:
    """∠(h, w_k) ≈ √((K−1)/K)·‖centred log Δ‖/(ρ+K−1) in radians as ρ → ∞, for an ETF.

    Δ_a = Q_k − Q_a over a ≠ k. With h = ρ(cos θ·w_k + sin θ·v), v ⟂ w_k of norm one, E_W = 1,
    and x_a = ρ sin θ ⟨v, w_a⟩: Σx = 0, ‖x‖² = ρ² sin²θ K/(K−1) (the frame is tight), hence
    ψ ≈ −ρ cos θ K/(K−1) + log Σ Δ_a e^{x_a}. To second order in θ and in x + ℓ, ℓ the centred
    log Δ, that is const + ‖x‖²/(2ρ) + ‖x + ℓ‖²/(2(K−1)), least at x = −ℓρ/(ρ+K−1).

    Parameters
    ----------
    action_values
        (K,) Q with a unique best action.
    rho
        √(E_H·E_W), any shape; the relative error of the result is O(1/ρ²).

    Raises
    ------
    ValueError
        The best action is not unique (log Δ = −∞).
    """
    q = checked_values(action_values, None)
    shortfall = np.sort(q.max() - q)[1:]
    if shortfall[0] == 0:
        raise ValueError(
            f"large_rho_angle needs a unique best action, Q = {q.tolist()} has a tie: see "
            "tie_pitchfork_rho"
        )
    k, logs = len(q), np.log(shortfall)
    spread = float(np.linalg.norm(logs - logs.mean()))
    return np.asarray(np.sqrt((k - 1) / k) * spread / (np.asarray(rho, float) + k - 1))


def tie_pitchfork_rho(num_classes: int) -> float:
    """ρ at which two tied best actions of an ETF stop sharing: √(2(K−1)/(K−2)).

    Let actions 1, 2 tie and all others be equally worse, so that V is increasing in
    G = logsumexp(z_1, z_2) − logsumexp(others). Along h = ρ(cos θ·u + sin θ·v), u and v the
    unit vectors along w_1 ± w_2 (E_W = 1),

        G = ρ cos θ · aK/(K−2) + log 2cosh(ρ b sin θ) + const,
        a = ½‖w_1 + w_2‖ = √((K−2)/(2(K−1))),  b = ½‖w_1 − w_2‖ = √(K/(2(K−1))),

    and G''(θ = 0) = −ρaK/(K−2) + ρ²b² changes sign at ρ = √(2(K−1)/(K−2)). Below it h along
    w_1 + w_2 is optimal, above it the optimum leaves towards w_1 or w_2.

    Parameters
    ----------
    num_classes
        K ≥ 3.

    Raises
    ------
    ValueError
        K < 3: two tied actions need a worse one.
    """
    if num_classes < 3:
        raise ValueError(
            f"two tied actions and a worse one need K >= 3, got num_classes={num_classes}"
        )
    return float(np.sqrt(2 * (num_classes - 1) / (num_classes - 2)))


def angle(a: Float, b: Float) -> float:
    """Angle in radians, accurate near 0 and π (Kahan's formula); NaN for a zero vector."""
    length = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if min(length) == 0:
        return float("nan")
    a, b = a / length[0], b / length[1]
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def checked_values(action_values: ArrayLike, num_classes: int | None) -> Float:
    """Q as (K,) float64: finite, of the expected K if that is known, and not all equal."""
    q = np.asarray(action_values, dtype=np.float64)
    if q.ndim != 1 or len(q) < 2 or (num_classes is not None and len(q) != num_classes):
        expected = "K >= 2 actions" if num_classes is None else f"K = {num_classes}"
        raise ValueError(f"action_values must be (K,) with {expected}, got shape {q.shape}")
    if not np.isfinite(q).all():
        raise ValueError(f"action_values has {int((~np.isfinite(q)).sum())} non-finite entries")
    if (q == q[0]).all():
        raise ValueError(
            f"all {len(q)} action values equal {q[0]:g}: every feature is optimal, and there is "
            "no best action to align with; drop this state"
        )
    return q
