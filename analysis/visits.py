"""States that a policy visits: observations to probe it on, drawn by acting."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from agents.collect import sample_actions
from agents.config import EnvConfig
from agents.envs import make_environments
from analysis.capture import as_source

_BATCH = 256


def visited(
    policy: object,
    env: EnvConfig,
    states: int,
    rng: np.random.Generator,
    *,
    member: int | None = None,
    num_envs: int = 8,
    greedy: bool = False,
) -> Iterator[NDArray[np.generic]]:
    """Act in an environment and yield what is seen, in batches and in bounded memory.

    Parameters
    ----------
    policy
        Anything that `analysis.capture.as_source` takes and that reads this environment's
        observations.
    env
        Played as in evaluation: whole games, one after another.
    states
        How many observations in all; the last batch is cut to fit.
    rng
        Seeds the environments and draws the actions.
    member
        Of a population of `agents`.
    num_envs
        Environments side by side.
    greedy
        Whether to take the likeliest action instead of a sampled one.

    Yields
    ------
    (n, …) observations, about ``_BATCH`` at a time.

    Raises
    ------
    ValueError
        ``states`` or ``num_envs`` is below 1.
    """
    if states < 1:
        raise ValueError(f"states must be >= 1, got {states}")
    source = as_source(policy, member)
    environments = make_environments(env, 1, num_envs, evaluation=True)
    try:
        observations = environments.reset([int(rng.integers(2**31))])[0]
        remaining, seen = states, []
        while True:
            seen.append(observations[:remaining])
            remaining -= len(seen[-1])
            if remaining == 0 or len(seen) * num_envs >= _BATCH:
                yield np.concatenate(seen)
                seen.clear()
            if remaining == 0:
                return
            logits = torch.as_tensor(source(observations).logits).float().cpu()
            uniforms = torch.from_numpy(rng.random(num_envs, np.float32))
            actions = logits.argmax(-1) if greedy else sample_actions(logits, uniforms)
            observations = environments.step(actions.numpy()[None]).observations[0]
    finally:
        environments.close()
