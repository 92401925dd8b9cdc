"""Conditions 1 to 3 of the paper's Section 3 broken one at a time, on the Ideal Cliff Walking.

The paper holds its conditions necessary for action collapse and proves (Theorem 1) that a fixed
ETF head brings it about. Here each condition is broken alone, for a learned and for an ETF head,
and the norms are controlled in the same ways for both: a fixed head is only shown to matter where
a learned head *with the same norm bound* fails. Eq. (2) is the objective of all arms but those of
the last four settings, in which REINFORCE samples from d^π and Condition 3 fails by itself.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agents import TabularTrainer
from analysis.ablation_settings import (
    ARMS,
    CONDITIONS,
    EXACT,
    SAMPLED,
    SAMPLED_CONDITIONS,
    Case,
    cases,
    condition_rows,
)
from analysis.figures.ablations import figure_ablations
from analysis.figures.style import encode
from analysis.metrics import snapshot_metrics
from analysis.parallel import run_parts
from analysis.snapshot import Snapshot
from analysis.statistics import few_runs_words
from analysis.storage import RunFolder

METRICS = (
    "head_equinorm",
    "feature_equinorm",
    "head_equiangularity",
    "feature_equiangularity",
    "head_max_angle",
    "feature_max_angle",
    "within_class_variation",
    "head_feature_cosine",
    "head_feature_cosine_min",
    "head_feature_cosine_raw",
    "ncc_agreement",
    "num_samples",
    "absent_classes",
)
"""Fields of `analysis.metrics.CollapseResult` that are stored: about the class-mean centre."""


def measure(trainer: TabularTrainer) -> Iterator[dict[str, float | int | str]]:
    """Two rows a seed: collapse of the cells with d(s) > 0 and of all cells, labelled by a*(s).

    ``cells`` says which. ``unseen_feature_head_cosine`` is the mean of cos(h_s, w_{a*(s)}) over
    the cells with d(s) = 0, NaN where there are none. ``d_ratio`` is max/min of d over all cells
    under the member's own policy.
    """
    output, mdp = trainer.output(), trainer.mdp
    scheme, cells = trainer.config.sampling(), mdp.decision_states
    for member, policy in enumerate(trainer.policies()):
        d = scheme.distribution(mdp, policy)[cells]
        head, features = trainer.policy.head.weight[member].detach(), output.features[member]
        own = head[trainer.optimal_actions]
        cosine = ((features * own).sum(1) / (features.norm(dim=1) * own.norm(dim=1))).numpy()
        correct = output.logits[member].argmax(-1).numpy() == trainer.optimal_actions
        unseen = d == 0
        shared = {
            "seed": trainer.seeds[member],
            "epoch": trainer.epoch,
            "d_ratio": float(d.max() / d.min()) if not unseen.any() else float("inf"),
            "expected_return": float(mdp.policy_value(policy)[cells].mean()),
            "unseen_feature_head_cosine": _mean(cosine[unseen]),
            "unseen_accuracy": _mean(correct[unseen]),
            "head_norm": float(head.norm(dim=1).mean()),
        }
        for name, kept in (("visited", ~unseen), ("all", np.ones_like(unseen))):
            snapshot = Snapshot(
                features=features[kept],
                labels=trainer.optimal_actions[kept],
                head=head,
                num_classes=mdp.num_actions,
                step=trainer.epoch,
                tags={"seed": trainer.seeds[member], "cells": name},
            )
            metrics = snapshot_metrics(snapshot)
            yield {
                "cells": name,
                **shared,
                "greedy_accuracy": float(correct[kept].mean()),
                "optimal": float(correct[kept].all()),
                "min_feature_head_cosine": float(cosine[kept].min()),
                "feature_norm": float(features[kept].norm(dim=1).mean()),
                **{name: float(getattr(metrics, name)) for name in METRICS},
            }


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else float("nan")


def run_case(
    case: Case,
    seeds: tuple[int, ...],
    folder: RunFolder,
    advance: Callable[[int], None] = lambda epochs: None,
) -> None:
    """Train one case into the folder's rows, measured after its end. Complete rows are kept.

    Parameters
    ----------
    advance
        Called with the number of epochs gained, for a progress bar.
    """
    if folder.has_rows(case.name):
        advance(case.config.epochs)
        return
    trainer = TabularTrainer(case.config, seeds)
    for _ in range(case.config.epochs):
        trainer.train_epoch()
        advance(1)
    table = pd.DataFrame(measure(trainer))
    table.insert(0, "condition", case.condition.name)
    table.insert(1, "arm", case.arm.name)
    folder.write_rows(case.name, table)


# --- expectations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """An expectation on the median over seeds after the last epoch."""

    condition: str
    arm: str
    cells: str
    column: str
    sense: str
    """``"<="`` or ``">="``."""
    limit: float


def _bars(
    arm: str, column: str, sense: str, limits: Mapping[str, float], cells: str = "visited"
) -> tuple[Bar, ...]:
    return tuple(Bar(name, arm, cells, column, sense, limit) for name, limit in limits.items())


BARS: tuple[Bar, ...] = (
    # Where all conditions hold, everything with a norm control collapses.
    *_bars("learned-l2", "head_max_angle", "<=", {"base": 5e-3}),
    *_bars("learned-l2", "feature_max_angle", "<=", {"base": 5e-3}),
    *_bars("etf-l2", "feature_max_angle", "<=", {"base": 5e-3}),
    # The fixed head with a norm bound restores every cell that is sampled ...
    *_bars(
        "etf-sphere",
        "min_feature_head_cosine",
        ">=",
        {condition.name: 0.999 for condition in CONDITIONS},
    ),
    # ... and none that is not.
    *_bars(
        "etf-sphere",
        "feature_max_angle",
        ">=",
        {"state-unseen": 0.059, "class-unseen": 0.083},
        cells="all",
    ),
    # A learned head does not stay an ETF,
    *_bars(
        "learned-l2",
        "head_max_angle",
        ">=",
        {
            "sizes-2": 0.008,
            "sizes-5": 0.022,
            "rare-10": 0.0125,
            "rare-100": 0.029,
            "state-unseen": 0.012,
            "class-unseen": 0.079,
        },
    ),
    # nor do the features of a fixed head without a norm bound,
    *_bars(
        "etf-l2",
        "feature_max_angle",
        ">=",
        {"sizes-2": 0.0065, "sizes-5": 0.027, "rare-10": 0.033, "rare-100": 0.065},
    ),
    # while the bound alone gives a learned head most of the features', not the head's, angles.
    *_bars(
        "learned-sphere",
        "feature_max_angle",
        "<=",
        {"base": 0.018, "sizes-2": 0.016, "sizes-5": 0.098, "rare-10": 0.01, "rare-100": 0.028},
    ),
    *_bars(
        "learned-sphere",
        "head_max_angle",
        ">=",
        {"sizes-2": 0.009, "sizes-5": 0.0375, "rare-10": 0.0285, "rare-100": 0.0545},
    ),
)
"""Set before the committed run from a prototype (8 seeds): half its value where a deviation is
expected, twice its value where its absence is. REINFORCE from d^π had no prototype and has none."""


def evaluate_bars(rows: pd.DataFrame) -> pd.DataFrame:
    """Hold the medians over seeds against the bars.

    Returns
    -------
    One row a bar: condition, arm, cells, column, value, sense, limit, met.
    """
    last = rows.set_index(["condition", "arm", "cells"])
    found = []
    for bar in BARS:
        key = (bar.condition, bar.arm, bar.cells)
        value = float(np.median(last.loc[[key], bar.column].to_numpy(dtype=float)))
        met = value <= bar.limit if bar.sense == "<=" else value >= bar.limit
        found.append({**asdict(bar), "value": value, "met": bool(met)})
    return pd.DataFrame(found)


# --- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AblationFigure:
    """The ablations' figure with what it is drawn from."""

    rows: pd.DataFrame
    conditions: pd.DataFrame
    bars: pd.DataFrame
    caption: str
    png: bytes
    paths: tuple[Path, ...]

    @property
    def expectations_met(self) -> bool:
        """Whether every bar is met."""
        return bool(self.bars["met"].all())


def run_ablations(
    out: Path,
    seeds: int,
    workers: int,
    results: Path | None = None,
    on_advance: Callable[[str, int], None] = lambda name, epochs: None,
) -> AblationFigure:
    """Train what is missing, draw the figure from the rows, and store it as PNG and PDF.

    Parameters
    ----------
    results
        Where rows of the same configuration are taken from.
    on_advance
        Called with a case's name and the epochs it gained; ``cases()`` says what there is to do.
    """
    chosen, members = cases(), tuple(range(seeds))
    config = {
        "experiment": "ablations-cliff",
        "seeds": list(members),
        "cases": {case.name: asdict(case.config) for case in chosen},
    }
    folder = RunFolder(out, "ablations-cliff", config)
    with folder.session():
        if results is not None:
            folder.take_over(results)
        run_parts(
            {case.name: partial(run_case, case, members, folder) for case in chosen},
            workers,
            on_advance,
        )
        conditions = condition_rows()
        if not folder.has_rows("conditions"):
            folder.write_rows("conditions", conditions)
        rows = pd.concat([folder.read_rows(case.name) for case in chosen], ignore_index=True)
        caption = _caption(seeds)
        figure = figure_ablations(
            rows,
            conditions={c.name: c.label for c in CONDITIONS},
            arms={arm.name: arm.label for arm in ARMS},
            sampled={c.name: c.label for c in SAMPLED_CONDITIONS},
            caption=caption,
        )
        png = encode(figure, "png")
        paths = (
            folder.write("figures/ablations-cliff.png", png),
            folder.write("figures/ablations-cliff.pdf", encode(figure, "pdf")),
        )
    return AblationFigure(rows, conditions, evaluate_bars(rows), caption, png, paths)


def _caption(seeds: int) -> str:
    return (
        f"Ideal Cliff Walking with one condition of Section 3 broken at a time, {seeds} seeds, "
        "float64, MLP [64, 64] on one-hot states, Adam 1e-3 with a cosine schedule, coupled L2 "
        "5e-4 where named, sphere ‖h‖² = 25 on linear features, ETF with "
        f"E_W = 1. (a)–(c) Eq. (2) with Ψ = 1, {EXACT.epochs} epochs × "
        f"{EXACT.updates_per_epoch} updates. (d)–(f) REINFORCE, running normalisation of the "
        f"returns, {SAMPLED.epochs} epochs × {SAMPLED.updates_per_epoch} updates: a sweep of 8 "
        "returns from each cell, or 32 on-policy episodes a collect; max/min of d over the cells "
        "under the learned policies. Class-mean centre; dots: median over seeds, lines: its 95 % "
        "bootstrap band. Filled: cells that are sampled; hollow, where some never are: all cells "
        "(b), the mean over those never sampled (c). An ETF head's own angle is 0 and not drawn; "
        f"what is below an axis is drawn at its left end.{few_runs_words(seeds)}"
    )
