"""Rollouts as samples to learn from: one axis in place of time and environment."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agents.collect import Rollout
from agents.losses import generalised_advantages
from agents.optimisation import take


@dataclass(frozen=True)
class Samples:
    """A rollout or part of it as samples (P, B, …)."""

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    """Of the policy that acted."""
    advantages: Tensor
    returns: Tensor
    """λ-returns, which V is fitted to."""

    @classmethod
    def of(cls, rollout: Rollout, discount: float, trace: float) -> "Samples":
        """All samples of a rollout, with generalised advantages for γ and λ."""
        advantages = generalised_advantages(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated,
            rollout.truncated,
            discount,
            trace,
        )
        device = rollout.actions.device

        def host(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array.astype(np.float32)).to(device).flatten(1, 2)

        return cls(
            rollout.observations.flatten(1, 2),
            rollout.actions.flatten(1, 2),
            rollout.log_probs.flatten(1, 2),
            host(advantages),
            host(advantages + rollout.values),
        )

    def take(self, index: Tensor) -> "Samples":
        """Samples at (P, b) indices."""
        return Samples(
            take(self.observations, index),
            take(self.actions, index),
            take(self.log_probs, index),
            take(self.advantages, index),
            take(self.returns, index),
        )
