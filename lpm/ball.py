"""The project's own solver of the fixed-head problem: batched, log-domain, no closed form.

What makes it fast and exact:

* The weights are positive and every state has its own constraint, so the joint problem falls
  apart into min F(h) over ‖h‖² ≤ E_H, one per distinct (label, E_H) pair. Solve those, gather.
* F depends on h through ⟨h, w_j − w_k⟩ only, so the minimal-norm solution lies in the span of
  the centred head: r ≤ K − 1 dimensions whatever d is.
* There, sequential quadratic programming with the ball kept exact: each step minimises the
  second-order model of F over the whole ball (one eigendecomposition and the secular equation
  of Moré & Sorensen 1983). The constraint is represented exactly, so convergence is quadratic.
* A radius homotopy: at large ρ the softmax inside F is almost a maximum and Newton's model is
  good only near the solution; the solution of a four times smaller ball is near enough.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpm.problem import PeeledProblem, softplus
from lpm.solution import Multipliers, Solution, Status

Float = NDArray[np.float64]

_RADIUS_FACTOR = 4.0
_CHUNK_FLOATS = 1 << 22


def solve_ball(
    problem: PeeledProblem, *, tolerance: float | None = None, max_iterations: int = 200
) -> Solution:
    """Solve the fixed-head problem over the ball.

    Parameters
    ----------
    problem
        With ``cone="free"``.
    tolerance
        Relative KKT residual to reach, ‖∇F + 2λh‖ / Σ p_j‖w_j − w_k‖. By default the iteration
        goes on until rounding stops it, and the status judges the result against
        1e-13 + eps·ρ', where ρ' = √E_H·max‖w_j − w_k‖: the logits carry an absolute error of
        eps·ρ', and so does the softmax.
    max_iterations
        Newton steps for each radius of the homotopy.

    Returns
    -------
    Solution
        ``features`` is the only O(N·d) array that is made. ``stats`` has the number of distinct
        problems, total iterations and the worst residual.

    Raises
    ------
    ValueError
        ``cone`` is not ``"free"``.
    """
    if problem.cone != "free":
        raise ValueError(
            f"solver 'ball' needs cone='free', the problem has cone={problem.cone!r}: use "
            "solver='orthant'"
        )
    # span{w_i − w_j} = row space of the centred head; coordinates (K, r), basis (r, d).
    centred = problem.head - problem.head.mean(axis=0)
    _, singular, basis = np.linalg.svd(centred, full_matrices=False)
    rank = int((singular > singular[0] * max(centred.shape) * np.finfo(float).eps).sum())
    basis = basis[:rank]
    coordinates = centred @ basis.T

    labels, energies, inverse = distinct_problems(problem)
    points = np.empty((len(labels), rank))
    multiplier = np.empty(len(labels))
    log_odds = np.empty(len(labels))
    residual = np.empty(len(labels))
    iterations, limit_hit = 0, False
    chunk = max(1, _CHUNK_FLOATS // max(rank * rank, problem.num_classes * rank))
    for start in range(0, len(labels), chunk):
        rows = slice(start, start + chunk)
        batch = Batch(coordinates, labels[rows], np.sqrt(energies[rows]))
        points[rows], steps, hit = _solve_batch(batch, tolerance or 0.0, max_iterations)
        multiplier[rows], residual[rows], log_odds[rows] = batch.kkt(points[rows])
        iterations += steps
        limit_hit |= hit

    reach = np.sqrt(energies.max()) * float(np.linalg.norm(coordinates, axis=1).max()) * 2
    goal = tolerance if tolerance is not None else 1e-13 + np.finfo(float).eps * reach
    worst = float(residual.max())
    if worst <= goal:
        status = Status.SOLVED
    elif limit_hit:
        status = Status.ITERATION_LIMIT
    else:
        status = Status.STALLED
    return Solution(
        features=np.take(points @ basis, inverse, axis=0),
        multipliers=Multipliers.from_log_odds(multiplier[inverse], log_odds[inverse]),
        log_odds=log_odds[inverse],
        objective=-float(problem.weights @ softplus(log_odds)[inverse]),
        status=status,
        stats={
            "solver": "ball",
            "distinct_problems": len(labels),
            "iterations": iterations,
            "kkt_residual": worst,
        },
    )


def distinct_problems(
    problem: PeeledProblem,
) -> tuple[NDArray[np.intp], Float, NDArray[np.intp]]:
    """Labels (U,) and energies (U,) of the distinct problems, and each state's index (N,)."""
    if problem.feature_energy.ndim == 0:
        present, inverse = np.unique(problem.labels, return_inverse=True)
        return present, np.full(len(present), float(problem.feature_energy)), inverse
    energies, code = np.unique(problem.feature_energy, return_inverse=True)
    pairs, inverse = np.unique(code * problem.num_classes + problem.labels, return_inverse=True)
    return pairs % problem.num_classes, energies[pairs // problem.num_classes], inverse


@dataclass(frozen=True)
class Batch:
    """B problems min F_b(y) over ‖y‖ ≤ radius_b in the r coordinates of the head's span."""

    coordinates: Float
    """(K, r) centred head in the basis of its span."""
    labels: NDArray[np.intp]
    """(B,)"""
    radius: Float
    """(B,)"""

    def take(self, rows: NDArray[np.intp]) -> "Batch":
        """The sub-batch of some problems."""
        return Batch(self.coordinates, self.labels[rows], self.radius[rows])

    def with_radius(self, radius: Float) -> "Batch":
        """The same problems on other balls."""
        return Batch(self.coordinates, self.labels, radius)

    def value(self, y: Float) -> tuple[Float, Float]:
        """F (B,) and its softmax p (B, K), zero at the own label."""
        z = y @ self.coordinates.T
        own = np.arange(len(y)), self.labels
        z = z - z[own][:, None]
        z[own] = -np.inf
        top = z.max(axis=1, keepdims=True)
        p = np.exp(z - top)
        total = p.sum(axis=1, keepdims=True)
        return (top + np.log(total))[:, 0], p / total

    def gradient(self, p: Float) -> Float:
        """∇F = Σ_j p_j (c_j − c_k), (B, r)."""
        return np.asarray(p @ self.coordinates - self.coordinates[self.labels])

    def hessian(self, p: Float) -> Float:
        """∇²F = Cov_p(c), (B, r, r), from centred coordinates so that it is PSD to rounding."""
        centred = self.coordinates - (p @ self.coordinates)[:, None, :]
        return np.asarray(np.swapaxes(centred * p[:, :, None], 1, 2) @ centred)

    def kkt(self, y: Float) -> tuple[Float, Float, Float]:
        """Least-squares multiplier λ_F ≥ 0, relative KKT residual, F: each (B,)."""
        value, p = self.value(y)
        g = self.gradient(p)
        distance = np.linalg.norm(
            self.coordinates - self.coordinates[self.labels][:, None, :], axis=2
        )
        spread = np.einsum("bk,bk->b", p, distance)
        square = np.einsum("br,br->b", y, y)
        inside = square < self.radius**2 * (1 - 1e-9)
        with np.errstate(invalid="ignore", divide="ignore"):
            multiplier = np.maximum(0.0, -np.einsum("br,br->b", g, y) / (2 * square))
        multiplier = np.where(inside, 0.0, multiplier)
        residual = np.linalg.norm(g + 2 * multiplier[:, None] * y, axis=1)
        return multiplier, residual / np.where(spread > 0, spread, 1.0), value


def _solve_batch(batch: Batch, tolerance: float, max_iterations: int) -> tuple[Float, int, bool]:
    """Minimise every problem; returns points (B, r), steps taken, and whether a limit was hit."""
    size = float(np.linalg.norm(batch.coordinates, axis=1).max())
    y = np.zeros((len(batch.labels), batch.coordinates.shape[1]))
    steps, limit_hit = 0, False
    # Stages end at each problem's own radius; the first ball is small enough for F to be
    # nearly quadratic on it.
    radius = np.minimum(batch.radius, 1.0 / size)
    while True:
        final = bool((radius >= batch.radius).all())
        stage_tolerance = tolerance if final else 1e-3
        y, taken = _newton(batch.with_radius(radius), y, stage_tolerance, max_iterations)
        steps += taken
        limit_hit = taken >= max_iterations
        if final:
            return y, steps, limit_hit
        larger = np.minimum(radius * _RADIUS_FACTOR, batch.radius)
        # Where the constraint was active the path leaves along the ray through the solution.
        active = np.linalg.norm(y, axis=1) >= radius * (1 - 1e-9)
        y = np.where(active[:, None], y * (larger / radius)[:, None], y)
        radius = larger


def _newton(batch: Batch, y: Float, tolerance: float, max_iterations: int) -> tuple[Float, int]:
    """SQP from ``y`` until the residual is at most ``tolerance`` or stops falling."""
    best = y.copy()
    best_residual = np.full(len(y), np.inf)
    patience = np.zeros(len(y), dtype=int)
    live = np.arange(len(y))
    for step in range(max_iterations):
        part = batch.take(live)
        at = y[live]
        _, residual, value = part.kkt(at)
        better = residual < 0.5 * best_residual[live]
        patience[live] = np.where(better, 0, patience[live] + 1)
        gained = residual < best_residual[live]
        best[live[gained]] = at[gained]
        best_residual[live[gained]] = residual[gained]
        # Quadratic convergence halves the residual every step near the end; three steps without
        # that, at a level that only rounding explains, mean that nothing is left to gain.
        stuck = (patience[live] >= 3) & (best_residual[live] < 1e-9) | (patience[live] >= 25)
        go_on = (best_residual[live] > tolerance) & ~stuck
        if not go_on.any():
            return best, step
        live, at, value = live[go_on], at[go_on], value[go_on]
        part = batch.take(live)
        _, p = part.value(at)
        target = minimise_model(part.gradient(p), part.hessian(p), at, part.radius)
        y[live] = _line_search(part, at, target, value, part.gradient(p))
    return best, max_iterations


def minimise_model(g: Float, hessian: Float, y: Float, radius: Float) -> Float:
    """argmin over ‖x‖ ≤ radius of ⟨g, x − y⟩ + ½(x − y)ᵀB(x − y), exactly, for every problem.

    Stationarity reads (B + μ)x = By − g =: c with μ ≥ 0 and μ(‖x‖ − radius) = 0. In B's
    eigenbasis ‖x(μ)‖² = Σ c_i²/(Λ_i + μ)²; 1/‖x(μ)‖ is concave in μ, so Newton's iteration on
    1/‖x(μ)‖ = 1/radius from the left converges monotonically (Moré & Sorensen 1983).
    """
    eigenvalues, vectors = np.linalg.eigh(hessian)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    gradient = np.einsum("bji,bj->bi", vectors, g)
    start = np.einsum("bji,bj->bi", vectors, y)
    c = eigenvalues * start - gradient
    # At this μ one coordinate alone has length ≥ radius (or μ = 0): left of the root.
    mu = np.maximum(0.0, (np.abs(c) / radius[:, None] - eigenvalues).max(axis=1))
    for _ in range(60):
        with np.errstate(invalid="ignore", divide="ignore"):
            inverse = np.where(c != 0, 1.0 / (eigenvalues + mu[:, None]), 0.0)
            x = c * inverse
            norm = np.sqrt(np.einsum("bi,bi->b", x, x))
            slope = np.einsum("bi,bi->b", x * x, inverse)
            # Newton on 1/‖x‖: Δμ = (‖x‖² / xᵀ(Λ+μ)⁻¹x)·(‖x‖ − radius)/radius.
            step = np.where(norm > radius, norm**2 / slope * (norm - radius) / radius, 0.0)
        step = np.where(np.isfinite(step), step, 0.0)
        if (step <= 4 * np.finfo(float).eps * mu).all():
            break
        mu = mu + step
    # The step from the residual g + μy, not x from scratch: its rounding shrinks with the step.
    with np.errstate(invalid="ignore", divide="ignore"):
        move = -(gradient + mu[:, None] * start) / (eigenvalues + mu[:, None])
    move = np.where(np.isfinite(move), move, 0.0)
    x = y + np.einsum("bij,bj->bi", vectors, move)
    norm = np.sqrt(np.einsum("br,br->b", x, x))
    on_sphere = (mu > 0) | (norm > radius)
    scale = np.where(on_sphere & (norm > 0), radius / np.where(norm > 0, norm, 1.0), 1.0)
    return np.asarray(x * scale[:, None])


def _line_search(batch: Batch, y: Float, target: Float, value: Float, g: Float) -> Float:
    """Backtrack from ``target`` towards ``y`` (both in the ball, so is the segment) on F."""
    direction = target - y
    slope = np.einsum("br,br->b", g, direction)
    length = np.ones(len(y))
    noise = 8 * np.finfo(float).eps * (1 + np.abs(value))
    for _ in range(40):
        new = np.where((length == 1.0)[:, None], target, y + length[:, None] * direction)
        bad = ~(batch.value(new)[0] <= value + 1e-4 * length * np.minimum(slope, 0.0) + noise)
        if not bad.any():
            return new
        length = np.where(bad, length / 2, length)
    return np.where(bad[:, None], y, new)
