"""The peeled model's optimum for measured weights and norms, and the losses on the way to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax

import lpm
from analysis.overlay_measure import Cone, Float, Head, Measured, Statistics
from lpm.free_head_rectified import solve_free_head_rectified

TERMS = ("within_class", "directions", "norms", "head", "cone")

# Points of E_H at which the prediction is solved for the bootstrap; between them it is linear.
_GRID = 5


def require_dimension(measured: Measured, head: Head, cone: Cone) -> None:
    """Refuse dimensions in which the learned model has no certified optimum.

    Raises
    ------
    ValueError
        Naming the dimensions needed.
    """
    classes, dim = len(measured.present), measured.head.shape[1]
    needed = classes if measured.rectified or cone == "nonnegative" else classes - 1
    if head == "learned" and dim < needed:
        raise ValueError(
            f"features have {dim} dimensions and {classes} actions occur: the learned model is "
            f"solved globally from {needed} dimensions on"
        )


class Prediction(NamedTuple):
    """The model's optimum for B values of E_H, unscaled."""

    features: Float  # (B, K', K') Gram
    head: Float  # (B, J, J)
    cross: Float  # (B, K', J)
    free: Float  # (B,) loss of the free optimum
    own: Float  # (B,) the same in the policy's own cone
    lengths: Float  # (B,) loss of the best features for the measured head, in its own cone


class Model:
    """The peeled model for the measured shares and E_W, to be solved for any E_H."""

    def __init__(self, measured: Measured, head: Head, cone: Cone) -> None:
        self._measured, self._head, self._cone = measured, head, cone

    def predict(self, energy: float) -> Prediction:
        """Solve for one E_H (B = 1)."""
        m = self._measured
        own_cone: Cone = "nonnegative" if m.rectified else "free"
        equal = np.full(len(m.present), energy)
        if self._head == "fixed":
            h, w = self.fixed(equal, self._cone).features, m.head
            free, own = (float(self._loss(equal, cone)) for cone in ("free", own_cone))
            lengths = own
        else:
            problem = lpm.FreeHeadProblem(m.whole_counts, energy, m.head_energy)
            solution = lpm.solve_free_head(problem)
            h, w, free = solution.features, solution.head, float(solution.objective)
            own, lengths = free, self._best_lengths(energy, own_cone)
            if m.rectified:
                rectified = solve_free_head_rectified(m.shares, energy, m.head_energy)
                own = rectified.objective
                if self._cone == "nonnegative":
                    h, w = rectified.features, rectified.head
        values = (np.array([loss]) for loss in (free, own, lengths))
        return Prediction((h @ h.T)[None], (w @ w.T)[None], (h @ w.T)[None], *values)

    def _loss(self, energies: Float, cone: Cone) -> float:
        losses = lpm.softplus(self.fixed(energies, cone).log_odds)
        return float(losses @ self._measured.shares)

    def _best_lengths(self, energy: float, cone: Cone) -> float:
        """Smallest loss for the measured head under the average bound.

        The loss of a class is convex in its energy e_k, with slope −λ_k, the multiplier of
        ‖h_k‖² ≤ e_k; what is sought are the e_k of mean E_H.
        """
        m = self._measured
        budget = energy * len(m.present)

        def loss(x: Float) -> tuple[float, Float]:
            shares = softmax(x)
            solution = self.fixed(budget * shares, cone)
            slope = -m.shares * solution.multipliers.cross_entropy * budget
            value = float(lpm.softplus(solution.log_odds) @ m.shares)
            # In logarithms: a loss of 1e-20 has to be minimised as well as one of 1.
            gradient = shares * (slope - shares @ slope)
            return float(np.log(value)), gradient / value

        start = np.zeros(len(m.present))
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-15})
        return float(np.exp(found.fun))

    def fixed(self, energies: Float, cone: Cone) -> lpm.Solution:
        """Best features for the measured head, for energies (n·K',) of the actions n times over."""
        m = self._measured
        rows = np.tile(m.own_rows, len(energies) // len(m.present))
        # A mean of exactly 0 has no energy; the model needs some.
        energies = np.maximum(energies, 1e-30 * energies.max())
        problem = lpm.PeeledProblem(m.head, rows, np.ones(len(rows)), energies, cone)
        return lpm.solve(problem, "orthant" if cone == "nonnegative" else "ball")


def interpolated(predict: Callable[[float], Prediction], energies: Float) -> Prediction:
    """Predictions for many values of E_H, linear between a few exact ones."""
    grid = np.linspace(energies.min(), energies.max(), _GRID)
    if grid[-1] - grid[0] <= 1e-14 * grid[-1]:
        one = predict(float(grid[0]))
        return Prediction(*(np.repeat(part, len(energies), axis=0) for part in one))
    exact = [predict(float(energy)) for energy in grid]
    at, share = _cells(grid, energies)
    parts = []
    for name in Prediction._fields:
        values = np.concatenate([getattr(one, name) for one in exact])
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        parts.append((1.0 - weight) * values[at] + weight * values[at + 1])
    return Prediction(*parts)


def _cells(grid: Float, values: Float) -> tuple[NDArray[np.intp], Float]:
    at = np.clip(np.searchsorted(grid, values) - 1, 0, len(grid) - 2)
    return at, (values - grid[at]) / (grid[at + 1] - grid[at])


def configuration_losses(
    model: Model, measured: Measured, found: Statistics, prediction: Prediction, *, gridded: bool
) -> dict[str, Float]:
    """Loss of every configuration that `analysis.overlay` names, (B,) each.

    `gridded` for many samples: the best loss of a class is then linear in its energy between a
    few exact values.
    """
    cone: Cone = "nonnegative" if measured.rectified else "free"
    energies = np.maximum(np.einsum("bkk->bk", found.gram), 0.0)
    return {
        "observed": found.loss,
        "class_means": found.mean_loss,
        "directions": _best_losses(model, energies, cone, gridded) @ measured.shares,
        "norms": prediction.lengths,
        "head": prediction.own,
        "free": prediction.free,
    }


def _best_losses(model: Model, energies: Float, cone: Cone, gridded: bool) -> Float:
    """(B, K') loss of the best feature of each energy for the measured head."""
    if not gridded:
        exact = lpm.softplus(model.fixed(energies.ravel(), cone).log_odds)
        return exact.reshape(energies.shape)
    grid = np.linspace(energies.min(axis=0), energies.max(axis=0), _GRID)
    values = lpm.softplus(model.fixed(grid.ravel(), cone).log_odds).reshape(grid.shape)
    columns = [np.interp(e, g, v) for e, g, v in zip(energies.T, grid.T, values.T, strict=True)]
    return np.stack(columns, axis=1)


def explained(losses: Mapping[str, Float], name: str) -> Float:
    """Loss explained by one step of the sequence, (B,)."""
    steps = list(losses.values())
    step = TERMS.index(name)
    return steps[step] - steps[step + 1]
