"""Tianshou: frozen heads survive training, and captured features explain the policy."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tianshou.algorithm import A2C, PPO, TRPO, Reinforce
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic

import lpm
from agents.integrations.tianshou import capture_features, with_etf_head

ALGORITHMS = [Reinforce, PPO, A2C, TRPO]


def states(count: int = 9) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 4)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def build_actor(actions: int = 2, **options) -> DiscreteActor:
    net = Net(state_shape=(4,), hidden_sizes=[16, 16])
    return DiscreteActor(
        preprocess_net=net, action_shape=actions, **{"softmax_output": False, **options}
    )


def frozen_actor(seed: int = 0, **options) -> DiscreteActor:
    return with_etf_head(build_actor(), np.random.default_rng(seed), **options)


def build(algorithm, actor: DiscreteActor, **options):
    policy = DiscreteActorPolicy(actor=actor, action_space=gym.spaces.Discrete(2), **options)
    optim = AdamOptimizerFactory(lr=1e-3, weight_decay=0.1)
    if algorithm is Reinforce:
        return Reinforce(policy=policy, optim=optim)
    clip = {} if algorithm is TRPO else {"max_grad_norm": 0.5}
    critic = DiscreteCritic(preprocess_net=actor.preprocess)
    return algorithm(policy=policy, critic=critic, optim=optim, **clip)


def train(model):
    envs = DummyVectorEnv([lambda: gym.make("CartPole-v1")])
    collector = Collector(model, envs, VectorReplayBuffer(200, 1))
    model.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            test_collector=None,
            max_epochs=1,
            epoch_num_steps=200,
            collection_step_num_env_steps=100,
            test_step_num_episodes=0,
            batch_size=50,
            show_progress=False,
            verbose=False,
        )
    )
    return model


def probabilities(policy, observations) -> np.ndarray:
    with torch.no_grad():
        return policy(Batch(obs=observations, info={})).dist.probs.numpy()


@pytest.mark.parametrize(
    ("algorithm", "head"),
    [(algorithm, "etf") for algorithm in ALGORITHMS] + [(PPO, "orthogonal"), (TRPO, "gaussian")],
)
def test_training_moves_the_backbone_and_not_the_head(algorithm, head) -> None:
    actor = frozen_actor(head=head)
    model = build(algorithm, actor)
    weight = actor.last[-1].weight.clone()
    backbone = actor.preprocess.model.model[0].weight.clone()
    train(model)
    assert torch.equal(actor.last[-1].weight, weight)
    assert torch.equal(model.state_dict()["policy.actor.last.0.weight"], weight)
    assert not torch.equal(actor.preprocess.model.model[0].weight, backbone)


@pytest.mark.parametrize("algorithm", [Reinforce, PPO, A2C])
def test_optimizer_holds_the_parameters_and_no_head(algorithm) -> None:
    actor = frozen_actor()
    model = build(algorithm, actor)
    (optimizer,) = model._optimizers
    held = [id(p) for group in optimizer._optim.param_groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert list(actor.last.parameters()) == []
    assert all(p.requires_grad for p in model.parameters())


def test_head_is_an_etf_of_the_generator() -> None:
    def orientation(seed):
        actor = with_etf_head(build_actor(5), np.random.default_rng(seed), energy=4.0)
        return actor.last[-1].weight

    assert lpm.etf_defect(orientation(0).double().numpy(), 4.0) < 1e-5
    assert torch.equal(orientation(0), orientation(0))
    assert not torch.equal(orientation(0), orientation(1))


@pytest.mark.parametrize("feature_energy", [None, 0.01])
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_features_and_policy_by_hand(hidden, feature_energy) -> None:
    actor = with_etf_head(
        build_actor(hidden_sizes=hidden),
        np.random.default_rng(0),
        energy=9.0,
        feature_energy=feature_energy,
    )
    model = train(build(PPO, actor))
    h = x = states()
    linears = [m for m in actor.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linears) == 2 + len(hidden)
    for linear in linears:
        h = np.maximum(h @ linear.weight.detach().numpy().T + linear.bias.detach().numpy(), 0)
    if feature_energy is not None:
        h /= np.maximum(np.linalg.norm(h, axis=1, keepdims=True) / feature_energy**0.5, 1)
    captured = capture_features(model, x)
    np.testing.assert_allclose(captured.features, h, atol=1e-6)
    np.testing.assert_array_equal(captured.head, actor.last[-1].weight.numpy())
    assert captured.bias is None
    np.testing.assert_allclose(captured.logits, h @ captured.head.T, atol=1e-5)
    np.testing.assert_allclose(
        probabilities(model.policy, x), softmax(h @ captured.head.T), atol=1e-5
    )


def test_linear_features_are_those_of_a_linear_net() -> None:
    net = Net(state_shape=(4,), hidden_sizes=[16], action_shape=6)
    actor = DiscreteActor(preprocess_net=net, action_shape=2, softmax_output=False)
    model = build(Reinforce, with_etf_head(actor, np.random.default_rng(0)))
    features = capture_features(model, states()).features
    assert features.shape == (9, 6)
    assert features.min() < 0


def test_actions_are_sampled_from_the_softmax() -> None:
    actor = frozen_actor(energy=400.0)
    policy = build(PPO, actor).policy
    captured = capture_features(policy, states())
    expected = softmax(captured.features @ captured.head.T)[:, 1]
    assert np.ptp(expected) > 0.1
    actions = policy(Batch(obs=states().repeat(10_000, axis=0), info={})).act.numpy()
    spread = 5 * (expected * (1 - expected) / 10_000) ** 0.5
    assert (np.abs(actions.reshape(9, -1).mean(axis=1) - expected) < spread).all()


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_capture_of_a_learned_head(algorithm, hidden) -> None:
    model = train(build(algorithm, build_actor(hidden_sizes=hidden)))
    captured = capture_features(model, states())
    assert captured.features.shape == (9, hidden[-1] if hidden else 16)
    assert captured.bias is not None
    by_hand = captured.features @ captured.head.T + captured.bias
    np.testing.assert_allclose(captured.logits, by_hand, atol=1e-6)
    np.testing.assert_allclose(probabilities(model.policy, states()), softmax(by_hand), atol=1e-6)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(captured, capture_features(model.policy, states()), strict=True)
    )


def test_capture_leaves_no_trace() -> None:
    model = build(PPO, frozen_actor()).train()
    before = torch.get_rng_state()
    whole = capture_features(model, states())
    parts = capture_features(model, states(), batch_size=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.policy.modules())
    np.testing.assert_allclose(whole.features, parts.features, atol=1e-6)
    assert all(p.grad is None for p in model.parameters())


def test_saved_state_holds_the_head(tmp_path) -> None:
    source = train(build(PPO, frozen_actor(seed=1)))
    torch.save(source.state_dict(), tmp_path / "model.pt")
    target = build(PPO, frozen_actor(seed=2))
    target.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for ours, theirs in zip(
        capture_features(source, states()), capture_features(target, states()), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_actor_stays_on_its_device() -> None:
    actor = frozen_actor().to("meta")
    logits, _ = actor(torch.zeros(3, 4, device="meta"))
    assert logits.device.type == "meta"
    built_there = with_etf_head(build_actor().to("meta"), np.random.default_rng(0))
    assert built_there.last[-1].weight.device.type == "meta"


def test_softmax_output_is_refused() -> None:
    with pytest.raises(ValueError, match="softmax_output=False"):
        with_etf_head(build_actor(softmax_output=True), np.random.default_rng(0))


def test_capture_refuses_a_double_softmax() -> None:
    doubled = build(PPO, build_actor(softmax_output=True))
    with pytest.raises(ValueError, match=r"differ by .* softmax_output=False"):
        capture_features(doubled, states())
    single = build(
        PPO,
        build_actor(softmax_output=True),
        dist_fn=lambda probs: torch.distributions.Categorical(probs=probs),
    )
    captured = capture_features(single, states())
    np.testing.assert_allclose(
        probabilities(single.policy, states()), softmax(captured.logits), atol=1e-6
    )


@pytest.mark.parametrize(
    ("build_head", "message"),
    [
        (lambda rng: with_etf_head(frozen_actor(), rng), "head is not a linear layer any more"),
        (lambda rng: with_etf_head(build_actor(), rng, head="linear"), "got 'linear'"),
        (lambda rng: with_etf_head(build_actor(), rng, energy=0.0), "energy must be > 0, got 0.0"),
        (lambda rng: with_etf_head(build_actor(), rng, feature_energy=0.0), "feature_energy must"),
        (lambda rng: with_etf_head(build_actor(18), rng), "dim=16: use dim >= 17"),
    ],
)
def test_refused(build_head, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_head(np.random.default_rng(0))
