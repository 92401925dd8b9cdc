"""A page of what run folders hold, and of what they lack.

It depends on the folders' contents only: the same folders give the same bytes.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.random import default_rng

from agents import TabularConfig
from analysis.cliff import budget
from analysis.exhibits import (
    FigureExhibit,
    TableExhibit,
    TableWords,
    read_figures,
    read_rows,
    read_tables,
)
from analysis.figures.panels import mean_over_seeds, median_over_seeds
from analysis.page import Missing, Page, Run, render_page
from analysis.storage import RunFolderError, read_json, read_sessions, write_atomically
from analysis.trajectory import EXPERIMENT, read_view

_PARTS = (
    ("claims", "the claims of the paper, checked", "verify"),
    (f"view {EXPERIMENT}", "the collapse in three dimensions", "collapse-view"),
    ("figure figure1-cliff", "Figure 1, Ideal Cliff Walking", "figure1 --env cliff"),
    ("figure figure1-carracing", "Figure 1, Car Racing", "figure1 --env carracing"),
    ("figure figure1-breakout", "Figure 1, Breakout", "figure1 --env breakout"),
    ("figure figure1-pong", "Figure 1, Pong", "figure1 --env pong"),
    ("figure overlay", "the peeled model's optimum laid over a run", "overlay RUN"),
    (
        "figure pooled-overlay-cliff",
        "the peeled model's optimum laid over many seeds, Ideal Cliff Walking",
        "overlay-cliff",
    ),
    ("figure figure3", "Figure 3", "figure3"),
    ("figure figure4", "Figure 4", "figure4"),
    ("table ablations-cliff", "the condition ablations", "ablations"),
    ("figure figure-lpm", "the layer-peeled model's figure", "figure-lpm"),
    ("table table1", "Table 1", "table1"),
    ("table table2", "Table 2", "table2"),
)
"""Start of what a folder shows, in words, and the command that makes it."""


def build_report(
    results: Path, out: Path, title: str = "Action collapse: theory against observation"
) -> Path:
    """Write the page of all run folders in a directory; returns its path.

    Parameters
    ----------
    results
        Directory of run folders, as the commands' ``--out``.
    out
        The HTML file to write.

    Raises
    ------
    RunFolderError
        There is no run folder, one is damaged, or `out` cannot be written.
    """
    folders = sorted(path.parent for path in Path(results).glob("*/config.json"))
    if not folders:
        raise RunFolderError(
            f"no run folder in {results}: name the directory that other commands were given as "
            "--out, or fill it, for example with action-collapse verify --out DIR"
        )
    page = collect(folders, title)
    shown = [item for run in page.runs for item in run.shows]
    missing = [
        Missing(what, f"action-collapse {command} {_places(command)}")
        for start, what, command in _PARTS
        if not any(item.startswith(start) for item in shown)
    ]
    write_atomically(Path(out), render_page(replace(page, missing=missing)).encode())
    return Path(out)


def _places(command: str) -> str:
    """Where a command reads and writes; the claims read nothing, the overlay what it is given."""
    return "--out DIR" if command in ("verify", "overlay RUN") else "--results DIR --out DIR"


def collect(folders: Iterable[Path], title: str) -> Page:
    """What run folders hold; of two that hold an exhibit of one name, the later session's.

    Raises
    ------
    RunFolderError
        A folder is damaged.
    """
    claims: list[dict[str, object]] = []
    figures: dict[str, FigureExhibit] = {}
    tables: dict[str, TableExhibit] = {}
    views: dict[str, dict[str, Any]] = {}
    source: dict[str, str] = {}
    runs = sorted(((_environment(folder), folder) for folder in folders), key=_by_time)
    for _, folder in runs:
        rows = folder / "rows" / "claims.parquet"
        if rows.exists():
            claims = [_without_nan(row) for row in read_rows(rows).to_dict(orient="records")]
            source["claims"] = folder.name
        for figure in read_figures(folder):
            figures[figure.name] = figure
            source[f"figure {figure.name}"] = folder.name
        for table in read_tables(folder):
            tables[table.name] = table
            source[f"table {table.name}"] = folder.name
        config = read_json(folder / "config.json", "move its run folder away, or make it again")
        if config.get("experiment") == EXPERIMENT and any((folder / "rows").glob("*.parquet")):
            views[config["title"]] = read_view(folder, config)
            source[f"view {EXPERIMENT} {config['title']}"] = folder.name
    return Page(
        title,
        claims,
        sorted(figures.values(), key=_place),
        [tables[name] for name in sorted(tables, key=_natural)],
        [views[name] for name in sorted(views)],
        runs=[
            Run(
                folder.name,
                tuple(item for item, origin in source.items() if origin == folder.name),
                environment,
            )
            for environment, folder in sorted(runs, key=lambda run: run[1].name)
        ],
    )


def _environment(folder: Path) -> dict[str, object]:
    """Of the folder's last session; empty where none was recorded."""
    sessions = read_sessions(folder)
    return sessions[-1] if sessions else {}


def _by_time(run: tuple[Mapping[str, object], Path]) -> tuple[str, str]:
    return str(run[0].get("time", "")), run[1].name


def _place(figure: FigureExhibit) -> tuple[list[tuple[int, str]], ...]:
    """By name; overlays, named after a digest, by title: environment, head, seed and epoch."""
    title = figure.words.title.casefold() if figure.words else ""
    names = (re.sub("^overlay-.*", "overlay", figure.name), title, figure.name)
    return tuple(_natural(name) for name in names)


def _natural(name: str) -> list[tuple[int, str]]:
    """Order in which figure1-cliff-100 stands before figure1-cliff-500 and figure10 after both."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _without_nan(row: Mapping[Any, object]) -> dict[str, object]:
    return {str(name): None if value != value else value for name, value in row.items()}


# --- Figure 1 in numbers --------------------------------------------------------------------------

_SUMMARY = {
    "head_equinorm": "equinorm W",
    "head_equiangularity": "std cos W",
    "feature_equiangularity": "std cos H",
    "head_max_angle": "angle W",
    "feature_max_angle": "angle H",
    "within_class_variation": "NC1",
    "variance_ratio": "tr Σ_W/tr Σ_B",
    "head_feature_cosine": "cos(h−h_c, w)",
    "min_feature_head_cosine": "min cos(h, w)",
    "optimal": "optimal seeds",
}
MEDIANS = TableWords(
    "Figure 1 in numbers",
    "Medians over n seeds at initialisation and after the last epoch, optimal seeds: the share of "
    "them whose greedy action is optimal in every cell; brackets: 95 % bootstrap over seeds. Zero "
    "is exact collapse, except for the last three columns, where 1 is. Equinorm alone is no "
    "evidence: it is small at initialisation. Budget until then: updates, and episodes sampled for "
    "them (Eq. (2) is exact and needs none). The paper draws curves and prints no number here.",
)
EXPECTATIONS = TableWords(
    "Expectations",
    "Set before these runs from a prototype on other seeds. The paper-settings arms have none: "
    "with the hyper-parameters the paper lists nothing measured comes near zero, several metrics "
    "end worse than at initialisation, and the page shows that as found.",
)


def summary(
    rows: pd.DataFrame,
    labels: Mapping[str, str],
    configs: Mapping[str, TabularConfig],
    seed: int = 0,
) -> pd.DataFrame:
    """Medians over seeds (the mean for ``optimal``) of each arm at its first and last epoch.

    Parameters
    ----------
    rows
        Tidy rows of several arms.
    labels, configs
        Names to show and what was trained, by arm.
    seed
        Of the bootstrap behind each interval, whose ends are in ``…_lower`` and ``…_upper``.
    """
    found = []
    for arm, label in labels.items():
        own = rows[rows["arm"] == arm]
        for epoch in (int(own["epoch"].min()), int(own["epoch"].max())):
            at = own[own["epoch"] == epoch].sort_values("seed")
            line = {"arm": label, "n": len(at), "epoch": epoch, **budget(configs[arm], epoch)}
            for column, name in _SUMMARY.items():
                over_seeds = mean_over_seeds if column == "optimal" else median_over_seeds
                band = over_seeds(at[[column]].to_numpy(float), default_rng(seed))
                ends = zip(("", "_lower", "_upper"), band, strict=True)
                line |= {f"{name}{end}": float(edge[0]) for end, edge in ends}
            found.append(line)
    return pd.DataFrame(found)


def expectations(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars (arm, column, value, sense, limit, met) as a table to read."""
    return pd.DataFrame(
        {
            "arm": bars["arm"],
            "quantity": bars["column"],
            "found": bars["value"],
            "expected": [f"{b.sense} {b.limit:g}" for b in bars.itertuples()],
            "met": bars["met"],
        }
    )
