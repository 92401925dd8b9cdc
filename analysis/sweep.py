"""Sweeps: the cells of a grid file, and the rows that they leave.

A grid file is TOML. A list is an axis, a scalar is fixed, and any option of
`analysis.configure.training_config` may be either::

    name = "cartpole"

    [[grid]]                            # one or more; their cells are put together
    algorithm = ["ppo", "trpo"]
    env = "CartPole-v1"
    head = ["linear", "etf"]
    learning_rate = [8e-5, 2.5e-4, 8e-4]
    seeds = {from = 0, count = 20}      # or a list
    together = ["head", "seeds"]        # axes that train as one batch in one cell

An option that is itself a list (``hidden``, ``snapshot_epochs``) is fixed by a list and made an
axis by a list of lists. A cell is one `TrainConfig`, so one run folder, whatever engine trains it.
"""

import itertools
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from agents.config import ALGORITHMS, HeadConfig, TrainConfig
from analysis.configure import training_config
from analysis.epoch_rows import COLUMNS
from analysis.storage import RunFolder, RunFolderError, as_json
from analysis.trained import read_config
from analysis.training import run_folder

_BATCHED = ("head", "seeds")
_LISTS = tuple(
    f.name
    for f in fields(TrainConfig)
    if isinstance(f.default, tuple) and f.name not in ("seeds", "heads")
)
"""Options whose one value is a list."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    name: str
    """Grid number, algorithm, environment and the values on axes; unique in the sweep."""
    options: Mapping[str, Any]
    """Flat options, as given to `training_config`."""
    config: TrainConfig

    @property
    def steps(self) -> int:
        """Agent steps of all members together."""
        return self.config.steps * self.config.population


@dataclass(frozen=True)
class Grid:
    """A grid file's content."""

    name: str
    tables: tuple[Mapping[str, Any], ...]
    """One mapping a ``[[grid]]``."""

    def cells(self) -> tuple[Cell, ...]:
        """Every cell, in the file's order, the last axis fastest; equal configurations are one.

        Raises
        ------
        ValueError
            An option or value has no meaning, or two cells would train the same member in
            different batches; the message names the grids and options.
        """
        cells: dict[TrainConfig, Cell] = {}
        owners: dict[TrainConfig, str] = {}
        for number, table in enumerate(self.tables, start=1):
            for cell in _cells_of(number, table):
                if cell.config in cells:
                    continue
                for head, seed in cell.config.members:
                    member = replace(cell.config, heads=(head,), seeds=(seed,))
                    other = owners.setdefault(member, cell.name)
                    if other != cell.name:
                        raise ValueError(
                            f"{cell.name}: head {head.kind!r} with seed {seed} is trained by "
                            f"{other!r} as well, and its rows would count twice: give the grids "
                            "different heads or seeds"
                        )
                cells[cell.config] = cell
        return tuple(cells.values())


def read_grid(path: Path) -> Grid:
    """Read a grid file and check every cell of it.

    Raises
    ------
    ValueError
        The file cannot be read, is no TOML, or one of its cells has no meaning; the message
        names the grid (counted from 1) and the option.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read the grid file {path}: {error}") from error
    name, tables = content.pop("name", path.stem), content.pop("grid", None)
    if content:
        raise ValueError(
            f"{path}: unknown {', '.join(map(repr, content))}: a grid file has a name and "
            "[[grid]] tables; options belong below [[grid]]"
        )
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"{path}: name must be letters, digits, '.', '_' and '-' (it names a folder): {name!r}"
        )
    if (
        not isinstance(tables, list)
        or not tables
        or not all(isinstance(table, dict) for table in tables)
    ):
        raise ValueError(f"{path}: there must be one or more [[grid]] tables (double brackets)")
    grid = Grid(name, tuple(tables))
    try:
        grid.cells()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return grid


def collect_rows(grid: Grid, out: Path) -> pd.DataFrame:
    """Rows of every finished cell, in the order of cells.

    Parameters
    ----------
    grid
        What was swept.
    out
        Where its run folders are; nothing is written there.

    Returns
    -------
    The runs' own rows (`analysis.epoch_rows.COLUMNS`, losses and collapse metrics; NaN where an
    algorithm has no such loss), ``run``, the name of the run folder, and a column for every
    option of the grid file that has none among them.
    """
    stored = set(_stored_configs(out))
    parts = []
    for cell in grid.cells():
        if cell.config not in stored:
            continue
        folder = run_folder(cell.config, out)
        if folder.has_rows("epochs"):
            rows = folder.read_rows("epochs")
            extra = {
                option: [_readable(value)] * len(rows)
                for option, value in cell.options.items()
                if option not in rows and option != "seeds"
            }
            parts.append(rows.assign(run=folder.path.name, **extra))
    if not parts:
        return pd.DataFrame(columns=[*COLUMNS, "run"])
    return pd.concat(parts, ignore_index=True)


def write_index(grid: Grid, out: Path, failures: Mapping[str, str]) -> Path:
    """Write ``OUT/sweep-NAME-DIGEST/cells.json``: each cell's run folder, state and error.

    Parameters
    ----------
    failures
        Error of every cell that was given up, by the cell's name.
    """
    folders = {cell.name: run_folder(cell.config, out) for cell in grid.cells()}
    runs = {name: folder.path.name for name, folder in folders.items()}
    index = RunFolder(out, f"sweep-{grid.name}", {"experiment": "sweep", "cells": runs})
    states: dict[str, dict[str, str]] = {}
    for name, folder in folders.items():
        states[name] = {"run": runs[name], "state": "missing"}
        if folder.has_rows("epochs"):
            states[name]["state"] = "done"
        elif name in failures:
            states[name] |= {"state": "failed", "error": failures[name]}
    return index.write("cells.json", as_json(states))


# --- one [[grid]] ---------------------------------------------------------------------------------


def _cells_of(number: int, table: Mapping[str, Any]) -> Iterator[Cell]:
    where = f"grid {number}"
    table = dict(table)
    together = table.pop("together", [])
    if not isinstance(together, list) or any(option not in _BATCHED for option in together):
        raise ValueError(
            f"{where}: together takes a list of {' and '.join(map(repr, _BATCHED))} (only heads "
            f"and seeds train as one batch), got {together!r}"
        )
    if "algorithm" not in table:
        raise ValueError(f"{where}: algorithm is missing: one or more of {', '.join(ALGORITHMS)}")
    axes = {option: _values(where, option, value) for option, value in table.items()}
    for option in together:
        if option in axes:
            axes[option] = [tuple(axes[option])]
    varied = [o for o, values in axes.items() if len(values) > 1 and o not in ("algorithm", "env")]
    for chosen in itertools.product(*axes.values()):
        options = {"env": "CartPole-v1"} | dict(zip(axes, chosen, strict=True))
        name = ", ".join(
            (
                f"{where}: {options['algorithm']} on {options['env']}",
                *(f"{option}={_readable(options[option])}" for option in varied),
            )
        )
        yield _cell(name, options)


def _cell(name: str, options: dict[str, Any]) -> Cell:
    flat = {"head": "linear", "seeds": 0} | options
    for option in _BATCHED:
        if not isinstance(flat[option], tuple):
            flat[option] = (flat[option],)
    kinds = _kinds(flat["algorithm"])
    try:
        flat = {
            option: _converted(option, value, kinds[option]) if option in kinds else value
            for option, value in flat.items()
        }
        return Cell(name, flat, training_config(flat))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def _values(where: str, option: str, value: Any) -> list[Any]:
    """Values on an option's axis; one if it is fixed."""
    values: list[Any]
    if option == "seeds" and isinstance(value, dict):
        first, count = value.get("from", 0), value.get("count")
        if set(value) - {"from", "count"} or type(first) is not int or type(count) is not int:
            raise ValueError(f"{where}: seeds takes {{from = 0, count = 20}}, got {value!r}")
        value = list(range(first, first + count))
    if option in _LISTS:
        if not isinstance(value, list):
            raise ValueError(f"{where}: {option} takes a list, or a list of lists as an axis")
        nested = [isinstance(v, list) for v in value]
        values = [tuple(v) for v in value] if nested and all(nested) else [tuple(value)]
    else:
        values = value if isinstance(value, list) else [value]
    for v in values:
        if isinstance(v, list | dict):
            raise ValueError(f"{where}: {option} cannot be {v!r}")
        if isinstance(v, float) and not math.isfinite(v):
            raise ValueError(f"{where}: {option} must be finite, got {v}")
    if not values:
        raise ValueError(f"{where}: {option} has no values: leave it out for its default")
    twice = sorted({str(v) for v in values if values.count(v) > 1})
    if twice:
        raise ValueError(f"{where}: {option} has {', '.join(twice)} twice")
    return values


def _kinds(algorithm: Any) -> dict[str, type]:
    """Types of the options that have one; an optional number is a float."""
    owners: list[Any] = [TrainConfig, *([ALGORITHMS[algorithm]] if algorithm in ALGORITHMS else [])]
    kinds: dict[str, type] = {
        f.name: float if f.default is None else type(f.default)
        for owner in owners
        for f in fields(owner)
        if f.default is not MISSING and f.name != "heads"
    }
    kinds |= {f.name: type(f.default) for f in fields(HeadConfig) if f.name == "bias"}
    return kinds | {"head_energy": float}


def _converted(option: str, value: Any, kind: type) -> Any:
    """A value as its option has it, so that 1 and 1.0 are not two configurations."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if kind is int and number and value == int(value):
        return int(value)
    if kind is tuple and all(type(v) is int for v in value):
        return value
    if isinstance(value, kind) and kind in (bool, str):
        return value
    names = {int: "a whole number", float: "a number", tuple: "whole numbers", bool: "a boolean"}
    raise ValueError(f"{option} takes {names.get(kind, 'a text')}, got {value!r}")


def _readable(value: Any) -> Any:
    """A value in a name or a table's cell: a long run of seeds by its ends."""
    if not isinstance(value, tuple):
        return value
    if len(value) > 4 and value == tuple(range(value[0], value[0] + len(value))):
        return f"{value[0]}…{value[-1]}"
    return "+".join(map(str, value))


def _stored_configs(out: Path) -> Iterator[TrainConfig]:
    for path in sorted(out.glob("train-*")):
        try:
            yield read_config(path)
        except RunFolderError:
            continue  # of another version: not a cell's
