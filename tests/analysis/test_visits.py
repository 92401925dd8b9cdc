"""Visited states are those of the policy's own games."""

from collections.abc import Iterable

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.population import build_policy
from analysis.visits import Visits, visited

ENV = EnvConfig("CartPole-v1")
POLICY = build_policy(TrainConfig(heads=(HeadConfig("etf"),), seeds=(0, 1)), (4,), 2, critic=False)


def joined(batches: Iterable[Visits]) -> Visits:
    return Visits(*map(np.concatenate, zip(*batches, strict=True)))


def states(count: int, **options: object) -> np.ndarray:
    batches = list(visited(POLICY, ENV, count, np.random.default_rng(5), member=1, **options))
    assert max(len(batch.observations) for batch in batches) <= 256 + 8
    return joined(batches).observations


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


@pytest.mark.parametrize("greedy", [False, True])
def test_an_environment_of_gymnasium_is_played_like_ours(greedy: bool) -> None:
    env = gymnasium.make("CartPole-v1")
    batches = visited(POLICY, env, 400, np.random.default_rng(5), member=1, greedy=greedy)
    seen, episodes = joined(batches)
    assert seen.shape == (400, 4)
    np.testing.assert_array_equal(seen, states(400, num_envs=1, greedy=greedy))
    rng = np.random.default_rng(5)
    ours = joined(visited(POLICY, ENV, 400, rng, member=1, num_envs=1, greedy=greedy))
    np.testing.assert_array_equal(ours.episodes, episodes)
    assert len(np.unique(episodes)) > 3


class Clock(gymnasium.Env):
    """Observes (length, episode, time), written over in place; ends at time `length`."""

    observation_space = gymnasium.spaces.Box(0, 1000, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2, start=5)

    def __init__(self, length: int) -> None:
        self.now = np.array([length, -1, 0], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.now[1:] = self.now[1] + 1, 0
        return self.now, {}

    def step(self, action):
        assert self.action_space.contains(int(action))
        self.now[2] += 1
        over = self.now[2] == self.now[0]
        return self.now, 0.0, bool(over and self.now[1] % 2), bool(over), {}


def expected(length: int, count: int) -> np.ndarray:
    """States in which an action counts: the last observation of an episode is none."""
    return np.array([(length, t // length, t % length) for t in range(count)], np.float32)


def uniform(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return observations, np.zeros((len(observations), 2))


def test_a_state_is_what_an_action_is_taken_in() -> None:
    batches = list(visited(uniform, Clock(3), 301, np.random.default_rng(0)))
    assert [len(batch.observations) for batch in batches] == [256, 45]
    seen, episodes = joined(batches)
    np.testing.assert_array_equal(seen, expected(3, 301))
    np.testing.assert_array_equal(episodes, seen[:, 1])


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("lengths", [(2, 5), (3,), (2, 2)])
def test_restarts_of_vector_environments_are_no_states(
    mode: AutoresetMode, copy: bool, lengths: tuple[int, ...]
) -> None:
    env = SyncVectorEnv(
        [lambda length=length: Clock(length) for length in lengths], copy=copy, autoreset_mode=mode
    )
    seen, episodes = joined(visited(uniform, env, 601, np.random.default_rng(0)))
    assert seen.shape == (601, 3)
    # Those that begin together are numbered in the order of their environments.
    begun = np.unique(episodes, return_index=True)[1]
    assert (np.diff(begun) > 0).all()
    assert (seen[begun, 2] == 0).all()
    assert len(begun) == (seen[:, 2] == 0).sum()
    for episode in range(int(episodes.max()) + 1):
        own = seen[episodes == episode]
        assert len(np.unique(own[:, :2], axis=0)) == 1
        np.testing.assert_array_equal(own[:, 2], np.arange(len(own)))
    for length in set(lengths):
        own = seen[seen[:, 0] == length]
        assert len(own) > 250
        found = [own[i :: lengths.count(length)] for i in range(lengths.count(length))]
        for states_of_one in found:
            np.testing.assert_array_equal(states_of_one, expected(length, len(states_of_one)))


def test_what_cannot_be_played_is_refused() -> None:
    rng = np.random.default_rng(0)
    continuous, nested = Clock(3), Clock(3)
    continuous.action_space = gymnasium.spaces.Box(0, 1, (2,))
    with pytest.raises(TypeError, match="needs a Discrete action space, got Box"):
        next(visited(uniform, continuous, 5, rng))
    nested.observation_space = gymnasium.spaces.Dict(x=Clock.observation_space)
    with pytest.raises(TypeError, match=r"the space Dict.*FlattenObservation"):
        next(visited(uniform, nested, 5, rng))
    with pytest.raises(ValueError, match=r"logits \(1, 3\) for 1 obs.* has 2 actions"):
        next(visited(lambda x: (x, x), Clock(3), 5, rng))


def test_no_states_are_refused() -> None:
    with pytest.raises(ValueError, match="states must be >= 1"):
        next(visited(POLICY, ENV, 0, np.random.default_rng(0), member=0))
