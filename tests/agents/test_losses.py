"""Losses and advantages against hand-computed numbers, naive loops and the theorem they rest on."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gridworld
from agents.losses import (
    RunningMoments,
    all_action_loss,
    discounted_returns,
    leave_one_out,
    reinforce_loss,
    surrogate_loss,
)

pytestmark = pytest.mark.theory
seeds = st.integers(0, 2**32 - 1)


def test_reinforce_by_hand() -> None:
    log_probs = torch.log(torch.tensor([0.5, 0.25]))
    loss = reinforce_loss(log_probs, torch.tensor([2.0, -4.0]))
    assert loss.item() == pytest.approx(-(2 * math.log(0.5) - 4 * math.log(0.25)) / 2)


def test_surrogate_by_hand() -> None:
    log_policy = torch.log(torch.tensor([[0.7, 0.3], [0.4, 0.6]]))
    loss = surrogate_loss(log_policy, torch.tensor([0, 1]), torch.tensor([0.25, 0.75]))
    assert loss.item() == pytest.approx(-(0.25 * math.log(0.7) + 0.75 * math.log(0.6)))


def test_discounted_returns_by_hand() -> None:
    rewards = np.array([[-1.0, -1.0, 3.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        discounted_returns(rewards, 0.5), [[-0.75, 0.5, 3.0], [1.0, 0.0, 0.0]]
    )


@given(seeds, st.integers(2, 9))
def test_leave_one_out_against_a_loop(seed, count) -> None:
    returns = np.random.default_rng(seed).standard_normal((3, count))
    for row, advantages in zip(returns, leave_one_out(returns), strict=True):
        for i in range(count):
            others = [row[j] for j in range(count) if j != i]
            assert advantages[i] == pytest.approx(row[i] - sum(others) / len(others), abs=1e-12)


def test_leave_one_out_needs_two() -> None:
    with pytest.raises(ValueError, match=">= 2 returns a state, got 1"):
        leave_one_out(np.zeros((3, 1)))


@given(seeds)
def test_running_moments_are_those_of_all_earlier_batches(seed) -> None:
    """Each batch is standardised by the batches before it, then counted; padding is not."""
    rng = np.random.default_rng(seed)
    moments, seen = RunningMoments.start(2), [[], []]
    for _ in range(4):
        batch = rng.standard_normal((2, 5)) * 3 + 7
        present = rng.random((2, 5)) < 0.7
        present[:, 0] = True
        scaled = moments.standardise(batch, present)
        for p in range(2):
            mean = np.mean(seen[p]) if seen[p] else 0.0
            variance = np.var(seen[p]) if seen[p] else 1.0
            np.testing.assert_allclose(
                scaled[p], (batch[p] - mean) / np.sqrt(variance + 1e-8), rtol=1e-9
            )
            seen[p] += batch[p][present[p]].tolist()


@given(seeds)
def test_all_action_gradient_is_the_policy_gradient(seed) -> None:
    """Policy gradient theorem: with d and Q of the policy itself the gradient is −(1−γ)∇J.

    The oracle differentiates J(logits) = start·V^π numerically, from the exact linear solve.
    """
    rng = np.random.default_rng(seed)
    mdp = gridworld.ideal_cliff_walking()
    logits = rng.standard_normal((mdp.num_states, mdp.num_actions))

    def policy(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def performance(z: np.ndarray) -> float:
        return float(mdp.start @ mdp.policy_value(policy(z)))

    z = torch.from_numpy(logits).requires_grad_()
    loss = all_action_loss(
        z.log_softmax(-1),
        torch.from_numpy(mdp.policy_action_value(policy(logits))),
        torch.from_numpy(mdp.occupancy(policy(logits), discount=mdp.discount).copy()),
    )
    (gradient,) = torch.autograd.grad(loss, z)
    direction = rng.standard_normal(logits.shape)
    step = 1e-6
    slope = (performance(logits + step * direction) - performance(logits - step * direction)) / (
        2 * step
    )
    found = -float((gradient.numpy() * direction).sum()) / (1 - mdp.discount)
    assert found == pytest.approx(slope, rel=1e-5, abs=1e-6)


@given(seeds)
def test_reinforce_is_unbiased_for_the_all_action_gradient(seed) -> None:
    """Expectation over actions taken exactly: Σ_a π(a)·∇(−Q_a log π(a)) = ∇ all-action loss."""
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.standard_normal((1, 4))).requires_grad_()
    q = torch.from_numpy(rng.standard_normal((1, 4)))
    log_policy = z.log_softmax(-1)
    expected = sum(
        log_policy.detach().exp()[0, a] * reinforce_loss(log_policy[0, a : a + 1], q[0, a : a + 1])
        for a in range(4)
    )
    (sampled,) = torch.autograd.grad(expected, z, retain_graph=True)
    (exact,) = torch.autograd.grad(
        all_action_loss(log_policy, q, torch.ones(1, dtype=torch.float64)), z
    )
    torch.testing.assert_close(sampled, exact)
