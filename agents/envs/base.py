"""What every vectorised environment of a population has in common: checks and accounts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Observations = NDArray[Any]
"""(P, E, *observation_shape), uint8 for images and RAM, float32 for states."""


class Step(NamedTuple):
    """One step of P × E environments."""

    observations: Observations
    """(P, E, *shape) to act on next: where an episode ended, the first of the next one."""
    rewards: NDArray[np.float64]
    """(P, E) raw, never clipped."""
    terminated: NDArray[np.bool_]
    """(P, E) the learner's episode ended here with value 0 after it. A lost life counts where the
    convention says so, though the game goes on."""
    truncated: NDArray[np.bool_]
    """(P, E) cut by the time limit: bootstrap from `final_observations`. Never with
    `terminated`, which wins."""
    final_observations: Observations | None
    """(P, E, *shape), to be read only where `truncated`; None if nothing was truncated."""
    returns: NDArray[np.float64]
    """(P, E) undiscounted return of the whole game that ended here, NaN elsewhere."""
    lengths: NDArray[np.int64]
    """(P, E) agent steps of that game, 0 elsewhere."""


class Transition(NamedTuple):
    """What an environment reports of one step; `Environments` does the accounts."""

    observations: Observations
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final_observations: Observations
    game_over: NDArray[np.bool_]
    """(P, E) the game was restarted; differs from the flags above at a lost life."""


class Environments(ABC):
    """E environments for each of P members.

    Restarts happen within the step that ends an episode, so that no action is wasted. After
    `reset` everything is a deterministic function of the seeds and the actions, and a member's
    numbers depend on no other member. Returned arrays are not written to again, and must not be.

    Parameters
    ----------
    population, num_envs : int
        P and E.
    num_actions : int
        K.
    observation_shape : tuple of int
        Shape of one observation.
    observation_dtype : dtype
        Its type.
    """

    def __init__(
        self,
        population: int,
        num_envs: int,
        num_actions: int,
        observation_shape: tuple[int, ...],
        observation_dtype: DTypeLike,
    ) -> None:
        self.population = population
        self.num_envs = num_envs
        self.num_actions = num_actions
        self.observation_shape = observation_shape
        self.observation_dtype = np.dtype(observation_dtype)
        self._returns = np.zeros((population, num_envs))
        self._lengths = np.zeros((population, num_envs), dtype=np.int64)
        self._running = False

    def reset(self, seeds: Sequence[int]) -> Observations:
        """Start every environment anew.

        Parameters
        ----------
        seeds : sequence of int
            One for each member, not negative.

        Returns
        -------
        ndarray, shape (P, E, *observation_shape)

        Raises
        ------
        ValueError
            If there is not one seed for each member, or one is negative.
        """
        if len(seeds) != self.population or min(seeds) < 0:
            raise ValueError(
                f"seeds are {list(seeds)}; give {self.population}, one for each member, none < 0"
            )
        self._returns[:] = 0.0
        self._lengths[:] = 0
        self._running = True
        return self._reset([int(seed) for seed in seeds])

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Take one action in every environment.

        Parameters
        ----------
        actions : ndarray of int64, shape (P, E)
            From 0 to K - 1.

        Returns
        -------
        Step

        Raises
        ------
        RuntimeError
            Before the first `reset`.
        ValueError
            If the shape is wrong or an action is out of range.
        """
        if not self._running:
            raise RuntimeError("no episode is under way; call reset(seeds) first")
        if actions.shape != self._lengths.shape:
            raise ValueError(f"actions have shape {actions.shape}; give {self._lengths.shape}")
        if actions.min() < 0 or actions.max() >= self.num_actions:
            raise ValueError(
                f"actions range from {actions.min()} to {actions.max()}; "
                f"give integers from 0 to {self.num_actions - 1}"
            )
        now = self._step(actions)
        self._returns += now.rewards
        self._lengths += 1
        step = Step(
            now.observations,
            now.rewards,
            now.terminated,
            now.truncated,
            now.final_observations if now.truncated.any() else None,
            np.where(now.game_over, self._returns, np.nan),
            np.where(now.game_over, self._lengths, 0),
        )
        self._returns[now.game_over] = 0.0
        self._lengths[now.game_over] = 0
        return step

    def close(self) -> None:
        """Free what the environments hold; they cannot be stepped afterwards."""
        self._running = False

    @abstractmethod
    def _reset(self, seeds: list[int]) -> Observations:
        """Start every environment anew."""

    @abstractmethod
    def _step(self, actions: NDArray[np.int64]) -> Transition:
        """Take one action in every environment and restart those whose episode ended."""
