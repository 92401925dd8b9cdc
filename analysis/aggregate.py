"""From rows of training runs to one row a run, and the choice of a learning rate.

A *run* is one seed with one learning rate; an *arm* is what is compared: a head on a feature in one
setting (algorithm, environment, network, and whether initial entropies were matched).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SETTING = ("algorithm", "env", "convention", "observations", "network", "matched_entropy")
HEAD = ("head", "feature")
ARM = (*SETTING, *HEAD)

BASELINE = "linear"
"""The head that others are compared with: the paper's "Org."."""
COMPARED = (BASELINE, "etf")
"""Heads that have an arm in every setting, run or not."""

_COLUMNS = (
    *ARM,
    "learning_rate",
    "seed",
    "epoch",
    "steps",
    "eval_return",
    "eval_episodes",
    "target_return",
    "reached_target",
)


def matched_entropy(fraction: float | None) -> str:
    """A setting's ``matched_entropy``: the share of log K, empty where nothing was matched.

    Text, as every part of a setting is: what tells arms apart has no gaps and is compared exactly.
    """
    return "" if fraction is None else f"{fraction:g}"


def arm_keys(rows: pd.DataFrame) -> list[str]:
    """Columns that tell arms apart: :data:`ARM`, and ``epsilon`` where the rows have it."""
    return [*ARM, *(["epsilon"] if "epsilon" in rows else [])]


def without_exploration(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs without ε-greedy exploration; all of them where there is no such column.

    Raises
    ------
    ValueError
        Every run explores.
    """
    if "epsilon" not in rows or rows.empty:
        return rows
    plain = rows[rows["epsilon"] == 0]
    if plain.empty:
        values = ", ".join(f"{value:g}" for value in sorted(rows["epsilon"].unique()))
        raise ValueError(
            f"every run explores ε-greedily (ε = {values}), and such runs are Table 2's: train "
            "some without, or name their directory with --results"
        )
    return plain


def summarise_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Best, final and stop of every run, as the paper's Table 1 defines them.

    Parameters
    ----------
    rows
        One row for each run and epoch, in any order. ``target_return`` is that of the run's
        configuration, NaN for none; ``reached_target`` is whether it was reached by the epoch.

    Returns
    -------
    One row a run, ordered by arm, learning rate and seed, with

    ``best``
        Highest evaluation return of any epoch that was evaluated.
    ``final``
        Evaluation return of the run's last epoch: NaN where that one was not evaluated or gave NaN,
        never an earlier epoch's.
    ``average``
        Mean evaluation return over all epochs; NaN where one was not evaluated.
    ``target``
        Evaluation return at which the run may stop.
    ``stop``
        First epoch whose evaluation reaches the target, else the last epoch; NaN without a target.
    ``reached``
        1 if the target was reached, else 0; NaN without a target.
    ``epochs``, ``steps``, ``eval_episodes``
        Of the last epoch.

    Raises
    ------
    ValueError
        There are no rows, a column is missing, a key has gaps, or two rows are the same run and
        epoch.
    """
    if rows.empty:
        raise ValueError("there are no rows of training runs to summarise")
    missing = [name for name in _COLUMNS if name not in rows]
    if missing:
        raise ValueError(
            f"rows of training runs need the columns {', '.join(missing)}: read them with "
            "analysis.runs.read_training_rows"
        )
    keys = [*arm_keys(rows), "learning_rate", "seed"]
    gaps = [name for name in keys if rows[name].isna().any()]
    if gaps:
        raise ValueError(f"missing values in {', '.join(gaps)}: rows cannot be told apart")
    ordered = rows.sort_values([*keys, "epoch"], kind="stable")
    twice = ordered[ordered.duplicated([*keys, "epoch"])]
    if len(twice):
        first = ", ".join(f"{name}={twice.iloc[0][name]}" for name in [*keys, "epoch"])
        raise ValueError(
            f"{len(twice)} rows repeat a run and epoch (first: {first}): they come from runs that "
            "differ in something else; make one table for each"
        )
    runs = []
    for _, run in ordered.groupby(keys):
        returns = run["eval_return"].to_numpy(dtype=float)
        last = run.iloc[-1]
        target = float(last["target_return"])
        hits = np.flatnonzero(run["reached_target"].to_numpy(dtype=bool))
        known = not np.isnan(target)
        stop = run["epoch"].iloc[hits[0] if hits.size else -1]
        runs.append(
            {
                **{name: last[name] for name in keys},
                "best": float(np.fmax.reduce(returns)),
                "final": float(returns[-1]),
                "average": float(returns.mean()),
                "target": target,
                "stop": float(stop) if known else np.nan,
                "reached": float(hits.size > 0) if known else np.nan,
                "epochs": int(last["epoch"]),
                "steps": int(last["steps"]),
                "eval_episodes": float(last["eval_episodes"]),
            }
        )
    measured = [
        "best",
        "final",
        "average",
        "target",
        "stop",
        "reached",
        "epochs",
        "steps",
        "eval_episodes",
    ]
    return pd.DataFrame(runs, columns=[*keys, *measured])


def choose_learning_rates(rows: pd.DataFrame, selection_seeds: Collection[int]) -> pd.DataFrame:
    """The learning rate of every arm, chosen on seeds that are not reported.

    The paper takes "the best from three learning rates" (Appendix C) and does not say on which
    seeds. The best of three means over the reported seeds is biased upwards, the more so the more
    they vary, so the rate with the highest mean final return on `selection_seeds` is taken; of
    equals, as where all end at the highest return there is, the one with the highest mean over all
    epochs, and of equals in this the lowest. A rate with a final return of NaN there is not.

    Parameters
    ----------
    rows
        One row for each run and epoch.
    selection_seeds
        Their runs choose and are never reported. Other seeds' returns are not looked at.

    Returns
    -------
    One row for each arm and learning rate to report: the columns of the arm, ``learning_rate`` and
    ``note``. That is one row an arm, unless nothing can choose among several rates: then each of
    them, so that a table shows them all. The note is empty where a choice was made among rates
    that were tried alike.

    Raises
    ------
    ValueError
        As :func:`summarise_runs`.
    """
    runs = summarise_runs(rows)
    keys = arm_keys(rows)
    chosen = []
    for _, arm in runs.groupby(keys):
        selection = arm[arm["seed"].isin(selection_seeds)]
        rates, note = _choose(sorted(arm["learning_rate"].unique()), selection)
        common = {name: arm.iloc[0][name] for name in keys}
        chosen += [{**common, "learning_rate": rate, "note": note} for rate in rates]
    return pd.DataFrame(chosen, columns=[*keys, "learning_rate", "note"])


def _choose(rates: list[float], selection: pd.DataFrame) -> tuple[list[float], str]:
    """Rates to report and why."""
    if len(rates) == 1:
        return rates, "only one learning rate"
    if selection.empty:
        return rates, "no selection seeds: no rate chosen"
    # A Series' own mean would skip NaN: a rate that diverged would be judged by what is left.
    by_rate = selection.groupby("learning_rate")
    means = by_rate[["final", "average"]].agg(lambda returns: returns.mean(skipna=False))
    means = means.dropna(subset="final")
    if means.empty:
        return rates, "no final return on the selection seeds: no rate chosen"
    tried = by_rate["seed"].agg(frozenset)
    alike = len(tried) == len(rates) and tried.nunique() == 1
    note = "" if alike else "rates tried on different selection seeds"
    best = means.sort_values(["final", "average"], ascending=False, kind="stable").index[0]
    return [float(best)], note


@dataclass(frozen=True)
class Arm:
    """The runs behind one line of a table."""

    keys: dict[str, Any]
    """Values of :func:`arm_keys`."""
    learning_rate: float
    """NaN if the arm was not run."""
    note: str
    """Why the rate was not chosen, or that the arm was not run; else empty."""
    runs: pd.DataFrame
    """Reported runs as :func:`summarise_runs` has them, by seed; empty if there are none."""

    def scores(self, name: str) -> NDArray[np.float64]:
        """A column of the runs, (n,)."""
        return np.asarray(self.runs[name], dtype=np.float64)

    @property
    def seeds(self) -> frozenset[int]:
        """Reported seeds."""
        return frozenset(self.runs["seed"])

    @property
    def budget(self) -> dict[str, float]:
        """The least epochs, steps and evaluation episodes of any run, NaN without runs."""
        names = ("epochs", "steps", "eval_episodes")
        return {name: float(self.runs[name].min()) for name in names}


def compared_arms(
    rows: pd.DataFrame, selection_seeds: Collection[int]
) -> Iterator[tuple[Arm, Arm | None]]:
    """Every arm, with the learned head on the same feature in the same setting.

    Settings come in alphabetical order; within one the learned head comes first, then the ETF head,
    then the others. A head of :data:`COMPARED` that a setting lacks comes as an arm without runs.
    The learned head is None where there is none, or none with a single rate and a reported run.

    Raises
    ------
    ValueError
        As :func:`summarise_runs`.
    """
    keys = arm_keys(rows)
    runs = summarise_runs(rows)
    reported = runs[~runs["seed"].isin(selection_seeds)]
    choices = choose_learning_rates(rows, selection_seeds)
    setting = [name for name in keys if name not in HEAD]
    for _, group in choices.groupby(setting):
        found = []
        for choice in group.to_dict("records"):
            own = [reported[name] == choice[name] for name in (*keys, "learning_rate")]
            found.append(
                Arm(
                    keys={name: choice[name] for name in keys},
                    learning_rate=choice["learning_rate"],
                    note=choice["note"],
                    runs=reported[np.logical_and.reduce(own)],
                )
            )
        for head in COMPARED:
            if head not in set(group["head"]):
                absent = {**found[0].keys, "head": head, "feature": None}
                found.append(Arm(absent, np.nan, "not run", reported.iloc[:0]))
        for arm in sorted(found, key=_order):
            yield arm, _learned(arm, found)


def _order(arm: Arm) -> tuple[object, ...]:
    head = arm.keys["head"]
    place = COMPARED.index(head) if head in COMPARED else len(COMPARED)
    return place, head, arm.keys["feature"] or "", arm.learning_rate


def _learned(arm: Arm, candidates: Sequence[Arm]) -> Arm | None:
    same = [
        other
        for other in candidates
        if other.keys["head"] == BASELINE and other.keys["feature"] == arm.keys["feature"]
    ]
    return same[0] if len(same) == 1 and len(same[0].runs) else None
