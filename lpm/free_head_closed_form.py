"""Closed forms of the learned-head model: hypotheses, formula, source. No solver is used.

Notation: K classes, ``rho = sqrt(E_H E_W)``, ``A = exp(-rho K / (K - 1))``, rows of H and W are
features and head; lambda_Z = sqrt(lambda_W lambda_H) as in :mod:`lpm.free_head_penalised`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lpm.free_head import check_counts, check_positive
from lpm.free_head_levels import Array


@dataclass(frozen=True)
class BalancedOptimum:
    """Optimum of the balanced norm-bounded model.

    Parameters
    ----------
    logits : (K, K) float array
        ``alpha (I - 11^T / K)``.
    objective : float
        ``log(1 + (K - 1) A)``.
    multiplier : float
        ``-d objective / d tau``, ``tau = K rho``.
    """

    logits: Array
    objective: float
    multiplier: float


def balanced_optimum(
    num_classes: int, feature_energy: float, head_energy: float
) -> BalancedOptimum:
    """Optimum for equal counts: H and W are aligned simplex ETFs.

    Hypotheses: equal counts, ``d >= K - 1``; "mean" or "per-vector" constraint.
    Source: Zhu et al. (2021), "A geometric analysis of neural collapse with unconstrained
    features"; Fang et al. (2021).

    By uniqueness and symmetry ``Z = alpha (I - 11^T / K)``, whose K - 1 singular values alpha use
    the budget ``tau = K rho``.

    Parameters
    ----------
    num_classes : int
        K >= 2.
    feature_energy, head_energy : float
        E_H and E_W, positive.
    """
    k = _check_classes(num_classes)
    rho = _radius(feature_energy, head_energy)
    alpha = rho * k / (k - 1)
    log_odds = np.log(k - 1.0) - alpha
    # -d f / d tau = A / (1 + (K - 1) A), in the log domain.
    multiplier = float(np.exp(-alpha - np.logaddexp(0.0, log_odds)))
    logits = alpha * (np.eye(k) - 1.0 / k)
    return BalancedOptimum(logits, float(np.logaddexp(0.0, log_odds)), multiplier)


def balanced_lower_bound(num_classes: int, feature_energy: float, head_energy: float) -> float:
    """Lower bound ``log(1 + (K - 1) exp(-rho K / (K - 1)))`` on the balanced cross-entropy.

    Hypotheses: equal counts, any dimension, mean or per-vector bounds; attained iff H and W are
    aligned simplex ETFs. Source: Lu & Steinerberger (2020), "Neural collapse with cross-entropy
    loss"; Graf et al. (2021), "Dissecting supervised contrastive learning".

    Parameters
    ----------
    num_classes : int
        K >= 2.
    feature_energy, head_energy : float
        E_H and E_W, positive.
    """
    return balanced_optimum(num_classes, feature_energy, head_energy).objective


@dataclass(frozen=True)
class SeliGeometry:
    """Simplex-encoded-labels interpolation: the limit of vanishing weight decay.

    Parameters
    ----------
    logits : (K, K) float array
        ``I - 11^T / K``, up to scale the limit of the logits.
    head_gram, feature_gram : (K, K) float arrays
        ``W W^T`` and ``H H^T`` of the head rows and class features, up to scale.
    """

    logits: Array
    head_gram: Array
    feature_gram: Array

    @property
    def head_cosines(self) -> Array:
        """Cosines between head rows."""
        return _cosines(self.head_gram)

    @property
    def feature_cosines(self) -> Array:
        """Cosines between class features."""
        return _cosines(self.feature_gram)


def seli(counts: ArrayLike) -> SeliGeometry:
    """SELI geometry of any class counts.

    Hypotheses: weight decay on every sample's feature and on the head, in the limit of vanishing
    decay; ``d >= K - 1``. (The norm-bounded model counts each class once: its large-norm limit is
    the simplex ETF whatever the counts.) Source: Thrampoulidis et al. (2022), "Imbalance trouble:
    Revisiting neural-collapse geometry".

    Sample logits ``V S U^T`` of ``1{c = y_i} - 1/K`` give ``W W^T = V S V^T`` and
    ``H H^T = U S U^T``. Equal columns merge: an SVD of ``diag(sqrt n) (I - 11^T / K)`` is enough.

    Parameters
    ----------
    counts : (K,) sequence of positive whole numbers
        Samples of each class.
    """
    n = check_counts(counts)
    logits = np.eye(len(n)) - 1.0 / len(n)
    u, s, vt = np.linalg.svd(np.sqrt(n)[:, None] * logits)
    u, s, v = u[:, :-1], s[:-1], vt[:-1].T  # the last singular value is exactly zero
    features = u / np.sqrt(n)[:, None]
    return SeliGeometry(logits, (v * s) @ v.T, (features * s) @ features.T)


def seli_step(majority: int, minority: int, ratio: float) -> SeliGeometry:
    """SELI geometry in closed form for ``majority`` classes of R n and ``minority`` of n samples.

    Hypotheses and source as :func:`seli` (there for equal numbers of classes). With
    n = 1: ``diag(sqrt n)(I - 11^T/K)`` has right singular spaces "sum zero on the majority"
    (values sqrt R), "sum zero on the minority" (values 1), and the unit vector e contrasting the
    two (value sqrt of ``m = (R K_B + K_A) / K``, the mean of n under e^2). So

        W W^T = sqrt(R) P_A + P_B + sqrt(m) e e^T,
        H H^T = P_A / sqrt(R) + P_B + e e^T / sqrt(m).

    Parameters
    ----------
    majority, minority : int
        K_A and K_B, at least 1 each.
    ratio : float
        R, positive.
    """
    _check_classes(majority + minority)
    if majority < 1 or minority < 1:
        raise ValueError(f"majority and minority must be at least 1, got {majority}, {minority}")
    r = check_positive("ratio", ratio)
    k = majority + minority
    in_a = np.arange(k) < majority
    p_a = np.diag(in_a * 1.0) - np.outer(in_a, in_a) / majority
    p_b = np.diag(~in_a * 1.0) - np.outer(~in_a, ~in_a) / minority
    e = np.where(in_a, np.sqrt(minority / (k * majority)), -np.sqrt(majority / (k * minority)))
    m = (r * minority + majority) / k
    contrast = np.outer(e, e)
    return SeliGeometry(
        np.eye(k) - 1.0 / k,
        np.sqrt(r) * p_a + p_b + np.sqrt(m) * contrast,
        p_a / np.sqrt(r) + p_b + contrast / np.sqrt(m),
    )


def weight_decay_balanced(num_classes: int, per_class: int, logit_decay: float) -> Array:
    """Optimal logits (K, K) of the weight-decay model with n samples in each class.

    Hypotheses: equal counts, ``d >= K - 1``. Source: Zhu et al. (2021); Hong & Ling (2023).

    By symmetry ``Z = alpha (I - 11^T / K)``. With ``A = e^{-alpha}``, optimality reads
    ``A / (sqrt(n) (1 + (K - 1) A)) = lambda_Z``: if ``K sqrt(n) lambda_Z < 1``,
    ``alpha = log(1 / (sqrt(n) lambda_Z) - (K - 1))``, else 0.

    Parameters
    ----------
    num_classes, per_class : int
        K >= 2 and n >= 1.
    logit_decay : float
        lambda_Z, positive.
    """
    k = _check_classes(num_classes)
    scale = np.sqrt(check_positive("per_class", per_class)) * check_positive(
        "logit_decay", logit_decay
    )
    alpha = np.log1p(1.0 / scale - k) if k * scale < 1.0 else 0.0
    logits: Array = alpha * (np.eye(k) - 1.0 / k)
    return logits


def weight_decay_thresholds(counts: ArrayLike) -> Array:
    """lambda_Z from which the classes of each count share one head row and one feature.

    Hypotheses: the weight-decay model, at least two classes of that count, ``d >= K - 1``.
    Source: Hong & Ling (2023), "Neural collapse for unconstrained feature model under
    cross-entropy loss with imbalanced data". Among m >= 2 coinciding classes of n_j samples the
    gradient in ``sqrt(n_j) Z`` is ``-(sqrt(n_j) / N) I`` on the sum-zero space, whatever the rest:
    they stay together iff ``sqrt(n_j) / N <= lambda_Z``.

    Parameters
    ----------
    counts : (K,) sequence of positive whole numbers
        Samples of each class.

    Returns
    -------
    (K,) float array
        ``sqrt(n_k) / N``; NaN for a class whose count no other class has.
    """
    n = check_counts(counts)
    shared = (n[:, None] == n).sum(axis=1) > 1
    return np.where(shared, np.sqrt(n) / n.sum(), np.nan)


def mse_diagonal(counts: ArrayLike, logit_decay: float) -> Array:
    """Diagonal of ``W Hbar`` for the squared loss: ``(1 - N lambda_Z / sqrt(n_k))_+``; rest zero.

    Hypotheses: ``(1 / 2N) ||Z - Y||^2`` over samples with one-hot Y, no bias, weight decay on every
    feature and the head, ``d >= K``. Source: Zhou et al. (2022), "On the optimization landscape of
    neural collapse under MSE loss"; Dang et al. (2023) for unequal counts.

    In ``X = diag(sqrt n) Z`` the loss is ``(1 / 2N) ||X - diag(sqrt n)||_F^2`` plus
    ``lambda_Z ||X||_*``: soft thresholding of the singular values ``sqrt(n_k)`` by ``N lambda_Z``.

    Parameters
    ----------
    counts : (K,) sequence of positive whole numbers
        Samples of each class.
    logit_decay : float
        lambda_Z, positive.
    """
    n = check_counts(counts)
    threshold = n.sum() * check_positive("logit_decay", logit_decay)
    diagonal: Array = np.maximum(1.0 - threshold / np.sqrt(n), 0.0)
    return diagonal


def _check_classes(num_classes: int) -> int:
    if isinstance(num_classes, bool) or num_classes != int(num_classes) or num_classes < 2:
        raise ValueError(f"the number of classes must be a whole number >= 2, got {num_classes!r}")
    return int(num_classes)


def _radius(feature_energy: float, head_energy: float) -> float:
    return float(
        np.sqrt(check_positive("feature_energy", feature_energy))
        * np.sqrt(check_positive("head_energy", head_energy))
    )


def _cosines(gram: Array) -> Array:
    norms = np.sqrt(np.diag(gram))
    cosines: Array = gram / np.outer(norms, norms)
    return cosines
