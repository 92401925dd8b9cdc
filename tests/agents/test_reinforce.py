"""REINFORCE: whole games, own minibatches, running moments, and equal budgets for all members."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.collect import Rollout
from agents.config import HeadConfig, TrainConfig
from agents.reinforce import Reinforce, minibatches
from agents.training import Trainer

CONFIG = TrainConfig(
    algorithm=Reinforce(batch_size=16),
    heads=(HeadConfig(), HeadConfig("etf")),
    seeds=(0, 1),
    hidden=(16, 16),
    num_envs=2,
    steps=400,
    epoch_steps=100,
)


def trainer(**options: object) -> Trainer:
    return Trainer(replace(CONFIG, algorithm=replace(CONFIG.algorithm, **options)), "cpu")


def rngs(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


def present(*sizes: int, length: int = 40) -> np.ndarray:
    """Members with so many samples, scattered over the padded length."""
    rows = np.zeros((len(sizes), length), dtype=bool)
    for row, size in zip(rows, sizes, strict=True):
        row[np.random.default_rng(size).permutation(length)[:size]] = True
    return rows


def test_every_sample_of_every_member_is_met_once_and_no_padding() -> None:
    have = present(40, 17, 3, 0)
    seen: list[list[int]] = [[] for _ in have]
    pairs = minibatches(rngs(4), have, 8)
    assert len(pairs) == 5
    for index, valid in pairs:
        for member in range(4):
            seen[member] += index[member][valid[member]].tolist()
    for member, row in enumerate(have):
        assert sorted(seen[member]) == np.flatnonzero(row).tolist()


@pytest.mark.parametrize(
    ("samples", "sizes"), [(40, [8] * 5), (39, [10, 10, 10, 9]), (15, [15]), (3, [3])]
)
def test_a_remainder_is_merged_into_nearly_equal_parts(samples, sizes) -> None:
    pairs = minibatches(rngs(1), present(samples), 8)
    assert [int(valid.sum()) for _, valid in pairs] == sizes


def test_a_members_minibatches_do_not_depend_on_the_others() -> None:
    together = minibatches(rngs(2), present(40, 17), 8)
    alone = minibatches(rngs(2)[1:], present(17), 8)
    for (index, valid), (own, there) in zip(together, alone, strict=False):
        assert torch.equal(index[1][valid[1]], own[0][there[0]])
    assert not any(valid[1].any() for _, valid in together[len(alone) :])


def test_a_member_without_samples_draws_nothing() -> None:
    own = rngs(2)
    before = own[1].bit_generator.state
    minibatches(own, present(40, 0), 8)
    assert own[1].bit_generator.state == before


def scripted(
    rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray | None = None
) -> Rollout:
    """A rollout of (P, T) rewards in one environment."""
    nothing = np.zeros((*rewards.shape, 1))
    tensors = torch.zeros(nothing.shape)
    cut = np.zeros_like(terminated) if truncated is None else truncated
    return Rollout(
        tensors, tensors.long(), tensors, nothing, nothing,
        rewards[..., None], terminated[..., None], cut[..., None],
    )  # fmt: skip


def test_returns_are_discounted_sums_up_to_the_end() -> None:
    run = trainer(baseline="none", discount=0.5)
    rewards = np.array([[1.0, 2.0, 4.0, 8.0]])
    ends = np.array([[False, True, False, False]])
    found = run._learner._weights(scripted(rewards, ends), np.ones((1, 4), dtype=bool))
    np.testing.assert_allclose(found, [[1 + 0.5 * 2, 2, 4 + 0.5 * 8, 8]])


def test_running_moments_are_those_of_the_members_earlier_collects() -> None:
    run, rng = trainer(baseline="running", discount=1e-9), np.random.default_rng(0)
    earlier: list[list[float]] = [[], []]
    for _ in range(4):
        rewards = rng.standard_normal((2, 6)) * [[1], [5]] + 3
        have = rng.random((2, 6)) < 0.6
        have[0, 0], have[1] = True, have[1] & (rng.random() < 0.7)
        found = run._learner._weights(scripted(rewards, np.zeros((2, 6), dtype=bool)), have)
        for member in range(2):
            seen = earlier[member]
            mean, variance = (np.mean(seen), np.var(seen)) if seen else (0.0, 1.0)
            expected = (rewards[member] - mean) / np.sqrt(variance + 1e-8)
            np.testing.assert_allclose(
                found[member][have[member]], expected[have[member]], rtol=1e-6
            )
            seen += rewards[member][have[member]].tolist()


def test_the_batch_baseline_standardises_each_collect() -> None:
    rewards = np.random.default_rng(0).standard_normal((2, 6)) * 5 + 3
    have = np.array([[True] * 6, [True, False, True, True, False, False]])
    found = trainer(baseline="batch", discount=1e-9)._learner._weights(
        scripted(rewards, np.zeros((2, 6), dtype=bool)), have
    )
    for member in range(2):
        own = rewards[member][have[member]]
        np.testing.assert_allclose(
            found[member][have[member]], (own - own.mean()) / own.std(), rtol=1e-6
        )


def test_returns_that_a_time_limit_cuts_short_are_left_out() -> None:
    """γ = 1/2: of the future after a limit k steps on, a return hides the share 2^-k."""
    truncated, terminated = np.zeros((2, 1, 8), dtype=bool)
    truncated[0, 4] = terminated[0, 7] = True
    rollout = scripted(np.ones((1, 8)), terminated, truncated)
    for tolerance, left_out in [(1.0, []), (0.5, []), (0.4, [4]), (0.25, [4]), (0.1, [2, 3, 4])]:
        run = trainer(discount=0.5, cut_tolerance=tolerance)
        assert np.flatnonzero(run._learner._cut(rollout)).tolist() == left_out


def test_a_collect_without_a_sample_changes_nothing() -> None:
    run = trainer(cut_tolerance=0.05, horizon=5)
    before = [parameter.clone() for parameter in run.policy.parameters()]
    metrics = run._learner.iterate(run._collector, 0.0).metrics
    assert all(map(torch.equal, before, run.policy.parameters()))
    assert all(metrics[name].isnan().all() for name in ("policy_loss", "entropy"))


def test_no_sample_is_left_where_nothing_is_discounted() -> None:
    with pytest.raises(ValueError, match="leaves out every sample"):
        Reinforce(discount=1.0, cut_tolerance=0.5)


def test_the_defaults_are_the_papers() -> None:
    """Minibatches of 64, two passes, γ = 0.95, the first rate, running moments, PyTorch's Adam."""
    default = Reinforce()
    assert (default.batch_size, default.passes, default.discount) == (64, 2, 0.95)
    assert (default.learning_rate, default.baseline, default.adam_eps) == (1e-3, "running", 1e-8)
    assert (default.entropy_coefficient, default.cut_tolerance, default.anneal) == (0, 1, False)


@pytest.mark.parametrize(
    ("horizon", "cut_tolerance", "passes"), [(600, 1.0, 1), (24, 0.9, 1), (600, 1.0, 2)]
)
def test_a_pass_over_one_batch_is_an_adam_step_on_the_mean(horizon, cut_tolerance, passes) -> None:
    """Against plain PyTorch: returns by hand, a mean over the member's own samples, Adam."""
    options = {
        "horizon": horizon,
        "cut_tolerance": cut_tolerance,
        "baseline": "none",
        "batch_size": 10_000,
        "passes": passes,
        "entropy_coefficient": 30.0,
    }
    run, other = trainer(**options), trainer(**options)
    rollout, alive = other._collector.collect_episodes(horizon)
    # What a limit `horizon` steps in hides of a return is 0.95 to the number of steps up to it.
    cut = 0.95 ** (horizon - np.arange(alive.shape[1])) > cut_tolerance
    kept = alive & ~(alive[:, -1:] & cut[:, None])
    assert cut.any() == (kept.sum() < alive.sum())
    run._learner._owed -= run._learner._grant - 1  # one collect exceeds the account
    metrics = run._learner.iterate(run._collector, 0.0).metrics
    assert len(set(kept.sum((1, 2)).tolist())) > 1
    policy = other.policy
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3)
    policy_losses = torch.zeros(4)
    for _ in range(passes):
        log_policy = policy(rollout.observations.flatten(1, 2)).logits.log_softmax(-1)
        log_probs = log_policy.gather(-1, rollout.actions.flatten(1, 2)[..., None])[..., 0]
        log_probs = log_probs.view(alive.shape)
        total = torch.zeros(())
        for member in range(4):
            terms = []
            for e in range(2):
                length = int(alive[member, :, e].sum())
                for t in np.flatnonzero(kept[member, :, e]):
                    g = sum(0.95**k for k in range(length - t))  # CartPole: reward 1 a step
                    terms.append(-g * log_probs[member, t, e])
            loss = torch.stack(terms).mean()
            policy_losses[member] += loss.detach() / passes
            here = torch.from_numpy(kept[member])
            distribution = torch.distributions.Categorical(
                logits=log_policy[member].view(*here.shape, 2)
            )
            total = total + loss - 30.0 * distribution.entropy()[here].mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    torch.testing.assert_close(metrics["policy_loss"], policy_losses)
    for own, expected in zip(run.policy.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_all_members_spend_the_same_budget() -> None:
    """Steps granted and steps played differ by less than one collect, whatever games last."""
    run = trainer()
    played = np.zeros(4, dtype=int)
    collect = run._collector.collect_episodes
    longest = 0

    def counting(*arguments: object):
        nonlocal longest
        rollout, alive = collect(*arguments)
        played[:] += alive.sum((1, 2))
        longest = max(longest, int(alive.sum((1, 2)).max()))
        return rollout, alive

    run._collector.collect_episodes = counting
    granted = sum(run._learner.iterate(run._collector, 0.0).steps for _ in range(8))
    assert granted == 800
    assert (played >= granted).all()
    assert (played < granted + longest).all()
    np.testing.assert_array_equal(run._learner._owed, granted - played)
