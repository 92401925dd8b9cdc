"""Building the policies of a population: backbones, heads and critics, initialised."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from agents.cnn import NatureCNN
from agents.config import HeadConfig, TrainConfig
from agents.errors import ConfigurationError
from agents.heads import FROZEN_HEADS, FrozenHead, HeadGroup, LinearHead, rescale
from agents.losses import entropy
from agents.networks import FeatureKind, PopulationMLP
from agents.policy import Critic, Policy

Generators = Sequence[np.random.Generator]


def build_policy(
    config: TrainConfig,
    observation_shape: tuple[int, ...],
    num_actions: int,
    *,
    critic: bool,
    bf16: bool = False,
) -> Policy:
    """Build the policy of a run with its initial weights, on the CPU.

    Backbone, head and critic of a member each have a generator, children of its
    ``SeedSequence(seed)``: another head leaves backbone and critic as they were.

    Parameters
    ----------
    observation_shape, num_actions
        Of the environment.
    critic
        Whether the algorithm has one. A separate critic's own trunk is always rectified and
        unbounded: what is asked of the actor's features is not asked of it.
    bf16
        Whether convolutions multiply in bfloat16.
    """
    children = [np.random.SeedSequence(seed).spawn(3) for _, seed in config.members]
    actor_rngs, head_rngs, critic_rngs = (
        [np.random.default_rng(child[kind]) for child in children] for kind in range(3)
    )
    orthogonal = config.initialisation == "orthogonal"

    def backbone(
        rngs: Generators, feature: FeatureKind = "rectified", energy: float | None = None
    ) -> nn.Module:
        gain = 2**0.5 if orthogonal else None
        if config.network == "cnn":
            channels, height, width = observation_shape
            image, dim = (channels, height, width), config.hidden[0]
            return NatureCNN(
                image, dim, rngs, feature=feature, feature_energy=energy, gain=gain, bf16=bf16
            )
        sizes = (int(np.prod(observation_shape)), *config.hidden)
        return PopulationMLP(sizes, rngs, feature=feature, feature_energy=energy, gain=gain)

    dim, count = config.hidden[-1], len(config.seeds)
    heads = [
        _head(head, dim, num_actions, head_rngs[i * count : (i + 1) * count], orthogonal)
        for i, head in enumerate(config.heads)
    ]
    value = None
    if critic:
        trunk = backbone(critic_rngs) if config.critic == "separate" else None
        value = Critic(dim, critic_rngs, backbone=trunk, gain=1.0 if orthogonal else None)
    return Policy(
        backbone(actor_rngs, config.feature, config.feature_energy),
        heads[0] if len(heads) == 1 else HeadGroup(heads),
        value,
    )


def _head(
    config: HeadConfig, dim: int, num_actions: int, rngs: Generators, orthogonal: bool
) -> LinearHead | FrozenHead:
    if config.kind == "linear":
        gain = 0.01 if orthogonal else None
        return LinearHead(dim, num_actions, rngs, bias=config.bias, gain=gain)
    return FROZEN_HEADS[config.kind](dim, num_actions, rngs, energy=config.energy)


@torch.no_grad()
def mean_entropy(policy: Policy, observations: Tensor) -> Tensor:
    """Mean policy entropy of every member in nats, (P,), over observations (P, n, …)."""
    return entropy(policy(observations).logits.log_softmax(-1)).mean(-1)


@torch.no_grad()
def match_entropy(policy: Policy, observations: Tensor, fraction: float) -> None:
    """Scale every member's head until its mean entropy is ``fraction``·log K.

    Entropy falls monotonically from log K as logits grow, so that one factor does it, found by
    bisection; the geometry of W (angles, relative norms) stays as it was.

    Raises
    ------
    ConfigurationError
        Some member's entropy cannot come down so far: its logits tie or hardly differ.
    """
    logits = policy(observations).logits.double()
    target = fraction * float(np.log(logits.shape[-1]))
    low = torch.full(logits.shape[:1], -20.0, dtype=torch.float64, device=logits.device)
    high = -low
    for _ in range(60):
        middle = (low + high) / 2
        scaled = logits * middle.exp()[:, None, None]
        above = entropy(scaled.log_softmax(-1)).mean(-1) > target
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    factors = ((low + high) / 2).exp()
    reached = entropy((logits * factors[:, None, None]).log_softmax(-1)).mean(-1)
    missed = (reached - target).abs() > 1e-3
    if missed.any():
        raise ConfigurationError(
            f"match_entropy={fraction} (entropy {target:.3f}) cannot be reached by scaling the "
            f"head of members {torch.nonzero(missed).flatten().tolist()}: they stop at "
            f"{reached[missed].tolist()}; choose a larger fraction"
        )
    rescale(policy.head, factors.to(policy.head.weight.dtype))
