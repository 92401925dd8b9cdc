"""Scalars of a training run in TensorBoard's format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.config import HeadConfig, TrainConfig


class TensorBoard:
    """One log a member, named by its head and seed.

    Parameters
    ----------
    folder
        The logs are folders in it.
    config
        Whose members they are.

    Raises
    ------
    ImportError
        The package tensorboard is missing.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoard logs need the package tensorboard: "
                "pip install 'action-collapse[tensorboard]', or leave out --tensorboard"
            ) from error
        self._writers = [
            SummaryWriter(str(folder / f"{_label(head)}-{seed}")) for head, seed in config.members
        ]

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Log one epoch: a row for each member, in their order."""
        for writer, row in zip(self._writers, rows, strict=True):
            for name, value in row.items():
                if isinstance(value, int | float) and name not in ("seed", "epoch", "steps"):
                    group = name.split("_")[0]
                    writer.add_scalar(f"{group}/{name}", value, row["steps"])
            writer.flush()

    def close(self) -> None:
        """Flush and close every log."""
        for writer in self._writers:
            writer.close()


def _label(head: HeadConfig) -> str:
    """Tells apart all heads that a run can have."""
    bias = "-bias" if head.bias else ""
    return head.kind + bias + (f"-{head.energy:g}" if head.energy != 1.0 else "")
