"""Enclosures of the two optima that hold with every rounding error counted.

The bounds are those of `lpm.certificate` and of the nuclear-norm form of the learned head, here
evaluated in ball arithmetic (Johansson 2017, "Arb"; python-flint): every number is a midpoint
and a radius, every operation rounds outward, and the float64 input is taken as the exact dyadic
number that it is. Nothing about the candidate is trusted: float64 solvers and Newton iterations
at higher precision only *propose* it, and a bad proposal gives a wide enclosure, never a wrong
one.

python-flint is optional: ``pip install 'action-collapse[rigorous]'``.
"""

import decimal
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from lpm.ball import solve_ball
from lpm.problem import PeeledProblem, log_softplus, softplus

Float = NDArray[np.float64]
# arb and arb_mat of python-flint, which is imported only when a function runs.
Ball = Any
BallMatrix = Any

# Width to aim for, relative to the number: below float64's own spacing.
_TARGET = 2.0**-56
_DIGITS = 40
# Exponents beyond this are written as a power of ten: an exact conversion takes minutes.
_TEXT_BITS = 200_000


@dataclass(frozen=True)
class Enclosure:
    """A proven statement lower ≤ x ≤ upper about a real number x."""

    lower: float
    """Rounded down to float64 (−inf where nothing is proved)."""
    upper: float
    """Rounded up to float64."""
    width: float
    """Upper minus lower end *before* they were rounded to float64, rounded up: float64 ends
    next to a large number cannot be closer than its spacing."""
    precision_bits: int
    """Working precision of the ball arithmetic that gave the ends."""
    lower_text: str
    """The lower end, rounded down to 40 digits."""
    upper_text: str
    """The upper end, rounded up to 40 digits."""

    def contains(self, other: "Enclosure") -> bool:
        """Whether every number that ``other`` allows lies between the ends of this one."""
        return decimal.Decimal(self.lower_text) <= decimal.Decimal(
            other.lower_text
        ) and decimal.Decimal(other.upper_text) <= decimal.Decimal(self.upper_text)


@dataclass(frozen=True)
class FixedHeadEnclosure(Enclosure):
    """Encloses the optimal loss L* = Σ weights · (−log π(a*)) of a `PeeledProblem`."""

    log_odds: tuple[Enclosure, ...]
    """(N,) encloses F*_s = min F(h_s) = log((1 − π)/π); meaningful where the loss underflows."""


def enclose_fixed_head(
    problem: PeeledProblem, features: ArrayLike | None = None, *, refine: bool = True
) -> FixedHeadEnclosure:
    """Enclose the optimum of the fixed-head problem, for exactly the float64 data given.

    Upper bound: F at a point of the ball. Lower bound: H(p) − √E_H·‖Σ p_j(w_j − w_k)‖ at a p
    in the simplex (see `lpm.certificate`).

    Parameters
    ----------
    problem
        With ``cone="free"``. States of equal label and energy share one enclosure, so the cost
        grows with the number of distinct ones.
    features
        (N, d) candidate, feasible or not; of states that share a problem the first counts. By
        default the solution of ``solver="ball"``.
    refine
        Improve the candidate by Newton's method at higher precision until the width of F* is
        below 1.4e-17·max(1, |F*|). Without it the enclosure says how good the candidate itself
        is.

    Returns
    -------
    FixedHeadEnclosure

    Raises
    ------
    ImportError
        python-flint is not installed.
    ValueError
        ``cone`` is not ``"free"``; features of the wrong shape or not finite.
    """
    flint = _flint()
    if problem.cone != "free":
        raise ValueError(
            f"enclosures need cone='free', the problem has cone={problem.cone!r}: "
            "lpm.certify bounds that cone in float64"
        )
    candidates = []
    if features is not None:
        given = np.asarray(problem.checked_features(features), dtype=np.float64)
        if not np.isfinite(given).all():
            raise ValueError(
                f"features has {int((~np.isfinite(given)).sum())} non-finite entries of "
                f"{given.size}: pass a finite candidate, or None for the solver's own"
            )
        candidates.append(given)
    if features is None or refine:
        candidates.append(solve_ball(problem).features)

    keys, first, inverse = np.unique(
        np.stack([problem.labels.astype(np.float64), problem.energies], axis=1),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    ends = []
    for (label, energy), row in zip(keys, first, strict=True):
        state = _FixedState(problem.head, int(label), float(energy))
        ends.append(state.enclose([h[row] for h in candidates], refine))
    log_odds = [_enclosure(*end) for end in ends]
    inverse = inverse.reshape(-1)
    bits = max(end[2] for end in ends)
    with flint.ctx.workprec(bits):
        lower = upper = flint.arb(0)
        for i, end in enumerate(ends):
            weight = _exact_sum(problem.weights[inverse == i])
            lower += weight * _ball_softplus(end[0])
            upper += weight * _ball_softplus(end[1])
        total = _enclosure(_lower(lower), _upper(upper), bits, at_least_zero=True)
    return FixedHeadEnclosure(**vars(total), log_odds=tuple(log_odds[int(i)] for i in inverse))


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
        _flint(),
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
    return _enclosure(*model.enclose(starts, refine), at_least_zero=True)


# --- fixed head --------------------------------------------------------------------------------

# Exact lower and upper end of an enclosure, and the precision in bits that gave them.
_Ends = tuple[Ball, Ball, int]


@dataclass(frozen=True)
class _FixedState:
    """min F(h) over ‖h‖² ≤ E for one label, in ball arithmetic."""

    head: Float
    label: int
    energy: float

    def enclose(self, candidates: list[Float], refine: bool) -> _Ends:
        """Intersect the enclosures from the candidates, refined ones last."""
        flint = _flint()
        reach = 2 * math.sqrt(self.energy) * float(np.linalg.norm(self.head, axis=1).max())
        # The logits have log2(reach) bits before the binary point.
        base = 320 + 2 * max(0, math.ceil(math.log2(1 + reach)))
        best: _Ends | None = None
        for bits in (base, 2 * base) if refine else (base,):
            with flint.ctx.workprec(bits):
                rows = np.delete(np.arange(len(self.head)), self.label)
                own = [flint.arb(float(x)) for x in self.head[self.label]]
                differences = flint.arb_mat(
                    [[flint.arb(float(x)) - y for x, y in zip(self.head[j], own, strict=True)]
                     for j in rows]
                )  # fmt: skip
                for h in candidates:
                    point = flint.arb_mat([[float(x)] for x in h])
                    best = _intersect(best, (*self._bounds(differences, point), bits))
                    if not refine:
                        continue
                    for active in (True, False):
                        if _narrow(best):
                            return best
                        better = self._newton(differences, h, active)
                        best = _intersect(best, (*self._bounds(differences, better), bits))
            if best is not None and _narrow(best):
                break
        assert best is not None
        return best

    def _bounds(self, differences: BallMatrix, h: BallMatrix) -> tuple[Ball, Ball]:
        """Exact lower and upper end for F* from any exact (d, 1) point."""
        flint = _flint()
        energy = flint.arb(self.energy)
        square = sum((x * x for x in h.entries()), flint.arb(0))
        if not square <= energy:  # true only if proved
            # s ≤ √(E/‖h‖²) exact, so the exact point s·h is in the ball; the ball vector below
            # contains it. (‖h‖² > 0 is certain here up to precision; otherwise s is not finite
            # and so is the bound.)
            h = h * _lower((energy / square).sqrt())
        z = (differences * h).entries()
        top = flint.arb(max(float(x.mid()) for x in z)) if _all_finite(z) else flint.arb(0)
        upper = top + sum(((x - top).exp() for x in z), flint.arb(0)).log()

        # p = q/Σq with q the exact midpoints of the candidate's softmax: p is a rational point
        # of the simplex, and the balls below contain it exactly.
        q = [(x.mid() - top).exp().mid() for x in z]
        total = sum(q, flint.arb(0))
        negative_entropy = sum((x * x.log() for x in q if x > 0), flint.arb(0)) / total
        entropy = total.log() - negative_entropy  # H(q/S) = log S − Σ q log q / S
        v = (differences.transpose() * flint.arb_mat([[x / total] for x in q])).entries()
        # The square root of an upper end: that of a ball around 0 would not be defined.
        length = _upper(sum((x * x for x in v), flint.arb(0))).sqrt()
        return _lower(entropy - energy.sqrt() * length), _upper(upper)

    def _newton(self, differences: BallMatrix, h: Float, active: bool) -> BallMatrix:
        """An exact point near the minimiser, by Newton's method on the optimality conditions.

        ∇F + 2λh = 0 says h = Dᵀα with 2λα + softmax(Dh) = 0, D the (K−1, d) differences: K − 1
        unknowns (and λ, with αᵀDDᵀα = E, if the ball is active) whatever d is. If it is not, a
        fixed λ = 2⁻¹⁰⁰/E picks a minimiser and costs at most 2λE = 2⁻⁹⁹ of F.
        """
        flint = _flint()
        rows = np.delete(np.arange(len(self.head)), self.label)
        d = self.head[rows] - self.head[self.label]
        n = len(d)
        alpha = flint.arb_mat([[float(x)] for x in np.linalg.lstsq(d.T, h, rcond=None)[0]])
        gram = (differences * differences.transpose()).mid()
        energy = flint.arb(self.energy)
        if active:
            z = d @ h
            p = np.exp(z - z.max())
            multiplier = flint.arb(
                max(float(-(p @ z) / p.sum() / (2 * self.energy)), 1e-300 / self.energy)
            )
        else:
            multiplier = flint.arb(2) ** -100 / energy
        previous = flint.arb(1)
        for _ in range(40):
            image = (gram * alpha).mid()
            z_ball = image.entries()
            top = flint.arb(max(float(x) for x in z_ball))
            e = [(x - top).exp() for x in z_ball]
            total = sum(e, flint.arb(0))
            p_ball = [(x / total).mid() for x in e]
            residual = [
                2 * multiplier * a + x for a, x in zip(alpha.entries(), p_ball, strict=True)
            ]
            mean = (flint.arb_mat([p_ball]) * gram).mid()
            system = flint.arb_mat(n + active, n + active)
            for i in range(n):
                for j in range(n):
                    system[i, j] = p_ball[i] * (gram[i, j] - mean[0, j])
                system[i, i] += 2 * multiplier
                if active:
                    system[i, n] = 2 * alpha[i, 0]
                    system[n, i] = 2 * image[i, 0]
            if active:
                residual.append((alpha.transpose() * image)[0, 0] - energy)
            right = flint.arb_mat([[-x] for x in residual]).mid()
            try:
                step = system.mid().solve(right, algorithm="approx").mid()
            except ZeroDivisionError:
                break
            if not _all_finite(step.entries()):
                break
            alpha = (alpha + flint.arb_mat([[step[i, 0]] for i in range(n)])).mid()
            if active:
                multiplier = (multiplier + step[n, 0]).mid()
            moved = (
                differences.transpose() * flint.arb_mat([[step[i, 0]] for i in range(n)])
            ).mid()
            size = _upper(sum((x * x for x in moved.entries()), flint.arb(0)) / energy)
            # Quadratic convergence: after a step of 1e-60 the next is below any precision used.
            if size < 1e-120 or not size < 1e6 * previous:
                break
            previous = size
        return (differences.transpose() * alpha).mid()


# --- learned head ------------------------------------------------------------------------------


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

    def enclose(self, starts: list[Float | None], refine: bool) -> _Ends:
        """Intersect the enclosures from the starts (None: search), refined ones last."""
        best: _Ends | None = None
        for start in starts:
            logits = self._search() if start is None else start
            left, values, right = np.linalg.svd(logits)
            for bits in (192, 384) if refine else (192,):
                for rank in _plausible_ranks(values) if refine else (len(values),):
                    root = np.sqrt(values[:rank])
                    factors = left[:, :rank] * root, right.T[:, :rank] * root
                    with self.flint.ctx.workprec(bits):
                        a, b = (self.flint.arb_mat(x.tolist()) for x in factors)
                        best = _intersect(best, (*self._bounds(a, b), bits))
                        if refine and not _narrow(best, absolute=False):
                            a, b = self._newton(a, b)
                            best = _intersect(best, (*self._bounds(a, b), bits))
                    if _narrow(best, absolute=False):
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
            z = z * _lower(radius / norm)
        value, gradient, _ = self._loss(z)
        inner = sum((g * x for g, x in zip(gradient.entries(), z.entries(), strict=True)), arb(0))
        spectral = self._spectral_bound(gradient, -inner / radius)
        return _lower(value - inner - radius * spectral), _upper(value)

    def _spectral_bound(self, gradient: BallMatrix, guess: Ball) -> Ball:
        """Exact t ≥ ‖G‖₂, a little above ``guess`` if that is (nearly) the norm.

        At an optimum −⟨G, Z⟩ = τ‖G‖₂, so the guess −⟨G, Z⟩/τ is the norm itself, and never more
        than it (‖Z‖_* ≤ τ). t = guess·(1 + 2^{−k}) adds 2^{−k}·τ‖G‖₂ to the gap: find the largest
        k for which t²I − GᵀG is proved positive definite.
        """
        arb = self.flint.arb
        frobenius = _upper(sum((g * g for g in gradient.entries()), arb(0))).sqrt()
        frobenius = _upper(frobenius)
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
        return _upper(guess * (1 + self.flint.arb(2) ** -k))

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
                        (at.a, at.b), step.reshape(2, *_floats(at.a).shape), strict=True
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
        left, right, g = _floats(at.a), _floats(at.b), _floats(at.gradient)
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


# --- balls and their ends ----------------------------------------------------------------------


def _flint() -> Any:
    try:
        import flint
    except ImportError as error:
        raise ImportError(
            "rigorous enclosures need python-flint, which is not installed: "
            "pip install 'action-collapse[rigorous]' (lpm.certify bounds in float64 without it)"
        ) from error
    return flint


def _lower(x: Ball) -> Ball:
    """Exact number ≤ every number in the ball; −inf for a ball that is not finite."""
    return x.lower().mid() if x.is_finite() else type(x)("-inf")


def _upper(x: Ball) -> Ball:
    return x.upper().mid() if x.is_finite() else type(x)("inf")


def _all_finite(balls: list[Ball]) -> bool:
    return all(x.is_finite() for x in balls)


def _ball_softplus(x: Ball) -> Ball:
    """log(1 + eˣ); for x = ±inf its limits."""
    if not x.is_finite():
        return x if x > 0 else type(x)(0)
    return x.exp().log1p() if x < 0 else x + (-x).exp().log1p()


def _exact_sum(values: Float) -> Ball:
    """A ball that contains the exact sum of float64 numbers."""
    flint = _flint()
    total = sum((Fraction(float(x)) for x in values), Fraction(0))
    return flint.arb(flint.fmpq(total.numerator, total.denominator))


def _intersect(one: _Ends | None, other: _Ends) -> _Ends:
    """Both hold, so the larger lower and the smaller upper end do."""
    if one is None:
        return other
    lower = other[0] if other[0] > one[0] else one[0]
    upper = other[1] if other[1] < one[1] else one[1]
    changed = lower is other[0] or upper is other[1]
    return lower, upper, max(one[2], other[2]) if changed else one[2]


def _narrow(ends: _Ends, *, absolute: bool = True) -> bool:
    """Whether the width has reached the target, relative to the number (or to 1 at least)."""
    lower, upper, _ = ends
    size = abs(upper)
    if absolute and size < 1:
        size = type(upper)(1)
    return bool(upper - lower <= size * _TARGET)


def _floats(matrix: BallMatrix) -> Float:
    return np.array([[float(x.mid()) for x in row] for row in matrix.tolist()])


def _enclosure(lower: Ball, upper: Ball, bits: int, *, at_least_zero: bool = False) -> Enclosure:
    """The dataclass from two exact ends; ``at_least_zero`` for a number known to be positive."""
    flint = _flint()
    # Even a minus sign rounds to the working precision.
    with flint.ctx.workprec(bits):
        if at_least_zero and not lower > 0:
            lower = flint.arb(0)
        return Enclosure(
            lower=_float_down(lower),
            upper=-_float_down(-upper),
            width=0.0 - _float_down(-_upper(upper - lower)),
            precision_bits=bits,
            lower_text=_text(lower, decimal.ROUND_FLOOR),
            upper_text=_text(upper, decimal.ROUND_CEILING),
        )


def _float_down(exact: Ball) -> float:
    """The largest float64 ≤ an exact (radius 0) number."""
    if not exact.is_finite():
        return math.inf if exact > 0 else -math.inf
    mantissa, exponent = (int(x) for x in exact.man_exp())
    magnitude = mantissa.bit_length() + exponent  # 2^(magnitude−1) ≤ |x| < 2^magnitude
    if mantissa == 0:
        return 0.0
    if magnitude > 1024:
        return math.nextafter(math.inf, 0) if mantissa > 0 else -math.inf
    if magnitude < -1073:
        return 0.0 if mantissa > 0 else -math.ulp(0.0)
    value = Fraction(mantissa) * Fraction(2) ** exponent
    try:
        nearest = float(value)
    except OverflowError:  # rounds up to 2^1024
        return math.nextafter(math.inf, 0) if mantissa > 0 else -math.inf
    return math.nextafter(nearest, -math.inf) if Fraction(nearest) > value else nearest


def _text(exact: Ball, rounding: str) -> str:
    """An exact number in decimal, rounded in the given direction."""
    if not exact.is_finite():
        return "Infinity" if exact > 0 else "-Infinity"
    mantissa, exponent = (int(x) for x in exact.man_exp())
    context = decimal.Context(
        prec=_DIGITS, rounding=rounding, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX
    )
    if abs(exponent) <= _TEXT_BITS:
        power = decimal.Decimal(1 << abs(exponent))
        combine = context.divide if exponent < 0 else context.multiply
        return str(combine(decimal.Decimal(mantissa), power))
    # A power of ten beyond the number: 2^m lies between 10^⌊m·log10 2⌋ and 10^⌈m·log10 2⌉.
    magnitude = mantissa.bit_length() + exponent
    away = (mantissa > 0) == (rounding == decimal.ROUND_CEILING)
    power_of_ten = (
        math.ceil(magnitude * math.log10(2)) + 1
        if away
        else math.floor((magnitude - 1) * math.log10(2)) - 1
    )
    return f"{'-' if mantissa < 0 else ''}1e{power_of_ten}"


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
