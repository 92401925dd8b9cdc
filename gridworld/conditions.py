"""Conditions 1 to 3 of the paper's section 3, measured: numbers first, verdicts on request."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gridworld.checks import FloatArray, listed
from gridworld.mdp import TabularMDP
from gridworld.sampling import OnPolicy, SamplingScheme


@dataclass(frozen=True)
class Coverage:
    """Condition 1: how many of the states the episodes meet.

    Attributes
    ----------
    visited, total : int
        States met with positive probability, and all states, terminal ones included.
    unvisited : tuple of str
        Names of the others.
    unsampled : tuple of str
        Names of the decision states that never enter the loss. Under a weighted sweep a state
        may be passed through without being trained on.
    """

    visited: int
    total: int
    unvisited: tuple[str, ...]
    unsampled: tuple[str, ...]

    def holds(self, tolerance: float = 0.0) -> bool:
        """Whether the share of states visited reaches ``1 - tolerance``."""
        return self.visited / self.total >= 1.0 - tolerance

    def __str__(self) -> str:
        missing = f"; not {listed(self.unvisited)}" if self.unvisited else ""
        untrained = f"; no samples of {listed(self.unsampled)}" if self.unsampled else ""
        return f"{self.visited} of {self.total} states visited{missing}{untrained}"


@dataclass(frozen=True)
class ClassBalance:
    """Condition 2: how many sampled states have each action as their only optimal one.

    Attributes
    ----------
    sizes : tuple of int, length K
        ``|S_k|`` over the sampled decision states with a unique optimal action.
    ties : int
        Sampled decision states with several optimal actions; they belong to no class.
    ratio : float
        Largest over smallest size: 1 when balanced, inf when only some classes are empty, NaN
        when all are.
    reason : str
        Why ``ratio`` is NaN; empty otherwise.
    action_names : tuple of str
        The classes.
    """

    sizes: tuple[int, ...]
    ties: int
    ratio: float
    reason: str
    action_names: tuple[str, ...]

    def holds(self, tolerance: float = 0.0) -> bool:
        """Whether there are no ties and ``ratio`` is at most ``1 + tolerance``."""
        return self.ties == 0 and self.ratio <= 1.0 + tolerance

    def __str__(self) -> str:
        sizes = ", ".join(f"{a} {n}" for a, n in zip(self.action_names, self.sizes, strict=True))
        return f"class sizes {sizes}; {self.ties} ties; ratio {_said(self.ratio, self.reason)}"


@dataclass(frozen=True, eq=False)
class Uniformity:
    """Condition 3: how evenly the samples spread over the states.

    Attributes
    ----------
    distribution : ndarray of float64, shape (S,)
        ``d`` of the training samples: sums to one over the decision states, zero on terminal
        states. Read-only.
    ratio : float
        Largest over smallest ``d`` on decision states; inf when some state is never sampled.
    ratio_all_states : float
        The same with each visited exit counted as in the episodes; NaN when no exit is sampled.
    reason : str
        Why ``ratio_all_states`` is NaN; empty otherwise.
    """

    distribution: FloatArray
    ratio: float
    ratio_all_states: float
    reason: str

    def holds(self, tolerance: float = 1e-9) -> bool:
        """Whether ``ratio``, over decision states, is at most ``1 + tolerance``."""
        return self.ratio <= 1.0 + tolerance

    def __str__(self) -> str:
        everywhere = _said(self.ratio_all_states, self.reason)
        return f"max/min of d {self.ratio:.6g} on decision states, {everywhere} on all states"


@dataclass(frozen=True, eq=False)
class ConditionReport:
    """The three conditions under one policy and one sampling scheme.

    Attributes
    ----------
    condition_1 : Coverage
        Full exploration.
    condition_2 : ClassBalance
        Equal class sizes.
    condition_3 : Uniformity
        Uniform sampling of states.
    """

    condition_1: Coverage
    condition_2: ClassBalance
    condition_3: Uniformity

    def __str__(self) -> str:
        parts = (self.condition_1, self.condition_2, self.condition_3)
        return "\n".join(f"Condition {i}: {part}" for i, part in enumerate(parts, start=1))


def check_conditions(
    mdp: TabularMDP,
    policy: ArrayLike,
    scheme: SamplingScheme,
    tie_tolerance: float = 1e-9,
) -> ConditionReport:
    """Measure Conditions 1 to 3 of the paper's section 3.

    The paper writes ``S_1 = S_2 = S_3 = S_4`` in Condition 2 and means the sizes. Condition 3
    asks for a uniform ``d`` under *any* policy: the sweep has it, on-policy visits do not. On
    Ideal Cliff Walking, starts in all cells visit the centre twice as often as the wings under
    the optimal policy; starts in the outer columns are uniform under the optimal policy, and
    starts in the centre under the uniform-random one.

    Parameters
    ----------
    mdp : TabularMDP
        The decision process.
    policy : array_like of float, shape (S, K)
        Action probabilities.
    scheme : OnPolicy or Sweep
        How the training samples arise.
    tie_tolerance : float, optional
        Actions within this distance of the best Q* are optimal too.

    Returns
    -------
    ConditionReport

    Raises
    ------
    ValueError
        If the policy or the scheme does not fit the MDP, or undiscounted on-policy episodes need
        not end under the policy (then give ``OnPolicy`` a discount below 1).
    """
    distribution = scheme.distribution(mdp, policy)
    samples = np.where(mdp.terminal, 0.0, distribution)
    samples = samples / samples.sum()
    samples.setflags(write=False)
    return ConditionReport(
        _coverage(mdp, policy, scheme, samples),
        _balance(mdp, samples, tie_tolerance),
        _uniformity(mdp, scheme, distribution, samples),
    )


def _coverage(
    mdp: TabularMDP, policy: ArrayLike, scheme: SamplingScheme, samples: FloatArray
) -> Coverage:
    visited = scheme.visited(mdp, policy)
    return Coverage(
        visited=int(visited.sum()),
        total=mdp.num_states,
        unvisited=tuple(mdp.state_names[s] for s in np.flatnonzero(~visited)),
        unsampled=tuple(mdp.state_names[s] for s in mdp.decision_states if samples[s] == 0.0),
    )


def _balance(mdp: TabularMDP, samples: FloatArray, tie_tolerance: float) -> ClassBalance:
    optimal = mdp.optimal_actions(tie_tolerance)[samples > 0]
    unique = optimal.sum(axis=1) == 1
    sizes = optimal[unique].sum(axis=0)
    empty = not sizes.any()
    return ClassBalance(
        sizes=tuple(int(n) for n in sizes),
        ties=int((~unique).sum()),
        ratio=math.nan if empty else _ratio(sizes.astype(np.float64)),
        reason="no sampled state has a unique optimal action" if empty else "",
        action_names=mdp.action_names,
    )


def _uniformity(
    mdp: TabularMDP, scheme: SamplingScheme, distribution: FloatArray, samples: FloatArray
) -> Uniformity:
    counts_exits = isinstance(scheme, OnPolicy)
    return Uniformity(
        distribution=samples,
        ratio=_ratio(samples[mdp.decision_states]),
        ratio_all_states=_ratio(distribution) if counts_exits else math.nan,
        reason="" if counts_exits else "the sweep never samples an exit",
    )


def _ratio(shares: FloatArray) -> float:
    smallest = float(shares.min())
    return float(shares.max()) / smallest if smallest > 0.0 else math.inf


def _said(number: float, reason: str) -> str:
    return f"undefined ({reason})" if reason else f"{number:.6g}"
