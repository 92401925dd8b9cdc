"""The metrics of :class:`~analysis.collapse_result.CollapseResult`, and when each is undefined."""

from __future__ import annotations

import math
from typing import Any

import torch

from analysis.collapse_first_pass import NO_SCATTER
from analysis.collapse_geometry import Geometry, centred_rows, norms
from analysis.collapse_result import CollapseResult
from analysis.collapse_second_pass import SecondPass

_NO_HEAD = "no head was given"
_ONE_CLASS = "only one class is present: there is no second mean to compare with"
_TWO_CLASSES = (
    "only two classes are present: their centred means are opposite for any features, so this "
    "value carries no information"
)
_TWO_CLASSES_SAMPLE = (
    "only two classes are present: about the sample mean their angle and norm ratio follow from "
    "the counts for any features, so this value carries no information"
)
_TWO_HEADS = "K = 2: a single cosine has no spread, whatever the head"
_COINCIDE = "the class means coincide: 0/0"
_SINGLETONS = (
    "every class present has a single sample: within-class variation is 0 for any features"
)
_SECOND_PASS = (
    "needs a second pass: the class means are known only now; call update_agreement(features, "
    "head) over the same data before compute"
)
_UNDECIDED = "the head prefers no action: its rows (and bias) are the same for all classes present"

_WITHIN = ("within_class_variation", "variance_ratio", "cdnv")
_AGREEMENT = ("ncc_agreement", "ncc_agreement_centred")
_HEAD_ONLY = ("head_equinorm", "head_equiangularity", "head_max_angle")
_HEAD_AND_FEATURES = (
    "self_duality",
    "head_feature_cosine",
    "head_feature_cosine_min",
    "head_feature_cosine_raw",
    "head_feature_cosine_raw_min",
)


def evaluate(
    geometry: Geometry,
    along: torch.Tensor | None,
    head: torch.Tensor | None,
    second: SecondPass | None,
    rcond: float,
) -> CollapseResult:
    """Work out every metric.

    Parameters
    ----------
    geometry : Geometry
        Of the first pass.
    along : (r,) tensor, optional
        Within-class variance along the axes of `geometry`.
    head : (K, d) tensor, optional
        Action-selection layer, float64 on the CPU.
    second : SecondPass, optional
        With the same geometry and head.
    rcond : float
        The share of their scale below which squared lengths are 0, as in `geometry`.
    """
    table = _Table()
    _measure_features(table, geometry)
    _measure_within(table, geometry, along)
    _measure_head(table, head, rcond)
    _measure_alignment(table, geometry, head, rcond)
    _measure_agreement(table, geometry, head, second)
    return CollapseResult(
        **table.values,
        num_samples=int(geometry.counts.sum()),
        absent_classes=len(geometry.counts) - len(geometry.present),
        counts=geometry.counts,
        reasons=table.reasons,
    )


class _Table:
    """Values so far, NaN only together with a reason."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def put(self, name: str, value: torch.Tensor | float) -> None:
        self.values[name] = float(value)

    def undefined(self, names: tuple[str, ...], reason: str) -> None:
        for name in names:
            self.values[name] = math.nan
            self.reasons[name] = reason


def _relative_spread(values: torch.Tensor) -> torch.Tensor:
    return values.std(correction=0) / values.mean()


def _pair_cosines(rows: torch.Tensor) -> torch.Tensor:
    """Cosines of all ordered pairs of different rows."""
    unit = rows / norms(rows)[:, None]
    cosines = (unit @ unit.T).clamp(-1.0, 1.0)
    return cosines[~torch.eye(len(rows), dtype=torch.bool)]


def _measure_angles(table: _Table, names: tuple[str, str], rows: torch.Tensor) -> None:
    cosines = _pair_cosines(rows)
    table.put(names[0], cosines.std(correction=0))
    table.put(names[1], (cosines + 1.0 / (len(rows) - 1)).abs().mean())


def _listed(indices: torch.Tensor) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:5])
    return shown + (", ..." if len(indices) > 5 else "")


def _measure_features(table: _Table, geometry: Geometry) -> None:
    weights = torch.from_numpy(geometry.counts)[geometry.present].to(torch.float64)
    # About the class centre, not the origin: the smaller the numbers the less they round.
    sample_centre = (weights / weights.sum()) @ geometry.centred
    for suffix, centred, two in (
        ("", geometry.centred, _TWO_CLASSES),
        ("_sample_centre", geometry.centred - sample_centre, _TWO_CLASSES_SAMPLE),
    ):
        norm = f"feature_equinorm{suffix}"
        angles = (f"feature_equiangularity{suffix}", f"feature_max_angle{suffix}")
        if len(centred) == 1:
            table.undefined((norm, *angles), _ONE_CLASS)
            continue
        if geometry.coincide:
            table.undefined((norm, *angles), _COINCIDE)
            continue
        if len(centred) == 2:
            table.undefined((norm, *angles), two)
            continue
        table.put(norm, _relative_spread(norms(centred)))
        vanishing = geometry.present[(centred**2).sum(dim=1) <= geometry.zero]
        if len(vanishing):
            centre = "mean of class means" if not suffix else "sample mean"
            table.undefined(
                angles,
                f"the mean of class {_listed(vanishing)} is the {centre}: its direction is 0/0",
            )
        else:
            _measure_angles(table, angles, centred)


def _measure_within(table: _Table, geometry: Geometry, along: torch.Tensor | None) -> None:
    present = len(geometry.present)
    if present == 1:
        table.undefined(_WITHIN, _ONE_CLASS)
        return
    if geometry.coincide:
        table.undefined(_WITHIN, _COINCIDE)
        return
    if int(geometry.counts.max()) == 1:
        table.undefined(_WITHIN, _SINGLETONS)
        return
    table.put("variance_ratio", geometry.trace_within / geometry.trace_between)
    if along is None:
        table.undefined(("within_class_variation",), NO_SCATTER)
    else:
        table.put("within_class_variation", (along / geometry.eigenvalues).sum() / present)
    # Differences, not a Gram matrix: ‖a‖² + ‖b‖² − 2⟨a, b⟩ loses close pairs.
    squared = (
        torch.cdist(
            geometry.centred,
            geometry.centred,
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        ** 2
    )
    off = ~torch.eye(present, dtype=torch.bool)
    same = torch.nonzero((squared <= geometry.zero) & off)
    if len(same):
        one, other = geometry.present[same[0]].tolist()
        table.undefined(
            ("cdnv",),
            f"the means of {len(same) // 2} pairs of classes coincide (first {one} and {other}): "
            f"their distance is 0",
        )
        return
    summed = geometry.variances[:, None] + geometry.variances[None, :]
    table.put("cdnv", (summed[off] / (2.0 * squared[off])).mean())


def _vanishing_rows(rows: torch.Tensor, rcond: float) -> torch.Tensor:
    squared = (rows**2).sum(dim=1)
    return torch.nonzero(squared <= rcond * squared.max())[:, 0]


def _measure_head(table: _Table, head: torch.Tensor | None, rcond: float) -> None:
    if head is None:
        table.undefined(_HEAD_ONLY, _NO_HEAD)
        return
    vanishing = _vanishing_rows(head, rcond)
    if len(vanishing) == len(head):
        table.undefined(_HEAD_ONLY, "every row of the head is 0: 0/0")
        return
    table.put("head_equinorm", _relative_spread(norms(head)))
    if len(vanishing):
        table.undefined(
            _HEAD_ONLY[1:], f"row {_listed(vanishing)} of the head is 0: its direction is 0/0"
        )
        return
    _measure_angles(table, ("head_equiangularity", "head_max_angle"), head)
    if len(head) == 2:
        table.undefined(("head_equiangularity",), _TWO_HEADS)


def _measure_alignment(
    table: _Table, geometry: Geometry, head: torch.Tensor | None, rcond: float
) -> None:
    if head is None:
        table.undefined(_HEAD_AND_FEATURES, _NO_HEAD)
        return
    rows = head[geometry.present]
    # A row is 0 by the scale of the whole head, whichever of its actions occur.
    zero_rows = {int(k) for k in _vanishing_rows(head, rcond)} & set(geometry.present.tolist())

    if len(rows) == 1:
        table.undefined(("self_duality",), _ONE_CLASS)
    elif geometry.coincide:
        table.undefined(("self_duality",), _COINCIDE)
    elif not bool((centred_head := centred_rows(rows)).any()):
        table.undefined(("self_duality",), "the head's rows are the same for all classes present")
    else:
        means = geometry.centred / torch.linalg.vector_norm(geometry.centred)
        gap = centred_head / torch.linalg.vector_norm(centred_head) - means
        table.put("self_duality", torch.linalg.vector_norm(gap))

    raw = geometry.means + geometry.origin
    squared_raw = (raw**2).sum(dim=1)
    zero_raw = rcond * max(float(squared_raw.max()), geometry.trace_within)
    for names, vectors, zero, what in (
        (_HEAD_AND_FEATURES[1:3], geometry.centred, geometry.zero, "centred mean"),
        (_HEAD_AND_FEATURES[3:5], raw, zero_raw, "mean"),
    ):
        vanishing = geometry.present[(vectors**2).sum(dim=1) <= zero]
        if len(rows) == 1 and vectors is geometry.centred:
            table.undefined(names, _ONE_CLASS)
        elif len(vanishing):
            reason = f"the {what} of class {_listed(vanishing)} is 0: its direction is 0/0"
            table.undefined(names, reason)
        elif zero_rows:
            listed = _listed(torch.tensor(sorted(zero_rows)))
            table.undefined(names, f"row {listed} of the head is 0: its direction is 0/0")
        else:
            unit = vectors / norms(vectors)[:, None]
            cosines = (unit * (rows / norms(rows)[:, None])).sum(dim=1).clamp(-1.0, 1.0)
            table.put(names[0], cosines.mean())
            table.put(names[1], cosines.min())


def _measure_agreement(
    table: _Table, geometry: Geometry, head: torch.Tensor | None, second: SecondPass | None
) -> None:
    num_samples = int(geometry.counts.sum())
    reason = ""
    if head is None:
        reason = _NO_HEAD
    elif len(geometry.present) == 1:
        reason = _ONE_CLASS
    elif geometry.coincide:
        reason = "the class means coincide: no mean is nearest"
    elif second is None:
        reason = _SECOND_PASS
    elif second.seen != num_samples:
        reason = (
            f"the second pass saw {second.seen} samples, the first {num_samples}: give both the "
            f"same data"
        )
    if reason or second is None:
        table.undefined(_AGREEMENT, reason)
        return
    for name, sure, total in zip(
        _AGREEMENT,
        (not second.undecided, not second.undecided_centred),
        second.agreeing.tolist(),
        strict=True,
    ):
        if sure:
            table.put(name, total / num_samples)
        else:
            table.undefined((name,), _UNDECIDED)
