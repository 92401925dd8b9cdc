"""A policy is a backbone and a head: ``policy(observations) -> (logits, features, value)``."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from agents import initialisation
from agents.heads import Head


class PolicyOutput(NamedTuple):
    """What a policy says about a batch of observations."""

    logits: Tensor
    """(P, n, K)"""
    features: Tensor
    """(P, n, d) the last-layer features h(s) that the head sees."""
    value: Tensor | None
    """(P, n) state values, or None for a policy without a critic."""


class Critic(nn.Module):
    """A state value: one linear layer, on the actor's features or on a backbone of its own.

    Parameters
    ----------
    dim
        d, the dimension of the features that the layer sees.
    rngs
        One generator for each member of the population.
    backbone
        Its own, or None to look at the actor's features.
    gain
        None for PyTorch's default initialisation, otherwise that of an orthogonal one.
    """

    def __init__(
        self,
        dim: int,
        rngs: Sequence[np.random.Generator],
        *,
        backbone: nn.Module | None = None,
        gain: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        weight, bias = initialisation.layer(rngs, (1, dim), gain)
        self.weight = nn.Parameter(weight.float())
        self.bias = nn.Parameter(bias.float())

    def forward(self, observations: Tensor, features: Tensor) -> Tensor:
        """Values (P, n) of observations whose actor features are (P, n, d)."""
        h = features if self.backbone is None else self.backbone(observations)
        return torch.baddbmm(self.bias.unsqueeze(-1), h, self.weight.mT).squeeze(-1)


class Policy(nn.Module):
    """A backbone followed by a head, with or without a critic.

    Every parameter and buffer carries the population axis P first, and members never mix.
    """

    def __init__(self, backbone: nn.Module, head: Head, critic: Critic | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: Head = head
        self.critic = critic

    def forward(self, observations: Tensor) -> PolicyOutput:
        """Logits, features and values of observations (P, n, …)."""
        features = self.backbone(observations)
        value = None if self.critic is None else self.critic(observations, features)
        return PolicyOutput(self.head(features), features, value)

    def actor_parameters(self) -> list[nn.Parameter]:
        """Parameters that the action probabilities depend on."""
        return [*self.backbone.parameters(), *self.head.parameters()]

    def critic_parameters(self) -> list[nn.Parameter]:
        """Parameters that only the value depends on."""
        return [] if self.critic is None else list(self.critic.parameters())
