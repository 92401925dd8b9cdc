"""How far from optimal a candidate of the learned-head model can be: bounds, no solver.

f is convex, so ``f(X) >= f(Z) + <G, X - Z>`` with ``G`` its gradient at Z. Minimising the right
side over the feasible X (nuclear and spectral norm are dual) bounds the optimum from below:

* ball ``||X||_* <= tau``:  ``f(Z) - f* <= <G, Z> + tau ||G||_2``;
* penalty ``lambda ||X||_*``: any X as good as Z has ``||X||_* <= T``, T the objective at Z over
  lambda, so the distance is at most ``<G, Z> + lambda ||Z||_* + T (||G||_2 - lambda)_+``. It is
  zero iff ``||G||_2 <= lambda`` and ``<G, Z> = -lambda ||Z||_*``: a critical point is global
  exactly when the spectral norm of its gradient does not exceed lambda (Zhu et al., 2021).

No property of Z but feasibility is used. In floating point each bound is the sum of terms that
are nonnegative in exact arithmetic, clipped there, plus an allowance for the rounding of every
quantity in it: it cannot come out negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpm.free_head_levels import EPS, Array, Evaluation
from lpm.nuclear import nuclear_norm, spectral_norm


@dataclass(frozen=True)
class Gap:
    """A certified distance to the optimum.

    Parameters
    ----------
    bound : float
        Objective minus optimum is at most this.
    rounding : float
        Part of ``bound`` that allows for rounding; no iteration can go below it.
    multiplier : float
        Spectral norm of the gradient: at the optimum, minus the derivative of the optimal value
        with respect to the radius.
    """

    bound: float
    rounding: float
    multiplier: float


def rounding_allowance(evaluation: Evaluation, packed: Array, radius: float) -> float:
    """Bound the rounding error of f(Z), <G, Z> and radius * ||G||_2 together.

    An entry of G is a product of exponentials of rounded arguments: relative error at most
    ``(8 + 3 reach) eps``. Sums of m terms and a backward stable SVD add ``m eps`` (Higham, 2002,
    chapters 3 and 19), relative to absolute sums and to the Frobenius norm.
    """
    gradient = evaluation.gradient
    relative = EPS * (8.0 + 3.0 * evaluation.reach + gradient.shape[1])
    inner = float((np.abs(gradient) * np.abs(packed)).sum())
    frobenius = float(np.linalg.norm(gradient))
    return float(relative * (evaluation.value + inner + radius * frobenius))


def ball_gap(evaluation: Evaluation, packed: Array, multiplicity: Array, radius: float) -> Gap:
    """Bound ``f(Z) - f*`` for the ball ``||Z||_* <= radius``.

    Parameters
    ----------
    evaluation : Evaluation
        The loss at Z.
    packed : (m + 1, m) float array
        Z, feasible.
    multiplicity : (m,) float array
        Multiplicities of row 0.
    radius : float
        Radius of the ball.
    """
    multiplier = spectral_norm(evaluation.gradient, multiplicity)
    size = nuclear_norm(packed, multiplicity)
    # <G, Z> + tau ||G|| = (<G, Z> + ||Z||_* ||G||) + (tau - ||Z||_*) ||G||: both are >= 0.
    aligned = float((evaluation.gradient * packed).sum()) + size * multiplier
    unused = (radius - size) * multiplier
    rounding = rounding_allowance(evaluation, packed, radius)
    return Gap(max(aligned, 0.0) + max(unused, 0.0) + rounding, rounding, multiplier)


def penalty_gap(evaluation: Evaluation, packed: Array, multiplicity: Array, weight: float) -> Gap:
    """Bound the distance to the optimum of ``f(Z) + weight ||Z||_*``.

    Parameters
    ----------
    evaluation : Evaluation
        The loss at Z.
    packed : (m + 1, m) float array
        Z, any.
    multiplicity : (m,) float array
        Multiplicities of row 0.
    weight : float
        Weight of the nuclear norm.
    """
    multiplier = spectral_norm(evaluation.gradient, multiplicity)
    size = nuclear_norm(packed, multiplicity)
    reach = evaluation.value / weight + size  # T: no better X has a larger nuclear norm
    # <G, Z> + lambda ||Z||_* >= (lambda - ||G||_2) ||Z||_*, so adding T (||G||_2 - lambda)_+
    # >= ||Z||_* (||G||_2 - lambda)_+ makes it nonnegative.
    slack = float((evaluation.gradient * packed).sum()) + weight * size
    excess = reach * max(multiplier - weight, 0.0)
    rounding = rounding_allowance(evaluation, packed, reach)
    return Gap(max(slack + excess, 0.0) + rounding, rounding, multiplier)
