"""States that a policy visits: observations to probe it on, drawn by acting."""

from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, TypeAlias

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from agents.collect import sample_actions
from agents.config import EnvConfig
from agents.envs import make_environments
from analysis.capture import as_source

__all__ = ["PLAYABLE", "Playable", "Visits", "visited"]

PLAYABLE = (EnvConfig, gymnasium.Env, VectorEnv)
"""What can be played, for `isinstance`."""

Playable: TypeAlias = EnvConfig | gymnasium.Env | VectorEnv


class Visits(NamedTuple):
    """States in which a policy acted."""

    observations: NDArray[np.generic]
    """(n, …)"""
    episodes: NDArray[np.int64]
    """(n,) number of the episode that each is from, counted from 0 in the order in which they
    began, in every call of `visited` anew."""


# Yields what to act on, takes the index of an action for each observation.
_Play: TypeAlias = Generator[Visits, NDArray[np.int64], None]

_BATCH = 256


def visited(
    policy: object,
    env: Playable,
    states: int,
    rng: np.random.Generator,
    *,
    member: int | None = None,
    num_envs: int = 8,
    greedy: bool = False,
) -> Iterator[Visits]:
    """Act in an environment and yield what is seen, in batches and in bounded memory.

    Episodes are played whole, one after another, and only the last ones are cut, at the number of
    states. A state is an observation that the policy acted on: where an episode ended, its last
    observation is none, nor is the step that a vector environment spends on restarting.

    Parameters
    ----------
    policy
        Anything that `analysis.capture.as_source` takes and that reads this environment's
        observations.
    env
        A configuration of `agents`, played as in evaluation: whole games. Or an environment of
        Gymnasium, single or vectorised, with `Discrete` actions and observations that are arrays
        or integers. It is reset first, and left open in the middle of its episodes.
    states
        How many observations in all; the last batch is cut to fit.
    rng
        Seeds the environments and draws the actions.
    member
        Of a population of `agents`.
    num_envs
        Environments side by side, of a configuration; a vector environment has its own number.
    greedy
        Whether to take the likeliest action instead of one drawn from the softmax of the logits.

    Yields
    ------
    Observations and the episodes they are from, about ``_BATCH`` at a time.

    Raises
    ------
    TypeError
        The actions are not `Discrete`, or an observation is a dictionary or a tuple.
    ValueError
        ``states`` or ``num_envs`` is below 1, or the policy has another number of actions.
    """
    if states < 1:
        raise ValueError(f"states must be >= 1, got {states}")
    source = as_source(policy, member)
    seed = int(rng.integers(2**31))
    num_actions, play = _start(env, num_envs, seed)
    try:
        shown = next(play)
        remaining, seen = states, list[Visits]()
        while True:
            observations = shown.observations
            seen.append(Visits(observations[:remaining], shown.episodes[:remaining]))
            remaining -= len(seen[-1].episodes)
            if remaining == 0 or sum(len(visits.episodes) for visits in seen) >= _BATCH:
                yield Visits(*map(np.concatenate, zip(*seen, strict=True)))
                seen.clear()
            if remaining == 0:
                return
            logits = torch.as_tensor(source(observations).logits).float().cpu()
            if logits.shape != (len(observations), num_actions):
                raise ValueError(
                    f"the policy gives logits {tuple(logits.shape)} for {len(observations)} "
                    f"observations, but the environment has {num_actions} actions"
                )
            uniforms = torch.from_numpy(rng.random(len(observations), np.float32))
            actions = logits.argmax(-1) if greedy else sample_actions(logits, uniforms)
            shown = play.send(actions.numpy())
    finally:
        play.close()


def _start(env: Playable, num_envs: int, seed: int) -> tuple[int, _Play]:
    """Number of actions, and the play, in which nothing has happened yet."""
    if isinstance(env, EnvConfig):
        environments = make_environments(env, 1, num_envs, evaluation=True)

        def play() -> _Play:
            episodes = np.arange(num_envs)
            try:
                observations = environments.reset([seed])[0]
                while True:
                    actions = yield Visits(observations, episodes)
                    step = environments.step(actions[None])
                    observations = step.observations[0]
                    episodes = _next(episodes, ~np.isnan(step.returns[0]))
            finally:
                environments.close()

        return environments.num_actions, play()
    vector = isinstance(env, VectorEnv)
    actions = env.single_action_space if vector else env.action_space
    observed = env.single_observation_space if vector else env.observation_space
    if not isinstance(actions, gymnasium.spaces.Discrete):
        raise TypeError(f"a softmax policy needs a Discrete action space, got {actions}")
    if observed.shape is None:
        raise TypeError(
            f"observations must be arrays or integers, got the space {observed}: wrap the "
            "environment, for example in gymnasium.wrappers.FlattenObservation"
        )
    first = int(actions.start)
    return int(actions.n), (_vector if vector else _single)(env, first, seed)


def _single(env: gymnasium.Env, first_action: int, seed: int) -> _Play:
    """Play one environment."""
    observation, _ = env.reset(seed=seed)
    episode = 0
    while True:
        # Copied: environments may write the next observation into the same array.
        (action,) = yield Visits(np.array(observation)[None], np.array([episode]))
        observation, _, terminated, truncated, _ = env.step(first_action + int(action))
        if terminated or truncated:
            observation, _ = env.reset()
            episode += 1


def _vector(env: VectorEnv, first_action: int, seed: int) -> _Play:
    """Play environments side by side, whichever way they restart."""
    # Gymnasium 1.0 has one way only and does not name it.
    restart: Any = env.metadata.get("autoreset_mode")
    mode = "NEXT_STEP" if restart is None else getattr(restart, "name", restart)
    if mode not in ("NEXT_STEP", "SAME_STEP", "DISABLED"):
        raise ValueError(f"autoreset_mode of {env} is {mode!r}, expected one of Gymnasium's")
    observations, _ = env.reset(seed=seed)
    over = np.zeros(env.num_envs, dtype=np.bool_)
    episodes = np.arange(env.num_envs)
    while True:
        # In NEXT_STEP an ended environment shows the last observation of its episode and restarts
        # in the next step, whatever the action; in the other modes it shows a first one by now.
        dead = over if mode == "NEXT_STEP" else np.zeros_like(over)
        actions = np.full(env.num_envs, first_action)
        if not dead.all():
            actions[~dead] += yield Visits(np.asarray(observations)[~dead], episodes[~dead])
        observations, _, terminated, truncated, _ = env.step(actions)
        over = np.asarray(terminated) | np.asarray(truncated)
        episodes = _next(episodes, over)
        if mode == "DISABLED" and over.any():
            observations, _ = env.reset(options={"reset_mask": over})


def _next(episodes: NDArray[np.int64], over: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of the episodes that go on where some are over."""
    begun = episodes.copy()
    begun[over] = episodes.max() + 1 + np.arange(over.sum())
    return begun
