"""`figure1`: the Ideal Cliff Walking trained, measured, drawn and held against expectations.

The figure's other environments are drawn from stored runs (`analysis.commands.agents`).
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.table import Table

from analysis import figures, report
from analysis.cliff import Arm, arms, evaluate_bars, run_arm
from analysis.commands.agents import draw_figure1
from analysis.commands.console import (
    BEGINS_ANEW,
    CONTINUES,
    FAILED,
    at_least_one,
    enough_seeds,
    progress_bars,
    say,
    stdout,
)
from analysis.exhibits import FigureWords, TableWords, store_figure, store_table
from analysis.parallel import run_parts
from analysis.runs import SELECTION_SEEDS
from analysis.statistics import few_runs_words
from analysis.storage import RunFolder


@dataclass(frozen=True)
class Figure1:
    """Regenerate Figure 1; exit code 1 when a median misses its expectation."""

    env: Literal["cliff", "carracing", "breakout", "pong"] = "cliff"
    """Which environment's column of the figure: cliff is trained and has expectations, the others
    are drawn from stored training runs."""
    epochs: tuple[int, ...] = (500,)
    """cliff: training lengths, a figure each (the paper has 100 and 500)."""
    seeds: int = 20
    """cliff: number of seeds, 0, 1, …"""
    workers: int = os.cpu_count() or 1
    """cliff: processes that train side by side; the rows do not depend on it."""
    results: tuple[Path, ...] = (Path("results"),)
    """Directories that are searched at any depth. cliff: rows of the same configuration that are
    found there are not trained again. Others: of training runs."""
    selection_seeds: tuple[int, ...] = SELECTION_SEEDS
    """Others: seeds that choose among learning rates and are not shown."""
    out: Path = Path("runs")
    """Directory of run folders; the same command continues or reuses what is there."""

    @property
    def when_stopped(self) -> str:
        """What becomes of the results so far."""
        return CONTINUES if self.env == "cliff" else BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        if self.env != "cliff":
            return draw_figure1(self.env, self.results, self.selection_seeds, self.out)
        at_least_one("epochs", min(self.epochs, default=0))
        enough_seeds(self.seeds)
        at_least_one("workers", self.workers)
        met = True
        for epochs in self.epochs:
            figure = run_cliff_figure(self.out, epochs, self.seeds, self.workers, self.results)
            if len(figure.bars):
                stdout.print(bars_table(figure))
            met &= figure.expectations_met
            for path in figure.paths:
                say(stdout, f"figure: {path}")
        return 0 if met else FAILED


@dataclass(frozen=True)
class CliffFigure:
    """Figure 1 of the Ideal Cliff Walking for one training length, with what it is drawn from."""

    epochs: int
    bars: pd.DataFrame
    folder: Path
    paths: tuple[Path, ...]

    @property
    def expectations_met(self) -> bool:
        """Whether every bar of this training length is met (true where there is none)."""
        return bool(self.bars["met"].all())


def run_cliff_figure(
    out: Path, epochs: int, seeds: int, workers: int, results: Sequence[Path] = ()
) -> CliffFigure:
    """Train what is missing, draw Figure 1 from the rows, and store it as PNG and PDF.

    Parameters
    ----------
    results
        Where rows of the same configuration are taken from.
    """
    chosen = arms(epochs)
    members = tuple(range(seeds))
    config = {
        "experiment": "figure1-cliff",
        "seeds": list(members),
        "arms": {arm.name: asdict(arm.config) for arm in chosen},
    }
    folder = RunFolder(out, f"figure1-cliff-{epochs}", config)
    with folder.session():
        for place in results:
            folder.take_over(place)
        with progress_bars() as progress:
            tasks = {
                arm.name: progress.add_task(f"{arm.name}, {epochs} epochs", total=epochs)
                for arm in chosen
            }
            run_parts(
                {arm.name: partial(run_arm, arm, members, folder) for arm in chosen},
                workers,
                lambda name, gained: progress.advance(tasks[name], gained),
            )
        rows = pd.concat([folder.read_rows(arm.name) for arm in chosen], ignore_index=True)
        caption = _cliff_caption(epochs, seeds)
        figure = figures.figure1(
            rows,
            learned=[figures.Curve(arm.name, arm.label) for arm in chosen if _learned(arm)],
            etf=[figures.Curve(arm.name, arm.label) for arm in chosen if not _learned(arm)],
            caption=caption,
            optimal_return=_optimal_return(chosen[0]),
        )
        name = f"figure1-cliff-{epochs}"
        configs = {arm.name: arm.config for arm in chosen}
        medians = report.summary(rows, _labels(chosen), configs)
        bars = evaluate_bars(rows, epochs)
        words = FigureWords(
            title=f"Figure 1, Ideal Cliff Walking, {epochs} epochs",
            caption=caption,
            alternative=_alternative(medians[medians["epoch"] == epochs]),
        )
        pictures = {kind: figures.encode(figure, kind) for kind in ("png", "pdf")}
        paths = store_figure(folder, name, pictures, words)
        for part, table, about in (
            ("medians", medians, report.MEDIANS),
            ("expectations", report.expectations(bars), report.EXPECTATIONS),
        ):
            if len(table):
                titled = TableWords(
                    f"{about.title}, {epochs} epochs", f"{about.caption}{few_runs_words(seeds)}"
                )
                store_table(folder, f"{name}-{part}", table, titled)
    return CliffFigure(epochs, bars, folder.path, paths)


def _learned(arm: Arm) -> bool:
    return arm.config.head == "linear"


def _optimal_return(arm: Arm) -> float:
    mdp = arm.config.mdp()
    return float(mdp.optimal_value()[mdp.decision_states].mean())


def _labels(chosen: Sequence[Arm]) -> dict[str, str]:
    heads = {"linear": "learned", "etf": "ETF"}
    return {arm.name: f"{heads[arm.config.head]}: {arm.label}" for arm in chosen}


def _alternative(last: pd.DataFrame) -> str:
    """The figure in words: medians at the last epoch."""
    arms_in_words = "; ".join(
        f"{row['arm']}: equinorm W {row['equinorm W']:.2g}, angle W {row['angle W']:.2g}, "
        f"angle H {row['angle H']:.2g}, NC1 {row['NC1']:.2g}"
        for _, row in last.iterrows()
    )
    return f"Grid diagram and five panels of curves over epochs. Final medians: {arms_in_words}."


def _cliff_caption(epochs: int, seeds: int) -> str:
    return (
        f"Ideal Cliff Walking (2×4 cells, 4 exits, reward −1 a step, γ = 0.95), {epochs} epochs, "
        f"{seeds} seeds, float64. MLP [64, 64] on one-hot states, Adam 1e-3. REINFORCE: sweep of 8 "
        "Monte-Carlo returns from each of the 8 cells (64 samples a collect, two passes), 32 "
        "updates an epoch. Paper's settings: running normalisation of the returns, rectified "
        "feature, no norm control, ETF with E_W = 1. Norm control: leave-one-out baseline, cosine "
        "learning rate, and either coupled L2 5e-4 (learned head, rectified feature) or linear "
        "features on the ball ‖h‖² ≤ 25 (ETF head). Eq. (2): exact objective, Ψ = 1, 125 updates "
        "an epoch, same norm control. Class-mean centre; population std; epoch 0 is the "
        "initialisation. Bands: 95 % bootstrap of the median. Both rows share their axes; (f) is "
        f"cut off at 1e-8.{few_runs_words(seeds)}"
    )


def bars_table(figure: CliffFigure) -> Table:
    """The expectations of one training length for the terminal."""
    table = Table(title=f"Expectations, {figure.epochs} epochs (medians over seeds)")
    for column in ("arm", "quantity", "found", "expected", "met"):
        table.add_column(column)
    for bar in figure.bars.itertuples():
        met = "[green]yes[/]" if bar.met else "[bold red]no[/]"
        table.add_row(bar.arm, bar.column, f"{bar.value:.3g}", f"{bar.sense} {bar.limit:g}", met)
    return table
