"""Ideal Cliff Walking as one-hot states, on the tables themselves."""

import numpy as np
from numpy.typing import NDArray

from agents.envs.base import Environments, Observations, Transition
from gridworld import ideal_cliff_walking

TIME_LIMIT = 128


class IdealCliffWalking(Environments):
    """The paper's grid from its four outer cells, truncated after `TIME_LIMIT` steps.

    With E = 1 a member repeats ``gymnasium.make("IdealCliffWalking-v0", start="outer",
    max_episode_steps=128)`` with the same seed.

    Parameters
    ----------
    population, num_envs : int
        P and E.
    """

    def __init__(self, population: int, num_envs: int) -> None:
        self._mdp = ideal_cliff_walking(start="outer")
        states = self._mdp.num_states
        super().__init__(population, num_envs, self._mdp.num_actions, (states,), np.float32)
        self._one_hot = np.eye(states, dtype=np.float32)
        self._states = np.zeros((population, num_envs), dtype=np.int64)
        self._steps = np.zeros((population, num_envs), dtype=np.int64)
        self._rngs: list[np.random.Generator] = []

    def _reset(self, seeds: list[int]) -> Observations:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        return self._restart(np.ones(self._states.shape, dtype=np.bool_))

    def _step(self, actions: NDArray[np.int64]) -> Transition:
        mdp = self._mdp
        rewards = mdp.rewards[self._states, actions]
        self._states = mdp.successors[self._states, actions]
        self._steps += 1
        terminated = mdp.terminal[self._states]
        truncated = (self._steps >= TIME_LIMIT) & ~terminated
        over = terminated | truncated
        final: Observations = self._one_hot[self._states]
        return Transition(self._restart(over), rewards, terminated, truncated, final, over)

    def _restart(self, over: NDArray[np.bool_]) -> Observations:
        """Draw new starts where ``over``, (P, E); observations of all, (P, E, S)."""
        mdp = self._mdp
        for p in np.flatnonzero(over.any(axis=1)).tolist():
            count = int(over[p].sum())
            self._states[p, over[p]] = self._rngs[p].choice(mdp.num_states, count, p=mdp.start)
        self._steps[over] = 0
        observations: Observations = self._one_hot[self._states]
        return observations
