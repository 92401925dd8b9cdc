"""The policy gradient's own objective, Eq. (1), for one state with a fixed head and given Q.

Eq. (1) asks for max V(h) = Σ_a π(a|h) Q_a over ‖h‖² ≤ E_H, Eq. (2) for max Q_k·log π(k|h) with k
the best action. They are different functions with different maximisers. V is not concave; but
with Δ_a = max Q − Q_a ≥ 0 the *shortfall*

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

from lpm.ball import minimise_model
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
    return float(pi @ _checked_values(action_values, len(pi)))


def peeled_return(head: ArrayLike, action_values: ArrayLike, features: ArrayLike) -> float:
    """One state's term of Eq. (2): Q_k · log π(k|h), k the best action.

    Parameters
    ----------
    head, action_values, features
        (K, d), (K,) and (d,).
    """
    w = checked_head(head)
    q = _checked_values(action_values, len(w))
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
    q = _checked_values(action_values, len(pi))
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
    q = _checked_values(action_values, len(w))
    pi = policy(w, np.zeros(w.shape[1]) if features is None else features)
    centred = w - pi @ w
    return _angle(split_coefficients(pi, q) @ centred, centred[int(q.argmax())])


def small_rho_cosine(action_values: ArrayLike) -> float:
    """lim_{ρ→0} cos∠(h, w_k) = √(K/(K−1))·Q̃_k/‖Q̃‖ for an ETF, Q̃ = Q − mean, k the best.

    At h = 0, ∇V = (1/K) Σ_a Q̃_a w_a; an ETF has ‖Σ Q̃_a w_a‖² = E_W·K/(K−1)·‖Q̃‖² and
    ⟨Σ Q̃_a w_a, w_k⟩ = E_W·K/(K−1)·Q̃_k as ΣQ̃ = 0 (Eq. 10).

    Parameters
    ----------
    action_values
        (K,) Q, not all equal; with a tie of the best the limit holds for each of them.
    """
    q = _checked_values(action_values, None)
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
    q = _checked_values(action_values, None)
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
    q = _checked_values(action_values, len(w))
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
    ratio = _LogRatio(coordinates, log_gap[None], np.zeros((1, len(q))))

    best_actions = np.flatnonzero(shortfall == 0)
    points = _structured_starts(ratio, best_actions, q, max_iterations)
    random = rng.standard_normal((starts, coordinates.shape[1]))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    # Inside the ball where ρ is large: further out π saturates and ψ is a plateau.
    points = np.vstack([points, min(1.0, 8.0 / ratio.reach) * random])
    found, iterations = _minimise(ratio, points, max_iterations)
    report = _kkt(ratio, found)
    tolerance = _STATIONARY + 4 * _EPS * ratio.reach
    flat = 1e-10 * (1 + ratio.reach) ** 2
    for _ in range(4):
        best = int(report.value.argmin())
        if report.curvature[best] >= -flat:
            break
        # A saddle: leave it both ways along its negative curvature.
        push = 0.1 * report.direction[best]
        more, steps = _minimise(ratio, found[best] + np.stack([push, -push]), max_iterations)
        iterations += steps
        found = np.vstack([found, more])
        report = _kkt(ratio, found)

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
        angle=_angle(u, own),
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


@dataclass(frozen=True)
class _LogRatio:
    """ψ(u) = log Σ_a e^{α_a + z_a} − log Σ_a e^{β_a + z_a}, z = t·coordinates @ u, for a batch.

    With α = log Δ, β = 0 it is the log-shortfall; with β = −∞ but at one action, a convex one
    of the bound's. α and β are (1, K) or (B, K), −∞ allowed; t scales the radius.
    """

    coordinates: Float
    numerator: Float
    denominator: Float
    scale: float = 1.0

    def scaled(self, scale: float) -> "_LogRatio":
        """The same function on a ball ``scale`` times as large."""
        return _LogRatio(self.coordinates, self.numerator, self.denominator, scale)

    def take(self, rows: NDArray[np.intp]) -> "_LogRatio":
        """The functions of some rows of the batch."""

        def part(offsets: Float) -> Float:
            return offsets if len(offsets) == 1 else offsets[rows]

        return _LogRatio(self.coordinates, part(self.numerator), part(self.denominator), self.scale)

    @property
    def reach(self) -> float:
        """Largest difference of two logits on the ball, at most."""
        return 2 * self.scale * float(np.linalg.norm(self.coordinates, axis=1).max())

    def value(self, u: Float) -> tuple[Float, Float, Float]:
        """ψ (B,) and the two softmaxes q ∝ e^{α+z}, p ∝ e^{β+z}, each (B, K)."""
        z = self.scale * u @ self.coordinates.T
        top, q = _log_sum_exp(self.numerator + z)
        bottom, p = _log_sum_exp(self.denominator + z)
        return top - bottom, q, p

    def gradient(self, q: Float, p: Float) -> Float:
        """∇ψ = Σ (q_a − p_a) c_a, (B, r)."""
        return np.asarray(self.scale * (q - p) @ self.coordinates)

    def hessian(self, q: Float, p: Float) -> Float:
        """∇²ψ = Cov_q(c) − Cov_p(c), (B, r, r)."""
        return np.asarray(self.scale**2 * (self._covariance(q) - self._covariance(p)))

    def yardstick(self, q: Float, p: Float) -> Float:
        """Σ (q_a + p_a) ‖c_a‖ (B,): size of the terms that cancel in the gradient."""
        return np.asarray(self.scale * (q + p) @ np.linalg.norm(self.coordinates, axis=1))

    def _covariance(self, p: Float) -> Float:
        centred = self.coordinates - (p @ self.coordinates)[:, None, :]
        return np.asarray(np.swapaxes(centred * p[:, :, None], 1, 2) @ centred)


@dataclass(frozen=True)
class _Kkt:
    """First and second order conditions at a batch of points."""

    value: Float
    residual: Float
    """(B,) ‖∇ψ + νu‖ over the yardstick."""
    curvature: Float
    """(B,) least eigenvalue of ∇²ψ + νI on the tangent space (everywhere when inside)."""
    direction: Float
    """(B, r) its eigenvector."""
    newton: Float
    """(B, r) point that one Newton step on the conditions leads to."""


def _kkt(ratio: _LogRatio, u: Float) -> _Kkt:
    value, q, p = ratio.value(u)
    g, hessian = ratio.gradient(q, p), ratio.hessian(q, p)
    square = np.einsum("br,br->b", u, u)
    inner = np.einsum("br,br->b", g, u)
    active = (square > 1 - 1e-9) & (inner <= 0)
    nu = np.where(active, -inner / np.where(active, square, 1.0), 0.0)
    residual = g + nu[:, None] * u
    lagrangian = hessian + nu[:, None, None] * np.eye(u.shape[1])
    # On the sphere, P A P + κuuᵀ with κ above A's spectrum: its least eigenvalue is that of A on
    # the tangent space, and its inverse maps the (tangent) residual to the Newton step.
    size = np.abs(lagrangian).sum(axis=(1, 2))
    normal = np.where(active[:, None], u, 0.0)
    project = np.eye(u.shape[1]) - normal[:, :, None] * normal[:, None, :]
    lifted = 1 + 2 * size
    bordered = (
        project @ lagrangian @ project
        + lifted[:, None, None] * normal[:, :, None] * normal[:, None, :]
    )
    eigenvalues, vectors = np.linalg.eigh(bordered)
    curvature = eigenvalues[:, 0]
    if u.shape[1] == 1:
        curvature = np.where(active, np.inf, curvature)
    tiny = np.abs(eigenvalues) <= 1e-14 * lifted[:, None]
    inverse = np.where(tiny, 0.0, 1.0 / np.where(tiny, 1.0, eigenvalues))
    step = np.einsum("bij,bj,bkj,bk->bi", vectors, inverse, vectors, residual, optimize=True)
    newton = u - step
    norm = np.linalg.norm(newton, axis=1)
    on_sphere = active | (norm > 1)
    newton = newton / np.where(on_sphere & (norm > 0), norm, 1.0)[:, None]
    yardstick = ratio.yardstick(q, p)
    return _Kkt(
        value=value,
        residual=np.linalg.norm(residual, axis=1) / np.where(yardstick > 0, yardstick, 1.0),
        curvature=curvature,
        direction=vectors[:, :, 0],
        newton=newton,
    )


def _minimise(ratio: _LogRatio, u: Float, max_iterations: int) -> tuple[Float, int]:
    """Local minima of ψ on the unit ball from every start; also the number of steps."""
    u = u / np.maximum(1.0, np.linalg.norm(u, axis=1, keepdims=True))
    best = np.full(len(u), np.inf)
    patience = np.zeros(len(u), dtype=int)
    live = np.arange(len(u))
    noise = 8 * _EPS * (1 + ratio.reach)
    for iteration in range(max_iterations):
        part, at = ratio.take(live), u[live]
        kkt = _kkt(part, at)
        halved = kkt.residual < 0.5 * best[live]
        patience[live] = np.where(halved, 0, patience[live] + 1)
        best[live] = np.minimum(best[live], kkt.residual)
        # Near the end every Newton step squares the residual; three that do not halve it, at a
        # level that rounding explains, leave nothing to gain.
        done = (kkt.residual == 0) | ((patience[live] >= 3) & (kkt.residual < 1e-11 + noise))
        go_on = ~done
        if not go_on.any():
            return u, iteration
        live, at = live[go_on], at[go_on]
        part = ratio.take(live)
        jump, value = kkt.newton[go_on], kkt.value[go_on]
        after = _kkt(part, jump)
        # Newton on the conditions where it is safe: near a point with positive curvature.
        fast = (
            (kkt.residual[go_on] < 1e-2)
            & (kkt.curvature[go_on] > 0)
            & (after.value <= value + noise)
            & ((after.residual < 0.5 * kkt.residual[go_on]) | (kkt.residual[go_on] < 1e-11))
        )
        new = jump
        if not fast.all():
            slow = np.flatnonzero(~fast)
            new[slow] = _descend(part.take(slow), at[slow])
        u[live] = new
    return u, max_iterations


def _descend(ratio: _LogRatio, u: Float) -> Float:
    """One step that lowers ψ: the model with |∇²ψ|, minimised over the ball, then backtracking.

    The model is convex and the ball too, so the step is a descent direction and feasible.
    """
    value, q, p = ratio.value(u)
    g = ratio.gradient(q, p)
    eigenvalues, vectors = np.linalg.eigh(ratio.hessian(q, p))
    size = np.abs(eigenvalues)
    size = np.maximum(size, 1e-12 * (1e-300 + size.max(axis=1, keepdims=True)))
    convex = (vectors * size[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    direction = minimise_model(g, convex, u, np.ones(len(u))) - u
    slope = np.minimum(0.0, np.einsum("br,br->b", g, direction))
    length = np.ones(len(u))
    for _ in range(50):
        new = u + length[:, None] * direction
        bad = ~(ratio.value(new)[0] <= value + 1e-4 * length * slope)
        if not bad.any():
            return np.asarray(new)
        length = np.where(bad, length / 2, length)
    return np.where(bad[:, None], u, new)


def _structured_starts(
    ratio: _LogRatio, best_actions: NDArray[np.intp], q: Float, max_iterations: int
) -> Float:
    """(B, r): aligned, steepest ascent at 0, end of the radius homotopy, large-ρ limit."""
    coordinates = ratio.coordinates
    aligned = coordinates[best_actions]
    steepest = (q - q.mean()) @ coordinates
    norm = float(np.linalg.norm(steepest))
    # All of Q in the kernel of Wᵀ: V is stationary at 0, and any direction will do.
    steepest = steepest / norm if norm > 0 else np.eye(len(steepest))[0]
    # ρ → ∞: the other actions' share of the denominator vanishes; what is left is convex.
    limit = _LogRatio(coordinates, ratio.numerator, _one_hot(best_actions, len(q)))
    outer, _ = _minimise(limit, np.zeros(aligned.shape), max_iterations)

    path, scale = steepest[None], min(1.0, 1.0 / max(ratio.reach, 1e-300))
    while scale < 1.0:
        path, _ = _minimise(ratio.scaled(scale), path, max_iterations)
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
    convex = _LogRatio(coordinates, numerator, _one_hot(minus, len(shortfall)))
    u, _ = _minimise(convex, np.zeros((len(minus), coordinates.shape[1])), 100)
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
        return float(_log_sum_exp((weight - lower)[None])[0][0])

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


def _log_sum_exp(x: Float) -> tuple[Float, Float]:
    """Logsumexp (B,) and softmax (B, K) of the rows; each needs one finite entry."""
    top = x.max(axis=1, keepdims=True)
    e = np.exp(x - top)
    total = e.sum(axis=1, keepdims=True)
    return (top + np.log(total))[:, 0], e / total


def _exp_difference(x: float, y: float) -> float:
    """exp(x) − exp(y), without cancellation where x ≈ y."""
    if abs(x - y) < 1:
        return float(np.exp(y) * np.expm1(x - y))
    return float(np.exp(x) - np.exp(y))


def _angle(a: Float, b: Float) -> float:
    """Angle in radians, accurate near 0 and π (Kahan's formula); NaN for a zero vector."""
    length = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if min(length) == 0:
        return float("nan")
    a, b = a / length[0], b / length[1]
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def _checked_values(action_values: ArrayLike, num_classes: int | None) -> Float:
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
