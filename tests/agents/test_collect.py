"""Acting: sampled actions, bootstraps at time limits, whole games, and members by themselves."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from agents import collect
from agents.collect import Collector, sample_actions
from agents.config import HeadConfig, TrainConfig
from agents.envs.base import Environments, Observations, Transition
from agents.policy import Policy
from agents.population import build_policy

LIMIT = 4


class Counting(Environments):
    """Two observations, the member's step in the game and the game's number.

    Environment 0 of a member is truncated after `LIMIT` + its number steps, environment 1
    terminates every 2 + its number (a lost life, the last one of which ends the game), the others
    never end.
    """

    def __init__(self, population: int = 2, num_envs: int = 3, lives: int = 1) -> None:
        super().__init__(population, num_envs, 3, (2,), np.float32)
        self._lives = lives

    def _reset(self, seeds: list[int]) -> Observations:
        shape = (self.population, self.num_envs)
        self._count, self._game, self._lost = (np.zeros(shape, dtype=int) for _ in range(3))
        return self._observe()

    def _step(self, actions: NDArray[np.int64]) -> Transition:
        self._count += 1
        final = self._observe()
        terminated, truncated = np.zeros((2, *actions.shape), dtype=bool)
        truncated[:, 0] = self._count[:, 0] == LIMIT + np.arange(self.population)
        period = 2 + np.arange(self.population)
        if self.num_envs > 1:
            terminated[:, 1] = self._count[:, 1] % period == 0
        self._lost += terminated
        over = truncated | (self._lost == self._lives)
        self._count[over], self._lost[over] = 0, 0
        self._game += over
        rewards = final[..., 0].astype(np.float64)
        return Transition(self._observe(), rewards, terminated, truncated, final, over)

    def _observe(self) -> Observations:
        return np.stack([self._count, self._game], axis=-1).astype(np.float32)


def policy(population: int = 2, critic: bool = True) -> Policy:
    config = TrainConfig(heads=(HeadConfig(),), seeds=tuple(range(population)), hidden=(8,))
    return build_policy(config, (2,), 3, critic=critic)


def collector(population: int = 2, critic: bool = True, **options: object) -> Collector:
    lives, envs = options.pop("lives", 1), options.pop("num_envs", 3)
    return Collector(
        policy(population, critic),
        Counting(population, envs, lives),
        [np.random.default_rng(seed) for seed in range(population)],
        torch.device("cpu"),
        **options,
    )


def chi_square(actions: torch.Tensor, probabilities: NDArray[np.float64]) -> float:
    """Probability of counts as uneven as these."""
    counts = np.bincount(actions.numpy(), minlength=len(probabilities))
    return float(stats.chisquare(counts, counts.sum() * probabilities).pvalue)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_actions_follow_the_mixture(epsilon) -> None:
    logits = torch.tensor([1.0, -0.5, 0.0, 2.0])
    uniforms = torch.from_numpy(np.random.default_rng(0).random(100_000, dtype=np.float32))
    actions = sample_actions(logits.expand(100_000, 4), uniforms, epsilon)
    softmax = np.exp(logits.double().numpy())
    expected = (1 - epsilon) * softmax / softmax.sum() + epsilon / 4
    assert chi_square(actions, expected) > 0.01
    other = (1 - (epsilon + 0.05)) * softmax / softmax.sum() + (epsilon + 0.05) / 4
    assert chi_square(actions, other) < 1e-6


def test_sampling_is_the_inverse_distribution_function() -> None:
    logits = torch.log(torch.tensor([0.25, 0.5, 0.25]))
    uniforms = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, 1.0])
    found = sample_actions(logits.expand(6, 3), uniforms)
    assert found.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_rollout_is_what_the_policy_saw_and_did() -> None:
    acting = collector()
    acting.restart([0, 0])
    rollout = acting.collect(7)
    logits, _, value = acting.policy(rollout.observations.flatten(1, 2))
    log_probs = logits.log_softmax(-1).gather(-1, rollout.actions.flatten(1, 2)[..., None])
    torch.testing.assert_close(rollout.log_probs.flatten(1, 2), log_probs.squeeze(-1))
    np.testing.assert_allclose(
        rollout.values.reshape(2, -1), value.detach().numpy(), rtol=1e-5, atol=1e-6
    )
    steps = rollout.observations[0, :, 0, 0].tolist()
    assert steps == [0, 1, 2, 3, 0, 1, 2]
    np.testing.assert_array_equal(rollout.rewards[0, :, 0], [1, 2, 3, 4, 1, 2, 3])
    np.testing.assert_array_equal(np.flatnonzero(rollout.truncated[0, :, 0]), [LIMIT - 1])
    np.testing.assert_array_equal(np.flatnonzero(rollout.terminated[0, :, 1]), [1, 3, 5])
    assert not rollout.truncated[:, :, 1:].any()


def test_what_follows_a_time_limit_is_the_final_observation() -> None:
    acting = collector()
    acting.restart([0, 0])
    rollout = acting.collect(7)

    @torch.no_grad()
    def value(member: int, step: int, game: int) -> float:
        observation = torch.tensor([step, game], dtype=torch.float32).expand(2, 1, 2)
        return acting.policy(observation).value[member, 0].item()

    for member in range(2):
        following = rollout.next_values[member, :, 0]
        limit = LIMIT + member
        assert following[limit - 1] == pytest.approx(value(member, limit, 0), abs=1e-6)
        assert following[limit - 1] != pytest.approx(value(member, 0, 1), abs=1e-4)
        assert following[0] == pytest.approx(value(member, 1, 0), abs=1e-6)
        assert following[6] == pytest.approx(
            value(member, 7 - limit, 1), abs=1e-6
        )  # the rollout's end


def test_a_time_limit_at_the_rollouts_end_is_bootstrapped_too() -> None:
    acting = collector()
    acting.restart([0, 0])
    following = acting.collect(LIMIT).next_values[0, -1, 0]
    observation = torch.tensor([LIMIT, 0], dtype=torch.float32).expand(2, 1, 2)
    assert following == pytest.approx(acting.policy(observation).value[0, 0].item(), abs=1e-6)


def test_a_policy_without_critic_has_no_values() -> None:
    acting = collector(critic=False)
    acting.restart([0, 0])
    rollout = acting.collect(7)
    assert not rollout.values.any()
    assert not rollout.next_values.any()


def test_log_probs_are_those_of_the_policy_itself_under_epsilon() -> None:
    acting = collector(epsilon=1.0)
    acting.restart([0, 0])
    rollout = acting.collect(7)
    assert (rollout.log_probs - np.log(1 / 3)).abs().max() > 1e-3


def test_rewards_are_clipped_for_the_learner_and_returns_are_not() -> None:
    acting = collector(clip_rewards=True)
    acting.restart([0, 0])
    assert (acting.collect(LIMIT).rewards == 1).all()
    assert acting.finished.returns[0] == [1 + 2, 1 + 2 + 3 + 4, 1 + 2]


def test_collecting_before_a_start_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call restart"):
        collector().collect(1)


# --- whole games ----------------------------------------------------------------------------------


def test_every_game_is_played_once_from_its_start_to_its_end() -> None:
    acting = collector(num_envs=2)
    rollout, alive = acting.collect_episodes(100)
    np.testing.assert_array_equal(alive.sum(axis=1), [[LIMIT, 2], [LIMIT + 1, 3]])
    for member, e in np.ndindex(2, 2):
        steps = rollout.observations[member, :, e].numpy()[alive[member, :, e]]
        np.testing.assert_array_equal(steps[:, 0], np.arange(len(steps)))
        assert not steps[:, 1].any()
    assert acting.finished.returns == [[3.0, 10.0], [6.0, 15.0]]
    assert rollout.actions.shape == alive.shape == (2, LIMIT + 1, 2)


def test_a_lost_life_ends_the_return_and_not_the_game() -> None:
    rollout, alive = collector(num_envs=2, lives=3).collect_episodes(100)
    np.testing.assert_array_equal(alive.sum(axis=1), [[LIMIT, 6], [LIMIT + 1, 9]])
    np.testing.assert_array_equal(np.flatnonzero(rollout.terminated[0, :6, 1]), [1, 3, 5])


def test_the_horizon_leaves_unfinished_games() -> None:
    acting = collector(num_envs=3)
    _, alive = acting.collect_episodes(11)
    assert alive.shape[1] == 11
    assert alive[:, :, 2].all()


def test_games_longer_than_the_first_buffer_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, _ = collector().collect_episodes(23)
    monkeypatch.setattr(collect, "_GAME", 2)
    acting = collector()
    for _ in range(2):
        grown, _ = acting.collect_episodes(23)
        assert grown.observations.shape == wide.observations.shape
        assert torch.equal(grown.observations[:, :, 2], wide.observations[:, :, 2])


def test_the_next_collect_starts_afresh() -> None:
    acting = collector(num_envs=2)
    for _ in range(2):
        rollout, _ = acting.collect_episodes(100)
        assert not rollout.observations[:, 0].any()


def test_a_member_plays_the_same_in_any_company() -> None:
    together, alone = collector(2, num_envs=2), collector(1, num_envs=2)
    both, alive = together.collect_episodes(100)
    own, present = alone.collect_episodes(100)
    length = present.shape[1]
    np.testing.assert_array_equal(alive[0, :length], present[0])
    here = torch.from_numpy(present[0])
    assert torch.equal(both.actions[0, :length][here], own.actions[0][here])
    torch.testing.assert_close(both.log_probs[0, :length][here], own.log_probs[0][here])
    assert together.rngs[0].random() == alone.rngs[0].random()


def test_members_that_wait_are_not_touched() -> None:
    acting = collector(2, num_envs=2)
    before = acting.rngs[1].bit_generator.state
    _, alive = acting.collect_episodes(100, np.array([True, False]))
    assert alive[0].any()
    assert not alive[1].any()
    assert acting.rngs[1].bit_generator.state == before
    assert acting.finished.returns[1] == []
