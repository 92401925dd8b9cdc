"""Enclosure of the learned head's optimum that holds with every rounding error counted.

The bounds are those of the nuclear-norm form, here evaluated in ball arithmetic (`lpm.enclosure`);
the energies are taken as the exact dyadic numbers that they are. Nothing about the candidate is
trusted: a float64 search and Newton iterations at higher precision only *propose* it, and a bad
proposal gives a wide enclosure, never a wrong one.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from lpm.enclosure import (
    Ball,
    BallMatrix,
    Enclosure,
    Ends,
    Float,
    as_enclosure,
    flint_module,
    floats,
    intersect,
    lower_end,
    narrow,
    upper_end,
)
from lpm.problem import log_softplus, softplus


def enclose_free_head(
    counts: ArrayLike,
    feature_energy: float,
    head_energy: float,
    logits: ArrayLike | None = None,
    *,
    refine: bool = True,
) -> Enclosure:
    """Enclose the optimal loss of the layer-peeled model with a learned head (d ≥ K).

    min (1/N) Σ_k n_k CE(W h_k, k) subject to (1/K)Σ‖h_k‖² ≤ E_H, (1/K)Σ‖w_k‖² ≤ E_W (Fang et
    al. 2021) has the optimal value of min f(Z), ‖Z‖_* ≤ τ = K√(E_H·E_W) over the (K, K) logits
    Z, which is convex. Upper bound: f at Z = A Bᵀ with ½(‖A‖² + ‖B‖²) ≤ τ, which bounds
    ‖Z‖_*. Lower bound: f(Z) − ⟨G, Z⟩ − τ‖G‖₂, G = ∇f(Z), by convexity and norm duality, with
    ‖G‖₂ ≤ t proved by a Cholesky factorisation of t²I − GᵀG in ball arithmetic.

    Parameters
    ----------
    counts
        (K,) n_k, positive integers, K ≥ 2.
    feature_energy, head_energy
        E_H, E_W > 0, taken as the exact float64 numbers.
    logits
        (K, K) candidate Z, feasible or not, e.g. ``solve_free_head(...).logits``. By default a
        quasi-Newton search of this module's own, which shares no code with that solver.
    refine
        Improve the candidate by Newton's method with residuals at higher precision. Without it
        the enclosure says how good the candidate itself is.

    Returns
    -------
    Enclosure
        Its width was at most 1.4e-17 of the value in a thousand random models of K ≤ 12 (any
        counts, ρ from 0.01 to 300) and for K = 24, and 1e-20 at the transition R1 itself, where
        the optimum is degenerate; what holds for the case at hand is in the field ``width``.

    Raises
    ------
    ImportError
        python-flint is not installed.
    ValueError
        Counts that are not positive integers, K < 2, energies that are not positive, logits of
        the wrong shape or not finite.
    """
    model = _FreeHead(
        flint_module(),
        _checked_counts(counts),
        _checked_energy(feature_energy, "feature_energy"),
        _checked_energy(head_energy, "head_energy"),
    )
    starts: list[Float | None] = [None]
    if logits is not None:
        z = np.asarray(logits, dtype=np.float64)
        size = len(model.counts)
        if z.shape != (size, size):
            raise ValueError(f"logits must be (K, K) with K = {size} counts, got {z.shape}")
        if not np.isfinite(z).all():
            raise ValueError(f"logits has {int((~np.isfinite(z)).sum())} non-finite entries")
        starts = [z, None] if refine else [z]
    return as_enclosure(*model.enclose(starts, refine), at_least_zero=True)


@dataclass(frozen=True)
class _Factors:
    """A point A Bᵀ on the sphere of norm τ; all entries exact, G in units of ``unit``."""

    a: BallMatrix
    b: BallMatrix
    value: Ball
    gradient: BallMatrix
    softmax: BallMatrix
    unit: Ball
    mu: float
    residual: list[Ball]
    residual_size: Ball
    level: float
    """log of the largest entry of the residual, −inf at 0."""


@dataclass(frozen=True)
class _FreeHead:
    """min f(Z) over ‖Z‖_* ≤ τ in ball arithmetic, through factors Z = A Bᵀ."""

    flint: Any
    counts: list[int]
    feature_energy: float
    head_energy: float

    @property
    def radius(self) -> Ball:
        """τ = K·√(E_H·E_W)."""
        arb = self.flint.arb
        return len(self.counts) * (arb(self.feature_energy) * arb(self.head_energy)).sqrt()

    def enclose(self, starts: list[Float | None], refine: bool) -> Ends:
        """Intersect the enclosures from the starts (None: search), refined ones last."""
        best: Ends | None = None
        for start in starts:
            logits = self._search() if start is None else start
            left, values, right = np.linalg.svd(logits)
            for bits in (192, 384) if refine else (192,):
                for rank in _plausible_ranks(values) if refine else (len(values),):
                    root = np.sqrt(values[:rank])
                    factors = left[:, :rank] * root, right.T[:, :rank] * root
                    with self.flint.ctx.workprec(bits):
                        a, b = (self.flint.arb_mat(x.tolist()) for x in factors)
                        best = intersect(best, (*self._bounds(a, b), bits))
                        if refine and not narrow(best, absolute=False):
                            a, b = self._newton(a, b)
                            best = intersect(best, (*self._bounds(a, b), bits))
                    if narrow(best, absolute=False):
                        return best
        assert best is not None
        return best

    def _loss(self, z: BallMatrix) -> tuple[Ball, BallMatrix, BallMatrix]:
        """f(Z) = Σ (n_k/N) log(1 + Σ_{j≠k} e^{z_kj − z_kk}), its gradient, and the softmax.

        The diagonal of the softmax holds 1 − p_kk, of the gradient −(n_k/N)(1 − p_kk), neither
        by subtraction from 1.
        """
        arb = self.flint.arb
        size = len(self.counts)
        value = arb(0)
        gradient, softmax = self.flint.arb_mat(size, size), self.flint.arb_mat(size, size)
        for k, count in enumerate(self.counts):
            weight = arb(count) / sum(self.counts)
            e = [(z[k, j] - z[k, k]).exp() if j != k else arb(0) for j in range(size)]
            rest = sum(e, arb(0))
            value += weight * rest.log1p()
            e[k] = rest
            for j in range(size):
                softmax[k, j] = e[j] / (1 + rest)
                gradient[k, j] = weight * softmax[k, j] * (-1 if j == k else 1)
        return value, gradient, softmax

    def _bounds(self, a: BallMatrix, b: BallMatrix) -> tuple[Ball, Ball]:
        """Exact lower and upper end for f* from any exact factors."""
        arb, radius = self.flint.arb, self.radius
        # ‖A Bᵀ‖_* ≤ ‖A‖_F‖B‖_F ≤ ½(‖A‖_F² + ‖B‖_F²).
        norm = sum((x * x for x in a.entries() + b.entries()), arb(0)) / 2
        z = a * b.transpose()
        if not norm <= radius:
            z = z * lower_end(radius / norm)
        value, gradient, _ = self._loss(z)
        inner = sum((g * x for g, x in zip(gradient.entries(), z.entries(), strict=True)), arb(0))
        spectral = self._spectral_bound(gradient, -inner / radius)
        return lower_end(value - inner - radius * spectral), upper_end(value)

    def _spectral_bound(self, gradient: BallMatrix, guess: Ball) -> Ball:
        """Exact t ≥ ‖G‖₂, a little above ``guess`` if that is (nearly) the norm.

        At an optimum −⟨G, Z⟩ = τ‖G‖₂, so the guess −⟨G, Z⟩/τ is the norm itself, and never more
        than it (‖Z‖_* ≤ τ). t = guess·(1 + 2^{−k}) adds 2^{−k}·τ‖G‖₂ to the gap: find the largest
        k for which t²I − GᵀG is proved positive definite.
        """
        arb = self.flint.arb
        frobenius = upper_end(sum((g * g for g in gradient.entries()), arb(0))).sqrt()
        frobenius = upper_end(frobenius)
        if not guess > 0:
            return frobenius
        guess = guess.mid()
        square = gradient.transpose() * gradient

        def proved(k: int) -> bool:
            return _positive_definite(square, self._candidate(guess, k) ** 2)

        low, high = -1, self.flint.ctx.prec  # proved at low, not at high
        while not proved(low):
            low, high = 2 * low, low
            if low < -64 or not self._candidate(guess, low) < frobenius:
                return frobenius
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if proved(middle) else (low, middle)
        proved_end = self._candidate(guess, low)
        return proved_end if proved_end < frobenius else frobenius

    def _candidate(self, guess: Ball, k: int) -> Ball:
        return upper_end(guess * (1 + self.flint.arb(2) ** -k))

    def _newton(self, a: BallMatrix, b: BallMatrix) -> tuple[BallMatrix, BallMatrix]:
        """Exact factors near an optimum, by Newton's method on its conditions.

            G B + μA = 0,   Gᵀ A + μB = 0,   ½(‖A‖² + ‖B‖²) = τ.

        The residual is taken at full precision, the matrix in float64 (everything in units of
        ‖G‖_F, so that nothing underflows): iterative refinement, some ten digits a step. Away
        from the solution the matrix is made positive and the step shortened until f falls, f
        too at full precision: next to a transition it is flat far below float64's resolution.
        """
        at = self._balance(a, b)
        if at is None:
            return a, b
        inverse: Float | None = None
        for _ in range(200):
            if not at.level > -math.inf:
                break
            if inverse is None or at.level > math.log(1e-8):
                inverse = self._inverse_hessian(at)
            largest = at.residual_size
            right = np.array([float(x / largest) for x in at.residual])
            step = -(inverse @ right)
            following = None
            for halvings in range(30):
                length = largest / 2**halvings
                moved = [
                    x + self.flint.arb_mat(part.tolist()) * length
                    for x, part in zip(
                        (at.a, at.b), step.reshape(2, *floats(at.a).shape), strict=True
                    )
                ]
                trial = self._balance(*moved)
                if trial is not None and (
                    trial.value < at.value or trial.level < at.level - math.log(2)
                ):
                    following = trial
                    break
                # Nothing left but rounding: shorter steps would not help.
                if at.level < math.log(1e-20):
                    break
            if following is None:
                break
            at = following
        return at.a, at.b

    def _balance(self, a: BallMatrix, b: BallMatrix) -> "_Factors | None":
        """The factors scaled to ½(‖A‖² + ‖B‖²) = τ with f and the residual; None if lost."""
        arb = self.flint.arb
        norm = (sum((x * x for x in a.entries() + b.entries()), arb(0)) / 2).mid()
        if not (norm > 0 and norm.is_finite()):
            return None
        scale = (self.radius / norm).sqrt().mid()
        a, b = (a * scale).mid(), (b * scale).mid()
        z = (a * b.transpose()).mid()
        value, gradient, softmax = self._loss(z)
        unit = sum((g * g for g in gradient.entries()), arb(0)).sqrt().mid()
        if not (unit > 0 and unit.is_finite()):
            return None
        gradient = (gradient * (1 / unit)).mid()
        inner = sum((g * x for g, x in zip(gradient.entries(), z.entries(), strict=True)), arb(0))
        mu = (-inner / self.radius).mid()
        residual = [
            *(gradient * b + a * mu).mid().entries(),
            *(gradient.transpose() * a + b * mu).mid().entries(),
        ]
        size = arb(0)
        for x in residual:
            size = abs(x) if abs(x) > size else size
        level = float(size.log().mid()) if size > 0 else -math.inf
        return _Factors(
            a, b, value.mid(), gradient, softmax, unit, float(mu), residual, size, level
        )

    def _inverse_hessian(self, at: "_Factors") -> Float:
        """Inverse of |∇²L| on the tangent space of the sphere, in units of ‖G‖_F, float64.

        L = f(A Bᵀ) + ½μ(‖A‖² + ‖B‖²). A common rotation of the factors changes nothing: those
        directions have eigenvalue 0 and are left alone.
        """
        size, rank = len(self.counts), at.a.ncols()
        left, right, g = floats(at.a), floats(at.b), floats(at.gradient)
        softmax = at.softmax
        # ∇²f of row k: (n_k/N)(diag p − ppᵀ); its own 1 − p_kk without subtraction from 1.
        curvature = np.empty((size, size, size))
        for k, count in enumerate(self.counts):
            weight = self.flint.arb(count) / sum(self.counts) / at.unit
            p = [softmax[k, j] if j != k else 1 - softmax[k, k] for j in range(size)]
            for i in range(size):
                for j in range(size):
                    rest = softmax[k, k] if i == k else 1 - p[i]
                    entry = p[i] * rest if i == j else -p[i] * p[j]
                    curvature[k, i, j] = float((weight * entry).mid())
        # dZ_kj = Σ_l dA_kl B_jl + A_kl dB_jl.
        jacobian = np.zeros((size, size, 2, size, rank))
        rows = np.arange(size)
        jacobian[rows, :, 0, rows, :] = right
        jacobian[:, rows, 1, rows, :] = left[:, None, :]
        jacobian = jacobian.reshape(size, size, -1)
        bent = np.einsum("kij,kjy->kiy", curvature, jacobian)
        count = size * rank
        system = jacobian.reshape(size * size, -1).T @ bent.reshape(size * size, -1)
        cross = np.einsum("kj,lm->kljm", g, np.eye(rank)).reshape(count, count)
        system[:count, count:] += cross
        system[count:, :count] += cross.T
        system[np.arange(2 * count), np.arange(2 * count)] += at.mu
        normal = np.concatenate([left.ravel(), right.ravel()])
        normal /= np.linalg.norm(normal)
        system -= np.outer(normal, normal @ system)
        system -= np.outer(system @ normal, normal)
        eigenvalues, vectors = np.linalg.eigh((system + system.T) / 2)
        size_of = np.abs(eigenvalues)
        keep = size_of > 1e-11 * size_of.max()
        return np.asarray((vectors[:, keep] / size_of[keep]) @ vectors[:, keep].T)

    def _search(self) -> Float:
        """Logits near the optimum by L-BFGS on log f, scaled onto the sphere of norm τ.

        Square factors leave the non-convex form without spurious local minima (Burer & Monteiro
        2005); a doubling of τ between searches keeps each one short at large τ.
        """
        size = len(self.counts)
        radius = size * math.sqrt(self.feature_energy) * math.sqrt(self.head_energy)
        weights = np.array(self.counts) / sum(self.counts)
        others = ~np.eye(size, dtype=bool)
        stage = min(radius, 4.0 * size)

        def objective(x: Float) -> tuple[float, Float]:
            a, b = x.reshape(2, size, size)
            norm = 0.5 * float(x @ x)
            z = stage / norm * a @ b.T
            shifted = np.where(others, z - np.diag(z)[:, None], -np.inf)
            top = shifted.max(axis=1, keepdims=True)
            e = np.exp(shifted - top)
            total = e.sum(axis=1, keepdims=True)
            odds = (top + np.log(total))[:, 0]
            terms = np.log(weights) + log_softplus(odds)
            log_f = float(np.logaddexp.reduce(terms))
            # ∂ log f/∂F_k = ω_k σ(F_k)/f.
            rate = np.exp(np.log(weights) - softplus(-odds) - log_f)
            g = rate[:, None] * e / total
            g[np.arange(size), np.arange(size)] = -rate
            g *= stage / norm
            radial = float((g * (a @ b.T)).sum()) / norm
            slope = np.stack([g @ b - radial * a, g.T @ a - radial * b])
            return log_f, slope.ravel()

        # Deterministic: the noise only breaks the symmetry of the start.
        noise = 0.01 * np.random.default_rng(0).standard_normal((2, size, size))
        x = (np.stack([np.eye(size) - 1 / size] * 2) + noise).ravel()
        while True:
            x = minimize(
                objective, x, jac=True, method="L-BFGS-B",
                options={"maxiter": 3000, "maxfun": 4000, "maxcor": 30, "gtol": 1e-11,
                         "ftol": 1e-16},
            ).x  # fmt: skip
            if stage >= radius:
                break
            stage = min(radius, 2 * stage)
        a, b = x.reshape(2, size, size)
        return np.asarray(stage / (0.5 * float(x @ x)) * a @ b.T)


def _plausible_ranks(values: Float) -> list[int]:
    """Ranks that the optimum may have, judged by a candidate's singular values; the full first.

    Next to a transition a singular value of the optimum is 0 but nearly free to grow, and
    Newton's method with it present converges slowly: without it, it does not.
    """
    cuts = values[0] * np.array([0.0, 1e-7, 1e-5, 1e-4, 1e-3, 1e-2])
    return sorted({max(1, int((values > cut).sum())) for cut in cuts}, reverse=True)


def _positive_definite(square: BallMatrix, shift: Ball) -> bool:
    """Whether shift·I − S is proved positive definite: every pivot of LDLᵀ is a positive ball.

    S is symmetric. If no pivot's ball reaches 0, the same holds for the pivots of every
    symmetric matrix inside, and positive pivots mean positive definite.
    """
    size = square.nrows()
    m = [
        [(shift if i == j else 0) - square[i, j] for j in range(i + 1)] for i in range(size)
    ]  # lower triangle
    for k in range(size):
        pivot = m[k][k]
        if not pivot > 0:
            return False
        for i in range(k + 1, size):
            ratio = m[i][k] / pivot
            for j in range(k + 1, i + 1):
                m[i][j] = m[i][j] - ratio * m[j][k]
    return True


def _checked_counts(counts: ArrayLike) -> list[int]:
    n = np.asarray(counts)
    if n.ndim != 1 or len(n) < 2:
        raise ValueError(f"counts must be (K,) with K >= 2 classes, got shape {n.shape}")
    if n.dtype.kind not in "iuf" or not (np.isfinite(n) & (n > 0) & (n == np.floor(n))).all():
        raise ValueError(
            f"counts must be positive integers, got {n.tolist()}: leave out empty classes"
        )
    return [int(x) for x in n]


def _checked_energy(value: float, name: str) -> float:
    x = float(value)
    if not (math.isfinite(x) and x > 0):
        raise ValueError(f"{name} must be > 0 and finite, got {x}")
    return x
