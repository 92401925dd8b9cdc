"""REINFORCE: Monte-Carlo policy gradient (Williams 1992), as in the paper's library.

One collect plays one whole game in every environment and goes ``passes`` times over its samples in
minibatches. Details that matter, and where:

* returns are Monte-Carlo returns of whole episodes, none left out (`Collector.collect_episodes`);
  a time limit is an end like any other, as there is no V to bootstrap with, unless
  ``cut_tolerance`` leaves out the samples whose returns it cuts short (Pardo et al. 2018 on why);
* ``baseline="running"`` standardises a collect's returns with the moments of *earlier* collects and
  then takes them in (`losses.RunningMoments`), as Tianshou does;
* the second pass has no importance weights: as in the library it is slightly off-policy;
* the gradient is not clipped, and by default there is no entropy bonus; Adam's eps is PyTorch's.

Members take different numbers of steps for their games. Each has an account of its own: one
iteration grants every member the same steps, and a member plays another collect while any are left.
What it plays too much is missing from the next grant, so that members of all lengths of games spend
the same budget, to within one collect. A member that waits is not touched (`MemberAdam`), and its
measurements are repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents import losses
from agents.collect import Collector, Rollout
from agents.learner import Iteration
from agents.limits import Count, Fraction, NonNegative, Positive, check_fields
from agents.member_adam import MemberAdam
from agents.optimisation import Schedule, take
from agents.policy import Policy

if TYPE_CHECKING:
    from agents.config import TrainConfig

Baseline = Literal["running", "batch", "none"]
Float = NDArray[np.float64]

_GRANT = 1000
"""Steps that one iteration grants a member, if an epoch has as many."""


@dataclass(frozen=True)
class Reinforce:
    """Hyper-parameters of REINFORCE; the defaults are the paper's.

    Raises
    ------
    ValueError
        A field that does not hold what its annotation says.
    """

    name: ClassVar[str] = "reinforce"
    has_critic: ClassVar[bool] = False
    rollout_steps: ClassVar[None] = None
    """A collect is whole games, whatever their lengths."""
    least_samples: ClassVar[int] = 1

    batch_size: Count = 64
    """Samples a minibatch. A member's n samples make n // batch_size parts of nearly equal size
    (one if there are fewer), as the library merges a short remainder into the last part."""
    passes: Count = 2
    """Passes over each collect ("repeat per collect")."""
    learning_rate: Positive = 1e-3
    anneal: bool = False
    """Whether the learning rate goes linearly to zero."""
    discount: Fraction = 0.95
    baseline: Baseline = "running"
    """Returns less their running mean, divided by their running standard deviation; or by the
    moments of the collect itself; or as they are."""
    entropy_coefficient: NonNegative = 0.0
    """Of an entropy bonus, which the paper does not have."""
    adam_eps: Positive = 1e-8
    cut_tolerance: Fraction = 1.0
    """Largest share γ^k of a return's future that a time limit k steps later may hide: the last
    samples of a truncated game, whose returns lack more, are not learned from. 1 keeps them all, as
    the library does; their returns then say that the end of a perfect game is bad."""
    horizon: Count = 27_000
    """Steps after which a game is cut, should the environment not do it earlier. A collect holds
    all of them: from images 28 kB a step and environment, 6 GB for 8 games of 27,000 steps (Atari's
    own limit, which a policy that never serves in Breakout reaches)."""
    epsilon: Fraction = 0.0
    """Of an ε-greedy admixture while acting; gradients stay those of the policy itself."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.cut_tolerance < 1 and self.discount == 1:
            raise ValueError(
                f"cut_tolerance = {self.cut_tolerance:g} with discount = 1 leaves out every sample "
                "of a truncated game, as nothing that it hides is discounted: take a discount "
                "below 1 or cut_tolerance = 1"
            )

    def learner(
        self, config: "TrainConfig", policy: Policy, rngs: Sequence[np.random.Generator]
    ) -> "ReinforceLearner":
        """Build the learner of a policy; the generators (one a member) shuffle minibatches."""
        return ReinforceLearner(self, policy, rngs, min(_GRANT, config.epoch_steps))


class ReinforceLearner:
    """REINFORCE's optimiser state and update."""

    def __init__(
        self, config: Reinforce, policy: Policy, rngs: Sequence[np.random.Generator], grant: int
    ) -> None:
        self.config, self.policy, self.rngs = config, policy, rngs
        self._grant = grant
        self._schedule = Schedule(config.learning_rate, config.anneal)
        self._optimizer = MemberAdam(list(policy.parameters()), config.adam_eps)
        self._moments = [losses.RunningMoments.start(1) for _ in rngs]
        self._owed = np.zeros(len(rngs), dtype=np.int64)
        unknown = torch.full((len(rngs),), torch.nan, device=next(policy.parameters()).device)
        self._measured = {"policy_loss": unknown, "entropy": unknown}

    def iterate(self, collector: Collector, progress: float) -> Iteration:
        """Let every member play and learn for its share, ``progress`` (0…1) through the run."""
        rate = self._schedule.at(progress)
        self._owed += self._grant
        while (members := self._owed > 0).any():
            rollout, alive = collector.collect_episodes(self.config.horizon, members)
            self._owed -= alive.sum(axis=(1, 2))
            self._learn(rollout, alive, rate)
        return Iteration(self._grant, dict(self._measured))

    def _learn(self, rollout: Rollout, alive: NDArray[np.bool_], rate: float) -> None:
        """Learn from one collect and measure; members without samples keep their measurements."""
        device = rollout.actions.device
        present = (alive & ~self._cut(rollout)).reshape(len(alive), -1)
        weights = torch.from_numpy(self._weights(rollout, present).astype(np.float32)).to(device)
        observations = rollout.observations.flatten(1, 2)
        actions = rollout.actions.flatten(1, 2)
        measured: list[dict[str, Tensor]] = []
        counted: list[Tensor] = []
        for _ in range(self.config.passes):
            for part in minibatches(self.rngs, present, self.config.batch_size):
                index, valid = (tensor.to(device) for tensor in part)
                moving = valid.any(-1)
                measured.append(
                    self._update(
                        take(observations, index), take(actions, index), take(weights, index), valid
                    )
                )
                self._optimizer.step(rate, moving)
                counted.append(moving)
        if not counted:
            return
        moves = torch.stack(counted).float()
        total = moves.sum(0)
        for name, before in self._measured.items():
            value = (torch.stack([m[name] for m in measured]) * moves).sum(0) / total
            self._measured[name] = torch.where(total > 0, value, before)

    def _cut(self, rollout: Rollout) -> NDArray[np.bool_]:
        """Samples whose return a time limit cuts too short, (P, T, E)."""
        # The weight γ^k of V(final observation) in a return: what V = 1 there alone would add.
        nothing = np.zeros_like(rollout.rewards)
        hidden = losses.generalised_advantages(
            nothing,
            nothing,
            rollout.truncated.astype(np.float64),
            rollout.terminated,
            rollout.truncated,
            self.config.discount,
            1.0,
        )
        return hidden > self.config.cut_tolerance

    def _weights(self, rollout: Rollout, present: NDArray[np.bool_]) -> Float:
        """Returns less baseline, (P, N); of no meaning where nothing is present."""
        # With V = 0 and λ = 1 the generalised advantages are the returns up to each end.
        returns = losses.generalised_advantages(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated,
            rollout.truncated,
            self.config.discount,
            1.0,
        ).reshape(present.shape)
        if self.config.baseline == "none":
            return returns
        for member in np.flatnonzero(present.any(axis=1)).tolist():
            own = returns[member, present[member]]
            if self.config.baseline == "running":
                everything = np.ones((1, len(own)), dtype=bool)
                own = self._moments[member].standardise(own[None], everything)[0]
            else:
                own = (own - own.mean()) / (own.std() + 1e-8)
            returns[member, present[member]] = own
        return returns

    def _update(
        self, observations: Tensor, actions: Tensor, weights: Tensor, valid: Tensor
    ) -> dict[str, Tensor]:
        """Gradient of one minibatch; returns (P,) measurements of it."""
        log_policy = self.policy(observations).logits.log_softmax(-1)
        log_probs = log_policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        share = valid / valid.sum(-1, keepdim=True).clamp(min=1)
        policy_loss = -(share * weights * log_probs).sum(-1)
        entropy = (share * losses.entropy(log_policy)).sum(-1)
        loss = policy_loss - self.config.entropy_coefficient * entropy
        self._optimizer.zero_grad()
        # Members share no parameter, so the sum's gradient is each member's own.
        torch.autograd.backward(loss.sum())
        return {"policy_loss": policy_loss.detach(), "entropy": entropy.detach()}

    def state_dict(self) -> dict[str, Any]:
        """What the learner carries from one iteration to the next."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "moments": [
                torch.tensor([m.mean[0], m.variance[0], m.count[0]], dtype=torch.float64)
                for m in self._moments
            ],
            "owed": torch.tensor(self._owed),
            "measured": self._measured,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._moments = [
            losses.RunningMoments(*moments.numpy().reshape(3, 1)) for moments in state["moments"]
        ]
        self._owed = state["owed"].numpy().copy()
        self._measured = dict(state["measured"])

    def close(self) -> None:
        """Nothing to release."""


def minibatches(
    rngs: Sequence[np.random.Generator], present: NDArray[np.bool_], batch_size: int
) -> list[tuple[Tensor, Tensor]]:
    """One pass over every member's own samples in random order, in parts of its own number.

    Parameters
    ----------
    rngs
        One generator for each member; that of a member without samples is not touched.
    present
        (P, N) which samples a member has.
    batch_size
        A member with n samples has max(1, n // batch_size) parts, of nearly equal size.

    Returns
    -------
    Pairs of indices (P, b) and which of them are valid (P, b); a member with fewer parts than
    another has nothing valid in the last pairs.
    """
    parts: list[list[NDArray[np.int64]]] = []
    for rng, row in zip(rngs, present, strict=True):
        own = np.flatnonzero(row)
        count = max(1, len(own) // batch_size)
        parts.append(np.array_split(rng.permutation(own), count) if len(own) else [])
    pairs = []
    for i in range(max(len(own) for own in parts)):
        now = [own[i] if i < len(own) else np.empty(0, dtype=np.int64) for own in parts]
        index = np.zeros((len(now), max(map(len, now))), dtype=np.int64)
        valid = np.zeros(index.shape, dtype=bool)
        for member, samples in enumerate(now):
            index[member, : len(samples)] = samples
            valid[member, : len(samples)] = True
        pairs.append((torch.from_numpy(index), torch.from_numpy(valid)))
    return pairs
