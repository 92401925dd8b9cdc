"""PPO: proximal policy optimisation with a clipped surrogate (Schulman et al. 2017).

One iteration collects T steps in every environment, estimates advantages by GAE, and goes
``passes`` times over the samples in ``minibatches`` random parts. Details that matter, and where:

* a time limit is bootstrapped with V of the final observation (`losses.generalised_advantages`);
* advantages are standardised within each minibatch (``standardise``);
* the value loss is ½·MSE times ``value_coefficient`` (`losses.value_loss`);
* the KL divergence that is logged is the k3 estimate (`losses.sampled_kl`);
* before the first step of an iteration every ratio π/π_old is 1 (up to rounding);
* Adam's eps is 1e-5, not PyTorch's 1e-8; the learning rate is annealed linearly to zero;
* gradients are clipped by each member's own norm (`optimisation.clip_gradients`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from agents import losses
from agents.capture import descent
from agents.collect import Collector
from agents.learner import Iteration
from agents.limits import Count, Fraction, NonNegative, Positive, check_fields
from agents.optimisation import (
    Schedule,
    make_optimizer,
    permutations,
    restore_optimizer,
    set_learning_rate,
)
from agents.policy import Policy
from agents.samples import Samples

if TYPE_CHECKING:
    from agents.config import TrainConfig


@dataclass(frozen=True)
class PPO:
    """Hyper-parameters of PPO; the defaults suit CartPole with 8 environments.

    Raises
    ------
    ValueError
        A field that does not hold what its annotation says.
    """

    name: ClassVar[str] = "ppo"
    has_critic: ClassVar[bool] = True

    rollout_steps: Count = 128
    """T, steps an environment between updates."""
    passes: Count = 4
    """Passes over each rollout ("repeat per collect")."""
    minibatches: Count = 4
    learning_rate: Positive = 2.5e-4
    anneal: bool = True
    """Whether the learning rate goes linearly to zero."""
    discount: Fraction = 0.99
    trace: Fraction = 0.95
    """λ of the generalised advantages."""
    clip: Positive = 0.2
    standardise: bool = True
    """Whether advantages are standardised within each minibatch."""
    value_coefficient: NonNegative = 0.5
    """Of ½·MSE."""
    entropy_coefficient: NonNegative = 0.01
    max_gradient_norm: Positive = 0.5
    adam_eps: Positive = 1e-5
    epsilon: Fraction = 0.0
    """Of an ε-greedy admixture while acting (Table 2); ratios stay those of the policy itself."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def least_samples(self) -> int:
        """What a rollout must have: of one sample the standardised advantage would be 0."""
        return self.minibatches * (2 if self.standardise else 1)

    def learner(
        self, config: "TrainConfig", policy: Policy, rngs: Sequence[np.random.Generator]
    ) -> "PPOLearner":
        """Build the learner of a policy; the generators (one a member) shuffle minibatches."""
        return PPOLearner(self, policy, rngs)


class PPOLearner:
    """PPO's optimiser state and update."""

    def __init__(self, config: PPO, policy: Policy, rngs: Sequence[np.random.Generator]) -> None:
        self.config, self.policy, self.rngs = config, policy, rngs
        self._parameters = list(policy.parameters())
        self._schedule = Schedule(config.learning_rate, config.anneal)
        self._optimizer = make_optimizer(
            self._parameters, "adam", config.learning_rate, config.adam_eps
        )
        self._step = descent(
            self._loss, self._parameters, self._optimizer, config.max_gradient_norm
        )

    def iterate(self, collector: Collector, progress: float) -> Iteration:
        """Collect one rollout and learn from it, ``progress`` (0…1) through the run."""
        set_learning_rate(self._optimizer, self._schedule.at(progress))
        rollout = collector.collect(self.config.rollout_steps)
        batch = Samples.of(rollout, self.config.discount, self.config.trace)
        config, (_, count), device = self.config, batch.actions.shape, batch.actions.device
        order = permutations(self.rngs, count, config.minibatches, config.passes, device)
        metrics = [self._step(batch.take(index)) for index in order]
        return Iteration(
            rollout.actions[0].numel(),
            {name: torch.stack([m[name] for m in metrics]).mean(0) for name in metrics[0]},
        )

    def _loss(self, batch: Samples) -> tuple[Tensor, dict[str, Tensor]]:
        """The members' losses, summed, and (P,) measurements without gradient."""
        config = self.config
        advantages = (
            losses.standardise(batch.advantages) if config.standardise else batch.advantages
        )
        logits, _, value = self.policy(batch.observations)
        log_policy = logits.log_softmax(-1)
        log_probs = log_policy.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        policy_loss = losses.clipped_surrogate_loss(
            log_probs, batch.log_probs, advantages, config.clip
        )
        value_loss = losses.value_loss(value, batch.returns)
        entropy = losses.entropy(log_policy).mean(-1)
        loss = (
            policy_loss
            + config.value_coefficient * value_loss
            - config.entropy_coefficient * entropy
        )
        log_ratio = log_probs.detach() - batch.log_probs
        measured = {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "entropy": entropy.detach(),
            "kl": losses.sampled_kl(log_probs.detach(), batch.log_probs),
            "clip_fraction": ((log_ratio.exp() - 1).abs() > config.clip).float().mean(-1),
        }
        # Members share no parameter, so the sum's gradient is each member's own.
        return loss.sum(), measured

    def state_dict(self) -> dict[str, object]:
        """What the learner carries from one iteration to the next."""
        return {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Continue where `state_dict` was taken."""
        restore_optimizer(self._optimizer, state["optimizer"])

    def close(self) -> None:
        """Nothing to release."""
