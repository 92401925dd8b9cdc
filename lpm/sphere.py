r"""Features of forced norm ‖h‖ = √E_H, as a normalisation layer makes them.

The sphere is not convex, so F may have local minima on it that are not global. Three facts, each
used below and tested:

* **The optimum does not change.** The sphere lies in the ball, so every lower bound for the ball
  is one for the sphere; Theorem 1's optimum has norm √E_H, so it is the sphere's too.

* **The curvature.** At h on the sphere of radius R = √E_H, with 2λ = −⟨∇F(h), h⟩/R² the
  multiplier of ‖h‖² = R², the curve h(t) = R(h + tu)/‖h + tu‖, u ⊥ h, has
  (F∘h)''(0) = uᵀ(∇²F + 2λI)u: the Riemannian Hessian is ∇²F + 2λI on the tangent space.

* **With a spare dimension there is no spurious local minimum**, for any head: let d exceed the
  rank r of the centred head. At a local minimum ∇F = −2λh and ∇²F + 2λI ⪰ 0 on the tangent
  space. If some u ≠ 0 is orthogonal to h and to every w_i − w_j, then ∇²F·u = 0, hence λ ≥ 0;
  if there is none, h has a component outside the span, ∇F ∈ span has not, hence λ = 0. Either
  way h satisfies the KKT conditions of the convex problem on the ball, so it is global there.

For a simplex ETF this leaves d = K − 1 as the one place where the spurious optimum at −w_k
(see `etf_pole_eigenvalues`) exists; in more dimensions −w_k is a saddle.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpm.ball import Batch, distinct_problems, solve_ball
from lpm.problem import PeeledProblem, softplus
from lpm.solution import Status

Float = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_GLOBAL = 1e-8


class PointKind(Enum):
    """What a point of the sphere is to F restricted to it."""

    NOT_STATIONARY = "the Riemannian gradient is not zero"
    LOCAL_MINIMUM = "stationary, every tangent curvature positive"
    SADDLE = "stationary, tangent curvatures of both signs"
    LOCAL_MAXIMUM = "stationary, every tangent curvature negative"
    DEGENERATE = "stationary, second order does not decide: a tangent curvature is zero"
    ISOLATED = "d = 1: the sphere is the two points ±√E_H and has no tangent space"


@dataclass(frozen=True)
class SphereReport:
    """Every state's point on the sphere, classified; each array is (N,)."""

    gradient_norm: Float
    """‖∇F + 2λh‖ / Σ_j p_j‖w_j − w_k‖: the Riemannian gradient, relative."""
    multiplier: Float
    """λ = −⟨∇F, h⟩ / (2E_H). Negative where F falls towards the inside of the ball."""
    min_eigenvalue: Float
    """Least eigenvalue of ∇²F + 2λI on the tangent space; NaN for d = 1."""
    max_eigenvalue: Float
    """Largest eigenvalue there; NaN for d = 1."""
    log_odds: Float
    """F(h)."""
    log_odds_gap: Float
    """F(h) minus a proven lower bound of F on the whole ball (weak duality at the softmax of h).
    Near zero proves that the point is global; a large value proves nothing."""
    kinds: tuple[PointKind, ...]
    """One for each state."""

    @property
    def is_global(self) -> NDArray[np.bool_]:
        """(N,) whether the gap proves the point a global minimum, to 1e-8·(1 + |F|) nats."""
        return np.asarray(self.log_odds_gap <= _GLOBAL * (1 + np.abs(self.log_odds)))


@dataclass(frozen=True)
class SphereSolution:
    """Local minima of F on the sphere and the best of them for every state."""

    features: Float
    """(N, d) the best point found, ‖h_s‖ = √E_H."""
    log_odds: Float
    """(N,) F there."""
    log_odds_gap: Float
    """(N,) F minus a proven lower bound, see `SphereReport`."""
    is_global: NDArray[np.bool_]
    """(N,) True: proven global. False: the best of the local minima found, nothing more."""
    objective: float
    """J = Σ weights · log π(a*)."""
    minima: tuple[Float, ...]
    """For each distinct (label, E_H), (M, d): the distinct local minima found, best first.
    A part outside the head's span is shown in one direction; any other serves as well."""
    minima_log_odds: tuple[Float, ...]
    """For each distinct (label, E_H), (M,) F at `minima`."""
    problem_of_state: NDArray[np.intp]
    """(N,) each state's index into `minima`."""
    status: Status
    """Whether every search ended at a stationary point; never a claim of global optimality."""
    stats: dict[str, float | int | str] = field(default_factory=dict)


def etf_pole_eigenvalues(
    num_classes: int,
    feature_energy: float,
    head_energy: float,
    pole: Literal["optimum", "antipode"] = "antipode",
) -> tuple[float, float]:
    """Riemannian Hessian of F on the sphere at h = ±√(E_H/E_W)·w_k for a simplex ETF.

    Parameters
    ----------
    num_classes
        K ≥ 2.
    feature_energy, head_energy
        E_H, E_W > 0.
    pole
        ``"optimum"`` for +w_k, ``"antipode"`` for −w_k.

    Returns
    -------
    within, outside
        The eigenvalue on the K − 2 tangent directions within the head's span, and the one on
        the d − K + 1 directions outside it. With ρ = √(E_H·E_W) and σ = ±1 for the pole,

            within = (K/((K−1)E_H))·ρ·(ρ/(K−1) + σ),   outside = σ·ρK/((K−1)E_H).

        At −w_k (σ = −1) ``within`` is positive iff ρ > K − 1 and ``outside`` is negative
        always: a spurious local minimum iff ρ > K − 1 and d = K − 1 (and K ≥ 3).

    Raises
    ------
    ValueError
        K < 2, an energy that is not positive, or an unknown pole.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be >= 2, got {num_classes}")
    if not (feature_energy > 0 and head_energy > 0):
        raise ValueError(
            f"energies must be > 0, got feature_energy={feature_energy}, head_energy={head_energy}"
        )
    if pole not in ("optimum", "antipode"):
        raise ValueError(f"pole must be 'optimum' or 'antipode', got {pole!r}")
    k, rho = num_classes, float(np.sqrt(feature_energy * head_energy))
    sign = 1.0 if pole == "optimum" else -1.0
    # At either pole all ⟨h, w_j⟩, j ≠ k, agree: p is uniform, ∇F = −K/(K−1)·w_k, and
    # 2λ = −⟨∇F, h⟩/E_H = σρK/((K−1)E_H). Σ_i w_i w_iᵀ = E_W·K/(K−1)·Π_span, so orthogonal to
    # w_k the covariance of the w_j under p is E_W·K/(K−1)² within the span and 0 outside.
    outside = sign * rho * k / ((k - 1) * feature_energy)
    return head_energy * k / (k - 1) ** 2 + outside, outside


def classify_on_sphere(
    problem: PeeledProblem, features: ArrayLike, *, tolerance: float = 1e-7
) -> SphereReport:
    """Riemannian gradient and Hessian of F at points of the sphere; any head.

    Parameters
    ----------
    problem
        With ``cone="free"``.
    features
        (N, d), ‖h_s‖ = √E_H to 1e-9.
    tolerance
        A gradient counts as zero up to this (relative), an eigenvalue up to this times
        the larger of |λ|, ‖∇²F‖ and Σ_j p_j‖w_j − w_k‖ / √E_H.

    Raises
    ------
    ValueError
        Features of the wrong shape, not finite or off the sphere, or ``cone`` not ``"free"``.
    """
    _refuse_cone(problem)
    h = problem.checked_features(features).astype(np.float64)
    if not np.isfinite(h).all():
        raise ValueError(f"features have {int((~np.isfinite(h)).sum())} non-finite entries")
    energies = problem.energies
    norms = np.linalg.norm(h, axis=1)
    error = np.abs(norms / np.sqrt(energies) - 1)
    if error.max() > 1e-9:
        s = int(error.argmax())
        raise ValueError(
            f"state {s} has norm {norms[s]:.6g}, not sqrt(E_H) = {np.sqrt(energies[s]):.6g}: "
            "scale the features onto the sphere first"
        )
    span = Span(problem)
    batch = Batch(span.coordinates, problem.labels, np.sqrt(energies))
    at = evaluate(batch, span.reduce(h))
    eigenvalues = np.linalg.eigvalsh(at.hessian)
    if problem.dim > span.size:
        # The directions that the reduced coordinates leave out all have curvature 2λ.
        eigenvalues = np.concatenate([eigenvalues, 2 * at.multiplier[:, None]], axis=1)
    low = eigenvalues.min(axis=1, initial=np.inf)
    high = eigenvalues.max(axis=1, initial=-np.inf)
    empty = problem.dim == 1
    scale = np.maximum(np.maximum(np.abs(low), np.abs(high)), at.spread / batch.radius)
    kinds = tuple(
        PointKind.ISOLATED if empty else _kind(*numbers)
        for numbers in zip(
            at.residual, low, high, tolerance * scale, [tolerance] * len(h), strict=True
        )
    )
    return SphereReport(
        gradient_norm=at.residual,
        multiplier=at.multiplier,
        min_eigenvalue=np.where(empty, np.nan, low),
        max_eigenvalue=np.where(empty, np.nan, high),
        log_odds=at.value,
        log_odds_gap=_dual_gap(batch, at),
        kinds=kinds,
    )


def solve_sphere(
    problem: PeeledProblem,
    rng: np.random.Generator,
    *,
    starts: int = 16,
    max_iterations: int = 500,
) -> SphereSolution:
    """Minimise F over ‖h‖ = √E_H from many starts; any head.

    Parameters
    ----------
    problem
        With ``cone="free"``.
    rng
        Draws the random starts, uniform on the sphere of the head's span and one spare
        dimension where d allows it (more are equivalent to it by a rotation).
    starts
        Random starts for each distinct (label, E_H), beside three fixed ones: the directions
        ±(w_k − mean of the others) and the ball's optimum, scaled to the sphere.
    max_iterations
        Newton steps of each search.

    Returns
    -------
    SphereSolution
        Every search ends at a point with zero gradient and no negative curvature, so −w_k is
        reported only where it is a local minimum. Which local minima are found depends on the
        starts; ``is_global`` is a proof, its absence is not a disproof.

    Raises
    ------
    ValueError
        ``cone`` is not ``"free"``, or ``starts`` is negative.
    """
    _refuse_cone(problem)
    if starts < 0:
        raise ValueError(f"starts must be >= 0, got {starts}")
    span = Span(problem)
    labels, energies, inverse = distinct_problems(problem)
    radius = np.sqrt(energies)
    unit = PeeledProblem(problem.head, labels, np.ones(len(labels)), energies)
    fixed = span.reduce(solve_ball(unit).features)
    away = span.coordinates[labels]
    points = rng.standard_normal((starts, len(labels), span.size))
    # The centred c_k is (K−1)/K times w_k − mean of the others.
    points = np.concatenate([fixed[None], away[None], -away[None], points])
    # A start at the origin (w_k in the centre of the others) has no direction: take an axis.
    lost = np.linalg.norm(points, axis=2) <= 1e-12 * radius
    points[lost] = np.eye(span.size)[0]

    many = points.shape[0]
    batch = Batch(span.coordinates, np.tile(labels, many), np.tile(radius, many))
    y, steps = descend(batch, points.reshape(-1, span.size), 1.0, max_iterations)
    at = evaluate(batch, y)
    gap = _dual_gap(batch, at).reshape(many, -1)
    value = at.value.reshape(many, -1)
    y = y.reshape(many, len(labels), span.size)

    minima, minima_log_odds = [], []
    for u in range(len(labels)):
        keep: list[int] = []
        for i in np.argsort(value[:, u], kind="stable"):
            if all(np.linalg.norm(y[i, u] - y[j, u]) > 1e-5 * radius[u] for j in keep):
                keep.append(int(i))
        minima.append(span.expand(y[keep, u]))
        minima_log_odds.append(value[keep, u])
    best = value.argmin(axis=0), np.arange(len(labels))
    log_odds, best_gap = value[best][inverse], gap[best][inverse]
    reach = float(radius.max() * problem._distances.max())
    worst = float(at.residual.max())
    return SphereSolution(
        features=np.take(np.stack([m[0] for m in minima]), inverse, axis=0),
        log_odds=log_odds,
        log_odds_gap=best_gap,
        is_global=best_gap <= _GLOBAL * (1 + np.abs(log_odds)),
        objective=-float(problem.weights @ softplus(log_odds)),
        minima=tuple(minima),
        minima_log_odds=tuple(minima_log_odds),
        problem_of_state=inverse,
        status=search_status(worst, reach, steps, max_iterations),
        stats={
            "solver": "sphere",
            "distinct_problems": len(labels),
            "searches": many * len(labels),
            "iterations": steps,
            "gradient": worst,
        },
    )


def search_status(worst: float, reach: float, steps: int, max_iterations: int) -> Status:
    """How a search ended, from its worst relative gradient and the reach √E_H·max‖w_j − w_k‖."""
    if worst <= 1e-11 + 100 * _EPS * reach:
        return Status.SOLVED
    return Status.ITERATION_LIMIT if steps >= max_iterations else Status.STALLED


def _refuse_cone(problem: PeeledProblem) -> None:
    if problem.cone != "free":
        raise ValueError(
            f"the sphere's solver needs cone='free', the problem has cone={problem.cone!r}: for "
            "rectified features of norm at most sqrt(E_H) use lpm.solve(problem, 'orthant')"
        )


class Span:
    """Coordinates of the head's span and, where d allows it, one dimension outside it.

    F sees the component in the span only, the sphere sees the length of the rest.
    """

    def __init__(self, problem: PeeledProblem) -> None:
        centred = problem.head - problem.head.mean(axis=0)
        _, singular, basis = np.linalg.svd(centred, full_matrices=True)
        rank = int((singular > singular[0] * max(centred.shape) * _EPS).sum())
        self.rank = rank
        self.size = min(problem.dim, rank + 1)
        self.basis = basis[: self.size]
        """(size, d) orthonormal rows: the span first, then the spare direction."""
        self.coordinates = centred @ self.basis.T
        """(K, size) the centred head."""
        self.coordinates[:, rank:] = 0.0

    def reduce(self, h: Float) -> Float:
        """(n, d) features to (n, size), with the length of the outside part last."""
        y = np.asarray(h @ self.basis[: self.rank].T)
        if self.size == self.rank:
            return y
        outside = np.linalg.norm(h - y @ self.basis[: self.rank], axis=1)
        # Rounding of h, not a component: it would turn a saddle into a point beside one.
        outside[outside <= 1e-13 * np.linalg.norm(h, axis=1)] = 0.0
        return np.concatenate([y, outside[:, None]], axis=1)

    def expand(self, y: Float) -> Float:
        """(n, size) coordinates back to (n, d), the outside part along one direction."""
        y = y.copy()
        y[:, self.rank :] = np.abs(y[:, self.rank :])
        return np.asarray(y @ self.basis)


@dataclass(frozen=True)
class _Point:
    """F on the sphere at B points y in n coordinates, everything for +F."""

    y: Float
    value: Float
    tangent: Float
    """(B, n, n − 1) orthonormal columns orthogonal to y."""
    full_gradient: Float
    """(B, n) ∇F."""
    gradient: Float
    """(B, n − 1) in the tangent basis."""
    hessian: Float
    """(B, n − 1, n − 1) ∇²F + 2λI in the tangent basis."""
    multiplier: Float
    """(B,) λ."""
    spread: Float
    """(B,) Σ_j p_j‖w_j − w_k‖."""
    residual: Float
    """(B,) ‖gradient‖ / spread."""


def evaluate(batch: Batch, y: Float) -> _Point:
    """F on the sphere at y (B, n): value, tangent basis, Riemannian gradient and Hessian."""
    value, p = batch.value(y)
    g = batch.gradient(p)
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    # Householder: I − 2aaᵀ/aᵀa with a = u ± e_1 maps u to ∓e_1; its other columns are ⊥ u.
    a = unit.copy()
    a[:, 0] += np.where(unit[:, 0] >= 0, 1.0, -1.0)
    reflection = np.eye(y.shape[1]) - 2 * a[:, :, None] * a[:, None, :] / np.einsum(
        "bi,bi->b", a, a
    ).reshape(-1, 1, 1)
    tangent = reflection[:, :, 1:]
    multiplier = -np.einsum("bi,bi->b", g, y) / (2 * batch.radius**2)
    hessian = np.swapaxes(tangent, 1, 2) @ batch.hessian(p) @ tangent
    hessian = hessian + 2 * multiplier[:, None, None] * np.eye(y.shape[1] - 1)
    gradient = np.einsum("bij,bi->bj", tangent, g)
    distance = np.linalg.norm(batch.coordinates - batch.coordinates[batch.labels][:, None], axis=2)
    spread = np.einsum("bk,bk->b", p, distance)
    residual = np.linalg.norm(gradient, axis=1) / np.where(spread > 0, spread, 1.0)
    return _Point(y, value, tangent, g, gradient, hessian, multiplier, spread, residual)


def _dual_gap(batch: Batch, at: _Point) -> Float:
    """(B,) F(h) − [H(p) − R‖v‖] = R‖v‖ + ⟨h, v⟩ ≥ 0 for ‖h‖ = R, v = ∇F, without cancellation.

    H(p) − R‖v‖ bounds F from below on the whole ball (see `lpm.certificate`).
    """
    length = np.linalg.norm(at.full_gradient, axis=1)
    direction = at.full_gradient / np.where(length > 0, length, 1.0)[:, None]
    mismatch = at.y + batch.radius[:, None] * direction
    return np.asarray(length / (2 * batch.radius) * np.einsum("bi,bi->b", mismatch, mismatch))


def _kind(gradient: float, low: float, high: float, zero: float, tolerance: float) -> PointKind:
    if gradient > tolerance:
        return PointKind.NOT_STATIONARY
    if low < -zero and high > zero:
        return PointKind.SADDLE
    if low > zero:
        return PointKind.LOCAL_MINIMUM
    if high < -zero:
        return PointKind.LOCAL_MAXIMUM
    return PointKind.DEGENERATE


def descend(batch: Batch, y: Float, sign: float, max_iterations: int) -> tuple[Float, int]:
    """Minimise sign·F over the sphere from y (B, n), scaled to it first: local, second order.

    Newton with the Hessian's eigenvalues replaced by their absolute values (Dauphin et al. 2014)
    always descends and is repelled by saddles; started exactly on one it is pushed off along
    the most negative curvature.
    """
    y = y * (batch.radius / np.linalg.norm(y, axis=1))[:, None]
    if y.shape[1] == 1:
        return y, 0
    best, best_residual = y.copy(), np.full(len(y), np.inf)
    patience = np.zeros(len(y), dtype=int)
    live = np.arange(len(y))
    size = float(np.linalg.norm(batch.coordinates, axis=1).max())
    for step in range(max_iterations):
        part = batch.take(live)
        at = evaluate(part, y[live])
        value = sign * at.value
        eigenvalues, vectors = np.linalg.eigh(sign * at.hessian)
        scale = np.maximum(np.abs(eigenvalues).max(axis=1), at.spread / part.radius)
        concave = eigenvalues[:, 0] < -1e-9 * scale
        tolerance = 1e-15 + 0.5 * _EPS * size * part.radius

        residual = np.where(concave, np.inf, at.residual)
        patience[live] = np.where(residual < 0.5 * best_residual[live], 0, patience[live] + 1)
        gained = residual <= best_residual[live]
        best[live[gained]], best_residual[live[gained]] = y[live[gained]], residual[gained]
        done = (best_residual[live] <= tolerance) | (
            (patience[live] >= 4) & (best_residual[live] < 1e-9)
        )
        go_on = ~done
        if not go_on.any():
            return best, step
        live, part, value, scale = (
            live[go_on],
            part.take(np.flatnonzero(go_on)),
            value[go_on],
            scale[go_on],
        )
        coefficient = np.einsum("bij,bi->bj", vectors[go_on], sign * at.gradient[go_on])
        eigenvalues = eigenvalues[go_on]
        floor = np.maximum(np.abs(eigenvalues), 1e-10 * scale[:, None])
        move = -coefficient / floor
        slope = np.einsum("bi,bi->b", coefficient, move)
        # On a saddle (gradient at rounding, curvature negative): a tenth of a radian.
        saddle = concave[go_on] & (at.residual[go_on] <= 1e-7)
        move[saddle] = 0.0
        move[saddle, 0] = -0.1 * part.radius[saddle] * np.where(coefficient[saddle, 0] > 0, 1, -1)
        # No step longer than the radius: the retraction turns by less than 45 degrees.
        length = np.linalg.norm(move, axis=1)
        cap = np.minimum(1.0, part.radius / np.maximum(length, part.radius))
        direction = np.einsum(
            "bij,bj->bi", at.tangent[go_on], np.einsum("bij,bj->bi", vectors[go_on], move)
        )
        y[live] = _backtrack(part, y[live], direction * cap[:, None], value, slope * cap, sign)
    # A point of negative curvature was never "best"; where nothing else came, hand back the last.
    never = np.isinf(best_residual)
    best[never] = y[never]
    return best, max_iterations


def _backtrack(
    batch: Batch, y: Float, direction: Float, value: Float, slope: Float, sign: float
) -> Float:
    """Halve the step until sign·F falls enough along the retraction (y + tu)·R/‖y + tu‖."""
    length = np.ones(len(y))
    noise = 8 * _EPS * (1 + np.abs(value))
    for _ in range(50):
        new = y + length[:, None] * direction
        new *= (batch.radius / np.linalg.norm(new, axis=1))[:, None]
        bad = ~(sign * batch.value(new)[0] <= value + 1e-4 * length * slope + noise)
        if not bad.any():
            return np.asarray(new)
        length = np.where(bad, length / 2, length)
    return np.where(bad[:, None], y, new)
