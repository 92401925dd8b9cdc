"""Visited states are those of the policy's own games."""

import gymnasium
import numpy as np
import pytest
import torch

from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.population import build_policy
from analysis.visits import visited

ENV = EnvConfig("CartPole-v1")
POLICY = build_policy(TrainConfig(heads=(HeadConfig("etf"),), seeds=(0, 1)), (4,), 2, critic=False)


def states(count: int, **options: object) -> np.ndarray:
    batches = list(visited(POLICY, ENV, count, np.random.default_rng(5), member=1, **options))
    assert max(len(batch) for batch in batches) <= 256 + 8
    return np.concatenate(batches)


@pytest.mark.parametrize("count", [1, 7, 8, 300, 600])
def test_exactly_so_many_and_the_same_every_time(count: int) -> None:
    seen = states(count)
    assert seen.shape == (count, 4)
    np.testing.assert_array_equal(seen, states(count))
    np.testing.assert_array_equal(states(600)[:count], seen)


def test_greedy_visits_replay_in_the_stock_environment() -> None:
    seen = states(120, num_envs=1, greedy=True)
    env = gymnasium.make("CartPole-v1")
    seed = int(np.random.default_rng(5).integers(2**31))
    observation, _ = env.reset(seed=seed)
    for expected in seen:
        np.testing.assert_allclose(observation, expected, rtol=1e-6)
        logits = POLICY(torch.from_numpy(observation).expand(2, 1, 4)).logits[1, 0]
        observation, _, terminated, truncated, _ = env.step(int(logits.argmax()))
        if terminated or truncated:
            observation, _ = env.reset()


def test_no_states_are_refused() -> None:
    with pytest.raises(ValueError, match="states must be >= 1"):
        next(visited(POLICY, ENV, 0, np.random.default_rng(0), member=0))
