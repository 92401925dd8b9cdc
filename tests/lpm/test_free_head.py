"""The learned head: the convex solver, its certificate and what is recovered from it.

Invariants, each a test below: merged coordinates are an isometry of K x K matrices; gradient and
Hessian are those of the naive loss; the gap is at most 1e-10 for any counts, is never negative and
encloses a conic solver's answer; no feasible point beats the lower bound; only rho and the ratios
of counts matter; classes of equal count may be merged and K - 1 dimensions suffice; the multiplier
is the sensitivity of the optimum; the factors spend exactly their energies; what vanishes has no
cosine.
"""

import cvxpy as cp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from lpm.free_head import (
    FreeHeadProblem,
    FreeHeadStatus,
    geometry,
    helmert,
    solve_free_head,
)
from lpm.free_head_convex import Ball, Penalty, minimise
from lpm.free_head_gap import ball_gap, penalty_gap
from lpm.free_head_levels import LevelLoss, Levels
from lpm.nuclear import ball_threshold, nuclear_norm, shrink, spectral_norm

pytestmark = pytest.mark.theory

counts_lists = st.lists(st.sampled_from([1, 2, 3, 7, 40, 500]), min_size=2, max_size=7)
energies = st.floats(0.05, 20.0)
seeds = st.integers(0, 2**32 - 1)


def naive_loss(logits, counts):
    """Cross-entropy of K x K logits and its gradient, written as in a textbook."""
    exponentials = np.exp(logits)
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    share = np.asarray(counts, dtype=float) / np.sum(counts)
    return -(share @ np.log(np.diag(p))), share[:, None] * (p - np.eye(len(p)))


def families(num_classes, rng):
    k = np.arange(1, num_classes + 1)
    return {
        "balanced": np.full(num_classes, 10),
        "two-level": np.where(k <= num_classes // 2, 1000, 10),
        "log-normal": np.ceil(1000 * np.exp(rng.normal(size=num_classes))).astype(int),
        "zipf": np.ceil(1e5 / k).astype(int),
    }


# --- Coordinates, loss, norms ----------------------------------------------------------------


@given(counts_lists, seeds)
def test_merged_coordinates_are_an_isometry(counts, seed) -> None:
    """Frobenius product, nuclear and spectral norm are those of the K x K matrix."""
    rng = np.random.default_rng(seed)
    levels = Levels.merge(np.array(counts, dtype=float))
    m = len(levels.sizes)
    alpha = np.where(levels.sizes > 1, rng.normal(size=m), 0.0)
    x, y = (levels.pack(alpha, rng.normal(size=(m, m))) for _ in range(2))
    dense_x, dense_y = levels.expand(x), levels.expand(y)
    multiplicity = levels.sizes - 1.0
    assert (x * y).sum() == pytest.approx((dense_x * dense_y).sum(), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(
        levels.expand(levels.centre(x)), dense_x - dense_x.mean(axis=1, keepdims=True), atol=1e-13
    )
    assert nuclear_norm(x, multiplicity) == pytest.approx(np.linalg.norm(dense_x, "nuc"))
    assert spectral_norm(x, multiplicity) == pytest.approx(np.linalg.norm(dense_x, 2))


@given(counts_lists, seeds)
def test_loss_and_derivatives_against_the_naive_loss(counts, seed) -> None:
    """Value and gradient to 1e-12 of the naive ones, Hessian to finite differences."""
    rng = np.random.default_rng(seed)
    levels = Levels.merge(np.array(counts, dtype=float))
    m = len(levels.sizes)
    scale = rng.uniform(0.5, 2.0, m)
    loss = LevelLoss(levels, scale)
    alpha, shift = (np.where(levels.sizes > 1, rng.normal(size=m), 0.0) for _ in range(2))
    x = levels.pack(alpha, rng.normal(size=(m, m)))
    direction = levels.pack(shift, rng.normal(size=(m, m)))
    rows = scale[levels.index][:, None]
    value, gradient = naive_loss(levels.expand(x) / rows, counts)
    here = loss.evaluate(x)
    assert here.value == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(levels.expand(here.gradient), gradient / rows, atol=1e-14)
    step = 1e-5
    difference = (
        loss.evaluate(x + step * direction).gradient - loss.evaluate(x - step * direction).gradient
    ) / (2 * step)
    np.testing.assert_allclose(here.hessian_product()(direction), difference, atol=1e-8)


def test_small_losses_keep_their_digits() -> None:
    """Logits of 200 leave f = 2 e^-200: formed without 1 - p."""
    levels = Levels.merge(np.ones(3))
    packed = levels.pack(np.array([200.0]), np.array([[-200.0 / 3]]))
    loss = LevelLoss(levels, np.ones(1)).evaluate(packed)
    assert loss.value == pytest.approx(2 * np.exp(-200.0), rel=1e-12)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=6), st.floats(0.1, 10), seeds)
def test_threshold_projects_onto_the_ball(values, radius, seed) -> None:
    """After thresholding the weighted sum is the radius, or nothing changed."""
    multiplicity = np.random.default_rng(seed).integers(0, 4, len(values)).astype(float)
    values = np.array(values)
    level = ball_threshold(radius)(values, multiplicity)
    kept = multiplicity @ np.maximum(values - level, 0.0)
    if multiplicity @ values <= radius:
        assert level == 0.0
    else:
        assert kept == pytest.approx(radius, rel=1e-12)


@given(counts_lists, seeds)
def test_curvatures_along_coordinates(counts, seed) -> None:
    """Diagonal entries given to the preconditioner are Hessian forms; `curvature` bounds them."""
    rng = np.random.default_rng(seed)
    levels = Levels.merge(np.array(counts, dtype=float))
    m = len(levels.sizes)
    loss = LevelLoss(levels, np.ones(m))
    alpha = np.where(levels.sizes > 1, rng.normal(size=m), 0.0)
    here = loss.evaluate(levels.pack(alpha, rng.normal(size=(m, m))))
    left, right = (np.linalg.qr(rng.normal(size=(m, m)))[0] for _ in range(2))
    diagonal, product = here.hessian_diagonal(left, right), here.hessian_product()
    for i in range(m):
        for j in range(m):
            direction = np.vstack([np.zeros(m), np.outer(left[:, i], right[:, j])])
            form = (direction * product(direction)).sum()
            assert diagonal.core[i, j] == pytest.approx(form, rel=1e-9, abs=1e-14)
            assert form <= here.curvature() * (1 + 1e-12)
        direction = np.vstack([np.zeros(m), np.diag(np.eye(m)[i])])
        form = (direction * product(direction)).sum()
        assert diagonal.own[i] == pytest.approx(form, rel=1e-9)
        if levels.sizes[i] > 1:
            direction = np.zeros((m + 1, m))
            direction[0, i] = 1.0
            form = (direction * product(direction)).sum()
            assert diagonal.alpha[i] == pytest.approx(form, rel=1e-9)


# --- Certificate -----------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [4, 10, 40, 100])
@pytest.mark.parametrize("family", ["balanced", "two-level", "log-normal", "zipf"])
@pytest.mark.parametrize("rho", [0.3, np.sqrt(5.0), 8.0])
def test_gap(num_classes, family, rho) -> None:
    """Certified to 1e-10, absolutely and relative to the objective."""
    counts = families(num_classes, np.random.default_rng(num_classes))[family]
    solution = solve_free_head(FreeHeadProblem(counts, rho, rho))
    assert solution.status is FreeHeadStatus.OPTIMAL
    assert 0.0 < solution.gap <= 1e-10 * min(1.0, solution.objective)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["balanced", "two-level", "log-normal", "zipf"])
@pytest.mark.parametrize("feature_energy", [1.0, 5.0, 100.0])
def test_gap_of_a_thousand_classes(family, feature_energy) -> None:
    """Certified to 1e-9 at K = 1000."""
    counts = families(1000, np.random.default_rng(0))[family]
    solution = solve_free_head(FreeHeadProblem(counts, feature_energy, 1.0))
    assert solution.status is FreeHeadStatus.OPTIMAL
    assert 0.0 < solution.gap <= 1e-9


@pytest.mark.parametrize("rho", [15.0, 50.0])
def test_large_norms(rho) -> None:
    """Objectives of 1e-8 and 1e-24 to relative 1e-9: the certificate does not lose them."""
    counts = np.array([500, 200, 90, 90, 20, 7, 3, 1])
    solution = solve_free_head(FreeHeadProblem(counts, rho, rho))
    assert solution.gap <= 1e-9 * solution.objective
    # Continuation in the radius: from zero, Newton would gain one unit of rho a step.
    assert solution.stats["newton_steps"] <= 10


@given(counts_lists, energies, st.sampled_from(["ball", "penalty"]), seeds)
def test_no_feasible_point_beats_the_lower_bound(counts, energy, kind, seed) -> None:
    """At random points of any size the bound is positive and below every feasible value."""
    rng = np.random.default_rng(seed)
    k = len(counts)
    levels = Levels.keep_all(np.array(counts, dtype=float))
    loss, multiplicity = LevelLoss(levels, np.ones(k)), np.zeros(k)
    radius, weight = k * energy, 0.02 * energy

    def candidate():
        logits = rng.normal(size=(k, 2)) @ rng.normal(size=(2, k))
        logits += rng.uniform(0, 3) * np.eye(k)
        return logits * radius * rng.uniform() / np.linalg.norm(logits, "nuc")

    def objective(logits):
        extra = 0.0 if kind == "ball" else weight * np.linalg.norm(logits, "nuc")
        return naive_loss(logits, counts)[0] + extra

    points = [candidate() for _ in range(6)]
    lowest = min(objective(point) for point in points)
    for point in points:
        packed = np.vstack([np.zeros(k), point])
        here = loss.evaluate(packed)
        if kind == "ball":
            gap = ball_gap(here, packed, multiplicity, radius)
        else:
            gap = penalty_gap(here, packed, multiplicity, weight)
        assert gap.bound > 0.0
        assert objective(point) - gap.bound <= lowest + 1e-12


@settings(max_examples=25)
@given(counts_lists, energies, seeds)
def test_random_factors_never_beat_the_optimum(counts, energy, seed) -> None:
    """Feasible H and W of any dimension stay above the certified lower bound."""
    rng = np.random.default_rng(seed)
    solution = solve_free_head(FreeHeadProblem(counts, energy, 2.0))
    for scale in (0.0, 0.1, 1.0):
        features = solution.features + scale * rng.normal(size=solution.features.shape)
        head = solution.head + scale * rng.normal(size=solution.head.shape)
        features *= np.sqrt(len(counts) * energy) / np.linalg.norm(features)
        head *= np.sqrt(len(counts) * 2.0) / np.linalg.norm(head)
        assert naive_loss(features @ head.T, counts)[0] >= solution.lower_bound - 1e-14


def test_gap_is_positive_at_the_exact_optimum() -> None:
    """Rounding alone would give a gap of either sign; it is enclosed instead."""
    for num_classes in range(2, 60):
        levels = Levels.merge(np.ones(num_classes))
        radius = 2.0 * num_classes
        alpha = radius / (num_classes - 1)
        packed = levels.pack(np.array([alpha]), np.array([[-alpha / num_classes]]))
        here = LevelLoss(levels, np.ones(1)).evaluate(packed)
        gap = ball_gap(here, packed, levels.sizes - 1.0, radius)
        assert 0.0 < gap.rounding <= gap.bound <= 1e-12


@pytest.mark.parametrize("counts", [[7, 3, 1, 1], [100, 1, 1, 1, 1], [9, 8, 5, 2, 2, 1]])
@pytest.mark.parametrize("rho", [0.5, 2.0])
def test_against_a_semidefinite_program(counts, rho) -> None:
    """SCS's answer lies in [objective - gap, objective] to 1e-8, its logits are ours to 1e-5.

    Of the conic solvers it is the one that meets such tolerances on every processor: an interior
    point method ends with "may be inaccurate" on some.
    """
    k = len(counts)
    solution = solve_free_head(FreeHeadProblem(counts, rho, rho))
    logits = cp.Variable((k, k))
    share = np.array(counts) / np.sum(counts)
    loss = sum(share[i] * (cp.log_sum_exp(logits[i]) - logits[i, i]) for i in range(k))
    program = cp.Problem(cp.Minimize(loss), [cp.normNuc(logits) <= k * rho])
    program.solve(solver="SCS", eps_abs=1e-9, eps_rel=1e-9)
    assert solution.lower_bound - 1e-8 <= program.value <= solution.objective + 1e-8
    np.testing.assert_allclose(logits.value, solution.logits, atol=1e-5)


# --- Structure of the optimum ----------------------------------------------------------------


@settings(max_examples=15)
@given(counts_lists, energies)
def test_merging_changes_nothing(counts, energy) -> None:
    """Levels of equal classes and K separate classes give one answer, to 1e-10."""
    k = len(counts)
    merged = solve_free_head(FreeHeadProblem(counts, energy, 1.0))
    levels = Levels.keep_all(np.array(counts, dtype=float))
    radius = k * np.sqrt(energy)
    apart = minimise(LevelLoss(levels, np.ones(k)), Ball(radius), 1e-13, 2000)
    assert apart.evaluation.value == pytest.approx(merged.objective, abs=1e-10)
    scale = max(1.0, np.abs(merged.logits).max())
    np.testing.assert_allclose(apart.point.packed[1:], merged.logits, atol=1e-5 * scale)


@settings(max_examples=15)
@given(counts_lists, energies, seeds)
def test_symmetries(counts, energy, seed) -> None:
    """Scaling all counts, trading E_H for E_W and renaming classes change nothing that counts."""
    solution = solve_free_head(FreeHeadProblem(counts, energy, 2.0))
    order = np.random.default_rng(seed).permutation(len(counts))
    scaled = solve_free_head(FreeHeadProblem(1000 * np.array(counts), energy, 2.0))
    traded = solve_free_head(FreeHeadProblem(counts, 2.0 * energy, 1.0))
    renamed = solve_free_head(FreeHeadProblem(np.array(counts)[order], energy, 2.0))
    assert scaled.objective == pytest.approx(solution.objective, rel=1e-11)
    assert traded.objective == pytest.approx(solution.objective, rel=1e-11)
    assert renamed.objective == pytest.approx(solution.objective, rel=1e-11)
    np.testing.assert_allclose(
        renamed.logits, solution.logits[np.ix_(order, order)], atol=1e-6 * (1 + energy)
    )


@settings(max_examples=25)
@given(counts_lists, energies, energies)
def test_factors_spend_their_energies(counts, feature_energy, head_energy) -> None:
    """features @ head.T are the logits, rows centred, and both mean squared norms are exact."""
    solution = solve_free_head(FreeHeadProblem(counts, feature_energy, head_energy))
    k = len(counts)
    np.testing.assert_allclose(solution.features @ solution.head.T, solution.logits, atol=1e-11)
    np.testing.assert_allclose(solution.logits.sum(axis=1), 0.0, atol=1e-11)
    assert (solution.features**2).sum() / k == pytest.approx(feature_energy, rel=1e-12)
    assert (solution.head**2).sum() / k == pytest.approx(head_energy, rel=1e-12)
    np.testing.assert_allclose(solution.head.sum(axis=0), 0.0, atol=1e-6 * head_energy**0.5)


def test_one_dimension_less_suffices() -> None:
    """rank <= K - 1: dim = K - 1, K and 3 K hold the same optimum, zero columns apart."""
    counts = [9, 5, 5, 2, 1]
    small, square, large = (
        solve_free_head(FreeHeadProblem(counts, 4.0, 4.0, dim)) for dim in (4, None, 15)
    )
    assert small.head.shape == (5, 4)
    assert square.features.shape == (5, 5)
    assert large.head.shape == (5, 15)
    assert small.objective == square.objective == large.objective
    assert small.stats["rank"] <= 4
    np.testing.assert_allclose(small.features @ small.head.T, large.logits, atol=1e-12)


@pytest.mark.parametrize("counts", [[50, 50, 3, 3, 3], [9, 5, 4, 2, 1], [1000, 1, 1]])
def test_multiplier_is_the_sensitivity_of_the_optimum(counts) -> None:
    """- d objective / d tau by central differences of the optimal value."""
    k, step = len(counts), 1e-4

    def solve(rho):
        return solve_free_head(FreeHeadProblem(counts, rho, rho))

    slope = (solve(2.0 + step).objective - solve(2.0 - step).objective) / (2 * k * step)
    assert solve(2.0).multiplier == pytest.approx(-slope, rel=1e-6)


def test_known_cosines() -> None:
    """K = 10, five of each, E_H = 5, E_W = 1; -1/9 when balanced, exactly 1 beyond R1."""
    known = {1: -1 / 9, 2: -0.067283, 5: 0.072527, 10: 0.517496, 13: 1.0}
    for ratio, cosine in known.items():
        solution = solve_free_head(FreeHeadProblem([ratio] * 5 + [1] * 5, 5.0, 1.0))
        assert solution.head_cosines[6, 7] == pytest.approx(cosine, abs=1e-6)


def test_vanished_vectors_have_no_cosine() -> None:
    """Beyond R2: norms exactly 0, cosines NaN, distances those of the others' norms."""
    solution = solve_free_head(FreeHeadProblem([1000] * 5 + [1] * 5, 0.5, 0.5))
    assert np.all(solution.head_norms[5:] == 0.0)
    assert np.all(solution.feature_norms[5:] == 0.0)
    assert np.isnan(solution.head_cosines[5:]).all()
    assert np.isnan(solution.feature_cosines[:, 5:]).all()
    assert np.isfinite(solution.head_cosines[:5, :5]).all()
    np.testing.assert_allclose(solution.head_distances[0, 5:], solution.head_norms[0])
    assert np.all(solution.head_distances[5:, 5:] == 0.0)


def test_geometry_of_plain_vectors() -> None:
    """Norms, cosines and distances of hand-made rows; below resolution means zero."""
    norms, cosines, distances = geometry(np.array([[3.0, 0.0], [3.0, 4.0], [1e-9, 0.0]]), 1.0)
    np.testing.assert_array_equal(norms, [3.0, 5.0, 0.0])
    assert cosines[0, 1] == pytest.approx(0.6)
    assert np.isnan(cosines[2]).all()
    assert distances[0, 1] == 4.0


@given(st.integers(2, 12))
def test_helmert_basis(size) -> None:
    basis = helmert(size)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size - 1), atol=1e-14)
    np.testing.assert_allclose(basis.sum(axis=0), 0.0, atol=1e-14)


# --- Solver mechanics ------------------------------------------------------------------------


def test_newton_takes_over() -> None:
    """A few dozen gradient steps and some Newton steps, not thousands of gradient steps."""
    counts = families(100, np.random.default_rng(1))["log-normal"]
    solution = solve_free_head(FreeHeadProblem(counts, 5.0, 1.0))
    assert solution.stats["newton_steps"] >= 2
    assert solution.stats["gradient_steps"] <= 60


def test_step_limit_is_reported() -> None:
    """An exhausted budget gives an open gap that still encloses the optimum."""
    problem = FreeHeadProblem([50, 20, 9, 5, 2, 1], 5.0, 1.0)
    short, full = solve_free_head(problem, max_steps=3), solve_free_head(problem)
    assert short.status is FreeHeadStatus.GAP_OPEN
    assert "max_steps" in short.status.value
    assert short.lower_bound <= full.objective <= short.objective
    assert short.gap > 100 * full.gap


def test_penalty_and_ball_describe_one_path() -> None:
    """Charging the multiplier of a radius gives the solution at that radius."""
    levels = Levels.merge(np.array([9.0, 9.0, 5.0, 2.0, 1.0, 1.0]))
    loss = LevelLoss(levels, np.ones(4))
    bounded = minimise(loss, Ball(9.0), 1e-13, 2000)
    charged = minimise(loss, Penalty(bounded.gap.multiplier), 1e-13, 2000)
    np.testing.assert_allclose(charged.point.packed, bounded.point.packed, atol=1e-6)


def test_shrink_with_zero_threshold_is_the_identity() -> None:
    packed = np.vstack([[1.0, -2.0, 0.0], np.random.default_rng(0).normal(size=(3, 3))])
    point = shrink(packed, np.array([1.0, 2.0, 0.0]), lambda values, multiplicity: 0.0)
    np.testing.assert_allclose(point.packed, packed, atol=1e-14)


# --- Refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": [5]}, "1 class"),
        ({"counts": [[5, 3]]}, r"shape \(1, 2\)"),
        ({"counts": [5, 0]}, r"counts\[1\] = 0"),
        ({"counts": [5, -2]}, r"counts\[1\] = -2"),
        ({"counts": [5, 1.5]}, r"counts\[1\] = 1\.5"),
        ({"counts": [np.nan, 1]}, r"counts\[0\] = nan"),
        ({"counts": [np.inf, 1]}, r"counts\[0\] = inf"),
        ({"feature_energy": 0.0}, "feature_energy must be positive and finite, got 0.0"),
        ({"feature_energy": np.nan}, "feature_energy must be positive and finite, got nan"),
        ({"head_energy": -1.0}, "head_energy must be positive and finite, got -1.0"),
        ({"head_energy": np.inf}, "head_energy must be positive and finite, got inf"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"dim": -3}, "dim must be at least 1, got -3"),
        ({"constraint": "max"}, "got 'max'"),
    ],
)
def test_bad_problems_are_refused(changes, message) -> None:
    fields = {"counts": [5, 3], "feature_energy": 1.0, "head_energy": 1.0}
    with pytest.raises(ValueError, match=message):
        FreeHeadProblem(**(fields | changes))


@pytest.mark.parametrize("dim", [2.5, True])
def test_dim_must_be_whole(dim) -> None:
    with pytest.raises(TypeError, match="whole number"):
        FreeHeadProblem([5, 3], 1.0, 1.0, dim)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"starts": 0}, "starts must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        solve_free_head(FreeHeadProblem([5, 3], 1.0, 1.0), **arguments)


def test_counts_are_frozen() -> None:
    counts = np.array([5.0, 3.0])
    problem = FreeHeadProblem(counts, 1.0, 1.0)
    counts[0] = 9.0
    assert problem.counts[0] == 5.0
    with pytest.raises(ValueError, match="read-only"):
        problem.counts[0] = 1.0
