"""Howard's policy iteration with exact evaluation."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gridworld.checks import BoolArray, FloatArray, listed

if TYPE_CHECKING:  # mdp.py imports this module
    from gridworld.mdp import TabularMDP

RESOLUTION = 1e-12
"""An action is switched only for a gain above this share of the largest |Q|."""


def solve_by_policy_iteration(mdp: "TabularMDP") -> FloatArray:
    """Optimal action values Q* (Puterman 1994, section 6.4; Sutton & Barto 2018, section 4.3).

    The iteration ends because every round that goes on has a larger sum of values than all
    before it, so no deterministic policy comes back, and there are K^S of them. In exact
    arithmetic a switch with positive gain always enlarges the sum; comparing the sums makes the
    argument hold in float64 too.

    Without discount it starts from a policy that terminates and switches only for a gain. Should
    a switch close a cycle that is never left, the mean reward on that cycle equals the mean gain
    on it, which is positive: returns are unbounded, and the iteration refuses.

    Parameters
    ----------
    mdp : TabularMDP
        The decision process.

    Returns
    -------
    ndarray of float64, shape (S, K)
        Zero rows on terminal states. Without discount, optimal among the policies that terminate
        from every state.

    Raises
    ------
    ValueError
        If the MDP is undiscounted and no policy terminates from some state, or returns are
        unbounded.
    """
    states = np.arange(mdp.num_states)
    actions = _terminating_actions(mdp) if mdp.discount == 1.0 else np.zeros_like(states)
    value = mdp.policy_value(_one_hot(actions, mdp))
    while True:
        action_value = mdp.backup(value)
        gain = action_value.max(axis=1) - action_value[states, actions]
        better = gain > RESOLUTION * np.abs(action_value).max()
        if not better.any():
            return action_value
        actions = np.where(better, action_value.argmax(axis=1), actions)
        if mdp.discount == 1.0:
            _require_bounded(actions, mdp)
        improved = mdp.policy_value(_one_hot(actions, mdp))
        if not improved.sum() > value.sum():
            return action_value
        value = improved


def _terminating_actions(mdp: "TabularMDP") -> NDArray[np.int64]:
    """One action per state under which episodes end almost surely from everywhere.

    Breadth first from the terminal states: each decision state gets an action that may lead one
    step closer, so within S steps an episode ends with positive probability from any state.
    """
    actions = np.zeros(mdp.num_states, dtype=np.int64)
    reached: BoolArray = mdp.terminal.copy()
    while not reached.all():
        closer: BoolArray = np.any(mdp.transitions[:, :, reached] > 0, axis=2)
        frontier = closer.any(axis=1) & ~reached
        if not frontier.any():
            names = [mdp.state_names[s] for s in np.flatnonzero(~reached)]
            raise ValueError(
                f"no policy reaches a terminal state from {len(names)} of {mdp.num_states} states "
                f"({listed(names)}), so undiscounted values do not exist; use a discount below 1 "
                f"or add a way out"
            )
        actions[frontier] = closer[frontier].argmax(axis=1)
        reached = reached | frontier
    return actions


def _require_bounded(actions: NDArray[np.int64], mdp: "TabularMDP") -> None:
    trapped = mdp.chain(_one_hot(actions, mdp)).trapped()
    if trapped.any():
        names = [mdp.state_names[s] for s in np.flatnonzero(trapped)]
        raise ValueError(
            f"undiscounted returns are unbounded: from {len(names)} of {mdp.num_states} states "
            f"({listed(names)}) a cycle collects reward without end; use a discount below 1 or "
            f"rewards that are negative on every cycle"
        )


def _one_hot(actions: NDArray[np.int64], mdp: "TabularMDP") -> FloatArray:
    return np.eye(mdp.num_actions)[actions]
