"""Data of the interactive view: features and head rows of each epoch as points in three dimensions.

Of every snapshot the features are centred at the mean of the class means and divided by their mean
length, the rows of the head likewise. With K = 4 both are projected onto the span of the head's
centred rows: three dimensions, and all of a feature that a softmax over ⟨h, w_k⟩ sees. For other K,
and without a head, it is the three leading principal directions of the class means and the head
rows together, found from the eigenvectors of their Gram matrix (2K × 2K, whatever d is). At
collapse with K ≤ 4 nothing is lost; the share of the features' squared length that is in view is
one of the numbers shown.

Principal directions have no sign, and none of their own where eigenvalues coincide, as at collapse
they do. So the last epoch's frame is turned so that its class means fit a reference best (the
regular tetrahedron for K = 4), and each earlier frame, going backwards, so that it moves least to
the next one: min over orthogonal R of ‖F_t R − F_{t+1}‖_F, the orthogonal Procrustes problem
(Schönemann, Psychometrika 31, 1966). What moves between neighbouring epochs is then the
representation, or the space it is seen in, never an arbitrary choice of axes. For K = 4 that space
moves only as the head does; for other K it jumps where the third and fourth eigenvalue cross.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from analysis.metrics import DEFAULT_RCOND, snapshot_metrics
from analysis.snapshot import Snapshot
from lpm import simplex_etf

Float = NDArray[np.float64]

_NUMBERS = {
    "angle H": "feature_max_angle",
    "angle W": "head_max_angle",
    "NC1": "within_class_variation",
    "cos(h − h_c, w)": "head_feature_cosine",
}
_IN_VIEW = "share in view"


@dataclass(frozen=True)
class Track:
    """One policy over training: what a panel of the view can show."""

    name: str
    label: str
    snapshots: Sequence[Snapshot]
    """In the order of their steps, of the same K and d."""


# --- geometry -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scene:
    """A snapshot centred and scaled: points (N, d), class means (K, d), head rows (K or 0, d)."""

    points: Float
    means: Float
    """NaN for an action that no label names."""
    head: Float

    @property
    def present(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.means[:, 0])

    @property
    def anchors(self) -> Float:
        """Rows whose leading principal directions are shown."""
        if len(self.head) == 4:
            return self.head
        return np.concatenate([self.means[self.present], self.head])


def as_float64(values: Any) -> Float:
    """Array or tensor of a snapshot as a float64 array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _scaled(rows: Float) -> Float:
    length = np.linalg.norm(rows, axis=1).mean()
    # All rows at the centre: there they are drawn.
    return rows / length if length > 0 else rows


def _scene(snapshot: Snapshot) -> _Scene:
    features, labels = as_float64(snapshot.features), as_labels(snapshot)

    def class_means(rows: Float) -> Float:
        means = np.full((snapshot.num_classes, snapshot.dim), np.nan)
        for k in np.unique(labels):
            means[k] = rows[labels == k].mean(axis=0)
        return means

    points = _scaled(features - np.nanmean(class_means(features), axis=0))
    head = np.empty((0, snapshot.dim))
    if snapshot.head is not None:
        rows = as_float64(snapshot.head)
        head = _scaled(rows - rows.mean(axis=0))
    return _Scene(points, class_means(points), head)


def as_labels(snapshot: Snapshot) -> NDArray[np.int64]:
    """Labels of a snapshot as an array."""
    return as_float64(snapshot.labels).astype(np.int64)


def _principal_frame(anchors: Float) -> Float:
    """Leading three principal directions of (m, d) rows as columns (d, 3), zero where none is."""
    values, vectors = np.linalg.eigh(anchors @ anchors.T)
    frame = np.zeros((anchors.shape[1], 3))
    for column, (value, vector) in enumerate(zip(values[:-4:-1], vectors.T[:-4:-1], strict=True)):
        if value > DEFAULT_RCOND * values[-1]:
            frame[:, column] = anchors.T @ vector / np.sqrt(value)
    return frame


def procrustes(source: ArrayLike, target: ArrayLike) -> Float:
    """Orthogonal R (3, 3), reflections allowed, that minimises ‖source R − target‖_F.

    Parameters
    ----------
    source, target : (m, 3) arrays
    """
    left, _, right = np.linalg.svd(np.asarray(source).T @ np.asarray(target))
    return np.asarray(left @ right)


def frames(scenes: Sequence[_Scene], reference: Float | None) -> list[Float]:
    """Frames (d, 3) of one track, each turned to move least to the next.

    Parameters
    ----------
    scenes
        One a step, in order.
    reference : (K, 3) array, optional
        Where the last step's class means should lie; NaN rows are not compared. Without it the
        last frame is that of its principal directions.
    """
    found = [_principal_frame(scene.anchors) for scene in scenes]
    if reference is not None:
        last = scenes[-1]
        common = last.present & ~np.isnan(reference[:, 0])
        found[-1] = found[-1] @ procrustes(last.means[common] @ found[-1], reference[common])
    for step in reversed(range(len(found) - 1)):
        found[step] = found[step] @ procrustes(found[step], found[step + 1])
    return found


def tetrahedron() -> Float:
    """(4, 3) vertices of the regular tetrahedron on the unit sphere."""
    return simplex_etf(4, 3, energy=1.0)


# --- the view's data ------------------------------------------------------------------------------


def view_data(
    title: str,
    caption: str,
    actions: Sequence[str],
    tracks: Sequence[Track],
    unit: str = "epoch",
    max_points: int = 400,
) -> dict[str, Any]:
    """What the page's script draws, as plain lists, strings and numbers.

    Parameters
    ----------
    title, caption
        Heading, and what was run.
    actions
        Names of the K actions.
    tracks
        The first two are shown side by side at first.
    unit
        What a snapshot's step counts.
    max_points
        Features drawn of one snapshot at most, evenly spaced in its order; means and numbers use
        all of them.

    Returns
    -------
    ``title``, ``caption``, ``unit``, ``actions``, ``reference`` ((4, 3) tetrahedron, or None for
    other K), ``numbers`` (their names) and ``tracks``, each with ``name``, ``label`` and, a step
    each, ``steps``, ``points`` (n, 3), ``labels`` (n,), ``head`` (K or 0, 3) and ``numbers`` (None
    where undefined).

    Raises
    ------
    ValueError
        There is no track or no snapshot, or the snapshots of a track disagree in K or d, or their
        steps do not increase.
    """
    if not tracks:
        raise ValueError("a view needs at least one track")
    for track in tracks:
        _check(track, len(actions))
    reference = tetrahedron() if len(actions) == 4 else None
    align_to, shown = reference, []
    for track in tracks:
        scenes = [_scene(snapshot) for snapshot in track.snapshots]
        axes = frames(scenes, align_to)
        if align_to is None:
            align_to = scenes[-1].means @ axes[-1]
        shown.append(_track_data(track, scenes, axes, max_points))
    return {
        "title": title,
        "caption": caption,
        "unit": unit,
        "actions": list(actions),
        "reference": None if reference is None else _rounded(reference),
        "numbers": [*_NUMBERS, _IN_VIEW],
        "tracks": shown,
    }


def _check(track: Track, num_actions: int) -> None:
    if not track.snapshots:
        raise ValueError(f"track {track.name!r} has no snapshot")
    shapes = {(s.num_classes, s.dim, s.head is None) for s in track.snapshots}
    if len(shapes) > 1 or track.snapshots[0].num_classes != num_actions:
        raise ValueError(
            f"track {track.name!r} has snapshots of (K, d, without head) {sorted(shapes)} and "
            f"{num_actions} action names: one view shows one K, d and kind of head a track"
        )
    steps = [snapshot.step for snapshot in track.snapshots]
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"the steps of track {track.name!r} must increase, got {steps}")


def _track_data(
    track: Track, scenes: Sequence[_Scene], axes: Sequence[Float], max_points: int
) -> dict[str, Any]:
    data: dict[str, Any] = {"name": track.name, "label": track.label}
    data |= {key: [] for key in ("steps", "points", "labels", "head", "numbers")}
    for snapshot, scene, frame in zip(track.snapshots, scenes, axes, strict=True):
        points = scene.points @ frame
        total = float((scene.points**2).sum())
        count = len(points)
        kept = np.unique(np.linspace(0, count - 1, min(count, max_points)).round().astype(int))
        measured = snapshot_metrics(snapshot)
        numbers = [getattr(measured, field) for field in _NUMBERS.values()]
        numbers.append(float((points**2).sum()) / total if total > 0 else np.nan)
        data["steps"].append(snapshot.step)
        data["points"].append(_rounded(points[kept]))
        data["labels"].append(as_labels(snapshot)[kept].tolist())
        data["head"].append(_rounded(scene.head @ frame))
        data["numbers"].append([float(f"{x:.3g}") if x == x else None for x in numbers])
    return data


def _rounded(points: Float) -> list[list[float]]:
    # Adding zero turns -0.0 into 0.0.
    return (points.round(4) + 0.0).tolist()  # type: ignore[no-any-return]
