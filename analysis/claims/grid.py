"""Conditions 1-3 on the Ideal Cliff Walking."""

import numpy as np
from numpy.typing import NDArray

import gridworld
import lpm
from analysis.claims.instances import policy
from analysis.claims.record import Catalogue, Evidence, Verdict
from analysis.return_optimum import fixed_head_optimum

Float = NDArray[np.float64]

claims = Catalogue()


@claims.add(
    "condition-1",
    "Condition 1",
    "The states are fully explored; there are 12",
    hypotheses="Ideal Cliff Walking, sampling by sweep, any policy with full support",
    tolerance=0.0,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    mdp = gridworld.ideal_cliff_walking()
    missing = abs(mdp.num_states - 12)
    for _ in range(n):
        coverage = gridworld.check_conditions(mdp, policy(rng, mdp), gridworld.Sweep()).condition_1
        missing = max(missing, coverage.total - coverage.visited)
    return Evidence(float(missing), f"most states unvisited by the sweep, {n} policies")


@claims.add(
    "condition-2",
    "Condition 2",
    "S_1 = S_2 = S_3 = S_4",
    hypotheses="Ideal Cliff Walking, the 8 cells with a decision",
    tolerance=0.0,
    expected=Verdict.TYPO,
    correction="|S_1| = |S_2| = |S_3| = |S_4|: the sets are disjoint, their sizes are equal",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    mdp = gridworld.ideal_cliff_walking()
    classes = [frozenset(np.flatnonzero(column)) for column in mdp.optimal_actions().T]
    shared = len(frozenset.intersection(*classes))
    balance = gridworld.check_conditions(mdp, mdp.optimal_policy(), gridworld.Sweep()).condition_2
    return Evidence(
        float(len(classes[0]) - shared),
        "|S_1| less the states common to all S_k; corrected: max/min − 1 of the sizes",
        corrected=balance.ratio - 1,
        counterexample=f"S_1 ∩ … ∩ S_4 has {shared} states; the sizes are {balance.sizes}",
    )


def _on_policy(start: Float) -> float:
    mdp = gridworld.ideal_cliff_walking()
    report = gridworld.check_conditions(mdp, mdp.optimal_policy(), gridworld.OnPolicy(start))
    return report.condition_3.ratio


@claims.add(
    "condition-3",
    "Condition 3",
    "d^π(s) = d^π(s') for all s, s' under any policy",
    hypotheses="on-policy visits, uniform starts",
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="sampling by sweep (every cell equally, a Monte-Carlo return from it), any policy",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    mdp = gridworld.ideal_cliff_walking()
    ratio = _on_policy(gridworld.uniform_start(gridworld.cliff_layout()))
    swept = max(
        gridworld.check_conditions(mdp, policy(rng, mdp), gridworld.Sweep()).condition_3.ratio
        for _ in range(n)
    )
    return Evidence(
        ratio - 1,
        f"max/min − 1 of d under the optimal policy; corrected: of the sweep (by "
        f"construction), {n} random policies",
        corrected=swept - 1,
        counterexample=(
            f"optimal policy, uniform starts: centre cells are visited {ratio:.6g} times as often"
        ),
    )


@claims.add(
    "condition-3-outer",
    "Condition 3, on-policy",
    "On-policy visits are uniform when episodes start in the outer cells",
    hypotheses="the optimal policy (no other)",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    ratio = _on_policy(gridworld.outer_start(gridworld.cliff_layout()))
    return Evidence(abs(ratio - 1), f"max/min of d over the cells is {ratio:.12g}")


@claims.add(
    "conditions-collapse",
    "Section 3, Conditions 1-3",
    "Under Conditions 1-3 optimal features of states with the same optimal action coincide",
    hypotheses="Ideal Cliff Walking, fixed ETF, E_H = 25, E_W = 1; maximising the return, Eq. (1)",
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="Eq. (2) is maximised instead, or the states' Q agree up to a shift and a factor",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    mdp, energy = gridworld.ideal_cliff_walking(), 25.0
    labels = mdp.optimal_actions()[mdp.decision_states].argmax(axis=1)
    head = lpm.simplex_etf(mdp.num_actions, mdp.num_actions, rng=rng)
    found = fixed_head_optimum(mdp, head, energy, rng)
    apart = _angles_within(found.features, labels)
    # Largest where suboptimal values differ, 0 to rounding where they are equal.
    rest = np.sort(found.action_values, axis=1)[:, :-1]
    differ = np.unique(labels[np.ptp(rest, axis=1) > 1e-9])
    equal = np.setdiff1d(labels, differ)
    problem = lpm.PeeledProblem(head, labels, np.full(len(labels), 1 / len(labels)), energy)
    surrogate = _angles_within(lpm.solve(problem).features, labels)
    return Evidence(
        max(apart.values()),
        "largest angle between optimal features of one action; corrected: the same for Eq. (2), "
        "and for Eq. (1) between the outer cells of an action, whose Q are the same",
        corrected=max(max(surrogate.values()), *(apart[k] for k in equal)),
        counterexample=(
            f"the two cells of up, and of down, are {np.degrees(max(apart.values())):.1f}° apart "
            f"at the global optimum of Eq. (1) (gap {found.gap:.0e})"
        ),
    )


def _angles_within(features: Float, labels: NDArray[np.int64]) -> dict[int, float]:
    """Largest angle in radians between features of each action."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    chords = np.linalg.norm(unit[:, None] - unit, axis=2)
    angles = 2 * np.arcsin(np.minimum(chords / 2, 1.0))
    return {int(k): float(angles[np.ix_(labels == k, labels == k)].max()) for k in set(labels)}
