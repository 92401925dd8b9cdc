"""What the commands share: output, progress, exit codes and errors."""

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit codes: something was found to be wrong; the command could not do its work; Ctrl-C."""

# Progress and messages go to stderr, so that stdout can be piped (`verify --json`).
console = Console(stderr=True)
# Wide when piped, so that tables stay readable in a log.
stdout = Console(width=None if sys.stdout.isatty() else 160)


# What a command says of its results so far when it is stopped.
CONTINUES = "the same command continues from the last checkpoint"
KEEPS_PARTS = "finished parts are kept: the same command computes the rest"
BEGINS_ANEW = "nothing was kept: the same command begins anew"


def say(where: Console, text: str, style: str | None = None) -> None:
    """Print a line as it is: no markup, no emoji codes, and paths are not broken."""
    where.print(Text(text, style or ""), soft_wrap=True)


class UsageError(ValueError):
    """An option's value makes no sense; the message says what would."""


def at_least_one(name: str, value: int) -> None:
    """Refuse counts below 1."""
    if value < 1:
        raise UsageError(f"--{name} must be >= 1, got {value}")


def enough_seeds(seeds: int) -> None:
    """Refuse fewer seeds than a confidence band needs."""
    if seeds < 2:
        raise UsageError(f"--seeds must be >= 2 for a confidence band, got {seeds}")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")


def progress_bars() -> Progress:
    """Progress with rate and time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
