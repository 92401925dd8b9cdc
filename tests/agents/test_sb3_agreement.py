"""PPO here and in Stable-Baselines3, at the same hyper-parameters, learn alike."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agents.config import HeadConfig, TrainConfig
from agents.losses import generalised_advantages
from agents.policy import Policy
from agents.population import build_policy
from agents.samples import Samples
from benchmarks.learning_curves import ENVS, OURS, peer_model, run


def layers(policy: Policy, peer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Corresponding tensors of a member and of a Stable-Baselines3 policy."""
    pairs = []
    trunks = (
        (policy.backbone, peer.mlp_extractor.policy_net),
        (policy.critic.backbone, peer.mlp_extractor.value_net),
    )
    for ours, theirs in trunks:
        for i, layer in enumerate((theirs[0], theirs[2])):
            pairs += [(ours.weights[i][0], layer.weight), (ours.biases[i][0, 0], layer.bias)]
    for own, layer in ((policy.head, peer.action_net), (policy.critic, peer.value_net)):
        pairs += [(own.weight[0], layer.weight), (own.bias[0], layer.bias)]
    return pairs


def test_updates_are_those_of_stable_baselines3() -> None:
    """The same weights and rollout, one minibatch a pass: the same weights afterwards."""
    torch.set_num_threads(1)
    model = peer_model(0)
    model.batch_size = ENVS * OURS.rollout_steps
    model.learn(ENVS * OURS.rollout_steps)
    ours = replace(OURS, minibatches=1, entropy_coefficient=0.01)
    model.ent_coef = ours.entropy_coefficient
    config = TrainConfig(algorithm=ours, heads=(HeadConfig(bias=True),))
    policy = build_policy(config, (4,), 2, critic=True)
    with torch.no_grad():
        for own, peer in layers(policy, model.policy):
            own.copy_(peer)
    fresh = type(model.policy.optimizer)
    model.policy.optimizer = fresh(model.policy.parameters(), lr=1e-3, eps=ours.adam_eps)
    model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, 32)
    rollout = model.rollout_buffer

    def host(array: np.ndarray) -> torch.Tensor:
        """(1, T·E, …) of (T, E, …)."""
        return torch.as_tensor(array, dtype=torch.float32).flatten(0, 1).unsqueeze(0)

    samples = Samples(
        host(rollout.observations),
        host(rollout.actions)[..., 0].long(),
        host(rollout.log_probs),
        host(rollout.advantages),
        host(rollout.returns),
    )
    # Advantages too: their buffer holds the reward at a time limit with the bootstrap in it.
    ends = np.append(rollout.episode_starts[1:], model._last_episode_starts[None], axis=0)
    with torch.no_grad():
        last = policy(torch.from_numpy(model._last_obs)[None]).value[0].numpy()
    values = rollout.values[None].astype(float)
    following = np.append(values[0, 1:], last[None], axis=0)[None]
    own = generalised_advantages(
        rollout.rewards[None].astype(float),
        values,
        following,
        ends[None].astype(bool),
        np.zeros_like(ends[None], dtype=bool),
        ours.discount,
        ours.trace,
    )
    np.testing.assert_allclose(own[0], rollout.advantages, rtol=1e-4, atol=1e-4)
    learner = ours.learner(config, policy, [np.random.default_rng(0)])
    model.train()
    for _ in range(ours.passes):
        learner._step(samples)
    for own_layer, peer_layer in layers(policy, model.policy):
        torch.testing.assert_close(own_layer, peer_layer, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_learning_curves_do_not_differ_from_those_of_stable_baselines3() -> None:
    torch.set_num_threads(1)
    found = run()
    difference = found["difference"]
    assert max(difference["low"]) <= 0 <= min(difference["high"]), difference
    assert min(found[name]["mean"][-1] for name in ("ours", "theirs")) > 400, found
