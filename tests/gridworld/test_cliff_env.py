"""The Gymnasium environment: the same tables, sampled."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from gridworld import IdealCliffWalkingEnv, ideal_cliff_walking

UNIFORM = np.full((12, 4), 0.25)


@pytest.mark.parametrize("name", ["IdealCliffWalking-v0", "gridworld:IdealCliffWalking-v0"])
@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
def test_gymnasium_has_no_complaint(name, render_mode):
    check_env(gymnasium.make(name, render_mode=render_mode).unwrapped)


def test_every_move_and_reward_is_the_tables():
    mdp = ideal_cliff_walking(6, step_reward=-0.5, exit_reward=2.0)
    for s in mdp.decision_states:
        start = np.eye(mdp.num_states)[s]
        env = IdealCliffWalkingEnv(6, step_reward=-0.5, exit_reward=2.0, start=start)
        for a in range(4):
            assert env.reset() == (s, {})
            state, reward, terminated, truncated, info = env.step(a)
            assert (state, reward) == (mdp.successors[s, a], mdp.rewards[s, a])
            assert terminated == mdp.terminal[state]
            assert (truncated, info) == (False, {})


@pytest.mark.theory
def test_sampled_episodes_agree_with_exact_occupancy_and_value():
    """4,000 episodes of the random policy; five standard errors of the episode means."""
    env = IdealCliffWalkingEnv(start="outer", exit_reward=5.0)
    rng = np.random.default_rng(3)
    env.reset(seed=3)
    episodes = 4_000
    visits, returns = np.zeros((episodes, 12)), np.zeros(episodes)
    for episode in range(episodes):
        state, _ = env.reset()
        weight, terminated = 1.0, False
        visits[episode, state] += 1
        while not terminated:
            state, reward, terminated, _, _ = env.step(int(rng.integers(4)))
            visits[episode, state] += 1
            returns[episode] += weight * reward
            weight *= env.mdp.discount
    for sampled, exact in (
        (visits, env.mdp.expected_visits(UNIFORM)),
        (returns, env.mdp.start @ env.mdp.policy_value(UNIFORM)),
    ):
        error = sampled.std(axis=0) / np.sqrt(episodes)
        assert (np.abs(sampled.mean(axis=0) - exact) < 5 * error).all()
    shares = visits.sum(axis=0) / visits.sum()
    np.testing.assert_allclose(shares, env.mdp.occupancy(UNIFORM, discount=1.0), atol=0.01)


@pytest.mark.parametrize(("start", "cells"), [("inner", {1, 2, 5, 6}), ("outer", {0, 3, 4, 7})])
def test_episodes_start_where_they_should(start, cells):
    env = IdealCliffWalkingEnv(start=start)
    env.reset(seed=0)
    firsts = [env.reset()[0] for _ in range(400)]
    assert set(firsts) == cells
    assert max(firsts.count(c) for c in cells) < 140  # 100 expected, standard deviation 8.7


def test_the_same_seed_gives_the_same_episodes():
    first, second = IdealCliffWalkingEnv(), IdealCliffWalkingEnv()
    first.reset(seed=5)
    second.reset(seed=5)
    assert [first.reset()[0] for _ in range(50)] == [second.reset()[0] for _ in range(50)]


def test_the_time_limit_truncates_and_does_not_terminate():
    env = gymnasium.make("IdealCliffWalking-v0", start=np.eye(12)[0])
    env.reset(seed=0)
    for t in range(1, 201):
        state, reward, terminated, truncated, _ = env.step(1)  # left, into the wall
        assert (state, reward, terminated) == (0, -1.0, False)
        assert truncated == (t == 200)


def test_vectorised_environments_reset_themselves():
    envs = gymnasium.make_vec(
        "IdealCliffWalking-v0", num_envs=3, vectorization_mode="sync", start="inner"
    )
    first, _ = envs.reset(seed=0)
    assert first.shape == (3,)
    up_or_down = np.where(first < 4, 2, 3)
    _, rewards, terminated, truncated, _ = envs.step(up_or_down)
    assert rewards.tolist() == [-1.0] * 3
    assert terminated.all()
    assert not truncated.any()
    again, *_ = envs.step(up_or_down)
    assert np.isin(again, [1, 2, 5, 6]).all()
    envs.close()


def test_steps_outside_an_episode_are_refused():
    env = IdealCliffWalkingEnv(start=np.eye(12)[1], render_mode="ansi")
    for act in (lambda: env.step(0), env.render):
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\)"):
            act()
    env.reset()
    env.step(2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="has ended in an exit"):
        env.step(2)


@pytest.mark.parametrize("action", [4, -1, 0.5, "up"])
def test_unknown_actions_are_refused(action):
    env = IdealCliffWalkingEnv()
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction, match="give an integer from 0 to 3"):
        env.step(action)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="render_mode is 'human'; give None, 'ansi' or 'rgb_arr"):
        IdealCliffWalkingEnv(render_mode="human")
    with pytest.raises(ValueError, match="start is 'middle'"):
        IdealCliffWalkingEnv(start="middle")


def test_rendering_without_a_mode_warns():
    env = IdealCliffWalkingEnv()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="draws nothing without a render mode"):
        assert env.render() is None
