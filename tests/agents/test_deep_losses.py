"""Losses and advantages of the deep agents against naive loops and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from agents.losses import (
    categorical_kl,
    clipped_surrogate_loss,
    entropy,
    generalised_advantages,
    sampled_kl,
    standardise,
    value_loss,
)


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def log_policies(seed: int, *shape: int) -> torch.Tensor:
    logits = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(logits).log_softmax(-1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_advantages_are_the_discounted_sum_of_errors_up_to_the_end(seed, trace) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, 12, 3)
    rewards, values, following = rng.standard_normal((3, *shape))
    ends = rng.random(shape)
    terminated, truncated = ends < 0.15, (ends >= 0.15) & (ends < 0.3)
    found = generalised_advantages(rewards, values, following, terminated, truncated, 0.9, trace)
    for p, t, e in np.ndindex(*shape):
        expected, weight = 0.0, 1.0
        for k in range(t, shape[1]):
            bootstrap = 0.0 if terminated[p, k, e] else 0.9 * following[p, k, e]
            expected += weight * (rewards[p, k, e] + bootstrap - values[p, k, e])
            weight *= 0.9 * trace
            if terminated[p, k, e] or truncated[p, k, e]:
                break
        assert found[p, t, e] == pytest.approx(expected, abs=1e-12)


def test_a_time_limit_is_bootstrapped_and_an_end_is_not() -> None:
    one = np.ones((1, 1, 1))
    yes, no = one.astype(bool), ~one.astype(bool)
    truncated = generalised_advantages(one, 2 * one, 10 * one, no, yes, 0.5, 1.0)
    terminated = generalised_advantages(one, 2 * one, 10 * one, yes, no, 0.5, 1.0)
    assert truncated.item() == 1 + 0.5 * 10 - 2
    assert terminated.item() == 1 - 2


def test_full_traces_give_n_step_returns() -> None:
    rewards = np.array([1.0, 2.0, 4.0]).reshape(1, 3, 1)
    values = np.array([8.0, 16.0, 32.0]).reshape(1, 3, 1)
    following = np.array([16.0, 32.0, 64.0]).reshape(1, 3, 1)
    never = np.zeros((1, 3, 1), dtype=bool)
    advantages = generalised_advantages(rewards, values, following, never, never, 0.5, 1.0)
    n_step = np.array([1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 64, 2 + 0.5 * 4 + 0.25 * 64, 4 + 0.5 * 64])
    np.testing.assert_allclose((advantages + values).ravel(), n_step)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # ∂loss/∂log π = −ρA where the minimum is the unclipped term, else 0.
        (1.5, 2.0, -2.4, 0.0),
        (1.5, -2.0, 3.0, 3.0),
        (0.5, 2.0, -1.0, -1.0),
        (0.5, -2.0, 1.6, 0.0),
        (1.1, 2.0, -2.2, -2.2),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, slope) -> None:
    old = tensor([-1.0])
    new = (old + math.log(ratio)).requires_grad_()
    found = clipped_surrogate_loss(new, old, tensor([advantage]), 0.2)
    (gradient,) = torch.autograd.grad(found, new)
    assert found.item() == pytest.approx(loss)
    assert gradient.item() == pytest.approx(slope)


def test_clipped_surrogate_is_a_mean() -> None:
    old = tensor([[-1.0, -2.0, -3.0]])
    loss = clipped_surrogate_loss(old, old, tensor([[1.0, 2.0, 6.0]]), 0.2)
    torch.testing.assert_close(loss, tensor([-3.0]))


def test_value_loss_has_the_half_in_it() -> None:
    loss = value_loss(tensor([[1.0, 2.0], [0.0, 0.0]]), tensor([[3.0, 2.0], [1.0, 1.0]]))
    torch.testing.assert_close(loss, tensor([1.0, 0.5]))


def test_entropy_and_divergence_are_those_of_torch_distributions() -> None:
    log_p, log_q = log_policies(0, 4, 7, 5), log_policies(1, 4, 7, 5)
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (log_p, log_q))
    torch.testing.assert_close(entropy(log_p), p.entropy())
    torch.testing.assert_close(
        categorical_kl(log_p, log_q), torch.distributions.kl_divergence(p, q)
    )


def test_sampled_kl_is_unbiased() -> None:
    """Its expectation over π_old's actions, taken exactly, is KL(π_old‖π)."""
    old, new = log_policies(2, 5), log_policies(3, 5)
    each = torch.stack([sampled_kl(new[a : a + 1], old[a : a + 1]) for a in range(5)])
    torch.testing.assert_close((old.exp() * each).sum(), categorical_kl(old, new))
    assert (each >= 0).all()


def test_sampled_kl_by_hand() -> None:
    found = sampled_kl(torch.log(tensor([0.5, 0.2])), torch.log(tensor([0.25, 0.2])))
    assert found.item() == pytest.approx((2 - 1 - math.log(2)) / 2)


def test_standardise_each_member_by_itself() -> None:
    values = np.random.default_rng(0).standard_normal((3, 50)) * [[1], [10], [100]] + 7
    found = standardise(torch.from_numpy(values)).numpy()
    for own, result in zip(values, found, strict=True):
        np.testing.assert_allclose(result, (own - own.mean()) / own.std(ddof=1), rtol=1e-6)


def test_one_advantage_becomes_zero() -> None:
    assert torch.equal(standardise(tensor([[3.0], [4.0]])), tensor([[0.0], [0.0]]))
