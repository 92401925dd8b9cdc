"""`ablations`: each of Conditions 1 to 3 broken alone, for learned and fixed heads."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from analysis.ablation_settings import ARMS, CONDITIONS, SAMPLED_CONDITIONS, cases
from analysis.ablations import AblationFigure, run_ablations
from analysis.cliff import budget
from analysis.commands.console import (
    FAILED,
    KEEPS_PARTS,
    at_least_one,
    enough_seeds,
    progress_bars,
    say,
    stdout,
)
from analysis.exhibits import FigureWords, TableWords, store_figure, store_table
from analysis.statistics import few_runs_words
from analysis.storage import RunFolder, read_json
from analysis.table_writers import to_text
from analysis.tables import ablation_table

_NAME = "ablations-cliff"
_DAMAGED = "move its run folder away, or make it again"


@dataclass(frozen=True)
class Ablations:
    """Break each condition alone on the grid; exit code 1 when a median misses its expectation."""

    seeds: int = 20
    """Number of seeds, 0, 1, …"""
    workers: int = os.cpu_count() or 1
    """Processes that train side by side; the rows do not depend on it."""
    results: Path = Path("results")
    """Rows of the same configuration that are found here are not trained again."""
    out: Path = Path("runs")
    """Directory of run folders; the same command continues or reuses what is there."""

    when_stopped: ClassVar[str] = KEEPS_PARTS

    def run(self) -> int:
        """Run the command and return its exit code."""
        enough_seeds(self.seeds)
        at_least_one("workers", self.workers)
        with progress_bars() as progress:
            epochs = sum(case.config.epochs for case in cases())
            task = progress.add_task("ablations, epochs", total=epochs)
            figure = run_ablations(
                self.out,
                self.seeds,
                self.workers,
                self.results,
                lambda name, gained: progress.advance(task, gained),
            )
        table = _store(figure)
        stdout.print(to_text(table), markup=False, highlight=False)
        missed = figure.bars[~figure.bars["met"]]
        stdout.print(f"expectations: {len(figure.bars) - len(missed)} of {len(figure.bars)} met")
        if len(missed):
            stdout.print(to_text(missed), markup=False, highlight=False)
        for path in figure.paths:
            say(stdout, f"figure: {path}")
        return 0 if figure.expectations_met else FAILED


def _store(figure: AblationFigure) -> pd.DataFrame:
    """Put words and tables beside the figure; returns the table of angles."""
    path = figure.paths[0].parent.parent
    folder = RunFolder(path.parent, _NAME, read_json(path / "config.json", _DAMAGED))
    table = ablation_table(
        figure.rows,
        [condition.name for condition in (*CONDITIONS, *SAMPLED_CONDITIONS)],
        [arm.name for arm in ARMS],
    ).merge(_budgets(), how="left", on=["condition", "arm"])
    seeds = table["n"].unique().tolist()
    with folder.session():
        pictures = {drawn.suffix[1:]: drawn.read_bytes() for drawn in figure.paths}
        title = "Conditions broken one at a time, Ideal Cliff Walking"
        store_figure(folder, _NAME, pictures, FigureWords(title, figure.caption, _words(table)))
        store_table(
            folder,
            f"{_NAME}-angles",
            table,
            TableWords(
                "Deviation from the maximal angle with one condition broken",
                "Medians over n seeds after the last epoch with 95 % bootstrap intervals; zero is "
                "a simplex ETF. Cells: measured at those that are sampled, or at all. Budget: "
                "epochs, updates, and episodes sampled for them (Eq. (2) is exact and needs none). "
                "REINFORCE (sampled-…) was run with three of the six arms. The paper prints no "
                f"number here.{few_runs_words(*seeds)}",
            ),
        )
        store_table(
            folder,
            f"{_NAME}-conditions",
            figure.conditions,
            TableWords(
                "Conditions 1 to 3 in numbers",
                "Of every setting, under the uniform-random and under the optimal policy.",
            ),
        )
        store_table(
            folder,
            f"{_NAME}-expectations",
            figure.bars,
            TableWords(
                "Expectations of the ablations",
                "Medians over seeds after the last epoch, held against bars that a prototype on "
                "other seeds set before the run.",
            ),
        )
    return table


def _budgets() -> pd.DataFrame:
    """Updates and episodes of every case."""
    return pd.DataFrame(
        {
            "condition": case.condition.name,
            "arm": case.arm.name,
            **budget(case.config, case.config.epochs),
        }
        for case in cases()
    )


def _words(table: pd.DataFrame) -> str:
    """The figure in words: the range over settings of each arm's medians."""
    visited = table[table["cells"] == "visited"]
    arms = []
    for arm in ARMS:
        own = visited[visited["arm"] == arm.name]
        ranges = [
            f"{name} {own[column].min():.2g} to {own[column].max():.2g}"
            for name, column in (("W", "head_max_angle"), ("H", "feature_max_angle"))
        ]
        arms.append(f"{arm.label}: {', '.join(ranges)}")
    return (
        "Six panels of dots, a group for each setting. Medians of the deviation from the maximal "
        f"angle, lowest to highest of the settings. {'; '.join(arms)}."
    )
