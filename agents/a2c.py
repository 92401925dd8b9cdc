"""A2C: synchronous advantage actor-critic (Mnih et al. 2016, without the asynchrony).

One iteration collects a few steps in every environment and takes one gradient step on all of
them. Details that matter, and where:

* with λ = 1 the advantages are n-step returns less V, bootstrapped at the rollout's end and with V
  of the final observation at a time limit (`losses.generalised_advantages`);
* advantages are not standardised;
* the value loss is ½·MSE times ``value_coefficient``: Stable-Baselines3's 0.5 on the plain MSE is
  1.0 here;
* RMSprop as in PyTorch, smoothing 0.99, eps 1e-5 added *outside* the root;
* gradients are clipped by each member's own norm (`optimisation.clip_gradients`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from agents import losses
from agents.capture import descent
from agents.collect import Collector
from agents.learner import Iteration
from agents.limits import Count, Fraction, NonNegative, Positive, check_fields
from agents.optimisation import (
    OptimizerKind,
    Schedule,
    make_optimizer,
    restore_optimizer,
    set_learning_rate,
)
from agents.policy import Policy
from agents.samples import Samples

if TYPE_CHECKING:
    from agents.config import TrainConfig


@dataclass(frozen=True)
class AdvantageActorCritic:
    """Hyper-parameters that A2C and A3C share; the defaults are Stable-Baselines3's for A2C.

    Raises
    ------
    ValueError
        A field that does not hold what its annotation says.
    """

    has_critic: ClassVar[bool] = True
    least_samples: ClassVar[int] = 1
    """What a rollout must have."""

    rollout_steps: Count = 5
    """T, steps an environment between updates."""
    learning_rate: Positive = 7e-4
    anneal: bool = False
    """Whether the learning rate goes linearly to zero."""
    discount: Fraction = 0.99
    trace: Fraction = 1.0
    """λ of the generalised advantages."""
    value_coefficient: NonNegative = 1.0
    """Of ½·MSE."""
    entropy_coefficient: NonNegative = 0.0
    max_gradient_norm: Positive = 0.5
    optimizer: OptimizerKind = "rmsprop"
    optimizer_eps: Positive = 1e-5
    epsilon: Fraction = 0.0
    """Of an ε-greedy admixture while acting; gradients stay those of the policy itself."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class A2C(AdvantageActorCritic):
    """Hyper-parameters of A2C."""

    name: ClassVar[str] = "a2c"

    def learner(
        self, config: "TrainConfig", policy: Policy, rngs: Sequence[np.random.Generator]
    ) -> "A2CLearner":
        """Build the learner of a policy; there is nothing to shuffle."""
        return A2CLearner(self, policy)


class A2CLearner:
    """A2C's optimiser state and update."""

    def __init__(self, config: A2C, policy: Policy) -> None:
        self.config, self.policy = config, policy
        self._parameters = list(policy.parameters())
        self._schedule = Schedule(config.learning_rate, config.anneal)
        self._optimizer = make_optimizer(
            self._parameters, config.optimizer, config.learning_rate, config.optimizer_eps
        )
        self._step = descent(
            self._loss, self._parameters, self._optimizer, config.max_gradient_norm
        )

    def iterate(self, collector: Collector, progress: float) -> Iteration:
        """Collect one rollout and learn from it, ``progress`` (0…1) through the run."""
        config = self.config
        set_learning_rate(self._optimizer, self._schedule.at(progress))
        rollout = collector.collect(config.rollout_steps)
        batch = Samples.of(rollout, config.discount, config.trace)
        return Iteration(batch.actions.shape[1], self._step(batch))

    def _loss(self, batch: Samples) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        return actor_critic_loss(
            self.policy, batch, config.value_coefficient, config.entropy_coefficient
        )

    def state_dict(self) -> dict[str, Any]:
        """What the learner carries from one iteration to the next."""
        return {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        restore_optimizer(self._optimizer, state["optimizer"])

    def close(self) -> None:
        """Nothing to release."""


def actor_critic_loss(
    policy: Policy, batch: Samples, value_coefficient: float, entropy_coefficient: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of A2C and A3C.

    Returns
    -------
    The members' losses, summed, and named (P,) measurements of the batch without gradient.
    """
    logits, _, value = policy(batch.observations)
    log_policy = logits.log_softmax(-1)
    log_probs = log_policy.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
    policy_loss = losses.reinforce_loss(log_probs, batch.advantages)
    value_loss = losses.value_loss(value, batch.returns)
    entropy = losses.entropy(log_policy).mean(-1)
    loss = policy_loss + value_coefficient * value_loss - entropy_coefficient * entropy
    measured = {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "entropy": entropy.detach(),
    }
    # Members share no parameter, so the sum's gradient is each member's own.
    return loss.sum(), measured
