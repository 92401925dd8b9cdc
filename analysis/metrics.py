"""How far a policy's features and action-selection layer are from collapse.

:func:`collapse_metrics` measures data held in memory, :class:`CollapseMetrics` data that arrive in
batches or lie on several machines. Both return a :class:`CollapseResult` with the same numbers.

Notation
--------
h_i is the feature of sample i, y_i its label, w_k row k of the head (K, d), K the number of
actions, K' the number of those that occur among the labels, n_k the number of samples of action k,
h_k the mean feature of action k, N = Σ n_k.

Conventions
-----------
Centre
    Features are centred at the **mean of the class means**, h_c = (1/K') Σ_k h_k. The fields
    ending in ``_sample_centre`` use the mean over samples h_G = (1/N) Σ_i h_i that the paper
    writes. The two agree for equal n_k. For unequal n_k h_G is drawn to the frequent actions, and
    a perfectly collapsed policy does not score 0: four actions with n = 97, 1, 1, 1 score .644 in
    ``feature_max_angle_sample_centre``.
Std and Avg
    Population standard deviation (divided by the number of terms). Std and Avg over pairs run over
    ordered pairs k ≠ k'; the cosine is symmetric, so unordered pairs give the same.
Actions that do not occur
    They have no mean: feature metrics leave them out, ``absent_classes`` counts them, and the
    target cosine of features is −1/(K' − 1). The rows of a K-simplex ETF that belong to K' of its
    vertices, centred anew, form a K'-simplex ETF; held against −1/(K − 1), three of six actions
    would score .30 at exact collapse. Metrics of the head alone use all K rows. Metrics that
    compare head and features use the K' rows of the actions that occur.
Head
    cos_w is uncentred, as in the paper. ``self_duality`` centres the head (over the actions that
    occur): softmax does not see a vector added to every row.
Decisions
    ``ncc_agreement`` holds the nearest class mean against what the network decides,
    argmax_k ⟨h, w_k⟩ + b_k. At exact collapse the two can still differ, by the terms
    ⟨h_c, w_k⟩ + b_k that are no part of the geometry; ``ncc_agreement_centred`` uses
    argmax_k ⟨h − h_c, w_k⟩ instead, for which equality at collapse is a theorem. Either runs over
    the actions that occur. Scores that agree to 1e-13 of the magnitudes they are made of are tied,
    and a tied sample counts with the probability that two fair draws, one from the best actions of
    each side, agree: |A ∩ B| / (|A| |B|). So no result depends on how the actions are numbered.
Undefined is NaN
    0/0, and whatever comes out the same for every possible feature, is NaN with the cause in
    ``reasons``. With K' = 2 the centred means are opposite, so their angle and relative norm say
    nothing; where every action has one sample there is no within-class variation to measure.
Zero
    A squared length below `rcond` times the squared scale it belongs to is zero. One number governs
    all such places: eigenvalues of Σ_B against the largest; ‖h_k − h_c‖² and ‖h_k − h_k'‖² against
    the larger of max_k ‖h_k − h_c‖² and tr Σ_W; ‖w_k‖² against the largest. The default 1e-12 keeps
    directions a million times shorter than the longest, and drops the rounding of float32 means,
    whose inverse would otherwise swamp Tr(Σ_W Σ_B^†).

Arithmetic
----------
Everything is accumulated in float64, on the device the features are on, from residuals about the
means (Chan et al.'s update), after subtracting the first feature seen. Sums of squares are never
subtracted from each other, so a common offset of 1e6 costs nothing. All metrics are unchanged when
features are multiplied by a constant; float64 features beyond about 1e150 overflow when squared and
are refused, below 1e-150 they underflow and count as equal.

References
----------
Papyan, Han, Donoho, "Prevalence of neural collapse during the terminal phase of deep learning
training", PNAS 2020, arXiv:2008.08186: NC1 to NC4 and the equinorm and equiangularity measures.
Zhou et al., "Imitate Optimal Policy: Prevail and Induce Action Collapse in Policy Gradient":
Figure 1 (c) to (f), the same of policies.
Galanti, György, Hutter, "On the role of neural collapse in transfer learning", ICLR 2022,
arXiv:2112.15121: class-distance normalised variance.
Chan, Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician
37(3), 1983: the merge of two partial variances.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg.blas import dsyrk

from analysis.snapshot import (
    FeatureRows,
    Snapshot,
    check_bias,
    check_head,
    check_labels,
    check_num_classes,
    compute_device,
)

__all__ = [
    "DEFAULT_RCOND",
    "METRIC_FIELDS",
    "CollapseMetrics",
    "CollapseResult",
    "Moments",
    "collapse_metrics",
    "snapshot_metrics",
]

DEFAULT_RCOND = 1e-12
"""Squared lengths below this share of their scale are zero (see the module's conventions)."""

# Scores closer than this, relative to the magnitudes they are made of, are tied: above what
# float64 dot products round (about sqrt(d) * 1e-16), below any margin of float32 features.
_TIE = 1e-13

_STATE_VERSION = 1

_NO_HEAD = "no head was given"
_BIAS_ALONE = "a bias without a head decides nothing; pass the head as well"
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
_NO_SCATTER = (
    "within-class scatter was not kept (scatter=False): use scatter=True, or collapse_metrics on "
    "data in memory"
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


@dataclass(frozen=True, eq=False)
class CollapseResult:
    """What was measured, each value a float, or NaN with its cause in :attr:`reasons`.

    All metrics but the cosines and the agreements are 0 at exact collapse, those are 1. Notation
    and conventions are those of :mod:`analysis.metrics`; M is the matrix of centred class means
    h_k − h_c, W_c the head's rows of the actions present minus their mean.

    Attributes
    ----------
    head_equinorm : float
        Std_k ‖w_k‖ / Avg_k ‖w_k‖ over all K rows (paper, Fig. 1 (c)).
    feature_equinorm, feature_equinorm_sample_centre : float
        Std_k ‖h_k − h_c‖ / Avg_k ‖h_k − h_c‖; with h_G for h_c.
    head_equiangularity : float
        Std_{k≠k'} cos(w_k, w_k') over all K rows (Fig. 1 (d)).
    feature_equiangularity, feature_equiangularity_sample_centre : float
        Std_{k≠k'} cos(h_k − h_c, h_k' − h_c); with h_G for h_c.
    head_max_angle : float
        Avg_{k≠k'} |cos(w_k, w_k') + 1/(K − 1)| over all K rows (Fig. 1 (e)).
    feature_max_angle, feature_max_angle_sample_centre : float
        Avg_{k≠k'} |cos(h_k − h_c, h_k' − h_c) + 1/(K' − 1)|; with h_G for h_c.
    within_class_variation : float
        Tr(Σ_W Σ_B^†)/K' (Fig. 1 (f), NC1), Σ_W = (1/N) Σ_i (h_i − h_{y_i})(h_i − h_{y_i})^T and
        Σ_B = (1/K') Σ_k (h_k − h_c)(h_k − h_c)^T. Blind to variation outside the span of the
        centred means; `variance_ratio` is not.
    variance_ratio : float
        tr Σ_W / tr Σ_B.
    cdnv : float
        Class-distance normalised variance (Galanti et al.): Avg_{k≠k'} (v_k + v_k') /
        (2 ‖h_k − h_k'‖²), v_k = (1/n_k) Σ_{i: y_i = k} ‖h_i − h_k‖².
    self_duality : float
        ‖W_c/‖W_c‖_F − M/‖M‖_F‖_F (Papyan et al., NC3, with the head centred), in [0, 2].
    head_feature_cosine, head_feature_cosine_min : float
        Mean and minimum over the actions present of cos(h_k − h_c, w_k).
    head_feature_cosine_raw, head_feature_cosine_raw_min : float
        The same of cos(h_k, w_k). With rectified features it tends to a value below 1 (√3/2 for
        four actions and orthogonal means) where the centred cosine tends to 1.
    ncc_agreement : float
        Share of samples with argmax_k ⟨h, w_k⟩ + b_k = argmin_k ‖h − h_k‖ (NC4).
    ncc_agreement_centred : float
        Share of samples with argmax_k ⟨h − h_c, w_k⟩ = argmin_k ‖h − h_k‖.
    num_samples : int
        N.
    absent_classes : int
        K − K', the number of actions that no label names.
    counts : (K,) int64 array
        n_k, read-only.
    reasons : dict of str to str
        Why, for each field that is NaN and for no other.
    """

    head_equinorm: float
    feature_equinorm: float
    feature_equinorm_sample_centre: float
    head_equiangularity: float
    feature_equiangularity: float
    feature_equiangularity_sample_centre: float
    head_max_angle: float
    feature_max_angle: float
    feature_max_angle_sample_centre: float
    within_class_variation: float
    variance_ratio: float
    cdnv: float
    self_duality: float
    head_feature_cosine: float
    head_feature_cosine_min: float
    head_feature_cosine_raw: float
    head_feature_cosine_raw_min: float
    ncc_agreement: float
    ncc_agreement_centred: float
    num_samples: int
    absent_classes: int
    counts: NDArray[np.int64]
    reasons: dict[str, str]

    def __post_init__(self) -> None:
        undefined = {name for name in METRIC_FIELDS if math.isnan(getattr(self, name))}
        if undefined != set(self.reasons):
            raise ValueError(
                f"every NaN needs a reason and nothing else has one: without reason "
                f"{sorted(undefined - set(self.reasons))}, without NaN "
                f"{sorted(set(self.reasons) - undefined)}"
            )
        counts = np.array(self.counts, dtype=np.int64)
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)

    def as_row(self, *, counts: bool = False) -> dict[str, float]:
        """Return the scalar fields as one flat row of floats.

        Parameters
        ----------
        counts : bool, optional
            Whether to add the columns ``counts_0`` ... ``counts_{K−1}``.

        Returns
        -------
        dict of str to float
            Every metric, ``num_samples`` and ``absent_classes``, in the order of the fields.
            Reasons are text and stay behind; a NaN stays NaN.
        """
        row = {name: float(getattr(self, name)) for name in METRIC_FIELDS}
        row["num_samples"] = float(self.num_samples)
        row["absent_classes"] = float(self.absent_classes)
        if counts:
            row |= {f"counts_{k}": float(count) for k, count in enumerate(self.counts)}
        return row


METRIC_FIELDS: tuple[str, ...] = tuple(
    f.name for f in fields(CollapseResult) if f.type in (float, "float")
)
"""Names of the metrics in :class:`CollapseResult`, in its order."""


class Moments(NamedTuple):
    """First two moments of features, float64 on the CPU."""

    mean: torch.Tensor
    """(d,) h_G = (1/N) Σ_i h_i."""
    covariance: torch.Tensor
    """(d, d) (1/N) Σ_i (h_i − h_G)(h_i − h_G)^T."""


class _Geometry(NamedTuple):
    """What the class statistics say, on the CPU in float64, in coordinates about the origin."""

    counts: NDArray[np.int64]  # (K,)
    present: torch.Tensor  # (K',) indices
    origin: torch.Tensor  # (d,)
    means: torch.Tensor  # (K', d), about the origin
    centre: torch.Tensor  # (d,), about the origin
    centred: torch.Tensor  # (K', d)
    variances: torch.Tensor  # (K',)
    trace_within: float
    trace_between: float
    zero: float  # squared lengths up to here are zero
    axes: torch.Tensor  # (d, r) orthonormal, span of the centred means
    eigenvalues: torch.Tensor  # (r,) of Σ_B, those above rcond times the largest

    @property
    def coincide(self) -> bool:
        return self.trace_between <= self.zero


class _SecondPass:
    """Frozen class means and head, and what the samples said of them so far."""

    def __init__(
        self,
        geometry: _Geometry,
        head: torch.Tensor,
        bias: torch.Tensor | None,
        device: torch.device,
    ) -> None:
        self.head, self.bias = head, bias
        self.seen = 0
        self.agreeing = torch.zeros(2, dtype=torch.float64, device=device)
        rows = _centred_rows(head[geometry.present])
        shift = torch.zeros(len(rows), dtype=torch.float64)
        if bias is not None:
            shift = _centred_rows(bias[geometry.present])
        self.undecided_centred = not bool(rows.any())
        self.undecided = self.undecided_centred and not bool(shift.any())
        # Scores of u = h − h_c: u·w_k + const for the network, u·w_k for the centred decision,
        # u·m_k − |m_k|²/2 for the nearest mean, which is −|h − h_k|²/2 + |u|²/2.
        centre = geometry.origin + geometry.centre
        network = shift + rows @ centre
        nearest = -0.5 * (geometry.centred**2).sum(dim=1)
        self._centre = geometry.centre.to(device)
        self._directions = torch.cat([rows, geometry.centred]).T.contiguous().to(device)
        self._network, self._nearest = network.to(device), nearest.to(device)
        self._lengths = (float(_norms(rows).max()), float(_norms(geometry.centred).max()))
        self._levels = (
            self._lengths[0] * float(centre.norm()) + float(shift.abs().max()),
            float(nearest.abs().max()),
        )

    def add(self, shifted: torch.Tensor) -> None:
        """Add samples, given as h minus the origin."""
        u = shifted - self._centre
        size = _norms(u)
        decision, distance = (u @ self._directions).chunk(2, dim=1)
        nearest = _best(distance + self._nearest, size * self._lengths[1] + self._levels[1])
        network = _best(decision + self._network, size * self._lengths[0] + self._levels[0])
        centred = _best(decision, size * self._lengths[0])
        self.agreeing += torch.stack([_agree(network, nearest), _agree(centred, nearest)])
        self.seen += len(shifted)


def _best(scores: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Mark, in each row, the scores that reach the largest to within rounding."""
    return scores >= scores.amax(dim=1, keepdim=True) - _TIE * magnitude[:, None]


def _agree(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Sum over rows the probability that fair draws from two sets of actions are equal."""
    a, b = one.to(torch.float64), other.to(torch.float64)
    return ((a * b).sum(dim=1) / (a.sum(dim=1) * b.sum(dim=1))).sum()


def _norms(rows: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _add_gram(total: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return `total` + rows^T rows, right in the upper triangle; `total` is used up."""
    if total.device.type != "cpu":
        return total.addmm_(rows.T, rows)
    # A symmetric product is half the work, and a stream spends most of its time here; torch has
    # no syrk. BLAS counts columns first: its lower triangle is our upper one.
    own = total.numpy().T
    result = dsyrk(1.0, rows.numpy().T, beta=1.0, c=own, lower=1, overwrite_c=1)
    # In place. To wrap the result anew would leave a chain of views, one a batch, in memory.
    return total if np.may_share_memory(result, own) else torch.from_numpy(result.T)


def _mirrored(upper: torch.Tensor) -> torch.Tensor:
    """Symmetric matrix with this upper triangle."""
    return upper.triu() + upper.triu(1).T


def _centred_rows(rows: torch.Tensor) -> torch.Tensor:
    """Subtract the mean row, leaving exact zeros where all rows are equal."""
    rows = rows - rows[0]
    return rows - rows.mean(dim=0)


class CollapseMetrics:
    """Collapse metrics of a stream of batches, mergeable across devices and processes.

    Feed every batch to :meth:`update`, combine workers with :meth:`merge`, read the result with
    :meth:`compute`. The nearest class mean of a sample is known only when all means are, so
    `ncc_agreement` takes a second pass over the same data with :meth:`update_agreement`; without
    it, it is NaN. Everything else takes one pass.

    Parameters
    ----------
    num_classes : int
        K, the size of the action space, at least 2.
    dim : int
        d, the length of a feature.
    device : torch.device or str, optional
        Where to accumulate; by default where the first features are. MPS has no float64: the CPU
        takes its place.
    scatter : bool, optional
        Whether to keep the (d, d) within-class scatter that `within_class_variation` needs when
        data are seen once. It costs 8 d² bytes and N d² multiplications; without it that one field
        is NaN.
    rcond : float, optional
        Squared lengths below this share of their scale are zero (module conventions), in (0, 1).
    chunk_rows : int, optional
        Rows turned into float64 at a time (:class:`analysis.snapshot.FeatureRows`).

    Raises
    ------
    TypeError
        If a size is no integer.
    ValueError
        If `num_classes` is below 2, `dim` below 1, or `rcond` outside (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> stream = CollapseMetrics(num_classes=3, dim=3)
    >>> stream.update(2.0 * np.eye(3), np.array([0, 1, 2]))
    >>> stream.update(2.0 * np.eye(3), np.array([0, 1, 2]))
    >>> result = stream.compute(head=np.eye(3))
    >>> round(result.feature_max_angle, 12), round(result.head_max_angle, 12)
    (0.0, 0.5)
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        device: torch.device | str | None = None,
        scatter: bool = True,
        rcond: float = DEFAULT_RCOND,
        chunk_rows: int | None = None,
    ) -> None:
        self.num_classes = check_num_classes(num_classes)
        if isinstance(dim, bool) or not isinstance(dim, int | np.integer):
            raise TypeError(f"dim must be an integer, got {dim!r}")
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        if not 0.0 < rcond < 1.0:
            raise ValueError(
                f"rcond is {rcond}, expected a number in (0, 1), for example {DEFAULT_RCOND}"
            )
        self.dim = int(dim)
        self.rcond = float(rcond)
        self.chunk_rows = chunk_rows
        self._device = None if device is None else compute_device(torch.device(device))
        self._second: _SecondPass | None = None
        self._allocate(scatter)

    def _allocate(self, scatter: bool) -> None:
        device = self._device or torch.device("cpu")
        shape = (self.num_classes, self.dim)
        self._counts = torch.zeros(self.num_classes, dtype=torch.int64, device=device)
        self._origin: torch.Tensor | None = None
        self._means = torch.zeros(shape, dtype=torch.float64, device=device)
        # Σ ‖h_i − h_k‖² of each class; the scatter below is the matrix whose trace they sum to,
        # valid in its upper triangle (see _add_gram).
        self._variation = torch.zeros(self.num_classes, dtype=torch.float64, device=device)
        self._scatter = (
            torch.zeros((self.dim, self.dim), dtype=torch.float64, device=device)
            if scatter
            else None
        )

    def _settle_on(self, device: torch.device) -> torch.device:
        """Take the device of the first data seen; later data come to it."""
        if self._device is None:
            self._device = device
            for name in ("_counts", "_origin", "_means", "_variation", "_scatter"):
                tensor = getattr(self, name)
                setattr(self, name, None if tensor is None else tensor.to(device))
        return self._device

    def __repr__(self) -> str:
        pass_two = "" if self._second is None else f", second pass {self._second.seen}"
        return (
            f"CollapseMetrics(num_classes={self.num_classes}, dim={self.dim}, "
            f"num_samples={self.num_samples}{pass_two})"
        )

    @property
    def num_samples(self) -> int:
        """N, the number of samples seen in the first pass."""
        return int(self._counts.sum())

    @property
    def counts(self) -> NDArray[np.int64]:
        """(K,) int64 copy of the number of samples of each action."""
        return self._counts.cpu().numpy().copy()

    def update(self, features: ArrayLike | torch.Tensor, labels: ArrayLike | torch.Tensor) -> None:
        """Add a batch. A refused batch leaves the object as it was.

        Parameters
        ----------
        features : (B, d) array or tensor of float16, bfloat16, float32 or float64
            Not changed and not kept. B = 0 is allowed and adds nothing.
        labels : (B,) integer array or tensor
            In 0..K − 1.

        Raises
        ------
        RuntimeError
            After :meth:`update_agreement`, which holds the means fixed.
        TypeError, ValueError
            If shapes, types or labels do not fit, or a feature is not finite.
        """
        self._refuse_when_frozen("update")
        rows = self._rows(features)
        y = check_labels(labels, rows.num_samples, self.num_classes)
        if rows.num_samples == 0:
            return
        rows.require_finite()
        self._first_pass(rows, y)

    def _first_pass(self, rows: FeatureRows, labels: torch.Tensor) -> None:
        device = self._settle_on(rows.device)
        y = labels.to(device)
        for where, chunk in rows.chunks():
            self._fold(chunk.to(device), y[where])

    def _fold(self, chunk: torch.Tensor, y: torch.Tensor) -> None:
        """Chan et al.'s update with the residuals of one chunk about its own class means."""
        if self._origin is None:
            # Any point among the data will do; a datum itself makes equal features exactly 0.
            self._origin = chunk[0].clone()
        x = chunk - self._origin
        # Only the classes in the chunk: with a thousand actions most batches hold a fraction.
        seen, local = torch.unique(y, return_inverse=True)
        counts = torch.bincount(local)
        means = x.new_zeros(len(seen), self.dim).index_add_(0, local, x) / counts[:, None]
        residuals = x - means[local]
        variation = x.new_zeros(len(seen)).index_add_(0, local, (residuals**2).sum(dim=1))
        self._combine(seen, counts, means, variation, residuals)

    def _combine(
        self,
        seen: torch.Tensor,
        counts: torch.Tensor,
        means: torch.Tensor,
        variation: torch.Tensor,
        root: torch.Tensor | None,
        scatter: torch.Tensor | None = None,
    ) -> None:
        """Add another part's statistics, about the same origin, of the classes `seen` in it.

        Its scatter is given either as `scatter` or as `root`, rows R with scatter R^T R.
        """
        before = self._counts[seen]
        # To float64 first: the quotient of two integer tensors would be float32.
        share = counts.to(torch.float64) / (before + counts)
        step = means - self._means[seen]
        weight = before * share  # n_a n_b / (n_a + n_b), without the product in int64
        self._means[seen] += share[:, None] * step
        self._variation[seen] += variation + weight * (step**2).sum(dim=1)
        self._counts[seen] += counts
        if self._scatter is not None:
            between = weight.sqrt()[:, None] * step
            stacked = between if root is None else torch.cat([root, between])
            self._scatter = _add_gram(self._scatter, stacked)
            if scatter is not None:
                self._scatter += scatter

    def merge(self, other: CollapseMetrics) -> CollapseMetrics:
        """Add what another object has seen, as if this one had seen it too.

        The result depends on the order of merging only by rounding.

        Parameters
        ----------
        other : CollapseMetrics
            With the same `num_classes`, `dim` and `scatter`, on any device; not changed.

        Returns
        -------
        CollapseMetrics
            This object, for chaining.

        Raises
        ------
        TypeError
            If `other` is something else.
        ValueError
            If the sizes differ.
        RuntimeError
            If either has begun its second pass: see :meth:`merge_agreement`.
        """
        self._require_alike(other)
        for one in (self, other):
            one._refuse_when_frozen("merge")
        if other._origin is None:
            return self
        device = self._settle_on(other._origin.device)
        origin = other._origin.to(device)
        if self._origin is None:
            self._origin = origin.clone()
        seen = torch.nonzero(other._counts)[:, 0].to(device)
        means = other._means.to(device)[seen] + (origin - self._origin)
        self._combine(
            seen,
            other._counts.to(device)[seen],
            means,
            other._variation.to(device)[seen],
            root=None,
            scatter=None if other._scatter is None else other._scatter.to(device),
        )
        return self

    def _require_alike(self, other: object) -> None:
        if not isinstance(other, CollapseMetrics):
            raise TypeError(
                f"can only merge a CollapseMetrics, got {type(other).__name__}; a state_dict goes "
                f"through load_state_dict of a new object first"
            )
        if other is self:
            raise ValueError("merging an object with itself would count every sample twice")
        mine = (self.num_classes, self.dim, self._scatter is not None)
        theirs = (other.num_classes, other.dim, other._scatter is not None)
        if mine != theirs:
            raise ValueError(
                f"cannot merge (num_classes, dim, scatter) = {theirs} into {mine}; "
                f"build both with the same"
            )

    # ------------------------------------------------------------------ second pass

    def update_agreement(
        self,
        features: ArrayLike | torch.Tensor,
        head: ArrayLike | torch.Tensor,
        bias: ArrayLike | torch.Tensor | None = None,
    ) -> None:
        """Second pass: hold decisions against the class means, which are fixed from now on.

        Call it for every batch that :meth:`update` was given, in any order and any batching. To
        split this pass over processes, first merge the first pass and hand its state to each, then
        collect with :meth:`merge_agreement`.

        Parameters
        ----------
        features : (B, d) array or tensor of float16, bfloat16, float32 or float64
            Samples of the first pass; labels are not needed.
        head : (K, d) array or tensor
            Action-selection layer, the same in every call.
        bias : (K,) array or tensor, optional
            Its bias, the same in every call.

        Raises
        ------
        RuntimeError
            If nothing was seen in a first pass.
        TypeError, ValueError
            If shapes or types do not fit, a value is not finite, or the head is another one than
            in the calls before (:meth:`reset_agreement` begins anew).
        """
        rows = self._rows(features)
        weight = check_head(head, self.num_classes, self.dim)
        shift = None if bias is None else check_bias(bias, self.num_classes)
        if self._origin is None:
            raise RuntimeError("no class means yet: update with all data, then update_agreement")
        if self._second is not None:
            self._require_same_head(weight, shift)
        rows.require_finite()
        second = self._begin_second_pass(weight, shift)
        for _, chunk in rows.chunks():
            second.add(chunk.to(self._origin.device) - self._origin)

    def _begin_second_pass(
        self, head: torch.Tensor, bias: torch.Tensor | None, geometry: _Geometry | None = None
    ) -> _SecondPass:
        if self._second is None:
            geometry = geometry or self._geometry()
            self._second = _SecondPass(geometry, head, bias, self._means.device)
        return self._second

    def merge_agreement(self, other: CollapseMetrics) -> CollapseMetrics:
        """Add the second pass of another object that shares this one's first pass.

        Parameters
        ----------
        other : CollapseMetrics
            Begun from the same merged first pass (same counts, means equal up to rounding) with
            the same head; not changed. One without a second pass adds nothing.

        Returns
        -------
        CollapseMetrics
            This object, for chaining.

        Raises
        ------
        TypeError
            If `other` is something else.
        ValueError
            If sizes, counts, means or heads differ.
        """
        self._require_alike(other)
        ours, theirs = self._geometry(), other._geometry()
        gap = math.inf
        if np.array_equal(ours.counts, theirs.counts):
            moved = theirs.means + (theirs.origin - ours.origin)
            gap = float(_norms(moved - ours.means).max())
        scale = math.sqrt(ours.trace_between + ours.trace_within)
        if gap > 1e-9 * scale:
            raise ValueError(
                f"the two second passes rest on different first passes: counts "
                f"{ours.counts.tolist()} and {theirs.counts.tolist()}, largest distance of class "
                f"means {gap:.3g} at scale {scale:.3g}; merge the first passes before the second"
            )
        if other._second is None:
            return self
        if self._second is None:
            self._begin_second_pass(other._second.head, other._second.bias, ours)
        assert self._second is not None
        self._require_same_head(other._second.head, other._second.bias)
        self._second.agreeing += other._second.agreeing.to(self._second.agreeing.device)
        self._second.seen += other._second.seen
        return self

    def reset_agreement(self) -> None:
        """Forget the second pass, so that the first can go on or another head be measured."""
        self._second = None

    def _require_same_head(self, head: torch.Tensor, bias: torch.Tensor | None) -> None:
        assert self._second is not None
        mine = self._second.bias
        same_bias = (bias is None and mine is None) or (
            bias is not None and mine is not None and torch.equal(bias, mine)
        )
        if not torch.equal(head, self._second.head) or not same_bias:
            raise ValueError(
                f"the second pass saw {self._second.seen} samples with another head or bias; call "
                f"reset_agreement() to begin it anew with this one"
            )

    def _refuse_when_frozen(self, what: str) -> None:
        if self._second is not None:
            raise RuntimeError(
                f"cannot {what}: the class means are fixed since update_agreement (second pass: "
                f"{self._second.seen} of {self.num_samples} samples); finish the first pass before "
                f"the second, or call reset_agreement() first"
            )

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return everything seen so far as CPU tensors and plain values.

        Returns
        -------
        dict
            To be pickled, sent to another process, or written with ``torch.save`` (it loads with
            ``weights_only=True``). Tensors are copies.
        """
        second = self._second
        tensors = {
            "counts": self._counts,
            "origin": self._origin,
            "means": self._means,
            "variation": self._variation,
            "scatter": None if self._scatter is None else _mirrored(self._scatter),
            "head": None if second is None else second.head,
            "bias": None if second is None else second.bias,
            "agreeing": None if second is None else second.agreeing,
        }
        return {
            "version": _STATE_VERSION,
            "num_classes": self.num_classes,
            "dim": self.dim,
            "seen": 0 if second is None else second.seen,
        } | {name: None if t is None else t.cpu().clone() for name, t in tensors.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace what was seen by a state from :meth:`state_dict`.

        Parameters
        ----------
        state : mapping
            Of an object with the same `num_classes`, `dim` and `scatter`.

        Raises
        ------
        ValueError
            If it is of another version, incomplete, or of other sizes; nothing is changed then.
        """
        expected = self.state_dict().keys()
        if missing := sorted(set(expected) - set(state)):
            raise ValueError(f"the state lacks {missing}; it must come from state_dict()")
        if state["version"] != _STATE_VERSION:
            raise ValueError(
                f"the state has version {state['version']}, this code reads {_STATE_VERSION}"
            )
        mine = (self.num_classes, self.dim, self._scatter is not None)
        theirs = (state["num_classes"], state["dim"], state["scatter"] is not None)
        if mine != theirs:
            raise ValueError(
                f"the state has (num_classes, dim, scatter) = {theirs}, this object {mine}; "
                f"build it with the same"
            )
        per_class, per_mean = (self.num_classes,), (self.num_classes, self.dim)
        shapes = {
            "counts": per_class,
            "origin": (self.dim,),
            "means": per_mean,
            "variation": per_class,
            "scatter": (self.dim, self.dim),
            "head": per_mean,
            "bias": per_class,
            "agreeing": (2,),
        }
        optional = {"origin", "scatter", "bias"}
        if state["head"] is None:
            optional |= {"head", "agreeing"}
        device = self._device or torch.device("cpu")
        loaded: dict[str, torch.Tensor | None] = {}
        for name, shape in shapes.items():
            value = state[name]
            if value is None and name in optional:
                loaded[name] = None
                continue
            if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape:
                found = getattr(value, "shape", type(value).__name__)
                raise ValueError(f"the state's {name} is {found}, expected a tensor {shape}")
            dtype = torch.int64 if name == "counts" else torch.float64
            where = torch.device("cpu") if name in ("head", "bias") else device
            loaded[name] = value.to(device=where, dtype=dtype, copy=True)
        for name in ("counts", "origin", "means", "variation", "scatter"):
            setattr(self, f"_{name}", loaded[name])
        self._second = None
        if loaded["head"] is not None and loaded["agreeing"] is not None:
            second = self._begin_second_pass(loaded["head"], loaded["bias"])
            second.agreeing, second.seen = loaded["agreeing"], int(state["seen"])

    # ------------------------------------------------------------------ results

    def moments(self) -> Moments:
        """Mean and covariance of all features seen, whatever their labels.

        The covariance is the pooled scatter within classes plus the scatter of the class means
        about the mean, so it costs no pass of its own.

        Returns
        -------
        Moments

        Raises
        ------
        ValueError
            If nothing was seen, or the object was built with ``scatter=False``.
        """
        if self._origin is None:
            raise ValueError("no samples: call update with at least one row before")
        if self._scatter is None:
            raise ValueError(_NO_SCATTER)
        share = self._counts.to(torch.float64) / self.num_samples
        mean = share @ self._means
        between = share.sqrt()[:, None] * (self._means - mean)
        covariance = _mirrored(self._scatter) / self.num_samples + between.T @ between
        return Moments((mean + self._origin).cpu(), covariance.cpu())

    def _rows(self, features: ArrayLike | torch.Tensor) -> FeatureRows:
        rows = FeatureRows(features, self.chunk_rows)
        if rows.dim != self.dim:
            raise ValueError(
                f"features have {rows.dim} columns, this object was built with dim={self.dim}"
            )
        return rows

    def _geometry(self) -> _Geometry:
        if self._origin is None:
            raise ValueError("no samples: call update with at least one row before")
        counts = self._counts.cpu()
        present = torch.nonzero(counts)[:, 0]
        n = counts[present].to(torch.float64)
        means = self._means.cpu()[present]
        centre = means.mean(dim=0)
        centred = means - centre
        variation = self._variation.cpu()[present]
        trace_within = float(variation.sum() / n.sum())
        squared = (centred**2).sum(dim=1)
        trace_between = float(squared.mean())
        if not math.isfinite(trace_within + trace_between):
            largest = float(means.abs().max())
            raise OverflowError(
                f"squared distances of features overflow float64 (class means reach {largest:.3g} "
                f"from the first sample); divide the features by a constant, no metric changes"
            )
        zero = self.rcond * max(float(squared.max()), trace_within)
        # The (K', K') side of the singular value decomposition: Σ_B's eigenvectors of nonzero
        # eigenvalue without a (d, d) matrix or its pseudo-inverse.
        _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
        eigenvalues = singular**2 / len(present)
        keep = eigenvalues > self.rcond * eigenvalues[0]
        return _Geometry(
            counts=counts.numpy().copy(),
            present=present,
            origin=self._origin.cpu(),
            means=means,
            centre=centre,
            centred=centred,
            variances=variation / n,
            trace_within=trace_within,
            trace_between=trace_between,
            zero=zero,
            axes=axes[keep].T.contiguous(),
            eigenvalues=eigenvalues[keep],
        )

    def compute(
        self,
        head: ArrayLike | torch.Tensor | None = None,
        bias: ArrayLike | torch.Tensor | None = None,
    ) -> CollapseResult:
        """Return the metrics of everything seen so far; more may be added afterwards.

        Parameters
        ----------
        head : (K, d) array or tensor, optional
            Action-selection layer. By default the one of the second pass; with neither, what needs
            a head is NaN.
        bias : (K,) array or tensor, optional
            Only agreement depends on it: after a second pass it must be that pass's.

        Returns
        -------
        CollapseResult

        Raises
        ------
        OverflowError
            If squared features do not fit into float64.
        TypeError, ValueError
            If nothing was seen, the head does not fit, it is not the one of the second pass, or a
            bias comes without a head.
        """
        geometry = self._geometry()
        along = None
        if self._scatter is not None:
            axes = geometry.axes.to(self._scatter.device)
            along = ((_mirrored(self._scatter) @ axes) * axes).sum(dim=0).cpu() / self.num_samples
        return self._result(geometry, along, head, bias)

    def _result(
        self,
        geometry: _Geometry,
        along: torch.Tensor | None,
        head: ArrayLike | torch.Tensor | None,
        bias: ArrayLike | torch.Tensor | None,
    ) -> CollapseResult:
        """Put the table together; `along` is the within-class variance along `geometry.axes`."""
        weight = None if head is None else check_head(head, self.num_classes, self.dim)
        if bias is not None and weight is None:
            raise ValueError(_BIAS_ALONE)
        shift = None if bias is None else check_bias(bias, self.num_classes)
        if self._second is not None:
            if weight is None:
                weight = self._second.head
            else:
                self._require_same_head(weight, shift)
        table = _Table()
        _measure_features(table, geometry)
        _measure_within(table, geometry, along)
        _measure_head(table, weight, self.rcond)
        _measure_alignment(table, geometry, weight, self.rcond)
        _measure_agreement(table, geometry, weight, self._second)
        return CollapseResult(
            **table.values,
            num_samples=int(geometry.counts.sum()),
            absent_classes=self.num_classes - len(geometry.present),
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
    unit = rows / _norms(rows)[:, None]
    cosines = (unit @ unit.T).clamp(-1.0, 1.0)
    return cosines[~torch.eye(len(rows), dtype=torch.bool)]


def _measure_angles(table: _Table, names: tuple[str, str], rows: torch.Tensor) -> None:
    cosines = _pair_cosines(rows)
    table.put(names[0], cosines.std(correction=0))
    table.put(names[1], (cosines + 1.0 / (len(rows) - 1)).abs().mean())


def _listed(indices: torch.Tensor) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:5])
    return shown + (", ..." if len(indices) > 5 else "")


def _measure_features(table: _Table, geometry: _Geometry) -> None:
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
        table.put(norm, _relative_spread(_norms(centred)))
        vanishing = geometry.present[(centred**2).sum(dim=1) <= geometry.zero]
        if len(vanishing):
            centre = "mean of class means" if not suffix else "sample mean"
            table.undefined(
                angles,
                f"the mean of class {_listed(vanishing)} is the {centre}: its direction is 0/0",
            )
        else:
            _measure_angles(table, angles, centred)


def _measure_within(table: _Table, geometry: _Geometry, along: torch.Tensor | None) -> None:
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
        table.undefined(("within_class_variation",), _NO_SCATTER)
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
    table.put("head_equinorm", _relative_spread(_norms(head)))
    if len(vanishing):
        table.undefined(
            _HEAD_ONLY[1:], f"row {_listed(vanishing)} of the head is 0: its direction is 0/0"
        )
        return
    _measure_angles(table, ("head_equiangularity", "head_max_angle"), head)
    if len(head) == 2:
        table.undefined(("head_equiangularity",), _TWO_HEADS)


def _measure_alignment(
    table: _Table, geometry: _Geometry, head: torch.Tensor | None, rcond: float
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
    elif not bool((centred_head := _centred_rows(rows)).any()):
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
            unit = vectors / _norms(vectors)[:, None]
            cosines = (unit * (rows / _norms(rows)[:, None])).sum(dim=1).clamp(-1.0, 1.0)
            table.put(names[0], cosines.mean())
            table.put(names[1], cosines.min())


def _measure_agreement(
    table: _Table, geometry: _Geometry, head: torch.Tensor | None, second: _SecondPass | None
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


def collapse_metrics(
    features: ArrayLike | torch.Tensor,
    labels: ArrayLike | torch.Tensor,
    head: ArrayLike | torch.Tensor | None = None,
    num_classes: int | None = None,
    *,
    bias: ArrayLike | torch.Tensor | None = None,
    rcond: float = DEFAULT_RCOND,
    chunk_rows: int | None = None,
) -> CollapseResult:
    """Measure collapse of features held in memory.

    Two passes of O(N d K) over the features in float64 chunks, on their device; nothing of size
    (d, d) and no full float64 copy is made, memory-mapped arrays are fine.

    Parameters
    ----------
    features : (N, d) array or tensor of float16, bfloat16, float32 or float64
        Last-layer features, one row a state; not changed.
    labels : (N,) integer array or tensor
        Optimal action of each state, in 0..K − 1.
    head : (K, d) array or tensor, optional
        Action-selection layer, rows being actions; without it what needs a head is NaN.
    num_classes : int, optional
        K. By default the number of rows of `head`, without a head the largest label plus 1.
    bias : (K,) array or tensor, optional
        Bias of the action-selection layer; it enters `ncc_agreement` only.
    rcond : float, optional
        Squared lengths below this share of their scale are zero (module conventions), in (0, 1).
    chunk_rows : int, optional
        Rows turned into float64 at a time (:class:`analysis.snapshot.FeatureRows`).

    Returns
    -------
    CollapseResult

    Raises
    ------
    TypeError
        If features, head or bias are not floating, or labels not integer.
    ValueError
        If shapes disagree, a label is outside 0..K − 1, a value is not finite, there is no sample,
        K is below 2, a bias comes without a head, or `rcond` is outside (0, 1).
    OverflowError
        If squared features do not fit into float64.

    Examples
    --------
    >>> import numpy as np
    >>> etf = np.eye(4) - 0.25
    >>> labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    >>> result = collapse_metrics(3.0 * etf[labels] + 7.0, labels, head=etf)
    >>> result.within_class_variation, result.ncc_agreement
    (0.0, 1.0)
    """
    rows = FeatureRows(features, chunk_rows)
    if rows.num_samples == 0:
        raise ValueError(f"features have shape (0, {rows.dim}): at least one sample is needed")
    if num_classes is not None:
        num_classes = check_num_classes(num_classes)
    weight = None if head is None else check_head(head, num_classes, rows.dim)
    if weight is None and bias is not None:
        raise ValueError(_BIAS_ALONE)
    if num_classes is None and weight is not None:
        num_classes = check_num_classes(len(weight))
    y = check_labels(labels, rows.num_samples, num_classes)
    if num_classes is None:
        num_classes = check_num_classes(int(y.max()) + 1)
    shift = None if bias is None else check_bias(bias, num_classes)
    stream = CollapseMetrics(num_classes, rows.dim, device=rows.device, scatter=False, rcond=rcond)
    rows.require_finite()
    stream._first_pass(rows, y)

    geometry = stream._geometry()
    second = None if weight is None else stream._begin_second_pass(weight, shift, geometry)
    origin, means = geometry.origin.to(rows.device), stream._means
    axes = geometry.axes.to(rows.device)
    along = torch.zeros(axes.shape[1], dtype=torch.float64, device=rows.device)
    y = y.to(rows.device)
    for where, chunk in rows.chunks():
        x = chunk - origin
        # Residual first, projection second: the other way round would subtract large numbers.
        along += (((x - means[y[where]]) @ axes) ** 2).sum(dim=0)
        if second is not None:
            second.add(x)
    return stream._result(geometry, along.cpu() / rows.num_samples, weight, shift)


def snapshot_metrics(
    snapshot: Snapshot, *, rcond: float = DEFAULT_RCOND, chunk_rows: int | None = None
) -> CollapseResult:
    """Measure collapse of a :class:`~analysis.snapshot.Snapshot`.

    Parameters
    ----------
    snapshot : Snapshot
        Features, labels, head and bias are taken from it.
    rcond, chunk_rows : optional
        As in :func:`collapse_metrics`.

    Returns
    -------
    CollapseResult

    Raises
    ------
    OverflowError
        If squared features do not fit into float64.
    ValueError
        If `rcond` is outside (0, 1).
    """
    return collapse_metrics(
        snapshot.features,
        snapshot.labels,
        snapshot.head,
        snapshot.num_classes,
        bias=snapshot.bias,
        rcond=rcond,
        chunk_rows=chunk_rows,
    )
