"""Local minima of the log of a ratio of sums of exponentials, on the unit ball.

ψ(u) = log Σ_a e^{α_a + z_a} − log Σ_a e^{β_a + z_a} with z linear in u is what both halves of
`lpm.expected_return_optimum` minimise: the log-shortfall of Eq. (1), and the convex problems whose
duals bound it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpm.ball import minimise_model

Float = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class LogRatio:
    """ψ(u) = log Σ_a e^{α_a + z_a} − log Σ_a e^{β_a + z_a}, z = t·coordinates @ u, for a batch.

    With α = log Δ, β = 0 it is the log-shortfall; with β = −∞ but at one action, a convex one
    of the bound's. α and β are (1, K) or (B, K), −∞ allowed; t scales the radius.
    """

    coordinates: Float
    numerator: Float
    denominator: Float
    scale: float = 1.0

    def scaled(self, scale: float) -> "LogRatio":
        """The same function on a ball ``scale`` times as large."""
        return LogRatio(self.coordinates, self.numerator, self.denominator, scale)

    def take(self, rows: NDArray[np.intp]) -> "LogRatio":
        """The functions of some rows of the batch."""

        def part(offsets: Float) -> Float:
            return offsets if len(offsets) == 1 else offsets[rows]

        return LogRatio(self.coordinates, part(self.numerator), part(self.denominator), self.scale)

    @property
    def reach(self) -> float:
        """Largest difference of two logits on the ball, at most."""
        return 2 * self.scale * float(np.linalg.norm(self.coordinates, axis=1).max())

    def value(self, u: Float) -> tuple[Float, Float, Float]:
        """ψ (B,) and the two softmaxes q ∝ e^{α+z}, p ∝ e^{β+z}, each (B, K)."""
        z = self.scale * u @ self.coordinates.T
        top, q = log_sum_exp(self.numerator + z)
        bottom, p = log_sum_exp(self.denominator + z)
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
class Conditions:
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


def conditions(ratio: LogRatio, u: Float) -> Conditions:
    """Evaluate the conditions for a minimum over the unit ball at (B, r) points."""
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
    return Conditions(
        value=value,
        residual=np.linalg.norm(residual, axis=1) / np.where(yardstick > 0, yardstick, 1.0),
        curvature=curvature,
        direction=vectors[:, :, 0],
        newton=newton,
    )


def minimise(ratio: LogRatio, u: Float, max_iterations: int) -> tuple[Float, int]:
    """Local minima of ψ on the unit ball, (B, r), from (B, r) starts; also the number of steps."""
    u = u / np.maximum(1.0, np.linalg.norm(u, axis=1, keepdims=True))
    best = np.full(len(u), np.inf)
    patience = np.zeros(len(u), dtype=int)
    live = np.arange(len(u))
    noise = 8 * _EPS * (1 + ratio.reach)
    for iteration in range(max_iterations):
        part, at = ratio.take(live), u[live]
        kkt = conditions(part, at)
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
        after = conditions(part, jump)
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


def _descend(ratio: LogRatio, u: Float) -> Float:
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


def log_sum_exp(x: Float) -> tuple[Float, Float]:
    """Logsumexp (B,) and softmax (B, K) of the rows; each needs one finite entry."""
    top = x.max(axis=1, keepdims=True)
    e = np.exp(x - top)
    total = e.sum(axis=1, keepdims=True)
    return (top + np.log(total))[:, 0], e / total
