"""How far a policy's features and action-selection layer are from collapse.

:func:`collapse_metrics` measures data held in memory, :class:`CollapseMetrics` data that arrive in
batches or lie on several machines. Both return a :class:`CollapseResult` with the same numbers, for
both sum up the data (:mod:`analysis.collapse_first_pass`), see where the class means lie
(:mod:`analysis.collapse_geometry`), hold decisions against them
(:mod:`analysis.collapse_second_pass`) and evaluate the formulae
(:mod:`analysis.collapse_formulae`) with the same code.

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

import torch
from numpy.typing import ArrayLike

from analysis.collapse_first_pass import FirstPass, Moments
from analysis.collapse_formulae import evaluate
from analysis.collapse_geometry import DEFAULT_RCOND, Geometry, check_rcond
from analysis.collapse_result import METRIC_FIELDS, CollapseResult
from analysis.collapse_second_pass import SecondPass
from analysis.collapse_stream import CollapseMetrics
from analysis.snapshot import (
    BIAS_ALONE,
    FeatureRows,
    Snapshot,
    check_bias,
    check_head,
    check_labels,
    check_num_classes,
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
        raise ValueError(BIAS_ALONE)
    if num_classes is None and weight is not None:
        num_classes = check_num_classes(len(weight))
    y = check_labels(labels, rows.num_samples, num_classes)
    if num_classes is None:
        num_classes = check_num_classes(int(y.max()) + 1)
    shift = None if bias is None else check_bias(bias, num_classes)
    rcond = check_rcond(rcond)
    rows.require_finite()
    first = FirstPass(num_classes, rows.dim, device=rows.device, scatter=False)
    first.add(rows, y)

    geometry = Geometry.of(first, rcond)
    second = None if weight is None else SecondPass(geometry, weight, shift, rows.device)
    origin, means = geometry.origin.to(rows.device), first.means
    axes = geometry.axes.to(rows.device)
    along = torch.zeros(axes.shape[1], dtype=torch.float64, device=rows.device)
    y = y.to(rows.device)
    for where, chunk in rows.chunks():
        x = chunk - origin
        # Residual first, projection second: the other way round would subtract large numbers.
        along += (((x - means[y[where]]) @ axes) ** 2).sum(dim=0)
        if second is not None:
            second.add(x)
    return evaluate(geometry, along.cpu() / rows.num_samples, weight, second, rcond)


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
