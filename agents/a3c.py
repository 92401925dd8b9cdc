"""To be written."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class A3C:
    """Hyper-parameters."""

    name: ClassVar[str] = "a3c"

    learning_rate: float = 1e-3
    epsilon: float = 0.0
