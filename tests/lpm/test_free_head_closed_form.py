"""Closed forms against the solver, 50-digit arithmetic, and each other."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpm.free_head import FreeHeadProblem, solve_free_head
from lpm.free_head_closed_form import (
    balanced_lower_bound,
    balanced_optimum,
    mse_diagonal,
    seli,
    seli_step,
    weight_decay_balanced,
    weight_decay_thresholds,
)
from lpm.free_head_penalised import WeightDecayProblem, solve_weight_decay

pytestmark = pytest.mark.theory


@settings(max_examples=30)
@given(st.integers(2, 40), st.floats(0.1, 30.0), st.floats(0.1, 30.0))
def test_balanced_optimum(num_classes, feature_energy, head_energy) -> None:
    """The solver finds the ETF, its loss and its multiplier; 50 digits agree."""
    exact = balanced_optimum(num_classes, feature_energy, head_energy)
    solution = solve_free_head(FreeHeadProblem([7] * num_classes, feature_energy, head_energy))
    np.testing.assert_allclose(solution.logits, exact.logits, atol=1e-11 * num_classes)
    assert solution.objective == pytest.approx(exact.objective, rel=1e-10)
    assert solution.multiplier == pytest.approx(exact.multiplier, rel=1e-9)
    off = ~np.eye(num_classes, dtype=bool)
    np.testing.assert_allclose(solution.head_cosines[off], -1 / (num_classes - 1), atol=1e-11)
    with mpmath.workdps(50):
        k = mpmath.mpf(num_classes)
        rho = mpmath.sqrt(mpmath.mpf(feature_energy) * mpmath.mpf(head_energy))
        a = mpmath.exp(-rho * k / (k - 1))
        assert exact.objective == pytest.approx(float(mpmath.log1p((k - 1) * a)), rel=1e-12)
        assert exact.multiplier == pytest.approx(float(a / (1 + (k - 1) * a)), rel=1e-12)


@given(st.integers(2, 8), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_lower_bound_holds_in_every_dimension(num_classes, dim, seed) -> None:
    """At random models, and near the simplex, where the bound is attained for dim >= K."""
    rng = np.random.default_rng(seed)
    simplex = (np.eye(num_classes) - 1.0 / num_classes) @ np.eye(num_classes, dim)
    for spread in (10.0, 0.1, 0.0):
        features, head = (simplex + spread * rng.normal(size=simplex.shape) for _ in range(2))
        features *= np.sqrt(3.0 * num_classes) / np.linalg.norm(features)
        head *= np.sqrt(2.0 * num_classes) / np.linalg.norm(head)
        logits = features @ head.T
        loss = np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
        assert loss >= balanced_lower_bound(num_classes, 3.0, 2.0) - 1e-12


@pytest.mark.parametrize("step", [(2, 3, 10.0), (5, 5, 100.0), (1, 4, 7.0), (3, 1, 50.0)])
def test_seli_for_step_imbalance(step) -> None:
    """Closed form against the SVD, and against the sample-by-sample definition."""
    majority, minority, ratio = step
    counts = [int(ratio)] * majority + [1] * minority
    by_svd, closed = seli(counts), seli_step(*step)
    np.testing.assert_allclose(by_svd.head_gram, closed.head_gram, atol=1e-12)
    np.testing.assert_allclose(by_svd.feature_gram, closed.feature_gram, atol=1e-12)
    # SEL matrix K x N of Thrampoulidis et al.: V S U^T, heads V S V^T, sample features U S U^T.
    k = len(counts)
    labels = np.repeat(np.arange(k), counts)
    v, s, ut = np.linalg.svd(np.eye(k)[:, labels] - 1.0 / k, full_matrices=False)
    np.testing.assert_allclose((v * s) @ v.T, closed.head_gram, atol=1e-10)
    first = np.searchsorted(labels, np.arange(k))
    samples = (ut.T * s) @ ut
    np.testing.assert_allclose(samples[np.ix_(first, first)], closed.feature_gram, atol=1e-10)


def test_seli_is_the_limit_of_vanishing_decay() -> None:
    """Cosines approach SELI's like 1 / log(1 / decay); the norm-bounded model's the ETF."""
    counts, distances = [200, 200, 20, 20, 20], []
    target = seli(counts)
    for decay in (1e-6, 1e-12, 1e-24):
        solution = solve_weight_decay(WeightDecayProblem(counts, decay, decay))
        distances.append(np.abs(solution.head_cosines - target.head_cosines).max())
    assert distances[1] < 0.6 * distances[0]
    assert distances[2] < 0.6 * distances[1]
    off = ~np.eye(5, dtype=bool)
    errors = [
        np.abs(solve_free_head(FreeHeadProblem(counts, rho, rho)).head_cosines[off] + 0.25).max()
        for rho in (20.0, 40.0)
    ]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("per_class", [1, 20])
@pytest.mark.parametrize("decay", [1e-8, 1e-3, 0.03, 0.3])
def test_balanced_weight_decay(per_class, decay) -> None:
    exact = weight_decay_balanced(4, per_class, decay)
    solution = solve_weight_decay(WeightDecayProblem([per_class] * 4, 2 * decay, decay / 2))
    np.testing.assert_allclose(solution.logits, exact, atol=1e-9)
    if 4 * np.sqrt(per_class) * decay >= 1:
        assert np.all(exact == 0.0)


@pytest.mark.parametrize("offset", [-1e-6, 1e-6])
def test_weight_decay_thresholds_from_both_sides(offset) -> None:
    """Each cluster splits below its own threshold: 200, 50 and 20 samples."""
    counts = [200, 200, 50, 50, 20, 20, 9]
    thresholds = weight_decay_thresholds(counts)
    assert np.isnan(thresholds[6])
    for cluster in (0, 2, 4):
        decay = thresholds[cluster] * (1 + offset)
        logits = solve_weight_decay(WeightDecayProblem(counts, decay, decay)).logits
        apart = logits[cluster, cluster] - logits[cluster, cluster + 1]
        assert (apart > 1e-9) == (offset < 0)


def test_mse_diagonal() -> None:
    """Soft-thresholding minimises the squared loss: no small change of the diagonal helps."""
    counts, decay = np.array([100, 30, 4]), 0.03
    diagonal = mse_diagonal(counts, decay)
    assert diagonal[2] == 0.0

    def objective(z):
        fit = counts @ ((z - np.eye(3)) ** 2).sum(axis=1) / (2 * counts.sum())
        return fit + decay * np.linalg.norm(np.sqrt(counts)[:, None] * z, "nuc")

    best, rng = objective(np.diag(diagonal)), np.random.default_rng(0)
    for size in (1e-6, 1e-3, 1e-1):
        for _ in range(200):
            assert objective(np.diag(diagonal) + size * rng.normal(size=(3, 3))) >= best - 1e-15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balanced_optimum(1, 1.0, 1.0), "number of classes"),
        (lambda: balanced_optimum(3, -1.0, 1.0), "feature_energy"),
        (lambda: seli([3, 0]), r"counts\[1\] = 0"),
        (lambda: seli_step(0, 3, 2.0), "got 0, 3"),
        (lambda: seli_step(2, 3, 0.0), "ratio"),
        (lambda: weight_decay_balanced(3, 0, 0.1), "per_class"),
        (lambda: mse_diagonal([3, 2], np.nan), "logit_decay"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
