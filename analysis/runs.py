"""Rows of all training runs in a directory, and those of them that are reported."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agents.config import ATARI
from analysis.aggregate import (
    arm_keys,
    choose_learning_rates,
    matched_entropy,
    without_exploration,
)
from analysis.epoch_rows import COLUMNS
from analysis.exhibits import read_rows
from analysis.storage import RunFolderError, read_json

RUN = "run"
"""Column of the run folder's name: where a row is from, no part of what is compared."""

SELECTION_SEEDS = (100, 101, 102, 103, 104)
"""Seeds that choose learning rates in this project's sweeps and are never reported."""


def read_training_rows(results: Path | Iterable[Path]) -> pd.DataFrame:
    """Rows of every finished training run under a directory, or under each of several.

    Parameters
    ----------
    results
        Directories of run folders, searched at any depth, or run folders themselves.

    Returns
    -------
    One row for each run, member and epoch: :data:`analysis.epoch_rows.COLUMNS`, collapse metrics
    and losses (NaN where a run's algorithm has no such loss), ``target_return`` of the run's
    configuration (NaN for none), ``matched_entropy``, the share of log K to which every head was
    scaled at the start (empty where heads were left as they were), and the folder's name as
    :data:`RUN`; ``convention`` is empty where the environment is no Atari game. The order is that
    of the folders' names.

    Raises
    ------
    RunFolderError
        There is no finished training run, one is damaged or of another version, two folders hold
        the same run, or runs that would count as seeds of one arm were trained differently.
    """
    places = [Path(results)] if isinstance(results, str | Path) else list(map(Path, results))
    folders = {
        recorded.resolve().parent
        for place in places
        for recorded in place.rglob("config.json")
        if _is_training(recorded)
    }
    finished = sorted(folder for folder in folders if _rows_path(folder).exists())
    if not finished:
        named = ", ".join(map(str, places))
        unfinished = f" ({len(folders)} unfinished)" if folders else ""
        raise RunFolderError(
            f"no finished training run in {named}{unfinished}: make some with action-collapse "
            "train or action-collapse sweep, or name their directory with --results"
        )
    _refuse_copies(finished)
    frames = []
    for folder in sorted(finished, key=lambda folder: (folder.name, folder)):
        rows = read_rows(_rows_path(folder))
        missing = [name for name in COLUMNS if name not in rows]
        if missing:
            raise RunFolderError(
                f"{folder} was made by another version, its rows lack {', '.join(missing)}: move "
                "it away and train it again"
            )
        # Elsewhere there are no conventions to choose from.
        convention = rows["convention"].where(rows["env"].isin(ATARI), "")
        config = _config(folder).get("config", {})
        target = config.get("target_return")
        added = {
            "convention": convention,
            # The rows say whether it was reached, not whether there was any.
            "target_return": np.nan if target is None else float(target),
            "matched_entropy": matched_entropy(config.get("match_entropy")),
            RUN: folder.name,
        }
        frames.append(rows.assign(**added))
    found = pd.concat(frames, ignore_index=True)
    _refuse_mixtures(found, {folder.name: folder for folder in finished})
    return found


def reported_rows(
    rows: pd.DataFrame, selection_seeds: Collection[int] = SELECTION_SEEDS
) -> pd.DataFrame:
    """Rows of each arm with the learning rate that the selection seeds chose, and of other seeds.

    Runs with ε-greedy exploration are left out: they are Table 2's.

    Raises
    ------
    ValueError
        Every run explores ε-greedily, nothing can choose among an arm's learning rates, the chosen
        one was not trained on any other seed, or as :func:`analysis.aggregate.summarise_runs`.
    """
    plain = without_exploration(rows)
    keys = arm_keys(plain)
    choices = choose_learning_rates(plain, selection_seeds)
    open_arms = choices[choices.duplicated(keys, keep=False)]
    if len(open_arms):
        first = open_arms[(open_arms[keys] == open_arms[keys].iloc[0]).all(axis=1)]
        named = ", ".join(str(first.iloc[0][name]) for name in ("algorithm", "env", "head"))
        rates = ", ".join(f"{rate:g}" for rate in first["learning_rate"])
        raise ValueError(
            f"{named} has the learning rates {rates} and none of them has a final return on the "
            f"selection seeds {_listed(selection_seeds)}: name the seeds that choose with "
            "--selection-seeds, or give --results runs with one rate"
        )
    chosen = plain.merge(choices[[*keys, "learning_rate"]], on=[*keys, "learning_rate"])
    reported = chosen[~chosen["seed"].isin(selection_seeds)].reset_index(drop=True)
    arms = reported[keys].drop_duplicates()
    if len(arms) < len(choices):
        present = choices.merge(arms, on=keys, how="left", indicator=True)["_merge"] == "both"
        lost = choices[~present.to_numpy()].iloc[0]
        named = ", ".join(str(lost[name]) for name in ("algorithm", "env", "head"))
        raise ValueError(
            f"{named} has runs with the learning rate {lost['learning_rate']:g} on the selection "
            f"seeds {_listed(selection_seeds)} only, which are never reported: train it on others, "
            "or name the seeds that choose with --selection-seeds"
        )
    return reported


def rows_digest(rows: pd.DataFrame) -> str:
    """Digest of what the rows say, whatever their order and the names of their folders."""
    content = rows.drop(columns=RUN, errors="ignore")
    content = content[sorted(content)]
    hashes = np.sort(pd.util.hash_pandas_object(content, index=False).to_numpy())
    digest = hashlib.sha256("\n".join(content).encode())
    digest.update(hashes.astype("<u8").tobytes())
    return digest.hexdigest()[:16]


def _is_training(recorded: Path) -> bool:
    """Whether a ``config.json`` is of a training run: anybody may have a file of that name."""
    if _rows_path(recorded.parent).exists():
        return _config(recorded.parent).get("experiment") == "train"
    try:
        return bool(json.loads(recorded.read_text())["experiment"] == "train")
    except (ValueError, KeyError, TypeError):
        return False


def _config(folder: Path) -> dict[str, Any]:
    return read_json(
        folder / "config.json", "move the folder away and make the run again, its rows have no name"
    )


_FREE = (
    *("steps", "eval_episodes", "target_return", "snapshot_epochs", "snapshot_states"),
    *("seeds", "heads", "env", "algorithm.learning_rate", "algorithm.epsilon", "precision"),
    "match_entropy",
)
"""Options that may differ between runs of one arm: tables and figures say each run's, or they are
part of what tells arms and runs apart."""


def _refuse_mixtures(rows: pd.DataFrame, folders: Mapping[str, Path]) -> None:
    """Refuse runs of one arm that differ in what no table has a column for."""
    options = {name: dict(_options(_config(path))) for name, path in folders.items()}
    # The precision is the one it was on that machine: "auto" may be either.
    own_columns = ("head_bias", "head_energy", "precision")
    for key, arm in rows.groupby(arm_keys(rows)):
        values: dict[str, dict[str, str]] = {}
        for (run, *own), _ in arm.groupby([RUN, *own_columns], dropna=False):
            found = options[run] | dict(zip(own_columns, own, strict=True))
            for name, value in found.items():
                values.setdefault(name, {}).setdefault(str(value), run)
        mixed = {name: by_value for name, by_value in values.items() if len(by_value) > 1}
        if mixed:
            arm_name = ", ".join(str(part) for part in key if part not in ("", 0.0))
            differences = "; ".join(
                f"{name} is {' and '.join(f'{value} in {run}' for value, run in own.items())}"
                for name, own in mixed.items()
            )
            raise RunFolderError(
                f"runs of one arm ({arm_name}) were trained differently: {differences}. Name only "
                "run folders that are alike with --results"
            )


def _options(recorded: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Options of a run's configuration, those of the algorithm as ``algorithm.name``."""
    for name, value in recorded.get("config", {}).items():
        inner = value.items() if isinstance(value, Mapping) else ()
        parts = [(f"{name}.{part}", own) for part, own in inner] or [(name, value)]
        yield from (part for part in parts if name not in _FREE and part[0] not in _FREE)


def _rows_path(folder: Path) -> Path:
    return folder / "rows" / "epochs.parquet"


def _refuse_copies(folders: Iterable[Path]) -> None:
    seen: dict[str, Path] = {}
    for folder in folders:
        config = (folder / "config.json").read_text()
        if config in seen:
            raise RunFolderError(
                f"{seen[config]} and {folder} hold the same run: name only one of them"
            )
        seen[config] = folder


def _listed(seeds: Collection[int]) -> str:
    return ", ".join(map(str, seeds)) or "(none)"
