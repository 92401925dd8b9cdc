"""One row for each member and epoch of a training run: returns, losses, collapse metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.losses import entropy
from agents.training import Epoch, Evaluation, Trainer
from analysis.metrics import METRIC_FIELDS, CollapseMetrics

COLUMNS: dict[str, str] = {
    "algorithm": "reinforce, ppo, trpo, a2c or a3c",
    "env": "environment id",
    "convention": "of Atari: NoFrameskip-v4 (lost lives end, no sticky actions) or v5",
    "observations": "state, image or ram",
    "network": "mlp or cnn",
    "head": "linear, etf, orthogonal or gaussian",
    "head_bias": "whether the head has a bias",
    "head_energy": "E_W of a frozen head; NaN for a learned one and where entropies are matched",
    "feature": "rectified or linear",
    "feature_energy": "E_H that bounds ‖h‖², NaN without a bound",
    "hidden": "widths of the hidden layers, such as 64+64; the last is the feature's",
    "critic": "shared or separate",
    "precision": "in which the network computes: float32 or bf16",
    "learning_rate": "initial learning rate",
    "epsilon": "ε of the ε-greedy admixture while acting",
    "seed": "of the member",
    "epoch": "0 is the initialisation",
    "steps": "agent steps of the member so far; REINFORCE, which plays whole episodes, may be "
    "ahead by up to one collect, and then waits",
    "train_return": "mean unclipped return of the full games that ended in the epoch, NaN if none; "
    "games that the epoch's end cut are missing, which are the long ones",
    "train_episodes": "how many did",
    "eval_return": "mean unclipped full-game return over the evaluation episodes",
    "eval_return_std": "their population standard deviation",
    "eval_return_min": "the smallest",
    "eval_return_max": "the largest",
    "eval_length": "mean agent steps of an evaluation episode",
    "eval_episodes": "how many episodes were evaluated",
    "policy_entropy": "mean policy entropy over evaluation states, nats",
    "initial_entropy": "the same over a random walk's states before training",
    "diverged": "whether a feature or logit of the evaluation was not finite; what is measured of "
    "them is then NaN",
    "reached_target": "whether eval_return has reached target_return by this epoch",
}
"""Every column that is neither a collapse metric nor ``loss_…``, a mean over the epoch's updates of
what the algorithm reports (policy_loss, value_loss, entropy, kl, clip_fraction, gradient_norm).
REINFORCE reports the last collect of each 1,000 steps only, should games be that short."""

_FLUSH = 4096
"""States of a member that are held before they are measured."""


class States(NamedTuple):
    """Evaluation states of one member."""

    features: Tensor
    """(m, d)"""
    logits: Tensor
    """(m, K)"""
    episodes: Tensor
    """(m,) int64, which of the evaluation's games each is from."""


class StateMeasurer:
    """Streams evaluation states into collapse metrics, and keeps a uniform sample of them.

    A member with a feature or logit that is not finite has diverged: its states are counted, and
    nothing is measured of them any more. The other members go on.

    Parameters
    ----------
    num_actions, dim
        K and d.
    rngs
        Draw each of P members' sample.
    keep
        States of each member in the sample, or all where there are fewer.
    """

    def __init__(
        self, num_actions: int, dim: int, rngs: Sequence[np.random.Generator], keep: int
    ) -> None:
        population = len(rngs)
        self.collapse = [CollapseMetrics(num_actions, dim) for _ in range(population)]
        self.entropy_sum, self.count = np.zeros(population), np.zeros(population, dtype=np.int64)
        self.diverged = np.zeros(population, dtype=np.bool_)
        self._rngs, self._keep = rngs, keep
        none_yet = torch.empty(0, dtype=torch.int64)
        nothing = States(torch.empty(0, dim), torch.empty(0, num_actions), none_yet)
        self._kept: list[States] = [nothing] * population
        self._keys = [np.empty(0) for _ in range(population)]
        self._held: list[list[States]] = [[] for _ in range(population)]
        self._held_count = 0

    def __call__(self, features: Tensor, logits: Tensor, counts: NDArray[np.bool_]) -> None:
        """Take one step's states: (P, n, d), (P, n, K), a column a game, and which count."""
        for member, mask in enumerate(torch.from_numpy(counts)):
            if mask.any():
                rows, games = mask.to(features.device), mask.nonzero()[:, 0]
                held = States(features[member][rows], logits[member][rows], games)
                self._held[member].append(held)
        self._held_count += features.shape[1]
        if self._held_count >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Measure what is held."""
        for member, held in enumerate(self._held):
            if not held:
                continue
            states = States(*map(torch.cat, zip(*held, strict=True)))
            features, logits = states.features, states.logits
            held.clear()
            self.count[member] += len(features)
            self._sample(member, states)
            self.diverged[member] |= not bool(
                torch.isfinite(features).all() & torch.isfinite(logits).all()
            )
            if not self.diverged[member]:
                self.collapse[member].update(features, logits.argmax(-1))
                self.entropy_sum[member] += float(entropy(logits.double().log_softmax(-1)).sum())
        self._held_count = 0

    def sample(self, member: int) -> States:
        """A member's sample, on the CPU, in order of time."""
        return self._kept[member]

    def measured(self, member: int, head: Tensor) -> dict[str, float]:
        """Policy entropy and collapse metrics of a member with head (K, d)."""
        if self.diverged[member]:
            undefined = dict.fromkeys(("policy_entropy", *METRIC_FIELDS, "absent_classes"), np.nan)
            return undefined | {"num_samples": float(self.count[member])}
        mean = float(self.entropy_sum[member] / self.count[member])
        return {"policy_entropy": mean, **self.collapse[member].compute(head).as_row()}

    def _sample(self, member: int, states: States) -> None:
        """Keep the states with the smallest of uniform keys: any set of them is as likely."""
        if not self._keep:
            return
        fresh = self._rngs[member].random(len(states.features))
        keys = np.concatenate([self._keys[member], fresh])
        chosen = np.sort(np.argsort(keys)[: self._keep])
        self._keys[member] = keys[chosen]
        kept = self._kept[member]
        earlier = len(kept.features)
        old, new = (torch.from_numpy(chosen[chosen < earlier]), chosen[chosen >= earlier] - earlier)
        index = torch.from_numpy(new).to(states.features.device)
        self._kept[member] = States(
            *(
                torch.cat([a[old], b[index.to(b.device)].cpu()])
                for a, b in zip(kept, states, strict=True)
            )
        )


def epoch_rows(
    trainer: Trainer,
    epoch: Epoch | None,
    evaluation: Evaluation,
    measurer: StateMeasurer,
    earlier: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """One row a member: `COLUMNS`, losses and collapse metrics.

    Parameters
    ----------
    trainer
        After the epoch.
    epoch
        What training gave; None before the first.
    evaluation, measurer
        What was played and seen in the evaluation.
    earlier
        Rows of all epochs before.
    """
    head = trainer.policy.head.weight.detach()
    return [
        _row(trainer, member, epoch, evaluation, measurer, head[member], earlier)
        for member in range(trainer.config.population)
    ]


def precision(trainer: Trainer) -> str:
    """In what the networks of a run compute: ``"float32"`` or ``"bf16"``."""
    return "bf16" if trainer.bf16 else "float32"


def _row(
    trainer: Trainer,
    member: int,
    epoch: Epoch | None,
    evaluation: Evaluation,
    measurer: StateMeasurer,
    head: Tensor,
    earlier: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    config = trainer.config
    own_head, seed = config.members[member]
    returns = evaluation.returns[member]
    games = [] if epoch is None else epoch.returns[member]
    losses = {} if epoch is None else epoch.metrics
    target = config.target_return
    reached = target is not None and (
        float(returns.mean()) >= target
        or any(row["reached_target"] for row in earlier[member :: config.population])
    )
    energy = config.feature_energy
    # Matched entropies leave no head the energy it was given.
    scaled = own_head.kind != "linear" and config.match_entropy is None
    return {
        "algorithm": config.algorithm.name,
        "env": config.env.id,
        "convention": config.env.convention,
        "observations": config.env.observations,
        "network": config.network,
        "head": own_head.kind,
        "head_bias": own_head.bias,
        "head_energy": own_head.energy if scaled else float("nan"),
        "feature": config.feature,
        "feature_energy": float("nan") if energy is None else energy,
        "hidden": "+".join(map(str, config.hidden)),
        "critic": config.critic,
        "precision": precision(trainer),
        "learning_rate": config.algorithm.learning_rate,
        "epsilon": config.algorithm.epsilon,
        "seed": seed,
        "epoch": trainer.epoch,
        "steps": trainer.steps,
        "train_return": float(np.mean(games)) if games else float("nan"),
        "train_episodes": len(games),
        "eval_return": float(returns.mean()),
        "eval_return_std": float(returns.std()),
        "eval_return_min": float(returns.min()),
        "eval_return_max": float(returns.max()),
        "eval_length": float(evaluation.lengths[member].mean()),
        "eval_episodes": len(returns),
        "initial_entropy": float(trainer.initial_entropy[member]),
        "diverged": bool(measurer.diverged[member]),
        "reached_target": bool(reached),
        **{f"loss_{name}": float(value[member]) for name, value in losses.items()},
        **measurer.measured(member, head),
    }
