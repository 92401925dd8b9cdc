"""The convex form of the layer-peeled model: first-order steps, then Newton on the rank found.

    min f(Z)  subject to  ||Z||_* <= tau          (or  min f(Z) + lambda ||Z||_*)

Equivalence (Fang et al., 2021, with d >= K; here d >= K - 1). A product ``Z = H W^T`` has
``||Z||_* <= ||H||_F ||W||_F <= K sqrt(E_H E_W) = tau``, and every Z with ``||Z||_* <= tau`` is such
a product: split its singular values evenly. So the two problems have one optimal value.

The optimum is unique and its rows sum to zero. f is unchanged when a constant is added to a row,
and strictly convex on the rest. Split an optimal Z into ``Z P`` (rows centred) and ``Z - Z P``:
``||Z||_* = tr (ZP Z^T + vv^T)^(1/2) > ||ZP||_*`` unless ``v = Z 1 / sqrt(K)`` is zero, as the
square root is strictly operator monotone under the trace; a smaller norm at equal f contradicts
optimality, since f decreases along every ray that lowers it and has no minimiser. Hence
``rank Z <= K - 1``: **dimension K - 1 already suffices**, and classes of equal count may be merged.

Phase one is accelerated proximal gradient (Beck & Teboulle, 2009) with adaptive restart
(O'Donoghue & Candes, 2015), Phase two Newton's method on the manifold of matrices of the rank that
phase one has found (Lewis, 2002: the nuclear norm is smooth along it), by conjugate gradients. A
Newton step is kept only if it lowers the certified gap, so phase one alone decides convergence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lpm.free_head_gap import Gap, ball_gap, penalty_gap
from lpm.free_head_levels import Array, Evaluation, LevelLoss
from lpm.free_head_newton import newton_direction
from lpm.nuclear import SpectralPoint, ball_threshold, shrink, spectral_norm

# Gradient steps between two looks at the gap, which costs one more singular value computation.
_CHECK_EVERY = 5
# Above this many levels, neighbouring levels are pooled four to one for a start, solved to _ROUGH.
_COARSEST = 64
_ROUGH = 1e-9


class Regulariser(Protocol):
    """What the nuclear norm does in the problem: bound it, or charge for it."""

    @property
    def penalty(self) -> float | None:
        """Weight of the nuclear norm in the objective; None if it is bounded instead."""

    def threshold(self, step: float) -> Callable[[Array, Array], float]:
        """Return the soft threshold of the proximal map with this step length."""

    def gap(self, evaluation: Evaluation, packed: Array, multiplicity: Array) -> Gap:
        """Certified distance to the optimum."""

    def easier(self, loss: LevelLoss) -> Regulariser | None:
        """Return a regulariser with a solution of about half the size; None if it is small."""


@dataclass(frozen=True)
class Ball:
    """``||Z||_* <= radius``."""

    radius: float

    @property
    def penalty(self) -> None:
        """The norm is bounded."""
        return None

    def threshold(self, step: float) -> Callable[[Array, Array], float]:
        """Return the projection onto the ball, whatever the step."""
        return ball_threshold(self.radius)

    def gap(self, evaluation: Evaluation, packed: Array, multiplicity: Array) -> Gap:
        """Certified distance to the optimum."""
        return ball_gap(evaluation, packed, multiplicity, self.radius)

    def easier(self, loss: LevelLoss) -> Ball | None:
        """Return the ball of half the radius, unless ``radius / K`` is at most 4."""
        return Ball(self.radius / 2.0) if self.radius > 4.0 * loss.levels.sizes.sum() else None


@dataclass(frozen=True)
class Penalty:
    """``weight * ||Z||_*`` added to f."""

    weight: float

    @property
    def penalty(self) -> float:
        """The weight."""
        return self.weight

    def threshold(self, step: float) -> Callable[[Array, Array], float]:
        """Return the constant threshold ``step * weight``."""
        level = step * self.weight
        return lambda values, multiplicity: level

    def gap(self, evaluation: Evaluation, packed: Array, multiplicity: Array) -> Gap:
        """Certified distance to the optimum."""
        return penalty_gap(evaluation, packed, multiplicity, self.weight)

    def easier(self, loss: LevelLoss) -> Penalty | None:
        """Return the geometric mean of weight and the weight that gives zero, unless close.

        Logits grow like the logarithm of the ratio of the two.
        """
        zero = np.zeros((len(loss.levels.sizes) + 1, len(loss.levels.sizes)))
        largest = spectral_norm(loss.evaluate(zero).gradient, loss.levels.sizes - 1.0)
        if self.weight > 0.01 * largest:
            return None
        return Penalty(float(np.sqrt(self.weight * largest)))


@dataclass(frozen=True)
class ConvexResult:
    """Best point found, with its certificate.

    Parameters
    ----------
    point : SpectralPoint
        The point.
    evaluation : Evaluation
        f there.
    gap : Gap
        Certified distance to the optimum.
    converged : bool
        Whether the gap reached the target.
    gradient_steps, newton_steps : int
        Work done.
    """

    point: SpectralPoint
    evaluation: Evaluation
    gap: Gap
    converged: bool
    gradient_steps: int
    newton_steps: int


@dataclass(frozen=True)
class _Iterate:
    """A point, f there, and its certificate once asked for."""

    point: SpectralPoint
    evaluation: Evaluation


def minimise(
    loss: LevelLoss, regulariser: Regulariser, tolerance: float, max_steps: int
) -> ConvexResult:
    """Solve the convex problem, from coarse levels to fine.

    Parameters
    ----------
    loss : LevelLoss
        f in packed coordinates.
    regulariser : Ball or Penalty
        The role of the nuclear norm.
    tolerance : float
        Target gap, relative to f where f < 1; never below four times the rounding allowance.
    max_steps : int
        Bound on gradient steps on each grid of levels.
    """
    m = len(loss.levels.sizes)
    if m <= _COARSEST:
        # Far from 0 the loss is close to an exponential of Z and Newton gains one unit a step;
        # a solution of half the size, doubled, is in the right direction already.
        easier = regulariser.easier(loss)
        start = np.zeros((m + 1, m))
        if easier is not None:
            start = 2.0 * minimise(loss, easier, _ROUGH, max_steps).point.packed
    else:
        # Classes of nearly equal count have nearly equal rows and columns: pool them, solve the
        # small problem, and start from its answer read as a matrix of the finer levels.
        coarse = loss.levels.coarsen(m // 4)
        scale = np.bincount(coarse.index, weights=loss.levels.sizes * loss.row_scale)
        pooled = LevelLoss(coarse, scale / coarse.sizes)
        rough = minimise(pooled, regulariser, max(tolerance, _ROUGH), max_steps)
        alpha, beta = coarse.unpack(rough.point.packed)
        start = loss.levels.pack(alpha[coarse.index], beta[np.ix_(coarse.index, coarse.index)])
    return _Descent(loss, regulariser, tolerance).run(start, max_steps)


class _Descent:
    """Accelerated proximal gradient with Newton steps, on one grid of levels."""

    def __init__(self, loss: LevelLoss, regulariser: Regulariser, tolerance: float) -> None:
        self.loss = loss
        self.regulariser = regulariser
        self.tolerance = tolerance
        self.multiplicity = loss.levels.sizes - 1.0
        self.newton_steps = 0

    def run(self, start: Array, max_steps: int) -> ConvexResult:
        """Descend from a packed matrix until the gap is on target or the steps are used up."""
        feasible = shrink(start, self.multiplicity, self.regulariser.threshold(0.0))
        best = _Iterate(feasible, self.loss.evaluate(feasible.packed))
        gap = self.gap(best)
        ahead, ahead_evaluation = feasible.packed, best.evaluation
        previous, rank = feasible.packed, -1
        curvature, momentum, steps, wait = best.evaluation.curvature(), 1.0, 0, 0
        while not self.reached(best, gap) and steps < max_steps:
            current, curvature = self.proximal_step(ahead, ahead_evaluation, curvature)
            steps += 1
            if steps % _CHECK_EVERY == 0:
                new_gap = self.gap(current)
                if new_gap.bound < gap.bound:
                    best, gap = current, new_gap
                settled = len(current.point.values) == rank
                rank, wait = len(current.point.values), wait - 1
                if settled and wait <= 0 and not self.reached(best, gap):
                    before = self.newton_steps
                    best, gap = self.newton(best, gap)
                    if self.newton_steps > before:
                        current, previous, momentum = best, best.point.packed, 1.0
                        curvature = best.evaluation.curvature()
                    else:
                        wait = 3
            # Momentum, dropped whenever it points uphill (the gradient scheme of adaptive restart).
            step = current.point.packed - previous
            if float(((ahead - current.point.packed) * step).sum()) > 0.0:
                momentum = 1.0
            following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
            ahead = current.point.packed + (momentum - 1.0) / following * step
            ahead_evaluation = self.loss.evaluate(ahead)
            previous, momentum = current.point.packed, following
            curvature *= 0.9
        if self.reached(best, gap) and len(start) <= _COARSEST:
            best, gap = self.polish(best, gap)
        return ConvexResult(
            best.point, best.evaluation, gap, self.reached(best, gap), steps, self.newton_steps
        )

    def gap(self, iterate: _Iterate) -> Gap:
        """Certified distance of an iterate to the optimum."""
        return self.regulariser.gap(iterate.evaluation, iterate.point.packed, self.multiplicity)

    def reached(self, iterate: _Iterate, gap: Gap) -> bool:
        """Tell whether the gap is on target."""
        target = self.tolerance * min(1.0, iterate.evaluation.value)
        return gap.bound <= max(target, 4.0 * gap.rounding)

    def forward_backward(self, packed: Array, evaluation: Evaluation, curvature: float) -> _Iterate:
        """Gradient step of length 1 / curvature, then the proximal map."""
        moved = packed - evaluation.gradient / curvature
        threshold = self.regulariser.threshold(1.0 / curvature)
        point = shrink(moved, self.multiplicity, threshold)
        return _Iterate(point, self.loss.evaluate(point.packed))

    def proximal_step(
        self, packed: Array, evaluation: Evaluation, curvature: float
    ) -> tuple[_Iterate, float]:
        """Return the step from a point and the curvature it needed (by backtracking)."""
        while True:
            current = self.forward_backward(packed, evaluation, curvature)
            move = current.point.packed - packed
            length = float((move * move).sum())
            bend = float(((current.evaluation.gradient - evaluation.gradient) * move).sum())
            rise = current.evaluation.value - evaluation.value
            rise -= float((evaluation.gradient * move).sum())
            # The descent lemma's rise <= curvature / 2 length. f is convex, so rise <= bend: the
            # second test still works where rise is lost to cancellation.
            if min(rise, bend) <= 0.5 * curvature * length:
                return current, curvature
            curvature = max(1.5 * curvature, min(bend / length, 4.0 * curvature))

    def newton(self, best: _Iterate, gap: Gap) -> tuple[_Iterate, Gap]:
        """Take Newton steps while each at least halves the gap.

        A proximal step lands each one: it restores the norm and, by its threshold, the rank.
        """
        while not self.reached(best, gap):
            landed, new_gap = self.newton_step(best)
            if not new_gap.bound < 0.5 * gap.bound:
                break
            best, gap = landed, new_gap
            self.newton_steps += 1
        return best, gap

    def newton_step(self, best: _Iterate) -> tuple[_Iterate, Gap]:
        """One Newton step, landed by a proximal step."""
        direction = newton_direction(
            best.point, best.evaluation, self.multiplicity, self.regulariser.penalty
        )
        # Rows sum to zero at the optimum. f does not see their sums: keep rounding out.
        target = self.loss.levels.centre(best.point.packed + direction)
        ahead = self.loss.evaluate(target)
        landed = self.forward_backward(target, ahead, ahead.curvature())
        return landed, self.gap(landed)

    def polish(self, best: _Iterate, gap: Gap) -> tuple[_Iterate, Gap]:
        """Square the error of the point once more, where the gap can no longer see it.

        Next to a transition a gap at rounding level leaves half the digits of a small alpha open.
        """
        landed, new_gap = self.newton_step(best)
        if self.reached(landed, new_gap):
            self.newton_steps += 1
            return landed, new_gap
        return best, gap
