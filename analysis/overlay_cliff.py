"""Predictions held against many seeds of the Ideal Cliff Walking.

Two models predict where the same network ends: the layer-peeled model of Eq. (2)
(`analysis.overlay`), and Eq. (1), the return itself (`analysis.return_optimum`: with a fixed head
its optimum, with a learned one where a trainer that samples all cells alike rests). Arms are
trained on one or the other: Eq. (2) and Eq. (1) by exact gradients, and REINFORCE, which samples
the gradient of Eq. (1). Every member is held against its own objective's prediction, those of
Eq. (1) against Eq. (2)'s as well. The 8 cells are all states there are, so the seeds are the only
sample, and the band over them says whether prediction and observation agree.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from agents import TabularTrainer
from analysis.cliff import Arm, arms
from analysis.labelling import as_array
from analysis.overlay import GRAMS, Across, across_runs, overlay
from analysis.overlay_grams import measured_grams
from analysis.overlay_measure import Cone, Float, Head, Measured, Statistics
from analysis.return_optimum import ReturnOptimum, fixed_head_optimum, learned_head_equilibrium
from analysis.snapshot import Snapshot
from analysis.storage import RunFolder

Objective = Literal["eq-1", "eq-2"]

ACCURACY = 1e-6
"""Differences below it count as agreement: what exact training is run to, in Grams whose entries
are of order one (seeds of the learned head differ among each other by up to 1e-6)."""

# Largest gap of the return at which what was found counts as the global optimum.
_CERTIFIED = 1e-9

_LARGE_BATCH: dict[str, Any] = {"episodes": 64}
_LONGER = 4


def overlay_arms(epochs: int) -> tuple[Arm, ...]:
    """Arms that the models are laid over: those with a bound on the norms.

    For each head Eq. (2) and Eq. (1) by exact gradients; REINFORCE as in Figure 1, with eight times
    the episodes, and with these for four times as many epochs.
    """
    known = {arm.name: arm for arm in arms(epochs)}
    found = []
    for head in ("etf", "learned"):
        exact, sampled = known[f"{head}-eq2"], known[f"{head}-controlled"]
        large = replace(sampled.config, **_LARGE_BATCH)
        long = replace(large, epochs=_LONGER * epochs)
        norms = exact.label.removeprefix("Eq. (2), ")
        batch = f"REINFORCE with {large.episodes} episodes a cell, {norms}"
        found += [
            exact,
            Arm(
                f"{head}-eq1",
                f"Eq. (1), exact gradient, {norms}",
                replace(exact.config, objective="all-action"),
            ),
            sampled,
            Arm(f"{head}-large", batch, large),
            Arm(f"{head}-large-long", batch, long),
        ]
    return tuple(found)


def objectives_of(arm: Arm) -> tuple[Objective, ...]:
    """Objectives whose optimum an arm is held against, its own first."""
    return ("eq-2",) if arm.config.objective == "surrogate" else ("eq-1", "eq-2")


def model_of(arm: Arm) -> tuple[Head, Cone]:
    """Which head and features the models of an arm have."""
    return (
        "learned" if arm.config.head == "linear" else "fixed",
        "nonnegative" if arm.config.feature == "rectified" else "free",
    )


def run_arm(
    arm: Arm,
    seeds: tuple[int, ...],
    folder: RunFolder,
    advance: Callable[[int], None] = lambda epochs: None,
) -> None:
    """Train one arm and store every seed's Gram matrices after the last epoch, once.

    It takes minutes, so there is no checkpoint: interrupted, it starts anew. The rows, one an
    entry: ``arm``, ``seed``, ``epoch``; ``objective``, whose optimum predicts, one of
    `objectives_of`; ``feature_energy`` and ``head_energy``, the member's mean ‖h_s‖² over states
    and mean ‖w_k‖²; ``gram``, of `analysis.overlay.GRAMS`; ``row`` and ``column``, the actions of
    the entry; ``predicted``, ``observed``.

    Parameters
    ----------
    advance
        Called with the number of epochs gained, for a progress bar.
    """
    if folder.has_rows(arm.name):
        advance(arm.config.epochs)
        return
    trainer = TabularTrainer(arm.config, seeds)
    for _ in range(arm.config.epochs):
        trainer.train_epoch()
        advance(1)
    folder.write_rows(arm.name, gram_rows(arm, trainer))


def gram_rows(arm: Arm, trainer: TabularTrainer) -> pd.DataFrame:
    """Rows of `run_arm` of a trainer as it is."""
    parts = []
    for member, seed in enumerate(trainer.seeds):
        snapshot = _snapshot(trainer, member)
        observed = _grams(snapshot)
        energy, head_energy = _energies(snapshot)
        for objective in objectives_of(arm):
            predicted = _PREDICTIONS[objective](arm, trainer, snapshot, seed)
            for gram in GRAMS:
                rows, columns = np.indices(observed[gram].shape)
                parts.append(
                    pd.DataFrame(
                        {
                            "arm": arm.name,
                            "seed": seed,
                            "epoch": trainer.epoch,
                            "objective": objective,
                            "feature_energy": energy,
                            "head_energy": head_energy,
                            "gram": gram,
                            "row": rows.ravel(),
                            "column": columns.ravel(),
                            "predicted": predicted[gram].ravel(),
                            "observed": observed[gram].ravel(),
                        }
                    )
                )
    return pd.concat(parts, ignore_index=True)


def _snapshot(trainer: TabularTrainer, member: int) -> Snapshot:
    return Snapshot(
        trainer.output().features[member],
        trainer.optimal_actions,
        trainer.policy.head.weight.detach()[member],
        num_classes=trainer.mdp.num_actions,
        step=trainer.epoch,
    )


def _energies(snapshot: Snapshot) -> tuple[float, float]:
    """Mean ‖h_s‖² over states, which may differ within an action, and mean ‖w_k‖²."""
    parts = as_array(snapshot.features), as_array(snapshot.head)
    energy, head_energy = (float((part**2).sum(axis=1).mean()) for part in parts)
    return energy, head_energy


def _grams(snapshot: Snapshot) -> dict[str, Float]:
    """Gram matrices by name as `analysis.overlay` defines them."""
    measured = Measured.of(snapshot, "fixed", None, "means")
    found = Statistics.of_sample(measured)
    return {name: gram[0] for name, gram in measured_grams(found, measured).items()}


def _surrogate_optimum(
    arm: Arm, trainer: TabularTrainer, snapshot: Snapshot, seed: int
) -> dict[str, Float]:
    """Grams at the peeled model's optimum, Eq. (2), for the member's energies."""
    head, cone = model_of(arm)
    # Two states an action leave no intervals: the resamples go nowhere.
    rng = np.random.default_rng(seed)
    found = overlay(snapshot, rng=rng, head=head, cone=cone, bootstrap=2)
    return {name: comparison.predicted for name, comparison in found.comparisons.items()}


def _return_optimum(
    arm: Arm, trainer: TabularTrainer, snapshot: Snapshot, seed: int
) -> dict[str, Float]:
    """Grams at the optimum of Eq. (1) for the member's energies: as if it had trained there."""
    optimum = return_optimum(arm, trainer, snapshot, seed)
    at = replace(snapshot, features=optimum.features, head=optimum.head)
    return _grams(at)


def return_optimum(
    arm: Arm, trainer: TabularTrainer, snapshot: Snapshot, seed: int
) -> ReturnOptimum:
    """Where Eq. (1) leads a member: its frozen head in the ball, or its energies.

    Raises
    ------
    ValueError
        A fixed head's features are rectified or have no ball, for which there is no prediction.
    RuntimeError
        The optimum of a fixed head is not certified to be the global one.
    """
    rng, config = np.random.default_rng(seed), arm.config
    if config.head == "linear":
        energies = _energies(snapshot)
        rectified = config.feature == "rectified"
        return learned_head_equilibrium(trainer.mdp, *energies, rng, nonnegative=rectified)
    if config.feature_energy is None or config.feature == "rectified":
        raise ValueError(
            f"{arm.name} has a fixed head and feature={config.feature!r}, feature_energy="
            f"{config.feature_energy}: the optimum of Eq. (1) is known for linear features in a "
            "ball"
        )
    head = as_array(snapshot.head)
    found = fixed_head_optimum(trainer.mdp, head, config.feature_energy, rng)
    if found.gap > _CERTIFIED:
        raise RuntimeError(
            f"{arm.name}: the return may be {found.gap:.1e} above the optimum that was found, "
            "which is then no prediction: raise feature_energy"
        )
    return found


_PREDICTIONS: Mapping[
    Objective, Callable[[Arm, TabularTrainer, Snapshot, int], dict[str, Float]]
] = {"eq-1": _return_optimum, "eq-2": _surrogate_optimum}


def pool_rows(rows: pd.DataFrame, rng: np.random.Generator) -> Across:
    """Pool the seeds in one arm's rows of one objective; `rng` draws the resamples of seeds."""

    def matrices(value: str) -> dict[str, Float]:
        tables = {
            gram: rows[rows["gram"] == gram].pivot(
                index="seed", columns=["row", "column"], values=value
            )
            for gram in GRAMS
        }
        return {
            gram: table.sort_index(axis=1).to_numpy().reshape(len(table), *table.columns.levshape)
            for gram, table in tables.items()
        }

    return across_runs(matrices("predicted"), matrices("observed"), rng)


def pooled_table(pooled: Mapping[tuple[str, Objective], Across]) -> pd.DataFrame:
    """Whether prediction and observation agree, by arm and objective.

    Returns
    -------
    One row an arm, objective and Gram matrix: ``arm``; ``objective``; ``gram``; ``seeds``;
    ``difference``, the largest absolute entry of the mean difference; ``half_width``, the largest
    of the band; ``beyond``, how far the band ends from 0 in the worst entry, 0 where it holds 0 in
    all; ``outside``, in how many of the ``entries`` by more than `ACCURACY`; ``covered``, whether
    in none.
    """
    return pd.DataFrame(
        {
            "arm": arm,
            "objective": objective,
            "gram": gram,
            "seeds": found.runs,
            "difference": float(np.abs(found.difference[gram]).max()),
            "half_width": float((found.upper[gram] - found.lower[gram]).max() / 2),
            "beyond": float(max(found.lower[gram].max(), -found.upper[gram].min(), 0.0)),
            "outside": int(found.outside(gram, ACCURACY).sum()),
            "entries": found.difference[gram].size,
            "covered": found.covered([gram], ACCURACY),
        }
        for (arm, objective), found in pooled.items()
        for gram in GRAMS
    )
