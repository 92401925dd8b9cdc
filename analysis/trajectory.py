"""Features and head over training, kept as rows: the source of the interactive view.

A run folder whose configuration names :data:`EXPERIMENT` holds one part a track, whatever policy
the snapshots are of; for the Ideal Cliff Walking they are made here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agents import TabularTrainer
from analysis.cliff import Arm, arms, snapshot_epochs
from analysis.collapse_view import Track, as_float64, as_labels, view_data
from analysis.exhibits import read_rows
from analysis.snapshot import Snapshot
from analysis.storage import RunFolder
from gridworld.cliff import ACTION_NAMES

EXPERIMENT = "collapse-view"
"""Name under which a run folder's configuration says that its parts are tracks of a view."""


def snapshot_rows(snapshots: Sequence[Snapshot]) -> pd.DataFrame:
    """Rows that keep snapshots of the same d, float32.

    Returns
    -------
    One row a feature or head row: ``step``; ``kind``, "feature" or "head"; ``state``, its number
    in the snapshot, −1 for a head row; ``label``, the action it belongs to; ``x0`` … ``x{d−1}``.
    """
    parts = []
    for snapshot in snapshots:
        kinds = [("feature", as_float64(snapshot.features), as_labels(snapshot))]
        if snapshot.head is not None:
            kinds.append(("head", as_float64(snapshot.head), np.arange(snapshot.num_classes)))
        for kind, values, labels in kinds:
            part = pd.DataFrame(
                values.astype(np.float32), columns=[f"x{i}" for i in range(snapshot.dim)]
            )
            state = np.arange(len(values)) if kind == "feature" else -1
            for column, content in (("label", labels), ("state", state), ("kind", kind)):
                part.insert(0, column, content)
            part.insert(0, "step", snapshot.step)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def rows_snapshots(rows: pd.DataFrame, num_classes: int) -> list[Snapshot]:
    """Snapshots of the rows that `snapshot_rows` made, in the order of their steps."""
    columns = [column for column in rows.columns if column.startswith("x")]
    found = []
    for step, own in rows.groupby("step", sort=True):
        features, head = own[own["kind"] == "feature"], own[own["kind"] == "head"]
        found.append(
            Snapshot(
                features[columns].to_numpy(),
                features["label"].to_numpy(),
                head[columns].to_numpy() if len(head) else None,
                num_classes=num_classes,
                step=int(step),
            )
        )
    return found


def read_view(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """View data of a run folder whose configuration names :data:`EXPERIMENT`.

    Parameters
    ----------
    folder
        Holds ``rows/NAME.parquet`` of each complete track.
    config
        Its configuration: ``title``, ``caption``, ``unit``, ``actions`` and ``tracks``, a list of
        objects with ``name`` and ``label``. Tracks without rows are left out, and the caption says
        which.

    Raises
    ------
    ValueError
        No track is complete.
    RunFolderError
        A track's rows are damaged.
    """
    actions = config["actions"]
    tracks, untrained = [], []
    for track in config["tracks"]:
        rows = folder / "rows" / f"{track['name']}.parquet"
        if rows.exists():
            snapshots = rows_snapshots(read_rows(rows), len(actions))
            tracks.append(Track(track["name"], track["label"], snapshots))
        else:
            untrained.append(track["label"])
    caption = config["caption"]
    if untrained:
        caption += f" Not trained yet: {'; '.join(untrained)}."
    return view_data(config["title"], caption, actions, tracks, config["unit"])


# --- the Ideal Cliff Walking ----------------------------------------------------------------------

_CLIFF_TRACKS = {
    "learned-controlled": "learned head, norm control (L2)",
    "etf-controlled": "ETF head, norm control (ball)",
    "learned-paper": "learned head, paper's settings",
}


def cliff_arms(epochs: int) -> tuple[Arm, ...]:
    """Arms of Figure 1 that the view of the Ideal Cliff Walking shows, in its order."""
    known = {arm.name: arm for arm in arms(epochs)}
    return tuple(known[name] for name in _CLIFF_TRACKS)


def cliff_folder(out: Path, epochs: int, seed: int) -> RunFolder:
    """Run folder of the view of the Ideal Cliff Walking."""
    return RunFolder(
        out,
        EXPERIMENT,
        {
            "experiment": EXPERIMENT,
            "title": "Ideal Cliff Walking",
            "caption": (
                f"REINFORCE on the Ideal Cliff Walking, seed {seed}, {epochs} epochs: the "
                "penultimate features (64 dimensions) of the 8 cells, two for each optimal action."
            ),
            "unit": "epoch",
            "actions": list(ACTION_NAMES),
            "seed": seed,
            "tracks": [
                {"name": arm.name, "label": _CLIFF_TRACKS[arm.name], "config": asdict(arm.config)}
                for arm in cliff_arms(epochs)
            ],
        },
    )


def run_trajectory(
    arm: Arm,
    seed: int,
    folder: RunFolder,
    advance: Callable[[int], None] = lambda epochs: None,
) -> None:
    """Train one seed of an arm and store its features and head over training, once.

    A quarter of a minute for 500 epochs, so there is no checkpoint: interrupted, it starts anew.

    Parameters
    ----------
    advance
        Called with the number of epochs gained, for a progress bar.
    """
    if folder.has_rows(arm.name):
        advance(arm.config.epochs)
        return
    trainer = TabularTrainer(arm.config, [seed])
    wanted = set(snapshot_epochs(arm.config.epochs))
    snapshots = [_cliff_snapshot(trainer)]
    while trainer.epoch < arm.config.epochs:
        trainer.train_epoch()
        if trainer.epoch in wanted:
            snapshots.append(_cliff_snapshot(trainer))
        advance(1)
    folder.write_rows(arm.name, snapshot_rows(snapshots))


def _cliff_snapshot(trainer: TabularTrainer) -> Snapshot:
    return Snapshot(
        trainer.output().features[0],
        trainer.optimal_actions,
        # A copy: an optimiser changes a learned head in place.
        trainer.policy.head.weight[0].detach().clone(),
        num_classes=trainer.mdp.num_actions,
        step=trainer.epoch,
    )
