"""`collapse-view` and `report`: the interactive view's data, and one page of all results."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from analysis.commands.console import (
    BEGINS_ANEW,
    KEEPS_PARTS,
    UsageError,
    at_least_one,
    progress_bars,
    say,
    stdout,
)
from analysis.parallel import run_parts
from analysis.report import build_report
from analysis.trajectory import cliff_arms, cliff_folder, run_trajectory


@dataclass(frozen=True)
class CollapseView:
    """Train what the report shows in three dimensions: the Ideal Cliff Walking, three policies."""

    epochs: int = 500
    """Training length."""
    seed: int = 0
    """The one seed that is shown."""
    workers: int = os.cpu_count() or 1
    """Processes that train side by side; the rows do not depend on it."""
    results: Path = Path("results")
    """Rows of the same configuration that are found here are not trained again."""
    out: Path = Path("runs")
    """Directory of run folders; the same command reuses what is there."""

    when_stopped: ClassVar[str] = KEEPS_PARTS

    def run(self) -> int:
        """Run the command and return its exit code."""
        at_least_one("epochs", self.epochs)
        at_least_one("workers", self.workers)
        if self.seed < 0:
            raise UsageError(f"--seed must be >= 0, got {self.seed}")
        folder, chosen = cliff_folder(self.out, self.epochs, self.seed), cliff_arms(self.epochs)
        with folder.session(), progress_bars() as progress:
            folder.take_over(self.results)
            tasks = {arm.name: progress.add_task(arm.name, total=self.epochs) for arm in chosen}
            run_parts(
                {arm.name: partial(run_trajectory, arm, self.seed, folder) for arm in chosen},
                self.workers,
                lambda name, gained: progress.advance(tasks[name], gained),
            )
        say(stdout, f"rows: {folder.path}")
        return 0


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page of claims, figures, tables and a view in 3-D."""

    results: Path = Path("results")
    """Directory of run folders, as other commands' --out."""
    out: Path = Path("report.html")
    """The page; replaced if it exists."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        say(stdout, f"page: {build_report(self.results, self.out)}")
        return 0
