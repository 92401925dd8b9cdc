"""TRPO: trust region policy optimisation (Schulman et al. 2015).

One iteration collects a rollout, takes one natural-gradient step of the actor inside a trust
region, and fits the value function. Details that matter, and where:

* the trust region is on KL(π_old‖π_new), the mean over the rollout's states; at π_new = π_old its
  Hessian is the Fisher matrix, whichever way round the divergence is (`fisher_vector_product`);
* the step x solves (F + damping·I)x = g by conjugate gradients and is scaled to
  √(2·max_kl / xᵀ(F + damping·I)x) (`conjugate_gradients`);
* the line search asks for KL ≤ max_kl *and* a better surrogate; a member that finds neither keeps
  its parameters, bit for bit (`TRPOLearner._search`);
* every member has a gradient, a step length and a line search of its own: the population is the
  leading axis of (P, D) vectors, and dot products are along the last;
* advantages are standardised over the whole rollout;
* the value function is fitted by Adam on ½·MSE. A value layer on the actor's features sees them as
  constants, so that fitting it does not move the policy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from agents import losses
from agents.collect import Collector
from agents.learner import Iteration
from agents.limits import (
    Count,
    Fraction,
    NonNegative,
    Positive,
    ProperFraction,
    check_fields,
)
from agents.optimisation import (
    Schedule,
    make_optimizer,
    permutations,
    restore_optimizer,
    set_learning_rate,
    take,
)
from agents.policy import Policy
from agents.samples import Samples

if TYPE_CHECKING:
    from agents.config import TrainConfig


@dataclass(frozen=True)
class TRPO:
    """Hyper-parameters of TRPO; the defaults suit CartPole with 8 environments.

    Raises
    ------
    ValueError
        A field that does not hold what its annotation says.
    """

    name: ClassVar[str] = "trpo"
    has_critic: ClassVar[bool] = True

    rollout_steps: Count = 128
    """T, steps an environment between updates."""
    max_kl: Positive = 0.01
    """Radius of the trust region in nats."""
    damping: NonNegative = 0.1
    """Added to the Fisher matrix's diagonal."""
    cg_iterations: Count = 10
    backtracks: Count = 10
    """Step lengths that the line search tries, the full one included."""
    backtrack_factor: ProperFraction = 0.8
    discount: Fraction = 0.99
    trace: Fraction = 0.95
    """λ of the generalised advantages."""
    entropy_coefficient: NonNegative = 0.0
    """Of an entropy bonus in the surrogate."""
    learning_rate: Positive = 1e-3
    """Of the value function; the actor's step has no learning rate."""
    anneal: bool = False
    """Whether the value function's learning rate goes linearly to zero."""
    value_passes: Count = 10
    minibatches: Count = 8
    """Parts of each pass of the value function."""
    adam_eps: Positive = 1e-5
    epsilon: Fraction = 0.0
    """Of an ε-greedy admixture while acting; ratios stay those of the policy itself."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def least_samples(self) -> int:
        """What a rollout must have: of one sample the standardised advantage would be 0."""
        return max(2, self.minibatches)

    def learner(
        self, config: "TrainConfig", policy: Policy, rngs: Sequence[np.random.Generator]
    ) -> "TRPOLearner":
        """Build the learner of a policy; the generators (one a member) shuffle minibatches."""
        return TRPOLearner(self, policy, rngs)


class TRPOLearner:
    """TRPO's natural-gradient step, and the value function's optimiser state."""

    def __init__(self, config: TRPO, policy: Policy, rngs: Sequence[np.random.Generator]) -> None:
        self.config, self.policy, self.rngs = config, policy, rngs
        self._actor = policy.actor_parameters()
        self._schedule = Schedule(config.learning_rate, config.anneal)
        self._optimizer = make_optimizer(
            policy.critic_parameters(), "adam", config.learning_rate, config.adam_eps
        )

    def iterate(self, collector: Collector, progress: float) -> Iteration:
        """Collect one rollout and learn from it, ``progress`` (0…1) through the run."""
        config = self.config
        set_learning_rate(self._optimizer, self._schedule.at(progress))
        rollout = collector.collect(config.rollout_steps)
        batch = Samples.of(rollout, config.discount, config.trace)
        metrics = self.improve(batch)
        metrics["value_loss"] = self._fit_value(batch)
        return Iteration(batch.actions.shape[1], metrics)

    def improve(self, batch: Samples) -> dict[str, Tensor]:
        """Take one natural-gradient step of the actor; returns (P,) measurements."""
        config = self.config
        advantages = losses.standardise(batch.advantages)
        log_policy = self._log_policy(batch)
        old = log_policy.detach()
        surrogate, entropy = self._surrogate(log_policy, batch, advantages)
        gradient = flatten(torch.autograd.grad(surrogate.sum(), self._actor, retain_graph=True))
        product = fisher_vector_product(
            losses.categorical_kl(old, log_policy).mean(-1), self._actor, config.damping
        )
        direction = conjugate_gradients(product, gradient, config.cg_iterations)
        curvature = (direction * product(direction)).sum(-1, keepdim=True)
        step = direction * (2 * config.max_kl / curvature).sqrt()

        def measure() -> tuple[Tensor, Tensor]:
            log_new = self._log_policy(batch)
            kl = losses.categorical_kl(old, log_new).mean(-1)
            return self._surrogate(log_new, batch, advantages)[0], kl

        kl, accepted = self._search(step, surrogate.detach(), measure)
        return {
            "policy_loss": -surrogate.detach(),
            "entropy": entropy.detach(),
            "kl": kl,
            "accepted": accepted.float(),
            "gradient_norm": gradient.norm(dim=-1),
        }

    @torch.no_grad()
    def _search(
        self, step: Tensor, surrogate: Tensor, measure: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Shorten every member's step until KL and surrogate agree, or leave the member alone.

        Parameters
        ----------
        step
            (P, D) full step; a member with a NaN in it is left alone.
        surrogate
            (P,) to be exceeded.
        measure
            Surrogate and KL (P,) at the parameters as they then are.

        Returns
        -------
        (P,) KL of the step taken, and whether one was.
        """
        config = self.config
        start = flatten(self._actor)
        chosen, reached = start, torch.zeros_like(surrogate)
        accepted = torch.zeros_like(surrogate, dtype=torch.bool)
        for backtrack in range(config.backtracks):
            candidate = start + config.backtrack_factor**backtrack * step
            write(self._actor, candidate)
            value, kl = measure()
            passed = ~accepted & (kl <= config.max_kl) & (value > surrogate)
            # `where` copies bits: no arithmetic touches a member that fails.
            chosen = torch.where(passed.unsqueeze(-1), candidate, chosen)
            reached = torch.where(passed, kl, reached)
            accepted = accepted | passed
            if accepted.all():
                break
        write(self._actor, chosen)
        return reached, accepted

    def _log_policy(self, batch: Samples) -> Tensor:
        features = self.policy.backbone(batch.observations)
        logits: Tensor = self.policy.head(features)
        return logits.log_softmax(-1)

    def _surrogate(
        self, log_policy: Tensor, batch: Samples, advantages: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Surrogate to be maximised, mean of ρ·A plus the entropy bonus, and the entropy, (P,)."""
        log_probs = log_policy.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
        entropy = losses.entropy(log_policy).mean(-1)
        gain = ((log_probs - batch.log_probs).exp() * advantages).mean(-1)
        return gain + self.config.entropy_coefficient * entropy, entropy

    def _fit_value(self, batch: Samples) -> Tensor:
        """Fit V to the returns; the mean loss of all minibatches, (P,)."""
        critic = self.policy.critic
        assert critic is not None
        features = None
        if critic.backbone is None:
            with torch.no_grad():
                features = self.policy.backbone(batch.observations)
        measured = []
        config, (_, count), device = self.config, batch.actions.shape, batch.actions.device
        for index in permutations(
            self.rngs, count, config.minibatches, config.value_passes, device
        ):
            seen = take(batch.observations, index)
            # A critic with a backbone of its own does not look at the features.
            value = critic(seen, seen if features is None else take(features, index))
            loss = losses.value_loss(value, take(batch.returns, index))
            self._optimizer.zero_grad()
            torch.autograd.backward(loss.sum())
            self._optimizer.step()
            measured.append(loss.detach())
        return torch.stack(measured).mean(0)

    def state_dict(self) -> dict[str, Any]:
        """What the learner carries from one iteration to the next."""
        return {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        restore_optimizer(self._optimizer, state["optimizer"])

    def close(self) -> None:
        """Nothing to release."""


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors (P, …) to vectors (P, D); the result shares no memory with them."""
    return torch.cat([tensor.detach().flatten(1) for tensor in tensors], dim=1)


@torch.no_grad()
def write(parameters: Sequence[nn.Parameter], vectors: Tensor) -> None:
    """Set parameters (P, …) from vectors (P, D), undoing `flatten`."""
    sizes = [parameter[0].numel() for parameter in parameters]
    for parameter, part in zip(parameters, torch.split(vectors, sizes, dim=1), strict=True):
        parameter.copy_(part.view_as(parameter))


def fisher_vector_product(
    kl: Tensor, parameters: Sequence[nn.Parameter], damping: float
) -> Callable[[Tensor], Tensor]:
    """Multiplication by F + damping·I, by differentiating twice (Schulman et al. 2015, App. C).

    Parameters
    ----------
    kl
        (P,) mean KL(π_old‖π) with a graph, at π = π_old.
    parameters
        With leading axis P, that no two members share.

    Returns
    -------
    Function from vectors (P, D) to products (P, D), each member with its own Fisher matrix.
    """
    slopes = torch.autograd.grad(kl.sum(), parameters, create_graph=True)
    slope = torch.cat([part.flatten(1) for part in slopes], dim=1)

    def product(vectors: Tensor) -> Tensor:
        along = (slope * vectors).sum()
        return (
            flatten(torch.autograd.grad(along, parameters, retain_graph=True)) + damping * vectors
        )

    return product


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """Solve A x = b for every member by conjugate gradients from x = 0.

    Parameters
    ----------
    product
        x ↦ A x on (P, D), A symmetric positive definite.
    target
        (P, D) b.
    iterations
        At most; a member stops where its squared residual falls below ``tolerance``.

    Returns
    -------
    (P, D) x.
    """
    x = torch.zeros_like(target)
    residual, direction = target, target
    square = residual.square().sum(-1, keepdim=True)
    for _ in range(iterations):
        going = square > tolerance
        image = product(direction)
        length = torch.where(going, square / (direction * image).sum(-1, keepdim=True), 0.0)
        x = x + length * direction
        residual = residual - length * image
        following = residual.square().sum(-1, keepdim=True)
        direction = residual + torch.where(going, following / square, 0.0) * direction
        square = torch.where(going, following, square)
    return x
