"""To be written."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class TRPO:
    """Hyper-parameters."""

    name: ClassVar[str] = "trpo"

    learning_rate: float = 1e-3
    epsilon: float = 0.0
