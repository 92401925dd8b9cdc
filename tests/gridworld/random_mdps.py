"""Random MDPs and policies for the properties, and oracles in plain Python loops."""

import numpy as np
from hypothesis import strategies as st

from gridworld import TabularMDP

SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2))
DISCOUNTS = st.floats(0.0, 0.9)
SEEDS = st.integers(0, 2**32 - 1)
HORIZON = 400  # .9 ** 400 < 1e-18: longer sums change nothing


@st.composite
def mdps(draw, discounts=DISCOUNTS, quitting=0.0):
    """A sparse random MDP; every step ends the episode with probability >= ``quitting``."""
    live, actions, exits = draw(SIZES)
    rng = np.random.default_rng(draw(SEEDS))
    states = live + exits
    weights = rng.exponential(size=(states, actions, states))
    weights *= rng.random(weights.shape) < 0.6
    weights[:, :, rng.integers(states)] += 0.05
    transitions = weights / weights.sum(axis=2, keepdims=True)
    transitions[:, :, -1] = quitting + (1 - quitting) * transitions[:, :, -1]
    transitions[:, :, :-1] *= 1 - quitting
    rewards = rng.normal(size=(states, actions))
    terminal = np.arange(states) >= live
    transitions[terminal] = np.eye(states)[terminal][:, None, :]
    rewards[terminal] = 0.0
    start = np.where(terminal, 0.0, rng.exponential(size=states))
    return TabularMDP(transitions, rewards, terminal, start / start.sum(), draw(discounts))


def random_policy(mdp, seed):
    """Random rows, some of them deterministic; NaN on terminal states, whose rows are ignored."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(mdp.num_actions), size=mdp.num_states)
    greedy = np.eye(mdp.num_actions)[rng.integers(mdp.num_actions, size=mdp.num_states)]
    rows = np.where(rng.random((mdp.num_states, 1)) < 0.3, greedy, rows)
    rows[mdp.terminal] = np.nan
    return rows


def naive_value(mdp, policy, discount):
    """Backward induction over a long horizon."""
    value = [0.0] * mdp.num_states
    for _ in range(HORIZON):
        value = [
            0.0
            if mdp.terminal[s]
            else sum(
                policy[s][a] * naive_lookahead(mdp, value, s, a, discount)
                for a in range(mdp.num_actions)
            )
            for s in range(mdp.num_states)
        ]
    return np.array(value)


def naive_lookahead(mdp, value, s, a, discount):
    future = sum(mdp.transitions[s, a, t] * value[t] for t in range(mdp.num_states))
    return mdp.rewards[s, a] + discount * future


def naive_optimal_value(mdp):
    """Value iteration."""
    value = [0.0] * mdp.num_states
    for _ in range(HORIZON):
        value = [
            0.0
            if mdp.terminal[s]
            else max(
                naive_lookahead(mdp, value, s, a, mdp.discount) for a in range(mdp.num_actions)
            )
            for s in range(mdp.num_states)
        ]
    return np.array(value)


def naive_state_distributions(mdp, policy, horizon=HORIZON):
    """P(S_t = s) for t = 0, 1, ..., with terminal states absorbing."""
    now = [float(p) for p in mdp.start]
    for _ in range(horizon):
        yield now
        then = [0.0] * mdp.num_states
        for s in range(mdp.num_states):
            if mdp.terminal[s]:
                then[s] += now[s]
                continue
            for a in range(mdp.num_actions):
                for t in range(mdp.num_states):
                    then[t] += now[s] * policy[s][a] * mdp.transitions[s, a, t]
        now = then


def naive_visits(mdp, policy, discount=1.0):
    """Discounted visits of an episode that stops when it enters a terminal state."""
    visits = np.zeros(mdp.num_states)
    ended = np.zeros(mdp.num_states)
    for t, now in enumerate(naive_state_distributions(mdp, policy)):
        arrived = np.where(mdp.terminal, np.array(now) - ended, now)
        ended = np.where(mdp.terminal, now, 0.0)
        visits += discount**t * arrived
    return visits
