"""`overlay`: trained policies held against the layer-peeled model's optimum."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import tyro
from rich.table import Table
from rich.text import Text

from analysis.agent_words import HEADS, setting_label
from analysis.aggregate import matched_entropy
from analysis.commands.console import BEGINS_ANEW, UsageError, progress_bars, say, stdout
from analysis.exhibits import FigureWords, read_rows, store_figure
from analysis.figures.overlay import figure_overlay
from analysis.figures.style import encode
from analysis.labelling import as_array
from analysis.overlay import Interval, overlay
from analysis.overlay import Overlay as Found
from analysis.overlay_measure import Cone, Head
from analysis.snapshot import Snapshot
from analysis.storage import RunFolder, RunFolderError, read_json, source_digest
from analysis.trained import DIVERGED, read_config, read_snapshots, stored_epochs
from analysis.trajectory import EXPERIMENT, rows_snapshots

_MOST_FIGURES = 4
SOURCES = (
    "lpm",
    *(
        f"analysis/{name}.py"
        for name in (
            *("bands", "overlay", "overlay_grams", "overlay_measure", "overlay_model"),
            "overlay_resamples",
        )
    ),
)
"""What an overlay is computed by."""


@dataclass(frozen=True)
class Overlay:
    """Lay the peeled model's optimum over every member of a training run, or of a view's rows."""

    trained: tyro.conf.Positional[Path]
    """Folder of a training run with stored epochs (snapshot_epochs), or of `collapse-view`."""
    epoch: int | None = None
    """Epoch to measure; by default the last that is stored."""
    head: Literal["auto", "fixed", "learned"] = "auto"
    """Which model predicts. auto: learned for a linear head, fixed for a frozen one."""
    bootstrap: int = 500
    """Resamples for the intervals."""
    seed: int = 0
    """Seeds the resamples."""
    out: Path = Path("runs")
    """Directory of run folders; the same command reuses what is there."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        if self.bootstrap < 2:
            raise UsageError(f"--bootstrap must be >= 2, got {self.bootstrap}")
        if self.seed < 0:
            raise UsageError(f"--seed must be >= 0, got {self.seed}")
        source = _read(self.trained, self.epoch)
        folder = RunFolder(
            self.out,
            "overlay",
            {
                "experiment": "overlay",
                "run": source.run,
                "content": source.digest,
                "code": source_digest(*SOURCES),
                "epoch": source.epoch,
                "head": self.head,
                "bootstrap": self.bootstrap,
                "seed": self.seed,
            },
        )
        if not _complete(folder):
            rows, overlays = self._overlays(source)
            with folder.session():
                self._store(folder, source, rows, overlays)
        rows = folder.read_rows("overlay")
        stdout.print(_table(source, rows))
        for kind in ("notes", "reasons"):
            for row in rows[rows[kind] != ""].to_dict("records"):
                say(stdout, f"{row['name']}: {row[kind]}")
        for name in rows.loc[rows["figure"] != "", "figure"]:
            say(stdout, f"figure: {folder.path / 'figures' / f'{name}.png'}")
        say(stdout, f"rows: {folder.path}")
        return 0

    def _overlays(self, source: "_Source") -> tuple[list[dict[str, Any]], list[Found | None]]:
        """One row a member, and its overlay where it has one."""
        rows: list[dict[str, Any]] = []
        overlays: list[Found | None] = []
        with progress_bars() as progress:
            task = progress.add_task("overlays", total=len(source.members))
            for number, member in enumerate(source.members):
                model = member.model if self.head == "auto" else self.head
                row: dict[str, Any] = {
                    "member": number,
                    "name": member.name,
                    "head": member.kind,
                    "seed": member.seed,
                    "epoch": source.epoch,
                    "states": 0 if member.snapshot is None else member.snapshot.num_samples,
                    "episodes": _games(member.snapshot),
                    "model": model,
                    "cone": member.cone,
                    "figure": "",
                    "notes": "",
                    "reasons": "",
                }
                try:
                    if member.snapshot is None:
                        raise ValueError(DIVERGED)
                    found = overlay(
                        member.snapshot,
                        rng=np.random.default_rng([self.seed, number]),
                        head=model,
                        cone=member.cone,
                        bootstrap=self.bootstrap,
                    )
                except ValueError as error:
                    # A member that holds no comparison, say of one action only, is no reason to
                    # withhold the others.
                    row["reasons"] = f"overlay: {error}"
                    overlays.append(None)
                else:
                    row |= _measured(found)
                    overlays.append(found)
                rows.append(row)
                progress.advance(task)
        if not any(overlays):
            failures = "; ".join(f"{row['name']}: {row['reasons']}" for row in rows)
            raise UsageError(
                f"nothing to compare in {self.trained}, epoch {source.epoch}: {failures}"
            )
        return rows, overlays

    def _store(
        self,
        folder: RunFolder,
        source: "_Source",
        rows: list[dict[str, Any]],
        overlays: list[Found | None],
    ) -> None:
        """Rows come last, so that what has rows has its figures."""
        drawn = set[str]()
        for row, member, found in zip(rows, source.members, overlays, strict=True):
            if found is not None and member.group not in drawn and len(drawn) < _MOST_FIGURES:
                drawn.add(member.group)
                row["figure"] = self._draw(folder, source, member, found)
        if not folder.has_rows("overlay"):
            folder.write_rows("overlay", pd.DataFrame(rows))

    def _draw(self, folder: RunFolder, source: "_Source", member: "_Member", found: Found) -> str:
        name = f"{folder.path.name}-{member.name}"
        steps = "" if source.steps is None else f", {source.steps:,} agent steps"
        games = _games(member.snapshot)
        units = "the states, where every action has enough of them"
        if games:
            units = "the games of the states, where every action is in enough of them"
            units += f" ({games} in all)"
        caption = (
            f"{source.caption}; {member.label}, epoch {source.epoch}{steps}: "
            f"{found.counts.sum()} states, labelled by {source.labels}. Layer-peeled "
            f"model for the measured class shares and energies, {found.head} head. Angles and "
            f"norms: mean absolute error, with {100 * found.level:g} % intervals from "
            f"{self.bootstrap} resamples of {units}"
            f"{'' if games else source.caveat}."
        )
        figure = figure_overlay(found, caption, source.actions)
        pictures = {kind: encode(figure, kind) for kind in ("png", "pdf")}
        title = f"Peeled model over {source.title}, {member.label}, epoch {source.epoch}"
        store_figure(folder, name, pictures, FigureWords(title, caption, _alternative(found)))
        return name


@dataclass(frozen=True)
class _Member:
    """One policy of a run."""

    name: str
    label: str
    group: str
    """One figure is drawn of each."""
    kind: str
    seed: int
    cone: Cone
    snapshot: Snapshot | None
    """None if the member has diverged."""

    @property
    def model(self) -> Head:
        return "learned" if self.kind == "linear" else "fixed"


@dataclass(frozen=True)
class _Source:
    """What a folder holds of one epoch."""

    run: str
    title: str
    caption: str
    labels: str
    epoch: int
    steps: int | None
    """Of a member's training up to the epoch; None where they are not counted."""
    actions: Sequence[str] | None
    caveat: str
    """What intervals leave out where it is not known which games the states are from."""
    members: Sequence[_Member]
    digest: str


def _read(path: Path, epoch: int | None) -> _Source:
    recorded = path / "config.json"
    if not recorded.exists():
        raise RunFolderError(
            f"{path} is no run folder, it has no config.json: name the folder of a training run, "
            "or of `action-collapse collapse-view`"
        )
    config = read_json(recorded, "restore it, or train again into another --out")
    if config.get("experiment") == EXPERIMENT:
        return _read_view(path, config, epoch)
    return _read_training(path, epoch)


def _read_training(path: Path, epoch: int | None) -> _Source:
    config = read_config(path)
    if epoch is None:
        epochs = stored_epochs(path)
        if not epochs:
            raise RunFolderError(
                f"{path} has no snapshots: train with --set 'snapshot_epochs=({config.epochs},)' "
                "to keep features of the last epoch"
            )
        epoch = epochs[-1]
    snapshots = read_snapshots(path, epoch)
    cone = _cone(config.feature)
    setting = {
        "env": config.env.id,
        "algorithm": config.algorithm.name,
        "convention": config.env.convention,
        "observations": config.env.observations,
        "network": config.network,
        "matched_entropy": matched_entropy(config.match_entropy),
        "feature": config.feature,
    }
    title = setting_label(setting, with_env=True)
    return _Source(
        run=path.resolve().name,
        title=title,
        caption=f"{title}, states of the evaluation",
        labels="the likeliest action",
        epoch=epoch,
        steps=_steps(path, epoch),
        actions=None,
        caveat=f", not of the {config.eval_episodes} games that they are from",
        members=[
            _Member(
                f"{head.kind}-{seed}",
                f"{HEADS[head.kind]} head, seed {seed}",
                head.kind,
                head.kind,
                seed,
                cone,
                snapshot,
            )
            for (head, seed), snapshot in zip(config.members, snapshots, strict=True)
        ],
        digest=_digest([path / "config.json", path / "snapshots" / f"epoch-{epoch:05d}.pt"]),
    )


def _steps(path: Path, epoch: int) -> int | None:
    """Agent steps of a member up to an epoch; a run that goes on has not stored its rows yet."""
    file = path / "rows" / "epochs.parquet"
    if not file.exists():
        return None
    rows = read_rows(file)
    return int(rows.loc[rows["epoch"] == epoch, "steps"].max())


def _read_view(path: Path, config: dict[str, Any], epoch: int | None) -> _Source:
    try:
        actions, seed = config["actions"], config["seed"]
        arms = [
            (track["name"], track["label"], track["config"]["head"], track["config"]["feature"])
            for track in config["tracks"]
        ]
        caption = f"{config['title']}, seed {seed}"
    except (KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} does not say which heads its tracks have ({error}): name a folder made by "
            "`action-collapse collapse-view`"
        ) from error
    files = {name: path / "rows" / f"{name}.parquet" for name, *_ in arms}
    files = {name: file for name, file in files.items() if file.exists()}
    if not files:
        raise RunFolderError(f"{path} has no rows yet: finish it with action-collapse {EXPERIMENT}")
    tracks = {
        name: {one.step: one for one in rows_snapshots(read_rows(file), len(actions))}
        for name, file in files.items()
    }
    common = sorted(set.intersection(*map(set, tracks.values())))
    if not common or (epoch is not None and epoch not in common):
        raise RunFolderError(
            f"{path} has no epoch {'in common' if epoch is None else epoch} of all its tracks "
            f"(stored: {', '.join(map(str, common)) or 'none'})"
        )
    epoch = common[-1] if epoch is None else epoch
    members = [
        _Member(name, label, name, kind, seed, _cone(feature), tracks[name][epoch])
        for name, label, kind, feature in arms
        if name in files
    ]
    return _Source(
        run=path.resolve().name,
        title=config["title"],
        caption=caption,
        labels="the optimal action",
        epoch=epoch,
        steps=None,
        actions=actions,
        caveat="",
        members=members,
        digest=_digest([path / "config.json", *files.values()]),
    )


def _games(snapshot: Snapshot | None) -> int:
    """How many episodes a snapshot's states are from, 0 where it does not say."""
    if snapshot is None or snapshot.episodes is None:
        return 0
    return len(np.unique(as_array(snapshot.episodes)))


def _cone(feature: str) -> Cone:
    return "nonnegative" if feature == "rectified" else "free"


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _complete(folder: RunFolder) -> bool:
    """Whether rows and all their figures are there; a figure may have been deleted."""
    if not folder.has_rows("overlay"):
        return False
    names = folder.read_rows("overlay")["figure"]
    return all((folder.path / "figures" / f"{name}.png").exists() for name in names if name)


def _measured(found: Found) -> dict[str, Any]:
    """Columns of an overlay."""
    row: dict[str, Any] = {
        "actions": len(found.present),
        "fewest_states": int(found.counts.min()),
        "feature_energy": found.feature_energy,
        "head_energy": found.head_energy,
        "etf_angle": found.etf_angle,
        **dict(_ends("gap", found.gap)),
        **{f"loss_{name}": loss for name, loss in found.losses.items()},
        "notes": "; ".join(found.notes),
        "reasons": "; ".join(f"{name}: {reason}" for name, reason in found.reasons.items()),
    }
    for name, term in found.terms.items():
        row |= _ends(f"gap_{name}", term)
    for name, comparison in found.comparisons.items():
        row |= _ends(f"{name}_angle_error", comparison.angle_error)
        row |= _ends(f"{name}_worst_angle", comparison.worst_angle)
        if name != "cross":
            row |= _ends(f"{name}_norm_error", comparison.norm_error)
        known = bool(np.isfinite(comparison.lower).all())
        row[f"{name}_covered"] = float(comparison.covered) if known else np.nan
    return row


def _ends(name: str, interval: Interval) -> Iterator[tuple[str, float]]:
    yield name, interval.value
    yield f"{name}_lower", interval.lower
    yield f"{name}_upper", interval.upper


def _alternative(found: Found) -> str:
    """The figure in words."""
    errors = "; ".join(
        f"{name}: {comparison.angle_error.value:.3g} degrees"
        for name, comparison in found.comparisons.items()
        if np.isfinite(comparison.angle_error.value)
    )
    terms = ", ".join(f"{name} {term.value:.2e}" for name, term in found.terms.items())
    return (
        "Heat maps of predicted and observed Gram matrices and their difference, and bars. Mean "
        f"angle between prediction and observation, {errors}. Loss above the optimum "
        f"{found.gap.value:.2e} nats: {terms}."
    )


_SHOWN = (
    "feature_energy",
    "head_energy",
    "etf_angle",
    "centred_angle_error",
    "head_angle_error",
    "cross_angle_error",
    "features_norm_error",
    "gap",
)


def _table(source: _Source, rows: pd.DataFrame) -> Table:
    title = f"{source.title}, epoch {source.epoch}: distance from the peeled model's optimum"
    table = Table(title=Text(title, "table.title"))
    table.add_column("quantity")
    for name in rows["name"]:
        table.add_column(str(name), justify="right")
    for column in _SHOWN:
        table.add_row(column, *map(_cell, rows.to_dict(orient="records"), [column] * len(rows)))
    return table


def _cell(row: dict[str, Any], column: str) -> str:
    lower, upper = (row.get(f"{column}_{end}", np.nan) for end in ("lower", "upper"))
    interval = f" [{lower:.3g}, {upper:.3g}]" if np.isfinite([lower, upper]).all() else ""
    return f"{row[column]:.4g}{interval}"
