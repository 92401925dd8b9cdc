"""A2C's update: one step along the gradient of the loss written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.a2c import A2C
from agents.config import HeadConfig, TrainConfig
from agents.training import Trainer

CONFIG = TrainConfig(
    algorithm=A2C(value_coefficient=0.7, entropy_coefficient=0.3),
    heads=(HeadConfig(), HeadConfig("etf")),
    hidden=(16, 16),
    num_envs=4,
    steps=200,
    epoch_steps=20,
)


def trainer(**options: object) -> Trainer:
    return Trainer(replace(CONFIG, algorithm=replace(CONFIG.algorithm, **options)), "cpu")


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_one_iteration_is_one_step_on_n_step_returns(optimizer) -> None:
    run, other = trainer(optimizer=optimizer), trainer()
    other._collector.restart([5, 5])
    rollout = other._collector.collect(5)
    run._collector.restart([5, 5])
    iteration = run._learner.iterate(run._collector, 0.0)
    assert iteration.steps == 20

    returns, following = np.zeros((2, 5, 4)), rollout.next_values[:, -1]
    for t in reversed(range(5)):
        ended = rollout.terminated[:, t] | rollout.truncated[:, t]
        following = np.where(rollout.truncated[:, t], rollout.next_values[:, t], following)
        following = np.where(ended & rollout.terminated[:, t], 0, following)
        returns[:, t] = following = rollout.rewards[:, t] + 0.99 * following
    logits, _, values = other.policy(rollout.observations.flatten(1, 2))
    log_policy = logits.log_softmax(-1)
    log_probs = log_policy.gather(-1, rollout.actions.flatten(1, 2)[..., None])[..., 0]
    target = torch.from_numpy(returns.reshape(2, -1)).float()
    policy_loss = -(log_probs * (target - values.detach())).mean(-1)
    value_loss = 0.5 * (values - target).square().mean(-1)
    entropy = -(log_policy.exp() * log_policy).sum(-1).mean(-1)
    (policy_loss + 0.7 * value_loss - 0.3 * entropy).sum().backward()
    for found, expected in (
        ("policy_loss", policy_loss),
        ("value_loss", value_loss),
        ("entropy", entropy),
    ):
        torch.testing.assert_close(iteration.metrics[found], expected.detach())

    parameters = list(other.policy.parameters())
    for member in range(2):
        norm = sum(p.grad[member].square().sum() for p in parameters).sqrt()
        torch.testing.assert_close(iteration.metrics["gradient_norm"][member], norm)
        for parameter in parameters:
            parameter.grad[member] *= min(1.0, 0.5 / norm.item())
    reference = (
        torch.optim.RMSprop(parameters, lr=7e-4, alpha=0.99, eps=1e-5)
        if optimizer == "rmsprop"
        else torch.optim.Adam(parameters, lr=7e-4, eps=1e-5)
    )
    reference.step()
    for own, expected in zip(run.policy.parameters(), parameters, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


def test_the_defaults_are_those_of_stable_baselines3() -> None:
    """Its value loss is 0.5·MSE, which is 1.0 times ½·MSE."""
    sb3 = pytest.importorskip("stable_baselines3")
    model = sb3.A2C("MlpPolicy", "CartPole-v1", device="cpu")
    ours = A2C()
    assert (ours.rollout_steps, ours.discount, ours.trace) == (
        model.n_steps,
        model.gamma,
        model.gae_lambda,
    )
    assert ours.learning_rate == model.learning_rate
    assert 0.5 * ours.value_coefficient == model.vf_coef
    assert ours.entropy_coefficient == model.ent_coef
    assert ours.max_gradient_norm == model.max_grad_norm
    group = model.policy.optimizer.param_groups[0]
    assert isinstance(model.policy.optimizer, torch.optim.RMSprop)
    assert (ours.optimizer_eps, 0.99) == (group["eps"], group["alpha"])
    assert model.normalize_advantage is False
