"""Policy gradients on the exact Ideal Cliff Walking, all seeds at once.

The paper's Section 3 experiment: an MLP on one-hot states, trained by REINFORCE with
Monte-Carlo returns. Beside it stand the two objectives that it approximates, on the same
networks: the exact all-action policy gradient and the surrogate of Eq. (2).

Twenty seeds are one more tensor axis. A member's parameters, episodes and optimiser state depend
on its own seed only, so any subset of seeds gives the same members.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.heads import ETFHead, LinearHead
from agents.losses import (
    RunningMoments,
    all_action_loss,
    discounted_returns,
    leave_one_out,
    reinforce_loss,
    surrogate_loss,
)
from agents.networks import PopulationMLP
from agents.policy import Policy, PolicyOutput
from agents.rollout import rollout
from agents.tabular_config import TabularConfig

__all__ = ["TabularConfig", "TabularTrainer"]

Float = NDArray[np.float64]
Loss = Callable[[Tensor], Tensor]


class TabularTrainer:
    """Trains a population of seeds; a pure function of (config, seeds).

    Parameters
    ----------
    config
        What to train.
    seeds
        One non-negative integer for each member. Initial weights and the head's orientation come
        from one child of ``SeedSequence(seed)``, episodes from another.
    """

    def __init__(self, config: TabularConfig, seeds: Sequence[int]) -> None:
        if not seeds or min(seeds) < 0:
            raise ValueError(f"seeds must be non-negative integers, at least one, got {seeds}")
        self.config = config
        self.seeds = tuple(seeds)
        self.mdp = config.mdp()
        self.optimal_actions = self._unique_optimal_actions()
        self.epoch = 0

        children = [np.random.SeedSequence(seed).spawn(2) for seed in self.seeds]
        init = [np.random.default_rng(child[0]) for child in children]
        self._episode_rngs = [np.random.default_rng(child[1]) for child in children]
        self._moments = RunningMoments.start(len(self.seeds))
        # float64 throughout: in float32 the cross-entropy underflows and the features drift.
        dtype = torch.float64
        cells, actions = self.mdp.decision_states, self.mdp.num_actions
        backbone = PopulationMLP(
            (self.mdp.num_states, *config.hidden),
            init,
            feature=config.feature,
            feature_energy=config.feature_energy,
            feature_norm=config.feature_norm,
            dtype=dtype,
        )
        dim = config.hidden[-1]
        self.policy = Policy(
            backbone,
            ETFHead(dim, actions, init, energy=config.head_energy, dtype=dtype)
            if config.head == "etf"
            else LinearHead(dim, actions, init, bias=config.bias, dtype=dtype),
        )
        # Eq. (2) with Ψ = 1 and the sweep's d, which is the same under every policy.
        sweep = config.sampling().distribution(self.mdp, self.mdp.optimal_policy())
        self._surrogate_weights = torch.from_numpy(sweep[cells])
        one_hot = torch.eye(self.mdp.num_states, dtype=dtype)[torch.tensor(cells)]
        self._observations = one_hot.expand(len(self.seeds), -1, -1)
        self._optimizer = torch.optim.Adam(
            self.policy.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def _unique_optimal_actions(self) -> NDArray[np.int64]:
        optimal = self.mdp.optimal_actions()[self.mdp.decision_states]
        if (optimal.sum(axis=1) != 1).any():
            raise ValueError(
                f"states {np.flatnonzero(optimal.sum(axis=1) != 1).tolist()} have no unique "
                "optimal action: the labels of the collapse metrics would be ambiguous"
            )
        return np.asarray(optimal.argmax(axis=1), dtype=np.int64)

    # --- what a run is looked at through -----------------------------------------------------

    def output(self) -> PolicyOutput:
        """Logits (P, n, K) and features (P, n, d) of the n cells, without gradient."""
        with torch.no_grad():
            output: PolicyOutput = self.policy(self._observations)
        return output

    def policies(self) -> Float:
        """Action probabilities of every member on all states, (P, S, K), uniform on exits."""
        table = np.full(
            (len(self.seeds), self.mdp.num_states, self.mdp.num_actions), 1 / self.mdp.num_actions
        )
        table[:, self.mdp.decision_states] = self.output().logits.softmax(-1).numpy()
        return table

    def expected_returns(self) -> Float:
        """Exact discounted return of every member from uniformly drawn cells, (P,)."""
        cells = self.mdp.decision_states
        return np.array([self.mdp.policy_value(pi)[cells].mean() for pi in self.policies()])

    def greedy_accuracy(self) -> Float:
        """Fraction of cells where the likeliest action is the optimal one, (P,)."""
        greedy = self.output().logits.argmax(-1).numpy()
        return np.asarray((greedy == self.optimal_actions).mean(axis=1))

    # --- training ----------------------------------------------------------------------------

    def train_epoch(self) -> None:
        """One epoch: ``updates_per_epoch`` updates of every member."""
        # Exact objectives are evaluated afresh for every update; samples are used `passes` times.
        passes = self.config.passes if self.config.objective == "reinforce" else 1
        for update in range(self.config.updates_per_epoch):
            if update % passes == 0:
                loss = self._collect()
            self._set_learning_rate(update)
            self._optimizer.zero_grad()
            log_policy = self.policy(self._observations).logits.log_softmax(-1)
            # Members share no parameter, so the sum's gradient is each member's own.
            torch.autograd.backward(loss(log_policy).sum())
            self._optimizer.step()
        self.epoch += 1

    def _set_learning_rate(self, update: int) -> None:
        rate = self.config.learning_rate
        if self.config.cosine:
            done = self.epoch + update / self.config.updates_per_epoch
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, done / self.config.epochs)))
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def _collect(self) -> Loss:
        """Gather what one collect's updates need; returns the loss as a function of log π."""
        match self.config.objective:
            case "surrogate":
                actions = torch.from_numpy(self.optimal_actions)
                weights = self._surrogate_weights
                return lambda log_policy: surrogate_loss(log_policy, actions, weights)
            case "all-action":
                q, d = self._exact_values()
                return lambda log_policy: all_action_loss(log_policy, q, d)
            case "reinforce":
                index, advantages = self._sample()
                return lambda log_policy: reinforce_loss(
                    log_policy.flatten(-2).gather(-1, index), advantages
                )

    def _exact_values(self) -> tuple[Tensor, Tensor]:
        """Q^π (P, n, K) and the scheme's sample distribution (P, n), by linear solves."""
        cells, policies = self.mdp.decision_states, self.policies()
        scheme = self.config.sampling(discount=self.mdp.discount)
        q = [self.mdp.policy_action_value(pi)[cells] for pi in policies]
        d = [scheme.distribution(self.mdp, pi)[cells] for pi in policies]
        d = [row / row.sum() for row in d]
        return torch.from_numpy(np.stack(q)), torch.from_numpy(np.stack(d))

    def _sample(self) -> tuple[Tensor, Tensor]:
        """Indices s·K + a (P, B) of the sampled cell-action pairs and their advantages (P, B)."""
        cells, count = self.mdp.decision_states, self.config.episodes
        population = len(self.seeds)
        if self.config.scheme == "sweep":
            starts = np.tile(np.repeat(cells, count), (population, 1))
        else:
            start = self.mdp.start
            starts = np.stack(
                [rng.choice(len(start), size=count, p=start) for rng in self._episode_rngs]
            )
        episodes = rollout(
            self.mdp, self.policies(), starts, self._episode_rngs, self.config.horizon
        )
        returns = discounted_returns(episodes.rewards, self.mdp.discount)
        # In the sweep only the first step is a sample: its states are drawn, not visited.
        kept = slice(0, 1) if self.config.scheme == "sweep" else slice(None)
        states = episodes.states[..., kept].reshape(population, -1)
        actions = episodes.actions[..., kept].reshape(population, -1)
        taken = episodes.alive[..., kept].reshape(population, -1)
        returns = returns[..., kept].reshape(population, -1)
        match self.config.baseline:
            case "leave-one-out":
                by_cell = returns.reshape(population, len(cells), count)
                advantages = leave_one_out(by_cell).reshape(population, -1)
            case "running":
                advantages = self._moments.standardise(returns, taken)
            case "none":
                advantages = returns
        # A mean over the samples that exist: padding weighs nothing.
        advantages = np.where(taken, advantages, 0.0) * (
            taken.shape[1] / taken.sum(axis=1, keepdims=True)
        )
        row = np.zeros(self.mdp.num_states, dtype=np.int64)
        row[cells] = np.arange(len(cells))
        index = row[states] * self.mdp.num_actions + actions
        return torch.from_numpy(index), torch.from_numpy(advantages)

    # --- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on: tensors, numbers and strings only."""
        return {
            "epoch": self.epoch,
            "seeds": list(self.seeds),
            "policy": self.policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "episode_rngs": [_generator_state(rng) for rng in self._episode_rngs],
            "moments": {
                name: torch.from_numpy(getattr(self._moments, name).copy())
                for name in ("mean", "variance", "count")
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises
        ------
        ValueError
            The state belongs to other seeds.
        """
        if tuple(state["seeds"]) != self.seeds:
            raise ValueError(
                f"the checkpoint has seeds {state['seeds']}, this run {list(self.seeds)}: resume "
                "with the same seeds or start a new run folder"
            )
        self.policy.load_state_dict(state["policy"])
        self._optimizer.load_state_dict(state["optimizer"])
        for rng, saved in zip(self._episode_rngs, state["episode_rngs"], strict=True):
            _restore_generator(rng, saved)
        self._moments = RunningMoments(
            **{name: value.numpy().copy() for name, value in state["moments"].items()}
        )
        self.epoch = state["epoch"]


def _generator_state(rng: np.random.Generator) -> str:
    """A generator's state as text: its 128-bit integers fit no tensor."""
    return json.dumps(rng.bit_generator.state)


def _restore_generator(rng: np.random.Generator, state: str) -> None:
    rng.bit_generator.state = json.loads(state)
