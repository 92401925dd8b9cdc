"""Policies of a population: initial weights, heads side by side, matched entropy."""

import numpy as np
import pytest
import torch

from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.heads import HeadGroup, LinearHead, rescale
from agents.initialisation import layer, orthogonal
from agents.optimisation import clip_gradients, make_optimizer
from agents.population import build_policy, match_entropy, mean_entropy

LEARNED, ETF = HeadConfig(), HeadConfig("etf")
STATES = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 64, 6)).astype(np.float32))


def policy(**options: object):
    config = TrainConfig(**{"heads": (LEARNED, ETF), "seeds": (3, 4), **options})
    return build_policy(config, (6,), 5, critic=True)


def states(population: int) -> torch.Tensor:
    return STATES.expand(population, -1, -1)


def test_a_member_is_the_same_in_any_company() -> None:
    together = policy()(states(4))
    for member, (head, seed) in enumerate(((LEARNED, 3), (LEARNED, 4), (ETF, 3), (ETF, 4))):
        alone = policy(heads=(head,), seeds=(seed,))(states(1))
        torch.testing.assert_close(together.logits[member], alone.logits[0])
        torch.testing.assert_close(together.features[member], alone.features[0])
        torch.testing.assert_close(together.value[member], alone.value[0])


def test_the_head_leaves_backbone_and_critic_alone() -> None:
    output = policy()(states(4))
    torch.testing.assert_close(output.features[:2], output.features[2:])
    torch.testing.assert_close(output.value[:2], output.value[2:])


def test_shared_critic_reads_the_actors_features() -> None:
    shared = policy(critic="shared", feature="linear")
    output = shared(states(4))
    critic = shared.critic
    expected = output.features @ critic.weight.mT + critic.bias.unsqueeze(-1)
    torch.testing.assert_close(output.value, expected.squeeze(-1))


def test_separate_critic_is_rectified_and_unbounded_whatever_the_actor_is() -> None:
    own = policy(feature="linear", feature_energy=0.01)
    assert own.backbone.feature_energy == 0.01
    assert own.critic.backbone.feature_energy is None
    assert own.critic.backbone.feature == "rectified"


@pytest.mark.parametrize("bias", [False, True])
def test_training_a_group_moves_learned_members_only(bias: bool) -> None:
    group = policy(heads=(HeadConfig(bias=bias), ETF, HeadConfig("gaussian")))
    head = group.head
    assert isinstance(head, HeadGroup)
    before = head.weight.clone()
    optimizer = make_optimizer(group.parameters(), "adam", 0.1, 1e-8)
    for _ in range(3):
        optimizer.zero_grad()
        group(states(6)).logits.square().sum().backward()
        clip_gradients(group.parameters(), 0.5)
        optimizer.step()
    assert ((head.weight[:2] - before[:2]).abs().mean((1, 2)) > 0.01).all()
    assert torch.equal(head.weight[2:], before[2:])
    if bias:
        assert (head.bias[:2] != 0).all()
        assert torch.equal(head.bias[2:], torch.zeros(4, 5))
    else:
        assert head.bias is None


def test_rescaling_every_kind_of_head() -> None:
    group = policy(heads=(HeadConfig(bias=True), ETF))
    before, bias = group.head.weight.clone(), group.head.bias.clone()
    factors = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rescale(group.head, factors)
    torch.testing.assert_close(group.head.weight, before * factors[:, None, None])
    torch.testing.assert_close(group.head.bias, bias * factors[:, None])
    alone = LinearHead(4, 3, [np.random.default_rng(0)])
    before = alone.weight.detach().clone()
    rescale(alone, torch.tensor([5.0]))
    torch.testing.assert_close(alone.weight.detach(), 5 * before)


def test_matched_entropy_is_reached_by_scaling_alone() -> None:
    matched, plain = policy(), policy()
    match_entropy(matched, states(4), 0.9)
    torch.testing.assert_close(
        mean_entropy(matched, states(4)), torch.full((4,), 0.9 * float(np.log(5)))
    )
    ratio = matched.head.weight / plain.head.weight
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))


def test_unreachable_entropy_is_refused() -> None:
    dead = policy(heads=(ETF,), seeds=(0,))
    with torch.no_grad():
        for weight in dead.backbone.weights:
            weight.zero_()
        for bias in dead.backbone.biases:
            bias.zero_()
    with pytest.raises(ValueError, match=r"match_entropy=0\.5"):
        match_entropy(dead, states(1), 0.5)


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (6, 2, 2, 2)])
def test_orthogonal_initialisation(shape: tuple[int, ...]) -> None:
    drawn = orthogonal([np.random.default_rng(0), np.random.default_rng(1)], shape, 3.0)
    assert drawn.shape == (2, *shape)
    flat = drawn.flatten(2)
    gram = flat @ flat.mT if flat.shape[1] <= flat.shape[2] else flat.mT @ flat
    torch.testing.assert_close(gram, 9 * torch.eye(gram.shape[1]).expand(2, -1, -1).double())
    assert (drawn[0] - drawn[1]).abs().max() > 0.1


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_orthogonal_initialisation_has_its_gain_in_every_layer(network: str, critic: str) -> None:
    """√2 before a rectifier, 0.01 for a learned head, 1 for the value; no biases."""
    config = TrainConfig(
        env=EnvConfig("Pong", "image") if network == "cnn" else EnvConfig(),
        heads=(HeadConfig(bias=True),),
        network=network,
        hidden=(16,) if network == "cnn" else (12, 8),
        critic=critic,
        initialisation="orthogonal",
    )
    shape = (4, 36, 36) if network == "cnn" else (6,)
    built = build_policy(config, shape, 6, critic=True)
    layers = 0
    for name, parameter in built.named_parameters():
        if "bias" in name:
            assert not parameter.any(), name
            continue
        gain = {"head.weight": 0.01, "critic.weight": 1.0}.get(name, 2**0.5)
        flat = parameter[0].detach().flatten(1)
        gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
        torch.testing.assert_close(gram / gain**2, torch.eye(len(gram)), rtol=0, atol=1e-5)
        layers += 1
    trunk = 4 if network == "cnn" else 2
    assert layers == (2 if critic == "separate" else 1) * trunk + 2


def test_default_initialisation_is_uniform_within_the_fan_in_bound() -> None:
    weight, bias = layer([np.random.default_rng(0)], (400, 25), None)
    for drawn in (weight, bias):
        assert drawn.abs().max() <= 0.2
        assert abs(float(drawn.std()) - 0.2 / 3**0.5) < 0.01
