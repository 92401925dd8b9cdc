"""Gradient steps of a population whose members share no parameter."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

OptimizerKind = Literal["adam", "rmsprop"]


@dataclass(frozen=True)
class Schedule:
    """A learning rate, constant or annealed linearly to zero over the run."""

    rate: float
    anneal: bool

    def at(self, progress: float) -> float:
        """Rate when a fraction ``progress`` of the run's steps is done."""
        return self.rate * max(0.0, 1.0 - progress) if self.anneal else self.rate


def make_optimizer(
    parameters: Iterable[nn.Parameter], kind: OptimizerKind, rate: float, eps: float
) -> torch.optim.Optimizer:
    """Adam, or RMSprop with the smoothing 0.99 of A2C and A3C (Mnih et al. 2016)."""
    parameters = list(parameters)
    captured = parameters[0].is_cuda
    # A captured graph reads its learning rate from memory, where a number would be frozen.
    lr = torch.tensor(rate, device=parameters[0].device) if captured else rate
    if kind == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=lr, alpha=0.99, eps=eps, foreach=True, capturable=captured
        )
    return torch.optim.Adam(parameters, lr=lr, eps=eps, fused=True, capturable=captured)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take moments and step counts from a ``state_dict``, and nothing else.

    Learning rates and how the step is computed (``fused``, ``capturable``) belong to the device of
    this process, not to the one that saved. What a captured graph reads from memory, rates and
    moments that exist, stay the tensors they are.
    """
    kept = {parameter: dict(moments) for parameter, moments in optimizer.state.items()}
    own = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    groups = [
        {**saved, **settings} for saved, settings in zip(state["param_groups"], own, strict=True)
    ]
    # Loading looks at the groups to place the step counts, and copies them: hence before and after.
    optimizer.load_state_dict({**state, "param_groups": groups})
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
    for parameter, moments in kept.items():
        loaded = optimizer.state.setdefault(parameter, {})
        for name, moment in moments.items():
            # A state from before the first step has none: all are 0 then, counts too.
            moment.copy_(loaded.get(name, torch.zeros_like(moment)))
            loaded[name] = moment


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale every member's gradient to norm ≤ ``max_norm``, each by its own norm.

    Returns
    -------
    (P,) norms before clipping.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients])
    norms = squares.sum(0).sqrt()
    factors = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))
    return norms


def permutations(
    rngs: Sequence[np.random.Generator],
    samples: int,
    minibatches: int,
    passes: int = 1,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, ...]:
    """Passes over the samples of every member, each in a random order of its own.

    Returns
    -------
    For each pass ``minibatches`` index tensors (P, samples // minibatches or one more) on
    ``device``; every sample is in exactly one.
    """
    orders = [np.stack([rng.permutation(samples) for rng in rngs]) for _ in range(passes)]
    sizes = [len(part) for part in np.array_split(np.arange(samples), minibatches)]
    # One copy: the host waits for the device at each.
    order = torch.from_numpy(np.concatenate(orders, axis=1)).to(device)
    return torch.split(order, sizes * passes, dim=1)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of every member: (P, B, …) of values (P, N, …) and indices (P, B)."""
    population, samples = values.shape[:2]
    offset = torch.arange(population, device=index.device).unsqueeze(1) * samples
    rows = values.flatten(0, 1).index_select(0, (index + offset).flatten())
    return rows.view(population, -1, *values.shape[2:])
