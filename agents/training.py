"""Training a population of policies: a pure function of its configuration.

`Trainer` holds everything a run consists of and touches no disk; `analysis.training` stores what
it gives. Every member draws from generators of its own. Episodes of epoch n are seeded by (seed,
n) and environments restart with it, so that an epoch's end is a clean boundary: a checkpoint
there has no environment to save, and an interrupted run gives the same rows as another.
"""

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.cnn import has_native_bf16
from agents.collect import Collector, Finished, sample_actions
from agents.config import TrainConfig
from agents.envs import Environments, make_environments
from agents.errors import ConfigurationError
from agents.population import build_policy, match_entropy, mean_entropy

Float = NDArray[np.float64]
OnStates = Callable[[Tensor, Tensor, NDArray[np.bool_]], None]
"""Called with features (P, n, d), logits (P, n, K) and which of the n states count, (P, n)."""

# What a member's generators are for; the initial weights have children of the seed itself.
_TRAIN, _EVALUATE, _SAMPLE, _ACT, _SHUFFLE = range(5)
_WARM_UP = 128
"""Steps of the random walk whose observations measure and match the initial entropy."""


def resolve_device(name: str) -> torch.device:
    """``"auto"`` is the first CUDA device if there is one, else the CPU.

    Raises
    ------
    ConfigurationError
        The named device does not exist here, or is neither a CPU nor a CUDA device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigurationError(f"unknown device {name!r}: use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ConfigurationError(
            f"device {name!r} was asked for, and PyTorch sees {count} CUDA devices here: use auto "
            "or cpu"
        )
    return device


@dataclass(frozen=True)
class Epoch:
    """What one epoch of training gave."""

    epoch: int
    steps: int
    """Agent steps of each member so far."""
    returns: list[list[float]]
    """Unclipped returns of every member's full games that ended in training."""
    metrics: dict[str, Float]
    """(P,) means over the epoch's updates."""


@dataclass(frozen=True)
class Evaluation:
    """Full games played without learning, one in each of n environments."""

    returns: Float
    """(P, n) unclipped."""
    lengths: NDArray[np.int64]
    """(P, n) agent steps."""


class Trainer:
    """A population in training.

    Parameters
    ----------
    config
        What to train.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    ConfigurationError
        The device does not exist, or heads cannot be matched.
    ImportError
        The environment's optional package is missing; the message says which.
    """

    def __init__(self, config: TrainConfig, device: str = "auto") -> None:
        self.config = config
        # A3C's workers share the host's memory.
        own = "cpu" if config.algorithm.name == "a3c" and device == "auto" else device
        self.device = resolve_device(own)
        # TRPO differentiates twice, and rounded to bf16 its Fisher-vector products are 10 % off.
        self.bf16 = config.precision == "bf16" or (
            config.precision == "auto"
            and config.network == "cnn"
            and config.algorithm.name != "trpo"
            and has_native_bf16(self.device)
        )
        environments = self._environments(config.num_envs)
        self.policy = build_policy(
            config,
            environments.observation_shape,
            environments.num_actions,
            critic=config.algorithm.has_critic,
            bf16=self.bf16,
        ).to(self.device)
        self._act_rngs, self._shuffle_rngs = self._generators(_ACT), self._generators(_SHUFFLE)
        self._collector = Collector(
            self.policy,
            environments,
            self._act_rngs,
            self.device,
            clip_rewards=config.env.clips_rewards,
            epsilon=config.algorithm.epsilon,
        )
        self._evaluator: Environments | None = None
        self.initial_entropy = self._settle_entropy(environments)
        self._learner = config.algorithm.learner(config, self.policy, self._shuffle_rngs)
        self.epoch, self.steps = 0, 0

    @property
    def done(self) -> bool:
        """Whether all epochs are trained."""
        return self.epoch >= self.config.epochs

    def train_epoch(self, advance: Callable[[int], None] = lambda steps: None) -> Epoch:
        """Train until the next epoch's end, telling ``advance`` the steps of each iteration."""
        config = self.config
        end = min((self.epoch + 1) * config.epoch_steps, config.steps)
        self._collector.finished = Finished.none(config.population)
        self._collector.restart(self._seeds(_TRAIN, self.epoch + 1))
        measured: list[dict[str, Tensor]] = []
        # One at least: what an epoch plays too much may be all that a short last one has.
        while not measured or self.steps < end:
            iteration = self._learner.iterate(self._collector, self.steps / config.steps)
            self.steps += iteration.steps
            measured.append(iteration.metrics)
            advance(iteration.steps)
        self.epoch += 1
        # The only place where measurements leave the device.
        metrics = {
            name: torch.stack([m[name] for m in measured]).double().mean(0).cpu().numpy()
            for name in measured[0]
        }
        return Epoch(self.epoch, self.steps, self._collector.finished.returns, metrics)

    @torch.no_grad()
    def evaluate(self, on_states: OnStates | None = None) -> Evaluation:
        """Play one full game in each of ``eval_episodes`` environments a member.

        Seeds depend on the epoch only, and training's generators are not touched: evaluating
        more or less often changes nothing else.
        """
        config = self.config
        if self._evaluator is None:
            self._evaluator = self._environments(config.eval_episodes, evaluation=True)
        environments = self._evaluator
        observation = environments.reset(self._seeds(_EVALUATE, self.epoch))
        rngs = self._generators(_SAMPLE, self.epoch)
        returns = np.full((config.population, config.eval_episodes), np.nan)
        lengths = np.zeros(returns.shape, dtype=np.int64)
        while (playing := np.isnan(returns)).any():
            logits, features, _ = self.policy(torch.from_numpy(observation).to(self.device))
            if on_states is not None:
                on_states(features, logits, playing)
            if config.eval_greedy:
                actions = logits.argmax(-1)
            else:
                drawn = np.stack([rng.random(config.eval_episodes, np.float32) for rng in rngs])
                actions = sample_actions(logits, torch.from_numpy(drawn).to(self.device))
            step = environments.step(actions.cpu().numpy())
            ended = playing & ~np.isnan(step.returns)
            returns[ended], lengths[ended] = step.returns[ended], step.lengths[ended]
            observation = step.observations
        return Evaluation(returns, lengths)

    def close(self) -> None:
        """Release environments, processes and shared memory."""
        self._learner.close()
        self._collector.environments.close()
        if self._evaluator is not None:
            self._evaluator.close()

    def _environments(self, count: int, evaluation: bool = False) -> Environments:
        # Emulators give the same frames whatever the number of threads. Beside a GPU nothing else
        # uses the cores; on a CPU they share PyTorch's.
        cores = (os.cpu_count() or 1) // self.config.population
        threads = torch.get_num_threads() if self.device.type == "cpu" else max(1, cores)
        return make_environments(
            self.config.env,
            self.config.population,
            count,
            evaluation=evaluation,
            threads=threads,
        )

    # --- initial entropy -----------------------------------------------------------------------

    def _settle_entropy(self, environments: Environments) -> Float:
        """Mean policy entropy (P,) in nats over a random walk's states, matched if asked to."""
        config = self.config
        rngs = self._generators(_SAMPLE)
        observation = environments.reset(self._seeds(_EVALUATE, 0))
        seen = []
        for _ in range(_WARM_UP):
            seen.append(observation[:, :1].copy())
            actions = [rng.integers(environments.num_actions, size=config.num_envs) for rng in rngs]
            observation = environments.step(np.stack(actions)).observations
        states = torch.from_numpy(np.concatenate(seen, axis=1)).to(self.device)
        if config.match_entropy is not None:
            match_entropy(self.policy, states, config.match_entropy)
        return mean_entropy(self.policy, states).double().cpu().numpy()

    # --- randomness ----------------------------------------------------------------------------

    def _generators(self, purpose: int, epoch: int = 0) -> list[np.random.Generator]:
        return [np.random.default_rng([seed, purpose, epoch]) for _, seed in self.config.members]

    def _seeds(self, purpose: int, epoch: int) -> list[int]:
        """One environment seed a member, below 2³¹ as emulators want it."""
        return [int(rng.integers(2**31)) for rng in self._generators(purpose, epoch)]

    # --- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on, at an epoch's end.

        Tensors, numbers and strings only, which later training does not change. Environments are
        not part of it: they restart.
        """
        return {
            "epoch": self.epoch,
            "steps": self.steps,
            "policy": copy.deepcopy(self.policy.state_dict()),
            "learner": copy.deepcopy(self._learner.state_dict()),
            "act_rngs": _states(self._act_rngs),
            "shuffle_rngs": _states(self._shuffle_rngs),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken, with the same configuration."""
        self.policy.load_state_dict(state["policy"])
        self._learner.load_state_dict(state["learner"])
        for rngs, name in ((self._act_rngs, "act_rngs"), (self._shuffle_rngs, "shuffle_rngs")):
            for rng, saved in zip(rngs, state[name], strict=True):
                rng.bit_generator.state = json.loads(saved)
        self.epoch, self.steps = state["epoch"], state["steps"]


def _states(rngs: Sequence[np.random.Generator]) -> list[str]:
    """Generator states as text: their 128-bit integers fit no tensor."""
    return [json.dumps(rng.bit_generator.state) for rng in rngs]
