"""What a measurement of collapse returns: every metric with its definition, or why it is NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


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
