"""`figure1 --env ENV`, `figure3`, `figure4`, `table1`, `table2`: from stored training runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from agents.config import OBSERVATIONS
from analysis import aggregate
from analysis.agent_words import (
    describe_runs,
    geometry_words,
    last_values,
    unequal_words,
)
from analysis.commands.console import BEGINS_ANEW, UsageError, say, stdout
from analysis.exhibits import FigureWords, TableWords, store_figure, store_table
from analysis.figures.agents import (
    FIGURE1_PANELS,
    FIGURE3_ENVS,
    FIGURE4_ENVS,
    FIGURE4_PANELS,
    figure1_agents,
    figure3,
    figure4,
    pictures,
)
from analysis.figures.panels import Panel
from analysis.runs import RUN, SELECTION_SEEDS, read_training_rows, reported_rows, rows_digest
from analysis.statistics import TOO_NARROW
from analysis.storage import RunFolder, as_json
from analysis.table_writers import to_html, to_markdown, to_text
from analysis.tables import improvement_table, table1, table2

ENVIRONMENTS: Mapping[str, str] = {
    "carracing": "CarRacing-v3",
    "breakout": "Breakout",
    "pong": "Pong",
}
"""Environments of Figure 1 beside the grid, by the name on the command line."""
_GEOMETRY_HEADS = ("linear", "etf")
_IQM_WORDS = "Up to 3 seeds the iqm is the mean."


@dataclass(frozen=True)
class Figure3:
    """Draw Figure 3, the return under every head, from stored training runs."""

    env: tuple[str, ...] = FIGURE3_ENVS
    """Environments to show (the paper's are the default)."""
    results: tuple[Path, ...] = (Path("results"),)
    """Directories of training runs, searched at any depth."""
    selection_seeds: tuple[int, ...] = SELECTION_SEEDS
    """Seeds that choose among learning rates and are not shown."""
    out: Path = Path("runs")
    """Directory of run folders."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        _known(self.env)
        rows = _reported(self.results, self.selection_seeds, self.env)
        caption = (
            f"{describe_runs(rows)} Mean over seeds with its 95 % bootstrap band, from two seeds "
            "on; thin lines: lowest and highest of any seed (the paper: max/min). Returns of full "
            f"games as the environment gives them.{unequal_words(rows)}"
        )
        returns = last_values(rows, {"eval_return": "return"}, "mean")
        _store_figure(
            self.out,
            _figure_name("figure3", self.env, FIGURE3_ENVS),
            rows,
            pictures(figure3(rows, caption, self.env)),
            FigureWords(
                f"Figure 3, {', '.join(self.env)}",
                caption,
                f"Curves of return over agent steps. {returns}",
            ),
            {"environments": self.env},
        )
        return 0


@dataclass(frozen=True)
class Figure4:
    """Draw Figure 4, angles of class means and head in Atari, from stored training runs."""

    env: tuple[str, ...] = FIGURE4_ENVS
    """Environments to show (the paper's are the default)."""
    results: tuple[Path, ...] = (Path("results"),)
    """Directories of training runs, searched at any depth."""
    selection_seeds: tuple[int, ...] = SELECTION_SEEDS
    """Seeds that choose among learning rates and are not shown."""
    out: Path = Path("runs")
    """Directory of run folders."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        _known(self.env)
        rows = _with_geometry(_reported(self.results, self.selection_seeds, self.env))
        words = _geometry_words(f"Figure 4, {', '.join(self.env)}", rows, FIGURE4_PANELS)
        _store_figure(
            self.out,
            _figure_name("figure4", self.env, FIGURE4_ENVS),
            rows,
            pictures(figure4(rows, words.caption, self.env)),
            words,
            {"environments": self.env},
        )
        return 0


@dataclass(frozen=True)
class Table1:
    """Make Table 1, return by algorithm, environment, network and head, from stored runs."""

    results: tuple[Path, ...] = (Path("results"),)
    """Directories of training runs, searched at any depth."""
    selection_seeds: tuple[int, ...] = SELECTION_SEEDS
    """Seeds that choose among learning rates and are not reported."""
    out: Path = Path("runs")
    """Directory of run folders."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        rows = read_training_rows(self.results)
        caption = (
            "Best: mean over runs of a run's highest evaluation return. Final: after the last "
            "epoch; std: over seeds, n − 1. Stop: first epoch at the target (column target), "
            "else the last epoch; reached: share of runs that got there. Iqm: "
            "interquartile mean of the final returns; improvement: probability of ending above the "
            "learned head; difference: paired by seed; brackets: 95 % bootstrap over seeds. "
            f"{TOO_NARROW} {_IQM_WORDS} Stop counts epochs, which differ in length (steps / "
            f"epochs). {_rate_words(rows, self.selection_seeds)} Columns paper …: as it prints "
            "them, with 100 epochs (500 for Atari with an MLP, which there reads features of a CNN "
            "and here the console's memory) and 20 seeds; a dash where its Table 1 has no such "
            "line, or a dash itself."
        )
        _store_tables(
            self.out,
            "table1",
            rows,
            self.selection_seeds,
            {
                "table1": (table1, TableWords("Table 1", caption)),
                "table1-improvement": (
                    improvement_table,
                    TableWords(
                        "Probability of improvement",
                        "That a run with this head ends above a run with the learned head on the "
                        "same feature, ties counted half, averaged over environments; brackets: "
                        f"95 % bootstrap within environments. {TOO_NARROW} "
                        f"{_rate_words(rows, self.selection_seeds)} Budgets are Table 1's; the "
                        "paper prints no such probability.",
                    ),
                ),
            },
        )
        return 0


@dataclass(frozen=True)
class Table2:
    """Make Table 2, best return against ε of ε-greedy exploration, from stored runs."""

    results: tuple[Path, ...] = (Path("results"),)
    """Directories of training runs, searched at any depth."""
    selection_seeds: tuple[int, ...] = SELECTION_SEEDS
    """Seeds that choose among learning rates and are not reported."""
    out: Path = Path("runs")
    """Directory of run folders."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        rows = read_training_rows(self.results)
        keys = list(aggregate.SETTING)
        explored = rows.loc[rows["epsilon"] > 0, keys].drop_duplicates()
        if explored.empty:
            raise UsageError(
                "no run with ε-greedy exploration in "
                f"{', '.join(map(str, self.results))}: make some with action-collapse train "
                "--set epsilon=0.01, or name their directory with --results"
            )
        caption = (
            "Best: mean over runs of a run's highest evaluation return; std: over seeds, n − 1. "
            "Iqm, improvement and difference: of the best returns, as in Table 1; brackets: 95 % "
            f"bootstrap over seeds. {TOO_NARROW} {_IQM_WORDS} "
            f"{_rate_words(rows, self.selection_seeds)} Paper best: as it prints it for PPO with a "
            "CNN on Pong, 100 epochs; a dash where it prints none."
        )
        _store_tables(
            self.out,
            "table2",
            rows.merge(explored, on=keys),
            self.selection_seeds,
            {"table2": (table2, TableWords("Table 2", caption))},
        )
        return 0


def draw_figure1(
    name: str, results: Sequence[Path], selection_seeds: Sequence[int], out: Path
) -> int:
    """Figure 1 of one of :data:`ENVIRONMENTS`; returns the exit code."""
    env = ENVIRONMENTS[name]
    rows = _with_geometry(_reported(results, selection_seeds, [env]))
    words = _geometry_words(f"Figure 1, {env}", rows, FIGURE1_PANELS)
    words = replace(
        words,
        caption=f"(a): the game in colour and full size. {words.caption}",
        alternative=f"A frame of the game. {words.alternative}",
    )
    drawn = pictures(figure1_agents(rows, env, words.caption))
    _store_figure(out, f"figure1-{name}", rows, drawn, words, {})
    return 0


def _known(envs: Sequence[str]) -> None:
    unknown = [env for env in envs if env not in OBSERVATIONS]
    if unknown or not envs:
        raise UsageError(
            f"--env takes one or more of {', '.join(sorted(OBSERVATIONS))}, got "
            f"{', '.join(unknown) or 'none'}"
        )


def _figure_name(name: str, envs: Sequence[str], paper: Sequence[str]) -> str:
    """A name of its own for a figure of other environments than the paper's."""
    return name if tuple(envs) == tuple(paper) else "-".join((name, *envs))


def _reported(
    results: Sequence[Path], selection_seeds: Sequence[int], envs: Sequence[str]
) -> pd.DataFrame:
    """Reported rows of the environments, which may have none: the figures say which."""
    rows = read_training_rows(results)
    own = rows[rows["env"].isin(envs)]
    if own.empty:
        return rows
    try:
        return reported_rows(own, selection_seeds)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _with_geometry(rows: pd.DataFrame) -> pd.DataFrame:
    own = rows[rows["head"].isin(_GEOMETRY_HEADS)]
    if own.empty:
        heads = ", ".join(sorted(rows["head"].unique()))
        raise UsageError(
            "this figure shows learned (linear) and ETF heads, and the runs have only the heads "
            f"{heads}: train some with --head linear etf, or name their directory with --results"
        )
    return own


def _geometry_words(title: str, rows: pd.DataFrame, panels: Sequence[Panel]) -> FigureWords:
    columns: dict[str, str] = {}
    for panel in panels:
        if panel.head is not None:
            columns[panel.head] = f"{panel.title}{'' if panel.features is None else ' W'}"
        if panel.features is not None:
            columns[panel.features] = f"{panel.title}{'' if panel.head is None else ' H'}"
    curves = "Curves over agent steps, learned head above, ETF head below."
    return FigureWords(
        title,
        f"{describe_runs(rows)} {geometry_words(rows, columns)}",
        f"{curves} {last_values(rows, columns)}",
    )


def _store_figure(
    out: Path,
    name: str,
    rows: pd.DataFrame,
    drawn: Mapping[str, bytes],
    words: FigureWords,
    options: Mapping[str, Any],
) -> None:
    config = {"experiment": name, "rows": rows_digest(rows), **options}
    folder = RunFolder(out, name, config)
    with folder.session():
        _store_sources(folder, rows)
        for path in store_figure(folder, name, drawn, words):
            say(stdout, f"figure: {path}")


_Maker = Callable[[pd.DataFrame, Sequence[int]], pd.DataFrame]


def _store_tables(
    out: Path,
    name: str,
    rows: pd.DataFrame,
    selection_seeds: Sequence[int],
    makers: Mapping[str, tuple[_Maker, TableWords]],
) -> None:
    try:
        tables = {part: make(rows, selection_seeds) for part, (make, _) in makers.items()}
    except ValueError as error:
        raise UsageError(str(error)) from error
    config = {
        "experiment": name,
        "rows": rows_digest(rows),
        "selection_seeds": sorted(selection_seeds),
    }
    folder = RunFolder(out, name, config)
    with folder.session():
        _store_sources(folder, rows)
        for part, table in tables.items():
            if table.empty:
                continue
            words = makers[part][1]
            store_table(folder, part, table, words)
            folder.write(f"tables/{part}.md", f"{to_markdown(table)}\n{words.caption}\n")
            folder.write(f"tables/{part}.html", to_html(table))
            stdout.print(f"{words.title}\n{to_text(table)}", markup=False, highlight=False)
    say(stdout, f"tables: {folder.path / 'tables'}")


def _store_sources(folder: RunFolder, rows: pd.DataFrame) -> None:
    """Names of the run folders that the exhibit is made from."""
    folder.write("sources.json", as_json({"runs": sorted(rows[RUN].unique())}))


def _rate_words(rows: pd.DataFrame, selection_seeds: Sequence[int]) -> str:
    rates = rows.groupby(aggregate.arm_keys(rows))["learning_rate"].nunique()
    if (rates == 1).all():
        return "Every arm has one learning rate: none was chosen among several."
    seeds = ", ".join(map(str, sorted(selection_seeds))) or "none"
    return (
        "Where an arm has several learning rates, one is chosen on seeds that are not reported "
        f"({seeds}); notes say otherwise."
    )
