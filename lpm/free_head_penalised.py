"""The layer-peeled model with weight decay instead of norm bounds, global and certified.

    min_{H, W}  (1/N) sum_k n_k CE(W h_k, k) + (lambda_W / 2) ||W||_F^2
                + (lambda_H / 2) sum_k n_k ||h_k||^2

where h_k is again the common feature of the n_k samples of class k. With ``Z = H W^T`` and
``2 ||X||_* = min_{X = A B^T} ||A||_F^2 + ||B||_F^2`` for ``X = diag(sqrt n) Z`` this is, for
``d >= K - 1``,

    min_Z  f(Z) + lambda_Z ||diag(sqrt n) Z||_*,      lambda_Z = sqrt(lambda_W lambda_H),

convex. The row scale is what tells it from the norm-bounded model, which counts each class once.
A candidate is global iff the gradient in X has spectral norm at most lambda_Z and the norm term is
tight (Zhu et al., 2021; Hong & Ling, 2023, for unequal counts).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lpm.free_head import FreeHeadStatus, check_counts, check_positive, factor, geometry
from lpm.free_head_convex import Penalty, minimise
from lpm.free_head_levels import Array, LevelLoss, Levels


@dataclass(frozen=True)
class WeightDecayProblem:
    """A layer-peeled model with weight decay.

    Parameters
    ----------
    counts : (K,) sequence of positive whole numbers
        Samples of each class; K >= 2. Here their size matters, not only their ratios.
    feature_decay, head_decay : float
        lambda_H and lambda_W, positive.

    Raises
    ------
    ValueError
        If a parameter is out of range; the message names the number.
    """

    counts: Array
    feature_decay: float
    head_decay: float

    def __post_init__(self) -> None:
        """Validate, and store counts as a read-only float array."""
        object.__setattr__(self, "counts", check_counts(self.counts))
        for name in ("feature_decay", "head_decay"):
            object.__setattr__(self, name, check_positive(name, getattr(self, name)))

    @property
    def logit_decay(self) -> float:
        """``lambda_Z = sqrt(lambda_W lambda_H)``."""
        return float(np.sqrt(self.feature_decay) * np.sqrt(self.head_decay))


@dataclass(frozen=True)
class WeightDecaySolution:
    """Solution of a :class:`WeightDecayProblem`.

    Parameters
    ----------
    logits : (K, K) float array
        ``features @ head.T``.
    head, features : (K, K) float arrays
        W and H.
    objective : float
        Cross-entropy plus both decay terms.
    cross_entropy : float
        Its first part.
    gap : float
        Certified bound on objective minus optimum; positive, rounding included.
    spectral_norm : float
        Of the gradient with respect to ``diag(sqrt n) Z``; at most lambda_Z at the optimum.
    head_cosines : (K, K) float array
        NaN where a norm is zero.
    head_norms, feature_norms : (K,) float arrays
        Norms of rows.
    status : FreeHeadStatus
        OPTIMAL or GAP_OPEN.
    """

    logits: Array
    head: Array
    features: Array
    objective: float
    cross_entropy: float
    gap: float
    spectral_norm: float
    head_cosines: Array
    head_norms: Array
    feature_norms: Array
    status: FreeHeadStatus


def solve_weight_decay(
    problem: WeightDecayProblem, *, tolerance: float = 1e-12, max_steps: int = 2000
) -> WeightDecaySolution:
    """Solve a layer-peeled model with weight decay.

    Parameters
    ----------
    problem : WeightDecayProblem
        The model.
    tolerance : float
        Target gap, relative to the cross-entropy where that is below 1.
    max_steps : int
        Bound on gradient steps.

    Raises
    ------
    ValueError
        If ``tolerance`` or ``max_steps`` is out of range.
    """
    check_positive("tolerance", tolerance)
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    levels = Levels.merge(problem.counts)
    loss = LevelLoss(levels, np.sqrt(levels.counts))
    result = minimise(loss, Penalty(problem.logit_decay), tolerance, max_steps)
    features, head = factor(result, levels, problem.counts.size)
    # lambda_W ||W||^2 = lambda_H sum n_k ||h_k||^2 at the minimum of the sum given the product.
    ratio = (problem.head_decay / problem.feature_decay) ** 0.25
    features = features * ratio / np.sqrt(problem.counts)[:, None]
    head = head / ratio
    decay = 0.5 * problem.head_decay * (head * head).sum()
    decay += 0.5 * problem.feature_decay * (problem.counts @ (features * features)).sum()
    head_norms, head_cosines, _ = geometry(head, float((head * head).mean()))
    feature_norms, _, _ = geometry(features, float((features * features).mean()))
    return WeightDecaySolution(
        logits=levels.expand(result.point.packed) / np.sqrt(problem.counts)[:, None],
        head=head,
        features=features,
        objective=result.evaluation.value + float(decay),
        cross_entropy=result.evaluation.value,
        gap=result.gap.bound,
        spectral_norm=result.gap.multiplier,
        head_cosines=head_cosines,
        head_norms=head_norms,
        feature_norms=feature_norms,
        status=FreeHeadStatus.OPTIMAL if result.converged else FreeHeadStatus.GAP_OPEN,
    )
