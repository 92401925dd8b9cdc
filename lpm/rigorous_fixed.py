"""Enclosure of the fixed head's optimum that holds with every rounding error counted.

The bounds are those of `lpm.certificate`, here evaluated in ball arithmetic (`lpm.enclosure`); the
float64 input is taken as the exact dyadic number that it is. Nothing about the candidate is
trusted: the float64 solver and Newton iterations at higher precision only *propose* it, and a bad
proposal gives a wide enclosure, never a wrong one.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lpm.ball import solve_ball
from lpm.enclosure import (
    Ball,
    BallMatrix,
    Enclosure,
    Ends,
    Float,
    all_finite,
    as_enclosure,
    ball_softplus,
    exact_sum,
    flint_module,
    intersect,
    lower_end,
    narrow,
    upper_end,
)
from lpm.problem import PeeledProblem


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
    flint = flint_module()
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
    log_odds = [as_enclosure(*end) for end in ends]
    inverse = inverse.reshape(-1)
    bits = max(end[2] for end in ends)
    with flint.ctx.workprec(bits):
        lower = upper = flint.arb(0)
        for i, end in enumerate(ends):
            weight = exact_sum(problem.weights[inverse == i])
            lower += weight * ball_softplus(end[0])
            upper += weight * ball_softplus(end[1])
        total = as_enclosure(lower_end(lower), upper_end(upper), bits, at_least_zero=True)
    return FixedHeadEnclosure(**vars(total), log_odds=tuple(log_odds[int(i)] for i in inverse))


@dataclass(frozen=True)
class _FixedState:
    """min F(h) over ‖h‖² ≤ E for one label, in ball arithmetic."""

    head: Float
    label: int
    energy: float

    def enclose(self, candidates: list[Float], refine: bool) -> Ends:
        """Intersect the enclosures from the candidates, refined ones last."""
        flint = flint_module()
        reach = 2 * math.sqrt(self.energy) * float(np.linalg.norm(self.head, axis=1).max())
        # The logits have log2(reach) bits before the binary point.
        base = 320 + 2 * max(0, math.ceil(math.log2(1 + reach)))
        best: Ends | None = None
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
                    best = intersect(best, (*self._bounds(differences, point), bits))
                    if not refine:
                        continue
                    for active in (True, False):
                        if narrow(best):
                            return best
                        better = self._newton(differences, h, active)
                        best = intersect(best, (*self._bounds(differences, better), bits))
            if best is not None and narrow(best):
                break
        assert best is not None
        return best

    def _bounds(self, differences: BallMatrix, h: BallMatrix) -> tuple[Ball, Ball]:
        """Exact lower and upper end for F* from any exact (d, 1) point."""
        flint = flint_module()
        energy = flint.arb(self.energy)
        square = sum((x * x for x in h.entries()), flint.arb(0))
        if not square <= energy:  # true only if proved
            # s ≤ √(E/‖h‖²) exact, so the exact point s·h is in the ball; the ball vector below
            # contains it. (‖h‖² > 0 is certain here up to precision; otherwise s is not finite
            # and so is the bound.)
            h = h * lower_end((energy / square).sqrt())
        z = (differences * h).entries()
        top = flint.arb(max(float(x.mid()) for x in z)) if all_finite(z) else flint.arb(0)
        upper = top + sum(((x - top).exp() for x in z), flint.arb(0)).log()

        # p = q/Σq with q the exact midpoints of the candidate's softmax: p is a rational point
        # of the simplex, and the balls below contain it exactly.
        q = [(x.mid() - top).exp().mid() for x in z]
        total = sum(q, flint.arb(0))
        negative_entropy = sum((x * x.log() for x in q if x > 0), flint.arb(0)) / total
        entropy = total.log() - negative_entropy  # H(q/S) = log S − Σ q log q / S
        v = (differences.transpose() * flint.arb_mat([[x / total] for x in q])).entries()
        # The square root of an upper end: that of a ball around 0 would not be defined.
        length = upper_end(sum((x * x for x in v), flint.arb(0))).sqrt()
        return lower_end(entropy - energy.sqrt() * length), upper_end(upper)

    def _newton(self, differences: BallMatrix, h: Float, active: bool) -> BallMatrix:
        """An exact point near the minimiser, by Newton's method on the optimality conditions.

        ∇F + 2λh = 0 says h = Dᵀα with 2λα + softmax(Dh) = 0, D the (K−1, d) differences: K − 1
        unknowns (and λ, with αᵀDDᵀα = E, if the ball is active) whatever d is. If it is not, a
        fixed λ = 2⁻¹⁰⁰/E picks a minimiser and costs at most 2λE = 2⁻⁹⁹ of F.
        """
        flint = flint_module()
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
            if not all_finite(step.entries()):
                break
            alpha = (alpha + flint.arb_mat([[step[i, 0]] for i in range(n)])).mid()
            if active:
                multiplier = (multiplier + step[n, 0]).mid()
            moved = (
                differences.transpose() * flint.arb_mat([[step[i, 0]] for i in range(n)])
            ).mid()
            size = upper_end(sum((x * x for x in moved.entries()), flint.arb(0)) / energy)
            # Quadratic convergence: after a step of 1e-60 the next is below any precision used.
            if size < 1e-120 or not size < 1e6 * previous:
                break
            previous = size
        return (differences.transpose() * alpha).mid()
