"""Tables 1 and 2 of the paper and the table of ablations, from stored rows only.

Conventions
-----------
Runs
    The learning rate of each arm is chosen on seeds that are not reported
    (:func:`analysis.aggregate.choose_learning_rates`); the paper chooses among three and does not
    say how. Best, final and stop are those of :func:`analysis.aggregate.summarise_runs`.
Over seeds
    ``best``, ``final`` and ``stop`` are means over runs, ``best`` the mean of each run's highest
    return and not the highest of the mean curve. ``std`` is the sample standard deviation (n − 1)
    of the final returns; the paper does not say which.
Missing
    What was not run, not evaluated or cannot be computed is NaN and shown as a dash, with the cause
    in ``note``. A run without a final return is never dropped: it makes its arm's means NaN.
Paper
    The columns ``paper_…`` hold what it prints for the learned ("Org.") and the ETF head ("ACPG")
    of the same algorithm, environment and network. Its Atari MLP reads features of a CNN, ours the
    console's memory. For numbers there that cannot be see
    :func:`analysis.paper_tables.inconsistencies`.
Intervals
    Columns ending in ``_lower`` and ``_upper`` are 95 % bootstrap intervals over seeds
    (:mod:`analysis.statistics`). Each has a generator of its own from the table's seed: equal data
    have equal intervals, whatever else the table holds.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.aggregate import BASELINE, Arm, compared_arms, without_exploration
from analysis.paper_tables import table1_scores, table2_best
from analysis.statistics import (
    FEW_RUNS,
    Estimate,
    Float,
    interquartile_mean,
    median_band,
    paired_difference,
    probability_of_improvement,
    stratified_bootstrap,
)

_UNKNOWN = Estimate(np.nan, np.nan, np.nan)


def table1(
    rows: pd.DataFrame, selection_seeds: Collection[int] = (), seed: int = 0
) -> pd.DataFrame:
    """Table 1: every algorithm, environment, network and head.

    Parameters
    ----------
    rows
        One row for each run and epoch, in any order. Where they have a column ``epsilon``, those
        with ε > 0 are left to :func:`table2`.
    selection_seeds
        Their runs choose the learning rates and are not reported.
    seed
        Of the bootstrap behind the intervals.

    Returns
    -------
    One row for each arm and reported learning rate, with

    ``n``
        Runs behind the numbers.
    ``best``, ``final``, ``stop``, ``std``
        As in the paper; ``reached`` is the share of runs that reached the target. Below 1 it makes
        ``stop``, for which the others count with their last epoch, a lower bound.
    ``target``
        Evaluation return at which the runs may stop; NaN if they have none, or not the same.
    ``iqm``
        Interquartile mean of the final returns.
    ``improvement``
        Probability that a run ends above a run of the learned head on the same feature, ties
        counted half. Where both heads have the same seeds these are resampled together.
    ``difference``
        Mean difference of the final returns to the learned head's over seeds that both have.
    ``epochs``, ``steps``, ``eval_episodes``
        Budget: the least of any run.
    ``paper_best``, ``paper_final``, ``paper_stop``, ``paper_std``
        What the paper prints.
    ``note``
        Why something is missing or not as it should be.

    Raises
    ------
    ValueError
        As :func:`analysis.aggregate.summarise_runs`.
    """
    rows = without_exploration(rows).drop(columns="epsilon", errors="ignore")
    found = []
    for arm, linear in compared_arms(rows, selection_seeds):
        paper = table1_scores(*(arm.keys[name] for name in (*_PAPER_CELL, "head")))
        found.append(
            {
                **arm.keys,
                "learning_rate": arm.learning_rate,
                "n": len(arm.runs),
                **{name: _mean(arm.scores(name)) for name in ("best", "final", "stop", "reached")},
                "target": _common(arm.scores("target")),
                "std": _std(arm.scores("final")),
                **_compared(arm, linear, "final", seed),
                **arm.budget,
                **{f"paper_{name}": score for name, score in paper._asdict().items()},
                "note": "; ".join(_notes(arm, linear, stops=True)),
            }
        )
    return pd.DataFrame(found)


def table2(
    rows: pd.DataFrame, selection_seeds: Collection[int] = (), seed: int = 0
) -> pd.DataFrame:
    """Table 2: best return against the ε of ε-greedy exploration, for every head.

    Parameters
    ----------
    rows
        One row for each run and epoch, with a column ``epsilon``.
    selection_seeds
        Their runs choose the learning rates and are not reported.
    seed
        Of the bootstrap behind the intervals.

    Returns
    -------
    One row for each arm, ε and reported learning rate, with ``best`` (mean over runs), ``std`` of
    the best returns, and ``iqm``, ``improvement``, ``difference``, budget and ``note`` as in
    :func:`table1` but of the best returns; ``paper_best`` is what the paper prints.

    Raises
    ------
    ValueError
        There is no column ``epsilon``, or as :func:`analysis.aggregate.summarise_runs`.
    """
    if "epsilon" not in rows:
        raise ValueError("Table 2 needs rows with a column epsilon: train with several values of ε")
    found = []
    for arm, linear in compared_arms(rows, selection_seeds):
        cell = [arm.keys[name] for name in (*_PAPER_CELL, "head", "epsilon")]
        found.append(
            {
                **arm.keys,
                "learning_rate": arm.learning_rate,
                "n": len(arm.runs),
                "best": _mean(arm.scores("best")),
                "std": _std(arm.scores("best")),
                **_compared(arm, linear, "best", seed),
                **arm.budget,
                "paper_best": table2_best(*cell),
                "note": "; ".join(_notes(arm, linear, stops=False)),
            }
        )
    return pd.DataFrame(found)


def improvement_table(
    rows: pd.DataFrame, selection_seeds: Collection[int] = (), seed: int = 0
) -> pd.DataFrame:
    """Probability that a head ends above the learned one, averaged over environments.

    Parameters
    ----------
    rows, selection_seeds, seed
        As in :func:`table1`.

    Returns
    -------
    One row for each algorithm, network, matching of initial entropies, head and feature with
    ``environments``, those in which both heads have reported runs, ``n``, the least runs in any,
    and ``improvement`` with its interval from a bootstrap within environments. ``paired`` says
    whether both heads have the same seeds everywhere, which are then resampled together; None where
    a single seed leaves nothing to resample. ``note`` says so, and where seeds are few.

    Raises
    ------
    ValueError
        As :func:`analysis.aggregate.summarise_runs`.
    """
    rows = without_exploration(rows).drop(columns="epsilon", errors="ignore")
    groups: dict[tuple[Any, ...], list[tuple[Arm, Arm]]] = {}
    for arm, linear in compared_arms(rows, selection_seeds):
        if linear is not None and arm.keys["head"] != BASELINE and len(arm.runs):
            key = tuple(arm.keys[name] for name in _ACROSS)
            groups.setdefault(key, []).append((arm, linear))
    found = []
    for key, pairs in groups.items():
        envs = [arm.keys["env"] for arm, _ in pairs]
        fewest = [min(len(arm.runs), len(linear.runs)) for arm, linear in pairs]
        paired = all(arm.seeds == linear.seeds for arm, linear in pairs)
        improvement = probability_of_improvement(
            [arm.scores("final") for arm, _ in pairs],
            [linear.scores("final") for _, linear in pairs],
            np.random.default_rng(seed),
            paired=paired,
        )
        found.append(
            {
                **dict(zip(_ACROSS, key, strict=True)),
                "environments": ", ".join(envs),
                "n": min(fewest),
                "paired": paired if min(fewest) > 1 else None,
                **_with_interval("improvement", improvement),
                "note": "; ".join(_few_notes(dict(zip(envs, fewest, strict=True)))),
            }
        )
    return pd.DataFrame(found)


def ablation_table(
    rows: pd.DataFrame,
    conditions: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Deviation from the maximal angle of head and features for every condition and arm.

    Parameters
    ----------
    rows
        One row for each condition, arm, seed and epoch, with ``head_max_angle`` and
        ``feature_max_angle`` (:class:`analysis.metrics.CollapseResult`). A column ``cells``, which
        states are measured, makes one line for each of its values.
    conditions, arms
        What to show and in which order; None for all by name. What was not run has no line.
    seed
        Of the bootstrap behind the intervals.

    Returns
    -------
    One row a condition and arm that were run: ``n`` seeds, ``epochs``, and medians over seeds after
    the last epoch with 95 % bootstrap intervals, NaN where a seed's value is NaN and for a single
    seed.

    Raises
    ------
    ValueError
        A column is missing, a seed occurs twice, or seeds end at different epochs.
    """
    cells = ["cells"] if "cells" in rows else []
    keys = ["condition", "arm", *cells]
    missing = [name for name in (*keys, "seed", "epoch", *_ANGLES) if name not in rows]
    if missing:
        raise ValueError(f"rows of ablations need the columns {', '.join(missing)}")
    last = rows[rows["epoch"] == rows.groupby(keys)["epoch"].transform("max")]
    if last.duplicated([*keys, "seed"]).any():
        raise ValueError("a seed occurs twice in a condition and arm: pass the rows of one run")
    if len(last) != len(rows.drop_duplicates([*keys, "seed"])):
        raise ValueError("seeds of a condition and arm end at different epochs: finish the run")
    groups = dict(iter(last.sort_values("seed").groupby(keys)))
    orders = [
        sorted(rows["condition"].unique()) if conditions is None else conditions,
        sorted(rows["arm"].unique()) if arms is None else arms,
        *([sorted(rows["cells"].unique())] if cells else []),
    ]
    found = []
    for key in filter(groups.__contains__, product(*orders)):
        own = groups[key]
        medians = _medians(own[list(_ANGLES)].to_numpy(dtype=np.float64), seed)
        line: dict[str, Any] = {
            **dict(zip(keys, key, strict=True)),
            "n": len(own),
            "epochs": int(own["epoch"].iloc[0]),
        }
        for name, median in zip(_ANGLES, medians, strict=True):
            line |= _with_interval(name, median)
        found.append(line)
    return pd.DataFrame(found)


_ANGLES = ("head_max_angle", "feature_max_angle")
_ACROSS = ("algorithm", "network", "matched_entropy", "head", "feature")
_PAPER_CELL = ("algorithm", "env", "convention", "network")


# --- what a line is made of ----------------------------------------------------------------------


def _compared(arm: Arm, linear: Arm | None, score: str, seed: int) -> dict[str, float]:
    """Interquartile mean of a score, and how it compares with the learned head's."""
    own = arm.scores(score)
    iqm = improvement = difference = _UNKNOWN
    if own.size:
        iqm = stratified_bootstrap([own], interquartile_mean, np.random.default_rng(seed))
    if linear is not None and arm is not linear and own.size:
        paired = arm.seeds == linear.seeds
        other = linear.scores(score)
        improvement = probability_of_improvement(
            [own], [other], np.random.default_rng(seed), paired=paired
        )
        common = arm.seeds & linear.seeds
        if common:
            both = [a.scores(score)[a.runs["seed"].isin(common)] for a in (arm, linear)]
            difference = paired_difference([both[0]], [both[1]], np.random.default_rng(seed))
    return {
        **_with_interval("iqm", iqm),
        **_with_interval("improvement", improvement),
        **_with_interval("difference", difference),
    }


def _notes(arm: Arm, linear: Arm | None, *, stops: bool) -> Iterator[str]:
    """What a reader of the arm's line has to know; `stops` is whether the line says when."""
    if arm.note:
        yield arm.note
    if arm.runs.empty:
        if arm.note != "not run":
            yield "no reported seed with this rate"
        return
    if len(arm.runs) == 1:
        yield "one seed: no interval"
    elif len(arm.runs) < FEW_RUNS:
        iqm = ", the iqm is the mean" if len(arm.runs) <= 3 else ""
        yield f"few seeds: the interval is too narrow{iqm}"
    lost = int(np.isnan(arm.scores("final")).sum())
    if lost:
        yield f"{lost} of {len(arm.runs)} runs without a final return"
    shortest, longest = arm.runs["epochs"].min(), arm.runs["epochs"].max()
    if shortest != longest:
        yield f"runs of {shortest} to {longest} epochs"
    targets = arm.scores("target")
    if stops and np.isnan(targets).all():
        yield "no target"
    elif stops and np.isnan(_common(targets)):
        yield "targets differ"
    if arm.keys["head"] == BASELINE:
        return
    if linear is None:
        yield "no learned head on this feature with one rate to compare with"
        return
    if arm.seeds != linear.seeds:
        yield (
            f"seeds differ from the learned head's, which has {len(linear.seeds)}: the difference "
            f"is over the {len(arm.seeds & linear.seeds)} in common"
        )
    if arm.budget != linear.budget:
        yield "budget differs from the learned head's"


def _few_notes(counts: Mapping[str, int]) -> Iterator[str]:
    """What few seeds in any of some environments do to an interval over all of them."""
    single = ", ".join(env for env, count in counts.items() if count == 1)
    few = ", ".join(env for env, count in counts.items() if 1 < count < FEW_RUNS)
    if single:
        yield f"one seed in {single}: no interval"
    elif few:
        yield f"few seeds in {few}: the interval is too narrow"


def _mean(values: Float) -> float:
    return float(values.mean()) if values.size else np.nan


def _common(values: Float) -> float:
    """The one value that all have, else NaN."""
    return float(values[0]) if values.size and (values == values[0]).all() else np.nan


def _std(values: Float) -> float:
    return float(values.std(ddof=1)) if values.size > 1 else np.nan


def _medians(values: Float, seed: int) -> list[Estimate]:
    """Of each column of (n, T)."""
    if len(values) == 1:
        return [Estimate(float(value), np.nan, np.nan) for value in values[0]]
    band = median_band(values, np.random.default_rng(seed))
    return [Estimate(*map(float, ends)) for ends in zip(*band, strict=True)]


def _with_interval(name: str, estimate: Estimate) -> dict[str, float]:
    return {
        name: estimate.value,
        f"{name}_lower": estimate.lower,
        f"{name}_upper": estimate.upper,
    }
