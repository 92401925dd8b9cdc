"""Rectified features: the fixed-head problem over the ball's nonnegative part.

A feature that leaves a ReLU satisfies h ≥ 0, and Theorem 1's optimum √(E_H/E_W)·w_k is then out
of reach (it has negative entries). What is left is convex all the same: with D the rows
w_j − w_k, j ≠ k, R = √E_H and C = {‖h‖ ≤ R, h ≥ 0},

    min_{h ∈ C} F(h),  F(h) = log Σ_j e^{⟨h, D_j⟩} = max_{p ∈ simplex} [H(p) + ⟨h, Dᵀp⟩].

The orthant is not invariant under rotations, so nothing reduces to the head's span as in
`lpm.ball`: h has all d coordinates. The *dual* has K − 1 whatever d is. C is compact, so
min and max may be exchanged (Sion), and the minimum over C of the linear ⟨h, v⟩, v = Dᵀp, is
−R‖[−v]₊‖, attained at h = R[−v]₊/‖[−v]₊‖:

    F* = max_p H(p) − R‖[−Dᵀp]₊‖.                                                    (dual)

That is what is solved here, by a semismooth Newton method in the logarithms of p, which carries
components as small as e^{−ρ} without harm.

Where the ball does not bind (w_k inside the hull of the others as the orthant sees it) the dual
optimum has [−v]₊ = 0: the norm is not differentiable there and h is not a function of p. The
remedy is the proximal point method: minimise F(h) + ½ε‖h − h̄‖² instead, move h̄ to the
minimiser, repeat. Each such problem has the smooth dual

    max_p H(p) + min_{h ∈ C} [⟨h, v⟩ + ½ε‖h − h̄‖²],  h = P_C(h̄ − v/ε),            (proximal dual)

and its centres converge to a solution of the original problem for every ε > 0 (Rockafellar
1976). ε = 0 gives (dual) back, so the two are one code with ε chosen for each problem.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpm.ball import distinct_problems
from lpm.problem import PeeledProblem, softplus
from lpm.solution import Multipliers, Solution, Status

Float = NDArray[np.float64]

_RADIUS_FACTOR = 4.0
_CHUNK_FLOATS = 1 << 22
_EPS = float(np.finfo(float).eps)

# h = R[−v]₊/‖[−v]₊‖ magnifies rounding in v by 1/θ, θ = ‖[−v]₊‖ / Σ p_j‖w_j − w_k‖ ≤ 1. The
# proximal form magnifies it by 1/(ε + θ) in the same units, and contracts at least as
# ε/(ε + θ); below θ = 0.05 the latter is the better bargain.
_DEGENERATE = 0.05
_PROXIMAL = 0.05


def largest_orthant_cosine(vectors: ArrayLike) -> Float:
    """max_{h ≥ 0} cos(h, w) = ‖[w]₊‖/‖w‖ of every row: how near a rectified feature can come.

    Parameters
    ----------
    vectors
        (..., d), e.g. the head.

    Returns
    -------
    ndarray
        (...,). For h ≥ 0, ⟨h, w⟩ ≤ ⟨h, [w]₊⟩ ≤ ‖h‖·‖[w]₊‖ with equality at h = [w]₊. For a
        direction drawn at random its square has mean ½ and variance about 5/(4d).

    Raises
    ------
    ValueError
        A vector is zero or has no positive entry: every h ≥ 0 then has cosine ≤ 0 with it, and
        the supremum is not given by this formula.
    """
    w = np.asarray(vectors, dtype=np.float64)
    positive = np.linalg.norm(np.maximum(w, 0.0), axis=-1)
    if not (positive > 0).all():
        raise ValueError(
            f"{int((~(positive > 0)).sum())} of {positive.size} vectors have no positive entry, "
            "so no h >= 0 has a positive cosine with them: drop them or flip their sign"
        )
    return np.asarray(positive / np.linalg.norm(w, axis=-1))


def solve_orthant(
    problem: PeeledProblem, *, tolerance: float | None = None, max_iterations: int = 500
) -> Solution:
    """Solve the fixed-head problem over {‖h‖² ≤ E_H, h ≥ 0}, any head.

    Parameters
    ----------
    problem
        With ``cone="nonnegative"``.
    tolerance
        Relative KKT residual to reach, the larger of `lpm.certify`'s stationarity and
        complementarity. By default the iteration goes on until rounding stops it, and the
        status judges the result against 1e-12 + 20·eps·ρ', ρ' = √E_H·max‖w_j − w_k‖: the
        logits carry an absolute error of eps·ρ', and the recovery of h from the dual magnifies
        it by up to 20.
    max_iterations
        Newton steps for each radius of the homotopy.

    Returns
    -------
    Solution
        ``stats`` has the number of distinct problems, total iterations, the worst residual, and
        how many distinct problems leave the ball inactive (λ = 0). Where the minimiser is not
        unique (a coordinate that no row of the head uses, or λ = 0 with F flat) it is one of
        them.

    Raises
    ------
    ValueError
        ``cone`` is not ``"nonnegative"``.
    """
    if problem.cone != "nonnegative":
        raise ValueError(
            f"solver 'orthant' needs cone='nonnegative', the problem has cone={problem.cone!r}: "
            "use solver='ball', or build the problem with cone='nonnegative'"
        )
    head = problem.head - problem.head.mean(axis=0)  # softmax ignores a common vector
    labels, energies, inverse = distinct_problems(problem)
    features = np.empty((len(labels), problem.dim))
    multiplier, log_odds, residual = (np.empty(len(labels)) for _ in range(3))
    iterations, limit_hit = 0, False
    chunk = max(1, _CHUNK_FLOATS // head.size)
    for start in range(0, len(labels), chunk):
        rows = slice(start, start + chunk)
        batch = _Batch(head, labels[rows], np.sqrt(energies[rows]))
        y, steps, hit = _solve_batch(batch, tolerance or 0.0, max_iterations)
        at = batch.kkt(y)
        features[rows] = batch.radius[:, None] * y
        multiplier[rows] = at.multiplier / energies[rows]
        log_odds[rows], residual[rows] = at.value, at.residual
        iterations += steps
        limit_hit |= hit

    reach = float(np.sqrt(energies.max()) * problem._distances.max())
    goal = tolerance if tolerance is not None else 1e-12 + 20 * _EPS * reach
    worst = float(residual.max())
    if worst <= goal:
        status = Status.SOLVED
    elif limit_hit:
        status = Status.ITERATION_LIMIT
    else:
        status = Status.STALLED
    return Solution(
        features=np.take(features, inverse, axis=0),
        multipliers=Multipliers.from_log_odds(multiplier[inverse], log_odds[inverse]),
        log_odds=log_odds[inverse],
        objective=-float(problem.weights @ softplus(log_odds)[inverse]),
        status=status,
        stats={
            "solver": "orthant",
            "distinct_problems": len(labels),
            "iterations": iterations,
            "kkt_residual": worst,
            "inactive_balls": int((multiplier == 0).sum()),
        },
    )


@dataclass(frozen=True)
class _Kkt:
    """The certificate's quantities at unit-ball points, each (B,)."""

    value: Float
    """F."""
    multiplier: Float
    """λ of ‖y‖² ≤ 1, zero inside the ball."""
    residual: Float
    """The larger of stationarity and complementarity, relative."""
    competitors: Float
    """(B, K) softmax over the other actions."""


@dataclass(frozen=True)
class _Primal:
    """What a dual point p says about h, in unit-ball coordinates y = h/R."""

    gradient: Float
    """(B, d) v = R·Dᵀp."""
    y: Float
    """(B, d) argmin over the unit ball's nonnegative part of ⟨y, v⟩ + ½ε‖y − ȳ‖²."""
    stiffness: Float
    """(B,) s: ∂y/∂v = −s·(M − [outside]·yyᵀ), M the mask of the positive coordinates."""
    outside: NDArray[np.bool_]
    """(B,) whether the ball binds."""
    dual: Float
    """(B,) the dual function."""


@dataclass(frozen=True)
class _Batch:
    """B problems; y = h/R lies in the unit ball's nonnegative part, logits are R·⟨y, w_j⟩."""

    head: Float
    """(K, d) centred."""
    labels: NDArray[np.intp]
    """(B,)"""
    radius: Float
    """(B,)"""

    def take(self, rows: NDArray[np.intp]) -> "_Batch":
        """The sub-batch of some problems."""
        return _Batch(self.head, self.labels[rows], self.radius[rows])

    def with_radius(self, radius: Float) -> "_Batch":
        """The same problems on other balls."""
        return _Batch(self.head, self.labels, radius)

    def logits(self, y: Float) -> Float:
        """(B, K) ⟨h, w_j − w_k⟩, −inf at the own label."""
        z = self.radius[:, None] * (y @ self.head.T)
        own = np.arange(len(y)), self.labels
        z = z - z[own][:, None]
        z[own] = -np.inf
        return np.asarray(z)

    def gradient(self, p: Float) -> Float:
        """(B, d) v = R·Σ_j p_j(w_j − w_k), the gradient of F in y where p is its softmax."""
        return np.asarray(self.radius[:, None] * (p @ self.head - self.head[self.labels]))

    def spread(self, p: Float) -> Float:
        """(B,) R·Σ_j p_j‖w_j − w_k‖, the yardstick of gradients (never zero)."""
        distance = np.linalg.norm(self.head - self.head[self.labels][:, None, :], axis=2)
        spread = self.radius * np.einsum("bk,bk->b", p, distance)
        return np.where(spread > 0, spread, 1.0)

    def primal(self, z: Float, weight: Float, centre: Float) -> _Primal:
        """Evaluate the dual with ε = ``weight`` (B,) and ȳ = ``centre`` (B, d) at p = softmax(z).

        With x = εȳ − v the minimiser is [x]₊ scaled to length min(‖[x]₊‖/ε, 1): the projection
        onto a ball about a cone's apex after the projection onto the cone.
        """
        p = _softmax(z)
        v = self.gradient(p)
        x = np.maximum(weight[:, None] * centre - v, 0.0)
        length = np.sqrt(np.einsum("bd,bd->b", x, x))
        outside = length > weight
        denominator = np.where(outside, length, weight)
        # ε = 0 and [−v]₊ = 0: every y with ⟨y, v⟩ = 0 is a minimiser; take y = 0.
        with np.errstate(divide="ignore"):
            stiffness = np.where(denominator > 0, 1.0 / denominator, 0.0)
        y = x * stiffness[:, None]
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        entropy = -np.einsum("bk,bk->b", p, np.where(p > 0, log_p, 0.0))
        move = y - centre
        dual = (
            entropy + np.einsum("bd,bd->b", v, y) + 0.5 * weight * np.einsum("bd,bd->b", move, move)
        )
        return _Primal(v, y, stiffness, outside, dual)

    def kkt(self, y: Float) -> _Kkt:
        """The KKT residual of `lpm.certify` at y."""
        z = self.logits(y)
        top = z.max(axis=1)
        value = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        p = _softmax(z)
        g, spread = self.gradient(p), self.spread(p)
        square = np.einsum("bd,bd->b", y, y)
        with np.errstate(invalid="ignore", divide="ignore"):
            fitted = np.where(
                square > 0, np.maximum(0.0, -np.einsum("bd,bd->b", g, y) / (2 * square)), 0.0
            )
        # h ≥ 0 may absorb a positive residual where h = 0: the natural residual min(ν, h).
        r = np.minimum(g + 2 * fitted[:, None] * y, y * spread[:, None])
        stationarity = np.sqrt(np.einsum("bd,bd->b", r, r))
        complementarity = 2 * fitted * np.maximum(0.0, 1 - square)
        return _Kkt(
            value=value,
            multiplier=np.where(square < 1 - 1e-9, 0.0, fitted),
            residual=np.maximum(stationarity, complementarity) / spread,
            competitors=p,
        )


def _softmax(z: Float) -> Float:
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _solve_batch(batch: _Batch, tolerance: float, max_iterations: int) -> tuple[Float, int, bool]:
    """Minimise every problem; returns y (B, d), steps taken, and whether a limit was hit.

    At large R the entropy in the dual is a faint barrier and Newton's model is good only near
    the solution; the solution of a four times smaller ball is near enough (as in `lpm.ball`).
    """
    size = float(np.linalg.norm(batch.head, axis=1).max())
    z = np.zeros((len(batch.labels), len(batch.head)))
    z[np.arange(len(z)), batch.labels] = -np.inf
    y = np.zeros((len(z), batch.head.shape[1]))
    steps = 0
    radius = np.minimum(batch.radius, 1.0 / size)
    while True:
        final = bool((radius >= batch.radius).all())
        stage_tolerance = tolerance if final else 1e-3
        y, z, taken = _newton(batch.with_radius(radius), y, z, stage_tolerance, max_iterations)
        steps += taken
        if final:
            for b in np.flatnonzero(np.einsum("bd,bd->b", y, y) < 1 - 1e-9):
                y[b : b + 1] = _polish_inside(batch.take(np.array([b])), y[b : b + 1])
            # h = 0 is optimal iff ∇F(0) ≥ 0; iterates reach it only to rounding.
            zero = batch.kkt(np.zeros_like(y)).residual <= np.maximum(batch.kkt(y).residual, 1e-14)
            return np.where(zero[:, None], 0.0, y), steps, taken >= max_iterations
        larger = np.minimum(radius * _RADIUS_FACTOR, batch.radius)
        # Where the ball binds, h leaves along its ray and the logits grow with it; where it
        # does not, h stays and shrinks in units of the ball.
        growth = (larger / radius)[:, None]
        active = (np.einsum("bd,bd->b", y, y) >= 1 - 1e-9)[:, None]
        z = np.where(active, z * growth, z)
        y = np.where(active, y, y / growth)
        radius = larger


def _polish_inside(batch: _Batch, y: Float) -> Float:
    """Newton on F over the positive coordinates of one point (1, d) strictly inside the ball.

    There the constraints that bind are y_i = 0 alone and the problem is smooth and unconstrained
    in the rest; the proximal iteration has rounding eps/ε, this has not. ∇²F = BᵀB with
    B = S N S⁻¹·(rows of R·head, p-centred), singular where F is flat: the shortest step.
    """
    at = batch.kkt(y)
    for _ in range(20):
        free = y[0] > 0
        p = at.competitors[0]
        b = np.sqrt(p)[:, None] * (batch.head - p @ batch.head)[:, free] * batch.radius
        _, singular, basis = np.linalg.svd(b, full_matrices=False)
        keep = singular > 1e-7 * singular.max(initial=0.0)
        gradient = batch.gradient(at.competitors)[0, free]
        step = basis[keep].T @ ((basis[keep] @ gradient) / singular[keep] ** 2)
        new = y.copy()
        new[0, free] = np.maximum(y[0, free] - step, 0.0)
        after = batch.kkt(new)
        if not after.residual[0] < at.residual[0] or np.linalg.norm(new) >= 1:
            break
        y, at = new, after
    return y


def _newton(
    batch: _Batch, y: Float, z: Float, tolerance: float, max_iterations: int
) -> tuple[Float, Float, int]:
    """Newton on the dual from p = softmax(z) until the KKT residual stops falling.

    ``y`` is the first proximal centre. Returns the best y, its z, and the steps taken.
    """
    best_y, best_z = y.copy(), z.copy()
    best_residual = np.full(len(y), np.inf)
    patience = np.zeros(len(y), dtype=int)
    centre, z = y.copy(), z.copy()
    weight = np.zeros(len(y))
    recentred = np.full(len(y), np.inf)
    live = np.arange(len(y))
    for step in range(max_iterations):
        part = batch.take(live)
        p = _softmax(z[live])
        spread = part.spread(p)
        # θ < 0.05 in the pure dual: go over to the proximal one. ε is in units of the spread.
        negative = np.maximum(-part.gradient(p), 0.0)
        theta = np.sqrt(np.einsum("bd,bd->b", negative, negative)) / spread
        degenerate = (theta < _DEGENERATE) & (weight[live] == 0)
        weight[live] = np.where(degenerate, _PROXIMAL * spread, weight[live])
        at = part.primal(z[live], weight[live], centre[live])
        kkt = part.kkt(at.y)

        gained = kkt.residual < best_residual[live]
        better = kkt.residual < 0.5 * best_residual[live]
        patience[live] = np.where(better, 0, patience[live] + 1)
        best_y[live[gained]], best_z[live[gained]] = at.y[gained], z[live[gained]]
        best_residual[live[gained]] = kkt.residual[gained]

        # Once p solves the proximal problem ten times better than y solves the original one,
        # y becomes the centre; where θ has grown, the pure dual (ε = 0) does the rest.
        mismatch = part.gradient(kkt.competitors) - at.gradient
        inner = np.sqrt(np.einsum("bd,bd->b", mismatch, mismatch)) / spread
        recentre = (weight[live] > 0) & (inner <= 0.1 * kkt.residual)
        centre[live[recentre]] = at.y[recentre]
        # The smaller ε, the faster the centres converge and the larger the rounding in y, eps/ε:
        # lower ε where the last centre did not reduce the residual fourfold.
        slow = recentre & (kkt.residual > 0.25 * recentred[live])
        weight[live] = np.where(slow, np.maximum(0.25 * weight[live], 1e-7 * spread), weight[live])
        recentred[live] = np.where(recentre, kkt.residual, recentred[live])
        weight[live] = np.where(recentre & (theta > 4 * _DEGENERATE), 0.0, weight[live])

        # The last steps halve the residual at least, unless only rounding is left.
        # The proximal iteration is linear and pauses while a new centre is approached.
        pure = weight[live] == 0
        stuck = np.where(
            pure, (patience[live] >= 4) & (best_residual[live] < 1e-10), patience[live] >= 25
        ) | (patience[live] >= 60)
        go_on = (best_residual[live] > tolerance) & ~stuck
        if not go_on.any():
            return best_y, best_z, step
        live = live[go_on]
        z[live] = _step(batch.take(live), z[live], weight[live], centre[live])
    return best_y, best_z, max_iterations


def _step(batch: _Batch, z: Float, weight: Float, centre: Float) -> Float:
    """One damped semismooth Newton step of the concave dual in z = log p (up to a constant).

    The dual's gradient in p is −r up to a constant, r = z − R·D y(p), and −y'(p) gives
    A = s·R²(D M Dᵀ − [outside]·(Dy)(Dy)ᵀ) ⪰ 0; entropy adds diag(1/p). With
    P = diag(p) − ppᵀ and dp = P dz Newton's equation reads (I + AP) dz = −r. Writing
    P = S N S, S = diag(√p) and N = I − √p√pᵀ a projector, u = N S dz solves the symmetric
    (I + N S A S N) u = −N S r, whose eigenvalues are at least one, and dz = −r − A S u.
    """
    at = batch.primal(z, weight, centre)
    p = _softmax(z)
    rows = np.arange(len(z)), batch.labels
    logits = batch.logits(at.y)
    logits[rows] = 0.0
    r = np.where(np.isfinite(z), z, 0.0) - logits
    r -= np.einsum("bk,bk->b", p, r)[:, None]
    r[rows] = 0.0
    # Rows relative to their p-mean: P annihilates the difference, and S A S is N S A S N as it is.
    mean = p @ batch.head
    masked = (batch.head - mean[:, None, :]) * (at.y > 0)[:, None, :]
    moved = np.einsum("bkd,bd->bk", masked, at.y)
    a = masked @ np.swapaxes(masked, 1, 2) - np.where(at.outside, 1.0, 0.0)[:, None, None] * (
        moved[:, :, None] * moved[:, None, :]
    )
    a *= (at.stiffness * batch.radius**2)[:, None, None]
    root = np.sqrt(p)
    system = np.eye(len(batch.head)) + root[:, :, None] * a * root[:, None, :]
    right = root * r  # N is the identity on it: r has p-mean zero
    u = np.linalg.solve(system, -right[:, :, None])[:, :, 0]
    dz = -r - np.einsum("bkj,bj->bk", a, root * u)
    dz -= np.einsum("bk,bk->b", p, dz)[:, None]  # now dp = p·dz
    dz[rows] = 0.0
    slope = -np.einsum("bk,bk->b", right, u)  # ⟨∇, dp⟩ = uᵀ(I + …)u ≥ 0

    length = np.ones(len(z))
    noise = 8 * _EPS * (1 + np.abs(at.dual) + batch.spread(p))
    for _ in range(40):
        # p grows as p(1 + t·dz), Newton's own step, and shrinks as p·e^{t·dz}, which stays
        # positive: both agree with dp to first order.
        t = length[:, None] * dz
        new = z + np.where(t > 0, np.log1p(np.maximum(t, 0.0)), t)
        new -= new.max(axis=1, keepdims=True)
        dual = batch.primal(new, weight, centre).dual
        bad = ~(dual >= at.dual + 1e-4 * length * slope - noise)
        if not bad.any():
            return np.asarray(new)
        length = np.where(bad, length / 2, length)
    return np.asarray(np.where(bad[:, None], z, new))
