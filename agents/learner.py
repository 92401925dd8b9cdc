"""What every algorithm has in common: one iteration of collecting and learning."""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from agents.collect import Collector


@dataclass(frozen=True)
class Iteration:
    """What one iteration did."""

    steps: int
    """Agent steps of each member."""
    metrics: dict[str, Tensor]
    """Named measurements (P,), still on the device: reading them is the caller's sync."""


class Learner(Protocol):
    """An algorithm at work on one policy."""

    def iterate(self, collector: Collector, progress: float) -> Iteration:
        """Collect experience and learn from it, ``progress`` (0…1) through the run."""

    def state_dict(self) -> dict[str, Any]:
        """What the learner carries from one iteration to the next: tensors, numbers, strings."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""

    def close(self) -> None:
        """Release processes and shared memory, if any."""
