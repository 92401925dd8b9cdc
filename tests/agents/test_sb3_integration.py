"""Stable-Baselines3: frozen heads survive training, and captured features explain the policy."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO

import lpm
from agents.integrations.stable_baselines3 import (
    ETFActorCriticCnnPolicy,
    ETFActorCriticPolicy,
    capture_features,
)

SHORT = {
    PPO: {"n_steps": 64, "batch_size": 32, "n_epochs": 2},
    A2C: {"n_steps": 64},
    TRPO: {"n_steps": 64, "batch_size": 32},
}
LAST = {"rectified": lambda h: np.maximum(h, 0), "linear": lambda h: h, None: np.tanh}


class Images(gym.Env[Any, Any]):
    """Noise to look at, three actions, episodes of ten steps."""

    observation_space = spaces.Box(0, 255, (40, 40, 1), np.uint8)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.clock += 1
        return self.observation_space.sample(), float(action == 1), self.clock == 10, False, {}


def build(algorithm=PPO, policy=ETFActorCriticPolicy, env="CartPole-v1", **policy_kwargs):
    return algorithm(
        policy, env, seed=0, device="cpu", policy_kwargs=policy_kwargs, **SHORT[algorithm]
    )


def states(count: int = 9) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def probabilities(policy, observations) -> np.ndarray:
    with torch.no_grad():
        tensor, _ = policy.obs_to_tensor(observations)
        return policy.get_distribution(tensor).distribution.probs.numpy()


@pytest.mark.parametrize(
    ("algorithm", "head"),
    [(PPO, "etf"), (A2C, "etf"), (TRPO, "etf"), (PPO, "orthogonal"), (TRPO, "gaussian")],
)
def test_training_moves_the_backbone_and_not_the_head(algorithm, head) -> None:
    model = build(
        algorithm,
        head=head,
        optimizer_class=torch.optim.AdamW,
        optimizer_kwargs={"weight_decay": 0.1},
    )
    policy = model.policy
    weight = policy.action_net.weight.clone()
    backbone = policy.mlp_extractor.policy_net[0].weight.clone()
    model.learn(256)
    assert torch.equal(policy.action_net.weight, weight)
    assert torch.equal(policy.state_dict()["action_net.weight"], weight)
    assert not torch.equal(policy.mlp_extractor.policy_net[0].weight, backbone)


def test_optimizer_holds_the_parameters_and_no_head() -> None:
    policy = build().policy
    held = [id(p) for group in policy.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, policy.parameters()))
    assert not any(name.startswith("action_net") for name, _ in policy.named_parameters())
    assert all(p.requires_grad for p in policy.parameters())


def test_orthogonal_initialisation_leaves_the_etf() -> None:
    policy = build(env=Images(), head_energy=4.0).policy
    assert policy.ortho_init
    assert lpm.etf_defect(policy.action_net.weight.double().numpy(), 4.0) < 1e-5


def test_orientation_belongs_to_the_head_seed_alone() -> None:
    def orientation(seed, head_seed):
        model = PPO(
            ETFActorCriticPolicy,
            "CartPole-v1",
            seed=seed,
            device="cpu",
            policy_kwargs={"head_seed": head_seed},
        )
        return model.policy.action_net.weight

    assert torch.equal(orientation(0, 5), orientation(1, 5))
    assert not torch.equal(orientation(0, 5), orientation(0, 6))


@pytest.mark.parametrize("feature_energy", [None, 0.01])
@pytest.mark.parametrize("feature", ["rectified", "linear", None])
def test_features_and_policy_by_hand(feature, feature_energy) -> None:
    model = build(feature=feature, feature_energy=feature_energy, head_energy=9.0).learn(64)
    x = states()
    layers = model.policy.mlp_extractor.policy_net
    first, second = (layers[i].weight.detach().numpy() for i in (0, 2))
    offsets = [layers[i].bias.detach().numpy() for i in (0, 2)]
    h = LAST[feature](np.tanh(x @ first.T + offsets[0]) @ second.T + offsets[1])
    if feature_energy is not None:
        h /= np.maximum(np.linalg.norm(h, axis=1, keepdims=True) / feature_energy**0.5, 1)
    captured = capture_features(model, x)
    np.testing.assert_allclose(captured.features, h, atol=1e-6)
    np.testing.assert_array_equal(captured.head, model.policy.action_net.weight.numpy())
    assert captured.bias is None
    np.testing.assert_allclose(captured.logits, h @ captured.head.T, atol=1e-5)
    np.testing.assert_allclose(
        probabilities(model.policy, x), softmax(h @ captured.head.T), atol=1e-5
    )


def test_actions_are_sampled_from_the_softmax() -> None:
    model = build(head_energy=9.0).learn(64)
    x = states(1)
    captured = capture_features(model, x)
    expected = softmax(captured.features @ captured.head.T)[0, 1]
    actions, _ = model.predict(x.repeat(10_000, axis=0))
    assert abs(expected - 0.5) > 0.1
    assert abs(actions.mean() - expected) < 5 * (expected * (1 - expected) / 10_000) ** 0.5


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_capture_of_a_learned_head(algorithm, share) -> None:
    model = build(algorithm, "MlpPolicy", share_features_extractor=share).learn(64)
    captured = capture_features(model, states())
    assert captured.bias is not None
    assert np.abs(captured.bias).max() > 0
    by_hand = captured.features @ captured.head.T + captured.bias
    np.testing.assert_allclose(captured.logits, by_hand, atol=1e-6)
    np.testing.assert_allclose(probabilities(model.policy, states()), softmax(by_hand), atol=1e-6)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(captured, capture_features(model.policy, states()), strict=True)
    )


def test_capture_leaves_no_trace() -> None:
    model = build()
    model.policy.set_training_mode(True)
    before = torch.get_rng_state()
    whole = capture_features(model, states())
    parts = capture_features(model, states(), batch_size=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.policy.modules())
    np.testing.assert_allclose(whole.features, parts.features, atol=1e-6)
    assert all(p.grad is None for p in model.policy.parameters())


@pytest.mark.parametrize("policy", [ETFActorCriticCnnPolicy, "CnnPolicy"])
def test_images(policy) -> None:
    extractor = {"features_extractor_kwargs": {"features_dim": 16}}
    model = build(A2C, policy, Images(), **extractor)
    weight = model.policy.action_net.weight.detach().clone()
    model.learn(64)
    assert torch.equal(model.policy.action_net.weight, weight) == (policy != "CnnPolicy")
    x = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 1), dtype=np.uint8)
    captured = capture_features(model, x)
    assert captured.features.shape == (5, 16)
    assert captured.features.min() == 0
    bias = 0 if captured.bias is None else captured.bias
    by_hand = captured.features @ captured.head.T + bias
    np.testing.assert_allclose(probabilities(model.policy, x), softmax(by_hand), atol=1e-6)
    channels_first = capture_features(model, x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(channels_first.features, captured.features)


def test_linear_features_of_images_need_a_layer() -> None:
    options = {"env": Images(), "policy": ETFActorCriticCnnPolicy, "feature": "linear"}
    with pytest.raises(ValueError, match="linear features need a hidden layer"):
        build(**options)
    model = build(net_arch={"pi": [8], "vf": []}, **options)
    x = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 1), dtype=np.uint8)
    assert capture_features(model, x).features.min() < 0


@pytest.mark.parametrize("algorithm", [PPO, A2C, TRPO])
def test_zip_keeps_the_head_and_not_just_its_seed(tmp_path, algorithm) -> None:
    model = build(algorithm, head="gaussian", head_energy=2.0, feature="linear", feature_energy=3.0)
    model.learn(64)
    model.policy.action_net.weight += 1  # the zip must hold W, not only what draws it
    model.save(tmp_path / "model.zip")
    loaded = algorithm.load(tmp_path / "model.zip", device="cpu", env=model.get_env())
    for ours, theirs in zip(
        capture_features(model, states()), capture_features(loaded, states()), strict=True
    ):
        assert np.array_equal(ours, theirs)
    loaded.learn(64)
    assert torch.equal(loaded.policy.action_net.weight, model.policy.action_net.weight)


def test_policy_file_keeps_head_and_options(tmp_path) -> None:
    policy = build(head_seed=4, head_energy=2.0, feature="linear", feature_energy=0.01).policy
    policy.save(tmp_path / "policy.pt")
    data = torch.load(tmp_path / "policy.pt", weights_only=False)["data"]
    assert (data["head"], data["head_seed"], data["head_energy"]) == ("etf", 4, 2.0)
    loaded = ETFActorCriticPolicy.load(tmp_path / "policy.pt", device="cpu")
    assert torch.equal(loaded.action_net.weight, policy.action_net.weight)
    for ours, theirs in zip(
        capture_features(policy, states()), capture_features(loaded, states()), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_parameters_of_another_orientation_replace_it() -> None:
    source, target = build(head_seed=1), build(head_seed=2)
    target.set_parameters(source.get_parameters())
    assert torch.equal(target.policy.action_net.weight, source.policy.action_net.weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env": "Pendulum-v1"}, "needs a Discrete action space, got Box"),
        ({"head": "linear"}, "head must be one of etf, orthogonal, gaussian, got 'linear'"),
        ({"feature": "tanh"}, "'rectified', 'linear' or None, got 'tanh'"),
        ({"head_energy": 0.0}, "energy must be > 0, got 0.0"),
        ({"feature_energy": -1.0}, "feature_energy must be > 0 or None, got -1.0"),
        ({"env": Images(), "net_arch": [1]}, r"dim=1: use dim >= 2"),
    ],
)
def test_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_capture_of_a_masked_policy() -> None:
    model = MaskablePPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu")
    captured = capture_features(model, states())
    by_hand = captured.features @ captured.head.T + captured.bias
    np.testing.assert_allclose(probabilities(model.policy, states()), softmax(by_hand), atol=1e-6)


def test_capture_refuses_what_has_no_batch_or_no_logits() -> None:
    with pytest.raises(ValueError, match=r"batch \(n, \*shape\) with shape \(4,\)"):
        capture_features(build(), states()[0])
    with pytest.raises(ValueError, match="at least one, got shape"):
        capture_features(build(), states(0))
    continuous = build(policy="MlpPolicy", env="Pendulum-v1")
    with pytest.raises(ValueError, match="Discrete action space, got Box"):
        capture_features(continuous, states())
