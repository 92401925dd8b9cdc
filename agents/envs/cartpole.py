"""CartPole-v1 on Gymnasium's own vectorised implementation, without its dead step."""

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from numpy.typing import NDArray

from agents.envs.base import Environments, Observations, Transition


class CartPole(Environments):
    """CartPole-v1: reward 1 a step, truncated after 500.

    Gymnasium's vector environment restarts in the step after an end and ignores that step's
    action; here ended environments are restarted at once. All P·E poles are one vector
    environment, while each member draws its starts from a generator of its own: with E = 1 a
    member repeats ``gymnasium.make("CartPole-v1")`` with the same seed.

    Parameters
    ----------
    population, num_envs : int
        P and E.
    """

    def __init__(self, population: int, num_envs: int) -> None:
        super().__init__(population, num_envs, 2, (4,), np.float32)
        self._env = CartPoleVectorEnv(population * num_envs)
        self._rngs: list[np.random.Generator] = []

    def _reset(self, seeds: list[int]) -> Observations:
        self._rngs = [np.random.default_rng(seed) for seed in seeds]
        self._env.reset()
        return self._restart(np.ones((self.population, self.num_envs), dtype=np.bool_))

    def _step(self, actions: NDArray[np.int64]) -> Transition:
        last, reward, fallen, late, _ = self._env.step(actions.reshape(-1))
        shape = actions.shape
        rewards: NDArray[np.float64] = reward.reshape(shape).astype(np.float64)
        terminated: NDArray[np.bool_] = fallen.reshape(shape)
        truncated: NDArray[np.bool_] = late.reshape(shape) & ~terminated
        over = terminated | truncated
        final: Observations = last.reshape(*shape, 4)
        observations = self._restart(over) if over.any() else final
        return Transition(observations, rewards, terminated, truncated, final, over)

    def _restart(self, over: NDArray[np.bool_]) -> Observations:
        """Draw new starts where ``over``, (P, E); observations of all, (P, E, 4)."""
        env = self._env
        for p in np.flatnonzero(over.any(axis=1)).tolist():
            columns = p * self.num_envs + np.flatnonzero(over[p])
            env.state[:, columns] = self._rngs[p].uniform(env.low, env.high, (len(columns), 4)).T
        env.steps[over.reshape(-1)] = 0
        env.prev_done[:] = False  # else Gymnasium restarts them once more, in the next step
        observations: Observations = env.state.T.astype(np.float32)
        return observations.reshape(*over.shape, 4)
