"""Acting: rollouts of a population of policies in its environments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.policy import Policy

if TYPE_CHECKING:  # agents.envs reads agents.config, which names every algorithm
    from agents.envs import Environments

Float = NDArray[np.float64]

_GAME = 256
"""Steps of whole games that there is room for at first."""


@dataclass(frozen=True)
class Rollout:
    """T steps of P members in E environments each.

    Tensors lie on the policy's device, arrays on the host, where environments and advantages are.
    """

    observations: Tensor
    """(P, T, E, …) s_t."""
    actions: Tensor
    """(P, T, E) int64 a_t."""
    log_probs: Tensor
    """(P, T, E) log π(a_t|s_t) of the policy that acted (without its ε-greedy admixture)."""
    values: Float
    """(P, T, E) V(s_t); zero without a critic."""
    next_values: Float
    """(P, T, E) V of what followed: of the final observation where the episode was truncated."""
    rewards: Float
    """(P, T, E) as the learner sees them (clipped on Atari)."""
    terminated: NDArray[np.bool_]
    """(P, T, E)"""
    truncated: NDArray[np.bool_]
    """(P, T, E) cut by a time limit."""


@dataclass
class Finished:
    """Unclipped returns of the full games that ended, a list for each member."""

    returns: list[list[float]]

    @classmethod
    def none(cls, population: int) -> "Finished":
        """Nothing has ended yet."""
        return cls([[] for _ in range(population)])

    def take(self, returns: Float) -> None:
        """Add what ended in one step: (P, E) returns, NaN where no game did."""
        for member, e in zip(*np.nonzero(~np.isnan(returns)), strict=True):
            self.returns[member].append(float(returns[member, e]))


def sample_actions(logits: Tensor, uniforms: Tensor, epsilon: float = 0.0) -> Tensor:
    """Draw actions from (1 − ε)·softmax(logits) + ε/K by inverse CDF.

    Parameters
    ----------
    logits
        (…, K).
    uniforms
        (…) numbers in [0, 1) drawn beforehand: nothing random happens on the device, so that
        captured graphs replay without freezing their randomness and rows do not depend on it.
    epsilon
        Probability of a uniformly random action.

    Returns
    -------
    (…) int64 actions.
    """
    probabilities = logits.softmax(-1)
    if epsilon:
        probabilities = (1 - epsilon) * probabilities + epsilon / logits.shape[-1]
    # The last edge is left out (it is 1), so that rounding cannot select action K.
    edges = probabilities.cumsum(-1)[..., :-1]
    return (uniforms.unsqueeze(-1) >= edges).sum(-1)


class Collector:
    """Keeps a population of policies acting in its environments.

    Parameters
    ----------
    policy
        Of P members, on ``device``.
    environments
        P × E of them.
    rngs
        One generator for each member: the uniforms behind its actions.
    clip_rewards
        Whether the learner sees rewards clipped to −1, 0, 1.
    epsilon
        Of an ε-greedy admixture to the acting policy (the paper's Table 2).
    """

    def __init__(
        self,
        policy: Policy,
        environments: "Environments",
        rngs: Sequence[np.random.Generator],
        device: torch.device,
        *,
        clip_rewards: bool = False,
        epsilon: float = 0.0,
    ) -> None:
        self.policy, self.environments, self.rngs = policy, environments, rngs
        self.device = device
        self.clip_rewards, self.epsilon = clip_rewards, epsilon
        self.population, self.num_envs = environments.population, environments.num_envs
        self.finished = Finished.none(self.population)
        self._observation: NDArray[np.generic] | None = None
        self._buffer: Tensor | None = None

    def restart(self, seeds: Sequence[int]) -> None:
        """Begin fresh episodes in every environment, one seed a member."""
        self._observation = self.environments.reset(seeds)

    @property
    def observation(self) -> Tensor:
        """(P, E, …) what the policy acts on next."""
        if self._observation is None:
            raise RuntimeError("call restart(seeds) before collecting")
        return torch.from_numpy(self._observation).to(self.device)

    @torch.no_grad()
    def collect(self, steps: int) -> Rollout:
        """Act for ``steps`` steps in every environment."""
        shape = (self.population, steps, self.num_envs)
        uniforms = self._uniforms(steps)
        observations = self._observations(steps)
        actions = torch.empty(shape, dtype=torch.int64, device=self.device)
        log_probs = torch.empty(shape, device=self.device)
        values = torch.zeros(shape, device=self.device)
        rewards = np.empty(shape)
        terminated, truncated = np.empty(shape, dtype=bool), np.empty(shape, dtype=bool)
        finals: list[tuple[int, NDArray[np.generic]]] = []
        for t in range(steps):
            observations[:, t] = self.observation
            action, log_prob, value = self._act(observations[:, t], uniforms[:, t])
            actions[:, t], log_probs[:, t] = action, log_prob
            step = self.environments.step(action.cpu().numpy())
            self._observation = step.observations
            if value is not None:
                values[:, t] = value
            rewards[:, t] = step.rewards
            terminated[:, t], truncated[:, t] = step.terminated, step.truncated
            if step.final_observations is not None:
                finals.append((t, step.final_observations))
            self.finished.take(step.returns)
        if self.clip_rewards:
            rewards = np.sign(rewards)
        # Actions alone leave the device step by step; values wait until now.
        v_t = values.double().cpu().numpy()
        return Rollout(
            observations,
            actions,
            log_probs,
            v_t,
            self._next_values(v_t, truncated, finals),
            rewards,
            terminated,
            truncated,
        )

    @torch.no_grad()
    def collect_episodes(
        self, horizon: int, members: NDArray[np.bool_] | None = None
    ) -> tuple[Rollout, NDArray[np.bool_]]:
        """Play one whole game in every environment, from a fresh start to its end.

        Every game counts, short or long, so that returns are unbiased. Where a lost life ends the
        learner's episode the game still goes on to its last one.

        Parameters
        ----------
        horizon
            Steps after which an unfinished game is left: truncated.
        members
            (P,) whose games to play, None for all. The generators of the others are not touched,
            and a member's numbers do not depend on who plays beside it.

        Returns
        -------
        rollout
            T is the length of the longest game; no values. Its observations are overwritten by the
            next collect.
        alive
            (P, T, E) steps that belong to a game: the rest is padding.
        """
        playing: NDArray[np.bool_] = np.ones((self.population, self.num_envs), dtype=bool)
        if members is not None:
            playing &= members[:, None]
        seeds = [
            int(rng.integers(2**31)) if plays else 0
            for rng, plays in zip(self.rngs, playing[:, 0].tolist(), strict=True)
        ]
        self.restart(seeds)
        acted: list[tuple[Tensor, Tensor]] = []
        told: list[tuple[Float, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]] = []
        uniforms = np.zeros(playing.shape, dtype=np.float32)
        while playing.any() and len(acted) < horizon:
            for member in np.flatnonzero(playing.any(axis=1)).tolist():
                uniforms[member] = self.rngs[member].random(self.num_envs)
            observation = self._room(len(acted))[:, len(acted)]
            observation.copy_(self.observation)
            action, log_prob, _ = self._act(observation, torch.from_numpy(uniforms).to(self.device))
            step = self.environments.step(action.cpu().numpy())
            self._observation = step.observations
            acted.append((action, log_prob))
            told.append((step.rewards, step.terminated, step.truncated, playing))
            self.finished.take(np.where(playing, step.returns, np.nan))
            playing = playing & np.isnan(step.returns)
        observation = self._room(0)[:, : len(acted)]
        action, log_prob = (torch.stack(part, 1) for part in zip(*acted, strict=True))
        rewards, terminated, truncated, alive = (
            np.stack(part, 1) for part in zip(*told, strict=True)
        )
        truncated[:, -1] |= playing
        if self.clip_rewards:
            rewards = np.sign(rewards)
        nothing = np.zeros_like(rewards)
        return Rollout(
            observation, action, log_prob, nothing, nothing, rewards, terminated, truncated
        ), alive

    def _act(self, observation: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Actions (P, E), their log-probabilities and, with a critic, values."""
        logits, _, value = self.policy(observation)
        action = sample_actions(logits, uniforms, self.epsilon)
        taken = logits.log_softmax(-1).gather(-1, action.unsqueeze(-1))
        return action, taken.squeeze(-1), value

    def _next_values(
        self,
        values: Float,
        truncated: NDArray[np.bool_],
        finals: list[tuple[int, NDArray[np.generic]]],
    ) -> Float:
        """V(s_{t+1}), and V(final observation) where a time limit cut the episode."""
        following = np.zeros_like(values)
        if self.policy.critic is None:
            return following
        following[:, :-1] = values[:, 1:]
        following[:, -1] = self.policy(self.observation).value.cpu().numpy()
        for t, final in finals:
            value = self.policy(torch.from_numpy(final).to(self.device)).value.cpu().numpy()
            cut = truncated[:, t]
            following[:, t][cut] = value[cut]
        return following

    def _uniforms(self, steps: int) -> Tensor:
        drawn = np.stack([rng.random((steps, self.num_envs)) for rng in self.rngs])
        return torch.from_numpy(drawn.astype(np.float32)).to(self.device)

    def _observations(self, steps: int) -> Tensor:
        """A buffer (P, T, E, …), reused while its length stays the same."""
        if self._buffer is None or self._buffer.shape[1] != steps:
            self._buffer = self._unwritten(steps)
        return self._buffer

    def _room(self, t: int) -> Tensor:
        """A buffer (P, T > t, E, …) that keeps what was written at earlier steps.

        It doubles when it is full, so that whole games of unknown lengths are never held twice.
        """
        if self._buffer is None:
            self._buffer = self._unwritten(_GAME)
        if t >= (length := self._buffer.shape[1]):
            larger = self._unwritten(2 * length)
            larger[:, :length] = self._buffer
            self._buffer = larger
        return self._buffer

    def _unwritten(self, steps: int) -> Tensor:
        kind = torch.from_numpy(np.empty(0, self.environments.observation_dtype)).dtype
        shape = (self.population, steps, self.num_envs, *self.environments.observation_shape)
        return torch.empty(shape, dtype=kind, device=self.device)
