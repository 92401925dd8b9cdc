"""Vectorised episodes on a deterministic tabular MDP, for a population of policies at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gridworld import TabularMDP

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Episodes:
    """P × B episodes, padded to the longest; T is its length.

    A member's numbers do not depend on the other members, the padding apart.
    """

    states: NDArray[np.int64]
    """(P, B, T) s_t."""
    actions: NDArray[np.int64]
    """(P, B, T) a_t."""
    rewards: Float
    """(P, B, T) r_t, zero after the end."""
    alive: NDArray[np.bool_]
    """(P, B, T) whether step t was taken, i.e. s_t is no exit."""
    truncated: NDArray[np.bool_]
    """(P, B) episodes that the horizon cut; their missing return is at most γ^T·max|V|."""


def rollout(
    mdp: TabularMDP,
    policies: Float,
    starts: NDArray[np.int64],
    rngs: Sequence[np.random.Generator],
    horizon: int,
) -> Episodes:
    """Roll out B episodes of each of P policies.

    Parameters
    ----------
    mdp
        With deterministic transitions.
    policies
        (P, S, K) action probabilities.
    starts
        (P, B) first states, none terminal.
    rngs
        P generators. Each is asked for B uniforms a step for as long as one of its own episodes
        runs, so a member's stream is independent of the company it keeps.
    horizon
        Steps after which an unfinished episode is cut.
    """
    successors, rewards, terminal = mdp.successors, mdp.rewards, mdp.terminal
    members = np.arange(len(policies))[:, None]
    # Inverse-CDF sampling; the last edge is 1 so that rounding cannot select action K.
    edges = np.cumsum(policies, axis=-1)[..., :-1]
    state = starts
    uniform = np.ones(starts.shape)
    steps: list[tuple[NDArray[np.int64], NDArray[np.int64], Float, NDArray[np.bool_]]] = []
    running = ~terminal[state]
    while running.any() and len(steps) < horizon:
        for p in np.flatnonzero(running.any(axis=1)).tolist():
            uniform[p] = rngs[p].random(starts.shape[1])
        action = (uniform[..., None] >= edges[members, state]).sum(axis=-1)
        steps.append((state, action, np.where(running, rewards[state, action], 0.0), running))
        state = np.where(running, successors[state, action], state)
        running = ~terminal[state]
    states, actions, reward, alive = (np.stack(part, axis=-1) for part in zip(*steps, strict=True))
    return Episodes(states, actions, reward, alive, running)
