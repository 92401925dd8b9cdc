"""`overlay-cliff`: predictions held against many seeds of the Ideal Cliff Walking."""

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
from analysis.overlay_cliff import (
    ACCURACY,
    Objective,
    model_of,
    objectives_of,
    overlay_arms,
    pool_rows,
    pooled_table,
    run_arm,
)
from analysis.overlay_measure import Head
from analysis.parallel import run_parts
from analysis.storage import RunFolder, source_digest
from analysis.table_writers import to_text
from gridworld.cliff import ACTION_NAMES


@dataclass(frozen=True)
class OverlayCliff:
    """Lay the predictions of Eq. (1) and (2) over many seeds of the Ideal Cliff Walking."""

    epochs: int = 500
    """Training length; arms named long have four times as many."""
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
                "code": source_digest(
                    *SOURCES, "analysis/overlay_cliff.py", "analysis/return_optimum.py"
                ),
            },
        )
        with folder.session():
            folder.take_over(self.results)
            with progress_bars() as progress:
                tasks = {
                    arm.name: progress.add_task(arm.name, total=arm.config.epochs) for arm in chosen
                }
                run_parts(
                    {arm.name: partial(run_arm, arm, seeds, folder) for arm in chosen},
                    self.workers,
                    lambda name, gained: progress.advance(tasks[name], gained),
                )
            pooled = {}
            for arm in chosen:
                by_objective = dict(iter(folder.read_rows(arm.name).groupby("objective")))
                for objective in objectives_of(arm):
                    own = by_objective[objective]
                    pooled[arm.name, objective] = pool_rows(own, np.random.default_rng(0))
            table = self._store(folder, chosen, pooled)
        stdout.print(to_text(table), markup=False, highlight=False)
        say(stdout, f"rows: {folder.path}")
        return 0

    def _store(
        self,
        folder: RunFolder,
        chosen: tuple[Arm, ...],
        pooled: Mapping[tuple[str, Objective], Across],
    ) -> pd.DataFrame:
        """A figure an arm, of its own objective, and the table of all; returns the table."""
        table = pooled_table(pooled)
        for arm in chosen:
            objective = objectives_of(arm)[0]
            found = pooled[arm.name, objective]
            caption = self._caption(arm, found)
            figure = figure_across(found, _title(arm, found), caption, ACTION_NAMES, ACCURACY)
            store_figure(
                folder,
                f"{_NAME}-{self.epochs}-{arm.name}",
                {kind: encode(figure, kind) for kind in ("png", "pdf")},
                FigureWords(
                    f"Prediction over {self.seeds} seeds, Ideal Cliff Walking, "
                    f"{_label(arm)}, {arm.config.epochs} epochs",
                    caption,
                    _alternative(
                        table[(table["arm"] == arm.name) & (table["objective"] == objective)]
                    ),
                ),
            )
        store_table(folder, f"{_NAME}-{self.epochs}", table, self._about())
        return table

    def _caption(self, arm: Arm, found: Across) -> str:
        head, _ = model_of(arm)
        fixed = "" if head == "learned" else " A fixed head is its own prediction."
        model = _MODELS[objectives_of(arm)[0], head]
        return (
            f"Ideal Cliff Walking, {_label(arm)}, {arm.config.epochs} epochs, {found.runs} seeds "
            "from 0 on: features of all 8 cells, labelled by the optimal action. Predicted: "
            f"{model}; maps are means over seeds. Band: {100 * found.level:g} %, simultaneous over "
            "all entries of the four differences, the seeds resampled; entries where it excludes "
            f"0 by more than {ACCURACY:.0e}, the accuracy of training, are framed.{fixed}"
        )

    def _about(self) -> TableWords:
        return TableWords(
            f"Predictions over {self.seeds} seeds, Ideal Cliff Walking, {self.epochs} epochs",
            "Entries of the Gram matrices, observed less predicted, means over seeds. Objective: "
            "which one predicts, eq-2 the layer-peeled model, eq-1 the return; REINFORCE "
            "samples the gradient of Eq. (1). Arms: eq1 and eq2, trained by exact gradients; "
            "controlled, REINFORCE as in Figure 1; large, with 64 episodes a cell instead of 8; "
            "long, four times the epochs. Difference: the largest. Half width: the largest of the "
            "95 % band, which is simultaneous over the entries of all four matrices of an arm. "
            "Beyond: how far the band ends from 0 in the worst entry. Outside: entries whose band "
            f"excludes 0 by more than {ACCURACY:.0e}, the accuracy of training. The Gram matrix of "
            "a fixed head is its own prediction.",
        )


_NAME = "pooled-overlay-cliff"
_MODELS: Mapping[tuple[Objective, Head], str] = {
    ("eq-2", "fixed"): "the layer-peeled model's optimum, fixed head, for each seed's energies",
    ("eq-2", "learned"): "the layer-peeled model's optimum, learned head, for each seed's energies",
    ("eq-1", "fixed"): "the return's optimum in the ball, fixed head, globally to within 1e-9",
    (
        "eq-1",
        "learned",
    ): "where the exact gradient of Eq. (1), all cells sampled alike, rests under "
    "average bounds of each seed's energies, learned head, the best of six searches",
}


def _label(arm: Arm) -> str:
    return f"{'learned' if arm.config.head == 'linear' else 'ETF'} head, {arm.label}"


def _title(arm: Arm, found: Across) -> str:
    head, cone = model_of(arm)
    features = "h ≥ 0" if cone == "nonnegative" else "features of either sign"
    objective = {"eq-1": "Eq. (1)", "eq-2": "Eq. (2)"}[objectives_of(arm)[0]]
    return (
        f"{_label(arm)}, mean of {found.runs} seeds, and the prediction of {objective} "
        f"({head} head, {features})"
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
