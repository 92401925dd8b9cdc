"""What every engine shares: which cells wait, what became of the others, and what is reported."""

import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import threadpoolctl
import torch

from analysis.sweep import Cell
from analysis.training import run_folder

_INTERVAL = 0.5
"""Seconds between two reports of progress from one cell."""


@dataclass(frozen=True)
class Event:
    """A change in a sweep."""

    kind: Literal["skipped", "started", "advanced", "done", "failed"]
    cell: str
    """Its name."""
    steps: int = 0
    """Of ``advanced``: agent steps of each member since the last report. What a cell finds in its
    checkpoint comes as its first report after ``started``."""
    error: str = ""
    """Of ``failed``: the traceback."""
    again: bool = False
    """Of ``failed``: whether the cell will be tried again."""


class Ledger:
    """Waiting cells and failures of one sweep.

    Parameters
    ----------
    cells
        All cells; those whose rows exist are reported as skipped.
    out
        Folder of run folders.
    retries
        How often a cell is tried again.
    on_event
        Told about every change.
    """

    def __init__(
        self, cells: Sequence[Cell], out: Path, retries: int, on_event: Callable[[Event], None]
    ) -> None:
        self.waiting: deque[Cell] = deque()
        self.failures: dict[str, str] = {}
        self._out, self._retries, self._on_event = out, retries, on_event
        self._attempts: Counter[str] = Counter()
        for cell in cells:
            if self._has_rows(cell):
                on_event(Event("skipped", cell.name))
            else:
                self.waiting.append(cell)

    def started(self, cell: Cell) -> None:
        """A cell begins, or begins again."""
        self._on_event(Event("started", cell.name))

    def advanced(self, cell: Cell, steps: int) -> None:
        """A cell has gained steps."""
        self._on_event(Event("advanced", cell.name, steps=steps))

    def done(self, cell: Cell) -> None:
        """A cell has ended well, if its rows can be seen from here."""
        if self._has_rows(cell):
            self._on_event(Event("done", cell.name))
        else:
            self.failed(
                cell,
                f"the worker has finished, but {self._out} shows no rows here: put --out on a file "
                "system that all nodes share",
            )

    def failed(self, cell: Cell, error: str) -> None:
        """A cell has failed; it waits again if it has attempts left."""
        self._attempts[cell.name] += 1
        again = self._attempts[cell.name] <= self._retries
        if again:
            self.waiting.append(cell)
        else:
            self.failures[cell.name] = error
        self._on_event(Event("failed", cell.name, error=error, again=again))

    def _has_rows(self, cell: Cell) -> bool:
        return run_folder(cell.config, self._out).has_rows("epochs")


class Throttle:
    """Passes gains on, the first at once and then not more often than every half second."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self._report, self._held, self._last = report, 0, float("-inf")

    def __call__(self, gained: int) -> None:
        """Take a gain."""
        self._held += gained
        if time.monotonic() - self._last >= _INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Report what is held back."""
        if self._held:
            self._report(self._held)
            self._held, self._last = 0, time.monotonic()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: cells are the parallelism, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def describe(error: BaseException) -> str:
    """Traceback of an error, as text that any process can read."""
    return "".join(traceback.format_exception(error)).rstrip()
