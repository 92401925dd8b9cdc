"""To be written."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class A2C:
    """Hyper-parameters."""

    name: ClassVar[str] = "a2c"

    learning_rate: float = 1e-3
    epsilon: float = 0.0
