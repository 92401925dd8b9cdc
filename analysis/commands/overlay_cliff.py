"""`overlay-cliff`: the peeled model held against many seeds of the Ideal Cliff Walking."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from analysis.cliff import Arm
from analysis.commands.console import (
    KEEPS_PARTS,
    at_least_one,
    enough_seeds,
    progress_bars,
    say,
    stdout,
)
from analysis.commands.overlay import SOURCES
from analysis.exhibits import FigureWords, TableWords, store_figure, store_table
from analysis.figures.overlay import figure_across
from analysis.figures.style import encode
from analysis.overlay import Across
from analysis.overlay_cliff import model_of, overlay_arms, pool_rows, pooled_table, run_arm
from analysis.parallel import run_parts
from analysis.storage import RunFolder, source_digest
from analysis.table_writers import to_text
from gridworld.cliff import ACTION_NAMES


@dataclass(frozen=True)
class OverlayCliff:
    """Lay the peeled model's optimum over many seeds of the Ideal Cliff Walking, and pool them."""

    epochs: int = 500
    """Training length."""
    seeds: int = 20
    """Number of seeds, 0, 1, …"""
    workers: int = os.cpu_count() or 1
    """Processes that train side by side; the rows do not depend on it."""
    results: Path = Path("results")
    """Rows of the same configuration and code that are found here are not made again."""
    out: Path = Path("runs")
    """Directory of run folders; the same command reuses what is there."""

    when_stopped: ClassVar[str] = KEEPS_PARTS

    def run(self) -> int:
        """Run the command and return its exit code."""
        at_least_one("epochs", self.epochs)
        enough_seeds(self.seeds)
        at_least_one("workers", self.workers)
        chosen, seeds = overlay_arms(self.epochs), tuple(range(self.seeds))
        folder = RunFolder(
            self.out,
            "overlay-cliff",
            {
                "experiment": "overlay-cliff",
                "seeds": list(seeds),
                "arms": {arm.name: asdict(arm.config) for arm in chosen},
                "code": source_digest(*SOURCES, "analysis/overlay_cliff.py"),
            },
        )
        with folder.session():
            folder.take_over(self.results)
            with progress_bars() as progress:
                tasks = {arm.name: progress.add_task(arm.name, total=self.epochs) for arm in chosen}
                run_parts(
                    {arm.name: partial(run_arm, arm, seeds, folder) for arm in chosen},
                    self.workers,
                    lambda name, gained: progress.advance(tasks[name], gained),
                )
            pooled = {
                arm.name: pool_rows(folder.read_rows(arm.name), np.random.default_rng(0))
                for arm in chosen
            }
            table = self._store(folder, chosen, pooled)
        stdout.print(to_text(table), markup=False, highlight=False)
        say(stdout, f"rows: {folder.path}")
        return 0

    def _store(
        self, folder: RunFolder, chosen: tuple[Arm, ...], pooled: Mapping[str, Across]
    ) -> pd.DataFrame:
        """A figure an arm, and the table of all; returns the table."""
        table = pooled_table(pooled)
        for arm in chosen:
            found, caption = pooled[arm.name], self._caption(arm, pooled[arm.name])
            figure = figure_across(found, _title(arm, found), caption, ACTION_NAMES)
            store_figure(
                folder,
                f"{_NAME}-{self.epochs}-{arm.name}",
                {kind: encode(figure, kind) for kind in ("png", "pdf")},
                FigureWords(
                    f"Peeled model over {self.seeds} seeds, Ideal Cliff Walking, {_label(arm)}, "
                    f"{self.epochs} epochs",
                    caption,
                    _alternative(table[table["arm"] == arm.name]),
                ),
            )
        store_table(folder, f"{_NAME}-{self.epochs}", table, self._about())
        return table

    def _caption(self, arm: Arm, found: Across) -> str:
        head, _ = model_of(arm)
        fixed = "" if head == "learned" else " A fixed head is its own prediction."
        return (
            f"Ideal Cliff Walking, {_label(arm)}, {self.epochs} epochs, {found.runs} seeds from 0 "
            "on, as in Figure 1: features of all 8 cells, labelled by the optimal action. "
            f"Layer-peeled model for each seed's class shares and energies, {head} head; maps are "
            f"means over seeds. Band: {100 * found.level:g} %, simultaneous over all entries of "
            "the four differences, the seeds resampled; entries where it excludes 0 by more than "
            f"rounding (1e-9) are framed.{fixed}"
        )

    def _about(self) -> TableWords:
        return TableWords(
            f"Peeled model over {self.seeds} seeds, Ideal Cliff Walking, {self.epochs} epochs",
            "Entries of the Gram matrices, observed less predicted, means over seeds. Difference: "
            "the largest. Half width: the largest of the 95 % band, which is simultaneous over the "
            "entries of all four matrices of an arm. Beyond: how far the band ends from 0 in the "
            "worst entry. Outside: entries whose band excludes 0 by more than rounding (1e-9). The "
            "Gram matrix of a fixed head is its own prediction.",
        )


_NAME = "pooled-overlay-cliff"


def _label(arm: Arm) -> str:
    return f"{'learned' if arm.config.head == 'linear' else 'ETF'} head, {arm.label}"


def _title(arm: Arm, found: Across) -> str:
    head, cone = model_of(arm)
    features = "h ≥ 0" if cone == "nonnegative" else "features of either sign"
    return (
        f"{_label(arm)}, mean of {found.runs} seeds, and the peeled model's optimum ({head} head, "
        f"{features})"
    )


def _alternative(own: pd.DataFrame) -> str:
    """The figure in words: the rows of its arm."""
    grams = "; ".join(
        f"{row['gram']}: {row['difference']:.2g}, band of ± {row['half_width']:.2g}, "
        f"{'matches' if row['covered'] else 'does not match'}"
        for row in own.to_dict("records")
    )
    return (
        "Heat maps of predicted and observed Gram matrices and their difference. Largest mean "
        f"difference over seeds and largest half-width of its band, {grams}."
    )
