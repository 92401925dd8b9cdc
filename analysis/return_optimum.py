"""Where the policy gradient's own objective, Eq. (1), leads on a whole decision process.

A policy whose features are free but for a bound on their norms is a table π(·|s) = softmax(W h_s).
Policy gradients follow the return, not the surrogate Eq. (2) that Theorem 1 is about. Here is where
they lead on an exact process; `lpm.maximise_expected_return` knows one state with given Q.

Fixed head: the optimum
-----------------------
With ‖h_s‖² ≤ E_H in every state, states choose independently from Π = {softmax(W h): ‖h‖² ≤ E_H}.
That is a discounted decision process whose actions are the points of Π, and Howard's policy
iteration solves it: evaluate Q^π exactly, then in each state take the h that maximises
Σ_a π(a|h) Q^π(s, a). If no state can gain more than ε, the optimal return of any state is at most
ε/(1 − γ) higher (T V ≤ V + ε implies V* ≤ V + ε/(1 − γ); Puterman 1994, section 6.3). The bound of
`lpm.maximise_expected_return` makes ε global, not only local.

The weights of states drop out, as in Theorem 1, as long as every state is visited: a stationary
point of Σ_s d(s) Σ_a π(a|h_s) Q^π(s, a), Q held fixed as policy gradients do, is one in every state
with d(s) > 0, whatever d is.

Learned head: an equilibrium
----------------------------
With average bounds (1/n) Σ_s ‖h_s‖^p ≤ E_H^{p/2} and (1/K) Σ_k ‖w_k‖² ≤ E_W the head couples the
states, and their weights matter. A trainer that samples states from a given d follows
Σ_s d(s) Σ_a ∇π(a|s) Q^π(s, a). It rests where head and features maximise that objective for the Q
of their own policy: an equilibrium, found by searches from several starts at the first Q, of which
the best is followed until Q stays. It is no certified maximum, and not the maximum of the return
either, whose gradient weights states by the visits d^π of the policy instead.

p = 2 is the average bound of the layer-peeled model. Weight decay on a network of three layers is
another one. Suppose inputs are one-hot, there are no biases, all classes have m states, and the
states of a class have one feature, on a path through units of its own: weights x from each input, v
to the feature, ‖h_k‖ = x v. Then the two layers cost m x² + v² ≥ 2 √m ‖h_k‖, which is linear in the
length: p = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import softmax

import lpm
from gridworld import TabularMDP

Float = NDArray[np.float64]

# Rounds of policy iteration, which converges quadratically: 3 or 4 are usual. Values of a state's
# actions that differ by less than the share _EQUAL of the largest |Q| are the same.
_ROUNDS, _EQUAL = 50, 1e-12
# A search whose residual stays above has not ended.
_STATIONARY = 1e-5
# Exponents of the bound for which a sum of powers neither has a cusp at 0 nor overflows.
_EXPONENTS = 1.0, 20.0
# Q that moves by less than this share of its size has settled; with a learned head, whose search
# ends less exactly, this share of its range.
_SETTLED, _SETTLED_LEARNED = 1e-12, 1e-9


@dataclass(frozen=True, eq=False)
class ReturnOptimum:
    """Features, head and their values; states are the process's decision states."""

    features: Float
    """(n, d) h_s."""
    head: Float
    """(K, d) W."""
    action_values: Float
    """(n, K) Q of the policy softmax(W h_s)."""
    gap: float
    """No features within the bound have a return higher by more than this, from any state. Tight
    (rounding) where E_H lets every V(s) exceed the second best Q, else an honest bound; NaN for a
    learned head, of which none is known."""
    stationarity: float
    """Largest relative residual of the first-order conditions: of every state, or of the learned
    head and features together."""
    rounds: int
    """Policy evaluations."""


def fixed_head_optimum(
    mdp: TabularMDP, head: ArrayLike, feature_energy: float, rng: np.random.Generator
) -> ReturnOptimum:
    """Maximise the return over features with ‖h_s‖² ≤ E_H, the head fixed.

    Parameters
    ----------
    mdp
        With a discount below 1.
    head
        (K, d) W, any head.
    feature_energy
        E_H > 0.
    rng
        Draws starting points of the search in each state.

    Returns
    -------
    ReturnOptimum

    Raises
    ------
    ValueError
        The discount is 1, the head is not of the process's K actions, all actions of a state are
        worth the same at the optimum (any feature is optimal there), or as
        `lpm.maximise_expected_return`.
    RuntimeError
        Policy iteration does not settle.
    """
    _check_discount(mdp)
    w = np.asarray(head, dtype=np.float64)
    _check_head(mdp, w)
    states = mdp.decision_states
    values = _action_values(mdp, mdp.optimal_policy()[states])
    for rounds in range(1, _ROUNDS + 1):
        # On the way there a state's actions may be worth the same: any feature will do.
        chosen = np.flatnonzero(~_flat(values))
        found = [lpm.maximise_expected_return(w, values[s], feature_energy, rng) for s in chosen]
        features = np.zeros((len(states), w.shape[1]))
        for s, best in zip(chosen, found, strict=True):
            features[s] = best.features
        policy = softmax(features @ w.T, axis=1)
        before, values = values, _action_values(mdp, policy)
        moved = float(np.abs(values - before).max())
        if moved <= _SETTLED * np.abs(values).max():
            _check_values(mdp, values)
            own = (policy * values).sum(axis=1)
            gain = max(best.upper_bound - value for best, value in zip(found, own, strict=True))
            return ReturnOptimum(
                features=features,
                head=w,
                action_values=values,
                # The bounds are for the Q before the last evaluation.
                gap=float((max(gain, 0.0) + moved) / (1.0 - mdp.discount)),
                stationarity=max(best.stationarity for best in found),
                rounds=rounds,
            )
    raise RuntimeError(_unsettled(values - before))


def learned_head_equilibrium(
    mdp: TabularMDP,
    feature_energy: float,
    head_energy: float,
    rng: np.random.Generator,
    *,
    weights: ArrayLike | None = None,
    nonnegative: bool = False,
    exponent: float = 2.0,
    starts: int = 6,
) -> ReturnOptimum:
    """Where features and head are best, under average bounds, for the Q of their own policy.

    Parameters
    ----------
    mdp
        With a discount below 1.
    feature_energy, head_energy
        E_H and E_W > 0; both bounds are taken to be active.
    rng
        Draws the starts.
    weights
        (n,) d(s) > 0 of the decision states as the trainer samples them; all alike by default.
        Unlike with a fixed head they matter.
    nonnegative
        Whether features are rectified, h ≥ 0.
    exponent
        p of the bound on features (module docstring), from 1 to 20. E_H is (mean ‖h‖^p)^{2/p}.
    starts
        Searches from random points at the first Q, at least 1; the best is followed.

    Returns
    -------
    ReturnOptimum
        Its features have n + K dimensions, enough for any Gram matrix of n features and K rows
        where features are free; of rectified ones these are a restriction, if any.

    Raises
    ------
    ValueError
        The discount is 1, a number is out of range, or all actions of a state are worth the same.
    RuntimeError
        A search does not end, or Q does not settle.
    """
    _check_discount(mdp)
    states = mdp.decision_states
    for name, number in (("feature_energy", feature_energy), ("head_energy", head_energy)):
        if not 0 < number < math.inf:
            raise ValueError(f"{name} must be a finite number above 0, got {number!r}")
    if not _EXPONENTS[0] <= exponent <= _EXPONENTS[1]:
        raise ValueError(
            f"exponent must lie between {_EXPONENTS[0]:g} and {_EXPONENTS[1]:g}, got {exponent!r}"
        )
    if starts < 1:
        raise ValueError(f"starts must be >= 1, got {starts}")
    d = np.ones(len(states)) if weights is None else np.asarray(weights, dtype=np.float64)
    if d.shape != (len(states),) or not (np.isfinite(d) & (d > 0)).all():
        raise ValueError(f"weights must be {len(states)} positive numbers, one a decision state")
    bounds = _Bounds(
        len(states), mdp.num_actions, feature_energy, head_energy, exponent, nonnegative
    )
    values = _action_values(mdp, mdp.optimal_policy()[states])
    if _flat(values).all():
        _check_values(mdp, values)
    points = [bounds.draw(rng) for _ in range(starts)]
    for rounds in range(1, _ROUNDS + 1):
        shortfall = values.max(axis=1, keepdims=True) - values
        points = [_search(bounds, point, shortfall, d / d.sum()) for point in points]
        # Only the first round looks around.
        points = [min(points, key=lambda at: bounds.loss(at, shortfall, d / d.sum())[0])]
        features, head = bounds.split(points[0])
        before, values = values, _action_values(mdp, softmax(features @ head.T, axis=1))
        if np.abs(values - before).max() <= _SETTLED_LEARNED * np.ptp(values):
            _check_values(mdp, values)
            residual = bounds.residual(points[0], shortfall, d / d.sum())
            if not residual <= _STATIONARY:
                raise RuntimeError(
                    f"the search ends with a residual of {residual:.1e}, above {_STATIONARY:.0e}: "
                    "raise starts, or change the energies"
                )
            return ReturnOptimum(
                features=features,
                head=head,
                action_values=values,
                gap=math.nan,
                stationarity=residual,
                rounds=rounds,
            )
    raise RuntimeError(_unsettled(values - before))


def _unsettled(moved: Float) -> str:
    return (
        f"Q still moves by {np.abs(moved).max():.1e} after {_ROUNDS} rounds of policy evaluation: "
        "optima are not unique or hardly differ, change the energies"
    )


@dataclass(frozen=True)
class _Bounds:
    """Features and head on their bounds, as functions of a free vector (n + K)·d."""

    states: int
    actions: int
    feature_energy: float
    head_energy: float
    exponent: float
    nonnegative: bool

    @property
    def _dim(self) -> int:
        return self.states + self.actions

    def draw(self, rng: np.random.Generator) -> Float:
        point = rng.standard_normal((self._dim, self._dim))
        if self.nonnegative:
            np.abs(point[: self.states], out=point[: self.states])
        return np.asarray(point.ravel())

    def split(self, point: Float) -> tuple[Float, Float]:
        """H (n, d) and W (K, d): the point's rows, scaled onto the bounds."""
        rows = point.reshape(self._dim, self._dim)
        a, b = rows[: self.states], rows[self.states :]
        return self._feature_scale(a) * a, math.sqrt(self.head_energy / _mean_power(b, 2.0)) * b

    def _feature_scale(self, a: Float) -> float:
        power = _mean_power(a, self.exponent)
        return float(math.sqrt(self.feature_energy) / power ** (1.0 / self.exponent))

    def loss(self, point: Float, shortfall: Float, d: Float) -> tuple[float, Float]:
        """log Σ_s d(s) R_s, R_s = Σ_a π_a Δ_a, and its gradient.

        ∂R_s/∂z_a = π_a (Δ_a − R_s). Scaling onto a bound of degree p takes off the gradient what
        points along the bound's normal, ‖h_s‖^{p−2} h_s.
        """
        if not point[: self.states * self._dim].any():
            return math.inf, np.zeros_like(point)  # no feature has a direction to be scaled
        h, w = self.split(point)
        pi = softmax(h @ w.T, axis=1)
        lost = (pi * shortfall).sum(axis=1)
        total = float(d @ lost)
        by_logit = (d / total)[:, None] * pi * (shortfall - lost[:, None])
        rows = point.reshape(self._dim, self._dim)
        gradient = np.concatenate(
            [
                _through_scale(rows[: self.states], h, by_logit @ w, self.exponent),
                _through_scale(rows[self.states :], w, by_logit.T @ h, 2.0),
            ]
        )
        return math.log(total), gradient.ravel()

    def residual(self, point: Float, shortfall: Float, d: Float) -> float:
        """Norm of the gradient where it is not held by h ≥ 0, in units of the point's length."""
        gradient = self.loss(point, shortfall, d)[1]
        if self.nonnegative:
            held = (point <= 0) & (gradient > 0)
            held[self.states * self._dim :] = False
            gradient = np.where(held, 0.0, gradient)
        return float(np.linalg.norm(gradient) * np.linalg.norm(point))


def _mean_power(rows: Float, exponent: float) -> float:
    return float(np.mean(np.linalg.norm(rows, axis=1) ** exponent))


def _through_scale(free: Float, scaled: Float, gradient: Float, exponent: float) -> Float:
    """Gradient in `free` of a function of `scaled`, its multiple with a given mean power."""
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    normal = np.maximum(norms, 1e-300) ** (exponent - 2.0) * scaled
    scale = np.linalg.norm(scaled) / np.linalg.norm(free)
    along = (gradient * scaled).sum() / (norms**exponent).sum()
    return np.asarray(scale * (gradient - along * normal))


def _search(bounds: _Bounds, start: Float, shortfall: Float, d: Float) -> Float:
    limits: list[tuple[float | None, float | None]] = [(None, None)] * len(start)
    if bounds.nonnegative:
        count = bounds.states * (bounds.states + bounds.actions)
        limits[:count] = [(0.0, None)] * count
    options = {"maxiter": 20_000, "maxfun": 40_000, "maxcor": 30, "ftol": 1e-16, "gtol": 1e-11}
    found = minimize(
        bounds.loss, start, (shortfall, d), "L-BFGS-B", jac=True, bounds=limits, options=options
    )
    return np.asarray(found.x)


def _action_values(mdp: TabularMDP, policy: Float) -> Float:
    """(n, K) Q of a policy on the decision states, by a linear solve."""
    table = np.full((mdp.num_states, mdp.num_actions), 1.0 / mdp.num_actions)
    table[mdp.decision_states] = policy
    return np.asarray(mdp.policy_action_value(table)[mdp.decision_states])


def _check_discount(mdp: TabularMDP) -> None:
    if not mdp.discount < 1:
        raise ValueError(
            f"the discount must be below 1, got {mdp.discount:g}: values need not exist"
        )


def _check_head(mdp: TabularMDP, head: Float) -> None:
    if head.ndim != 2 or len(head) != mdp.num_actions:
        raise ValueError(
            f"head must be (K, d) with K = {mdp.num_actions} actions, got shape {head.shape}"
        )


def _flat(values: Float) -> NDArray[np.bool_]:
    """(n,) whether all actions of a state are worth the same, up to rounding."""
    flat: NDArray[np.bool_] = np.ptp(values, axis=1) <= _EQUAL * np.abs(values).max()
    return flat


def _check_values(mdp: TabularMDP, values: Float) -> None:
    flat = _flat(values)
    if flat.any():
        names = [mdp.state_names[s] for s in mdp.decision_states[flat]]
        raise ValueError(
            f"all actions of {', '.join(names)} are worth the same: any feature is optimal there; "
            "make such states terminal"
        )
