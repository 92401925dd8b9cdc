"""Scalars of a training run in TensorBoard's format."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agents.config import HeadConfig, TrainConfig
from analysis.storage import cannot_write


def require_tensorboard() -> None:
    """Raise an ImportError that names the remedy where the package tensorboard is missing."""
    try:
        import torch.utils.tensorboard.writer  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "TensorBoard logs need the package tensorboard: "
            "pip install 'action-collapse[tensorboard]', or leave out --tensorboard"
        ) from error


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
    RunFolderError
        Here and in every method: the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        require_tensorboard()
        from torch.utils.tensorboard.writer import SummaryWriter

        self._folder = folder
        with self._writing():
            # What an interrupted session logged may lack an epoch or have one that is trained
            # again: the run's rows are logged from their beginning.
            if folder.exists():
                shutil.rmtree(folder)
            self._writers = [
                SummaryWriter(str(folder / f"{_label(head)}-{seed}"))
                for head, seed in config.members
            ]

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Log epochs: for each a row of every member, in their order."""
        with self._writing():
            for i, row in enumerate(rows):
                writer = self._writers[i % len(self._writers)]
                for name, value in row.items():
                    if isinstance(value, int | float) and name not in ("seed", "epoch", "steps"):
                        group = name.split("_")[0]
                        writer.add_scalar(f"{group}/{name}", value, row["steps"])
            for writer in self._writers:
                writer.flush()

    def close(self) -> None:
        """Flush and close every log."""
        with self._writing():
            for writer in self._writers:
                writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._folder, error) from error


def _label(head: HeadConfig) -> str:
    """Tells apart all heads that a run can have."""
    bias = "-bias" if head.bias else ""
    return head.kind + bias + (f"-{head.energy:g}" if head.energy != 1.0 else "")
