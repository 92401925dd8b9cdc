"""The peeled model's prediction held against many seeds of the Ideal Cliff Walking.

Arms of Figure 1 whose norms are controlled, trained on its seeds; every member gets an overlay of
its own (`analysis.overlay`), and what is pooled are the members. The 8 cells are all states there
are, so the seeds are the only sample, and the band over them says whether prediction and
observation agree.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from agents import TabularTrainer
from analysis.cliff import Arm, arms
from analysis.overlay import GRAMS, Across, across_runs, overlay
from analysis.overlay_measure import Cone, Float, Head
from analysis.snapshot import Snapshot
from analysis.storage import RunFolder

_ARMS = ("etf-eq2", "learned-eq2", "etf-controlled", "learned-controlled")


def overlay_arms(epochs: int) -> tuple[Arm, ...]:
    """Arms of Figure 1 (cliff) that the model is laid over: those with a bound on the norms."""
    known = {arm.name: arm for arm in arms(epochs)}
    return tuple(known[name] for name in _ARMS)


def model_of(arm: Arm) -> tuple[Head, Cone]:
    """Which peeled model predicts an arm."""
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
    entry: ``arm``, ``seed``, ``epoch``; ``gram``, of `analysis.overlay.GRAMS`; ``row`` and
    ``column``, the actions of the entry; ``predicted``, ``observed``.

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
    head, cone = model_of(arm)
    features, weights = trainer.output().features, trainer.policy.head.weight.detach()
    parts = []
    for member, seed in enumerate(trainer.seeds):
        found = overlay(
            Snapshot(
                features[member],
                trainer.optimal_actions,
                weights[member],
                num_classes=trainer.mdp.num_actions,
                step=trainer.epoch,
            ),
            # Two states an action leave no intervals: its resamples go nowhere.
            rng=np.random.default_rng(seed),
            head=head,
            cone=cone,
            bootstrap=2,
        )
        for gram, comparison in found.comparisons.items():
            rows, columns = np.indices(comparison.observed.shape)
            parts.append(
                pd.DataFrame(
                    {
                        "arm": arm.name,
                        "seed": seed,
                        "epoch": trainer.epoch,
                        "gram": gram,
                        "row": rows.ravel(),
                        "column": columns.ravel(),
                        "predicted": comparison.predicted.ravel(),
                        "observed": comparison.observed.ravel(),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def pool_rows(rows: pd.DataFrame, rng: np.random.Generator) -> Across:
    """Pool the seeds in the rows of one arm; `rng` draws the resamples of seeds."""

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


def pooled_table(pooled: Mapping[str, Across]) -> pd.DataFrame:
    """Whether prediction and observation agree, by arm.

    Returns
    -------
    One row an arm and Gram matrix: ``arm``; ``gram``; ``seeds``; ``difference``, the largest
    absolute entry of the mean difference; ``half_width``, the largest of the band; ``beyond``, how
    far the band ends from 0 in the worst entry, 0 where it holds 0 in all; ``outside``, in how many
    of the ``entries`` it does not; ``covered``, whether in none.
    """
    return pd.DataFrame(
        {
            "arm": arm,
            "gram": gram,
            "seeds": found.runs,
            "difference": float(np.abs(found.difference[gram]).max()),
            "half_width": float((found.upper[gram] - found.lower[gram]).max() / 2),
            "beyond": float(max(found.lower[gram].max(), -found.upper[gram].min(), 0.0)),
            "outside": int(found.outside(gram).sum()),
            "entries": found.difference[gram].size,
            "covered": found.covered([gram]),
        }
        for arm, found in pooled.items()
        for gram in GRAMS
    )
