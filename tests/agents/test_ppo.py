"""PPO's update: ratios of 1 at first, own norms, and the numbers that it reports."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.config import EnvConfig, HeadConfig, Precision, TrainConfig
from agents.losses import standardise
from agents.ppo import PPO
from agents.training import Trainer

CONFIG = TrainConfig(
    algorithm=PPO(rollout_steps=16, passes=1, minibatches=1),
    heads=(HeadConfig(), HeadConfig("etf")),
    hidden=(16, 16),
    num_envs=4,
    steps=640,
    epoch_steps=64,
)


def trainer(**options: object) -> Trainer:
    return Trainer(replace(CONFIG, algorithm=replace(CONFIG.algorithm, **options)), "cpu")


def test_ratios_are_one_on_the_first_minibatch() -> None:
    run = trainer(clip=1e-5)
    metrics = run.train_epoch().metrics
    assert np.abs(metrics["kl"]).max() < 1e-7
    assert not metrics["clip_fraction"].any()
    # Σ of standardised advantages is 0, and with ratios of 1 the surrogate is their mean.
    assert np.abs(metrics["policy_loss"]).max() < 1e-6


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-7), ("bf16", 1e-5)])
def test_ratios_are_one_for_convolutions_too(precision: Precision, bound: float) -> None:
    """Acting sees 4 images at a time, learning 64: rounding must not look like a new policy."""
    config = replace(
        CONFIG, env=EnvConfig("Pong", "image"), network="cnn", hidden=(32,), precision=precision
    )
    run = Trainer(config, "cpu")
    metrics = run.train_epoch().metrics
    run.close()
    assert np.abs(metrics["kl"]).max() < bound
    assert not metrics["clip_fraction"].any()


def test_ratios_leave_one_afterwards() -> None:
    metrics = trainer(passes=8, learning_rate=1e-2).train_epoch().metrics
    assert (metrics["kl"] > 1e-4).all()
    assert (metrics["clip_fraction"] > 0).all()


@pytest.mark.parametrize("minibatches", [1, 4])
def test_advantages_are_standardised_within_each_minibatch(minibatches, monkeypatch) -> None:
    sizes: list[tuple[int, ...]] = []

    def spy(advantages: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(advantages.shape))
        return standardise(advantages)

    monkeypatch.setattr("agents.losses.standardise", spy)
    trainer(minibatches=minibatches).train_epoch()
    assert sizes == [(2, 64 // minibatches)] * minibatches


def test_one_step_of_gradient_descent_is_that_of_the_loss_written_out() -> None:
    """One minibatch against plain PyTorch: the loss with its coefficients, clipped, then Adam."""
    run, other = trainer(standardise=False), trainer()
    other._collector.restart([5, 5])
    rollout = other._collector.collect(16)
    run._collector.restart([5, 5])
    run._learner.iterate(run._collector, 0.0)

    config, policy = CONFIG.algorithm, other.policy
    logits, _, values = policy(rollout.observations.flatten(1, 2))
    log_policy = logits.log_softmax(-1)
    log_probs = log_policy.gather(-1, rollout.actions.flatten(1, 2)[..., None])[..., 0]
    deltas, advantages = np.zeros((2, 2, 16, 4))
    for t in reversed(range(16)):
        ended = rollout.terminated[:, t] | rollout.truncated[:, t]
        bootstrap = np.where(rollout.terminated[:, t], 0, rollout.next_values[:, t])
        deltas[:, t] = rollout.rewards[:, t] + 0.99 * bootstrap - rollout.values[:, t]
        later = advantages[:, t + 1] if t < 15 else 0.0
        advantages[:, t] = deltas[:, t] + 0.99 * 0.95 * ~ended * later
    weights = torch.from_numpy(advantages.reshape(2, -1)).float()
    returns = torch.from_numpy((advantages + rollout.values).reshape(2, -1)).float()
    loss = (
        -(log_probs * weights).mean(-1)
        + 0.5 * 0.5 * (values - returns).square().mean(-1)
        + 0.01 * (log_policy.exp() * log_policy).sum(-1).mean(-1)
    )
    loss.sum().backward()
    for member in range(2):
        norm = sum(p.grad[member].square().sum() for p in policy.parameters()).sqrt()
        for parameter in policy.parameters():
            parameter.grad[member] *= min(1.0, 0.5 / norm.item())
    torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=1e-5).step()
    for own, expected in zip(run.policy.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)
