"""`reproduce`: the theory verified and Figure 1 regenerated, on one page."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from analysis.claims import Result
from analysis.commands.cliff import CliffFigure, bars_table, run_cliff_figure
from analysis.commands.console import CONTINUES, FAILED, at_least_one, enough_seeds, say, stdout
from analysis.commands.theory import run_verify, store_claims, verdict_table
from analysis.page import render_page
from analysis.report import collect
from analysis.storage import RunFolder, source_digest

_TITLE = "Action collapse: theory verified, Figure 1 regenerated"


@dataclass(frozen=True)
class Reproduce:
    """Verify the theory, regenerate Figure 1, show both on one page; 1 if either surprises."""

    seed: int = 0
    """Seeds the random instances of the checks."""
    instances: int = 50
    """Random instances a check."""
    seeds: int = 20
    """Number of training seeds."""
    epochs: tuple[int, ...] = (100, 500)
    """Training lengths, a figure each."""
    workers: int = os.cpu_count() or 1
    """Processes that train side by side; the rows do not depend on it."""
    out: Path = Path("runs")
    """Directory of run folders; the same command continues or reuses what is there."""

    when_stopped: ClassVar[str] = CONTINUES

    def run(self) -> int:
        """Run the command and return its exit code."""
        at_least_one("instances", self.instances)
        at_least_one("epochs", min(self.epochs, default=0))
        enough_seeds(self.seeds)
        at_least_one("workers", self.workers)
        results, drawn, page = run_reproduce(
            self.out, self.seed, self.instances, self.seeds, self.epochs, self.workers
        )
        stdout.print(verdict_table(results))
        for figure in drawn:
            if len(figure.bars):
                stdout.print(bars_table(figure))
        say(stdout, f"page: {page}")
        verified = all(result.as_expected for result in results)
        return 0 if verified and all(figure.expectations_met for figure in drawn) else FAILED


def run_reproduce(
    out: Path, seed: int, instances: int, seeds: int, lengths: Sequence[int], workers: int
) -> tuple[list[Result], list[CliffFigure], Path]:
    """Run `verify` and Figure 1 for every training length, and write one page that shows both."""
    config = {
        "experiment": "reproduce",
        "seed": seed,
        "instances": instances,
        "seeds": seeds,
        "lengths": list(lengths),
        "code": source_digest(),
    }
    folder = RunFolder(out, "reproduce", config)
    with folder.session():
        results = run_verify(seed, instances)
        store_claims(folder, results)
        drawn = [run_cliff_figure(out, epochs, seeds, workers) for epochs in lengths]
        shown = collect([folder.path, *(figure.folder for figure in drawn)], _TITLE)
        page = folder.write("index.html", render_page(shown))
    return results, drawn, page
