"""What the integrations share: one network's frozen head, and a record of what a head sees."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.heads import FROZEN_HEADS
from agents.networks import project_to_ball

HeadKind = Literal["etf", "orthogonal", "gaussian"]


class SingleHead(nn.Module):
    """A frozen head of `agents.heads` for a single network: features (…, d) to logits (…, K).

    It has the attributes of a `torch.nn.Linear` without bias and takes its place, but W is a
    *buffer*: initialisers that look for linear layers, optimizers, weight decay, gradient clips
    and the parameter lists of TRPO never see it, and it is saved, loaded and moved with the module.

    Parameters
    ----------
    dim
        d, the feature dimension; at least K − 1 for ``"etf"``, K for ``"orthogonal"``.
    num_actions
        K ≥ 2.
    rng
        Draws the orientation.
    kind
        ``"etf"``, the paper's, or one of its controls.
    energy
        E_W, the squared norm of a row (Eq. 10).
    dtype
        Of the buffer.

    Raises
    ------
    ValueError
        For an unknown kind, an energy that is not positive, and a dimension that is too small.
    """

    weight: Tensor
    """(K, d)"""
    bias: None = None

    def __init__(
        self,
        dim: int,
        num_actions: int,
        rng: np.random.Generator,
        *,
        kind: HeadKind = "etf",
        energy: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if kind not in FROZEN_HEADS:
            raise ValueError(f"head must be one of {', '.join(FROZEN_HEADS)}, got {kind!r}")
        if not energy > 0:
            raise ValueError(f"the head's energy must be > 0, got {energy}")
        population = FROZEN_HEADS[kind](dim, num_actions, [rng], energy=energy, dtype=dtype)
        self.register_buffer("weight", population.weight[0])

    def forward(self, features: Tensor) -> Tensor:
        """Logits (…, K) of features (…, d)."""
        return nn.functional.linear(features, self.weight)


class BallProjection(nn.Module):
    """`agents.networks.project_to_ball` as a layer: ‖h‖² ≤ energy for every state (Eq. 9)."""

    def __init__(self, energy: float) -> None:
        super().__init__()
        if not energy > 0:
            raise ValueError(f"feature_energy must be > 0 or None, got {energy}")
        self.energy = energy

    def forward(self, features: Tensor) -> Tensor:
        """Project features (…, d)."""
        return project_to_ball(features, self.energy)


class FeatureBatch(NamedTuple):
    """What an action head saw and said: ``logits == features @ head.T + bias``."""

    features: NDArray[Any]
    """(n, d) the last-layer features h(s), the head's input."""
    logits: NDArray[Any]
    """(n, K) the head's output."""
    head: NDArray[Any]
    """(K, d) W."""
    bias: NDArray[Any] | None
    """(K,) b, or None for a head without one."""


def record(
    network: nn.Module,
    head: nn.Module,
    forward: Callable[[NDArray[Any]], object],
    observations: NDArray[Any],
    batch_size: int,
) -> FeatureBatch:
    """Record a head's input and output while a network works through observations.

    The network is in evaluation mode meanwhile, and no gradients are kept.

    Parameters
    ----------
    network
        Every module that `forward` runs.
    head
        The linear layer to watch, a part of `network`.
    forward
        Runs the network, on whatever device it is, on one batch (m, …) of the observations, in
        which the head runs once.
    observations
        (n, …), n ≥ 1.
    batch_size
        Observations to run at once.

    Raises
    ------
    TypeError
        If the head is not a linear layer.
    ValueError
        If there are no observations.
    """
    if not isinstance(head, nn.Linear | SingleHead):
        raise TypeError(f"the action head must be a linear layer, got a {type(head).__name__}")
    if len(observations) == 0:
        raise ValueError(f"observations must hold at least one, got shape {observations.shape}")
    features: list[NDArray[Any]] = []
    logits: list[NDArray[Any]] = []

    def keep(_head: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        features.append(_to_numpy(inputs[0]))
        logits.append(_to_numpy(output))

    handle = head.register_forward_hook(keep)
    try:
        with evaluating(network):
            for start in range(0, len(observations), batch_size):
                forward(observations[start : start + batch_size])
    finally:
        handle.remove()
    return FeatureBatch(
        features=np.concatenate(features),
        logits=np.concatenate(logits),
        head=_to_numpy(head.weight),
        bias=None if head.bias is None else _to_numpy(head.bias),
    )


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every module in the mode it was in."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Copy, so that later training does not change it."""
    return tensor.detach().cpu().numpy().copy()
