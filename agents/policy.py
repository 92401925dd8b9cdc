"""A policy is a backbone and a head: ``policy(observations) -> (logits, features, value)``."""

from typing import NamedTuple

from torch import Tensor, nn

from agents.heads import Head


class PolicyOutput(NamedTuple):
    """What a policy says about a batch of observations."""

    logits: Tensor
    """(…, n, K)"""
    features: Tensor
    """(…, n, d) the last-layer features h(s) that the head sees."""
    value: Tensor | None
    """(…, n) state values, or None for a policy without a critic."""


class Policy(nn.Module):
    """A backbone followed by a head, without a critic."""

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head: Head = head

    def forward(self, observations: Tensor) -> PolicyOutput:
        """Logits and features of a batch of observations."""
        features = self.backbone(observations)
        return PolicyOutput(self.head(features), features, None)
