"""Where the model is not convex in the logits: honest status, max-norm certificate, margins."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpm.free_head import FreeHeadProblem, FreeHeadStatus, solve_free_head
from lpm.free_head_closed_form import balanced_optimum
from lpm.free_head_local import max_norm_gap
from lpm.free_head_margins import class_margins, cross_polytope, icosahedron, regular_polygon

pytestmark = pytest.mark.theory


def solve(counts, feature_energy, head_energy, dim, constraint, **options):
    problem = FreeHeadProblem(counts, feature_energy, head_energy, dim, constraint)
    return solve_free_head(problem, rng=np.random.default_rng(0), **options)


# --- Per-vector bounds -----------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[7, 3, 1, 1], [20, 20, 1, 1, 1], [100, 1, 1, 1, 1]])
def test_per_vector_against_a_semidefinite_program(counts) -> None:
    """Certified global, and the max-norm SDP agrees to its own accuracy."""
    k, rho = len(counts), 2.0
    solution = solve(counts, 4.0, 1.0, 2 * k, "per-vector")
    assert solution.status is FreeHeadStatus.OPTIMAL
    assert solution.gap <= 1e-7
    gram = cp.Variable((2 * k, 2 * k), PSD=True)
    share = np.array(counts) / np.sum(counts)
    loss = sum(share[i] * (cp.log_sum_exp(gram[i, k:]) - gram[i, k + i]) for i in range(k))
    program = cp.Problem(cp.Minimize(loss), [cp.diag(gram) <= rho])
    program.solve(solver="SCS", eps_abs=1e-9, eps_rel=1e-9)
    assert solution.objective == pytest.approx(program.value, abs=1e-8)
    assert np.all(solution.feature_norms**2 <= 4.0 * (1 + 1e-12))
    assert np.all(solution.head_norms**2 <= 1 + 1e-12)
    assert np.isnan(solution.multiplier)


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_balanced_per_vector_is_the_simplex(num_classes) -> None:
    """Equal counts: the per-vector optimum is the mean one, in K - 1 dimensions."""
    solution = solve([5] * num_classes, 3.0, 2.0, num_classes - 1, "per-vector")
    exact = balanced_optimum(num_classes, 3.0, 2.0)
    assert solution.status is FreeHeadStatus.OPTIMAL
    assert solution.objective == pytest.approx(exact.objective, abs=1e-9)


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_max_norm_bound_holds_for_random_candidates(k, dim, seed) -> None:
    """<G, Z - Z'> never exceeds the bound, for any two feasible products."""
    rng = np.random.default_rng(seed)

    def factors():
        pair = rng.normal(size=(2, k, dim))
        return (
            pair / np.linalg.norm(pair, axis=2, keepdims=True) * np.sqrt([3.0, 2.0])[:, None, None]
        )

    gradient = rng.normal(size=(k, k))
    features, head = factors()
    bound = max_norm_gap(gradient, features, head, 3.0, 2.0)
    for _ in range(20):
        other_features, other_head = factors()
        difference = features @ head.T - other_features @ other_head.T
        assert (gradient * difference).sum() <= bound + 1e-9


# --- Fewer than K - 1 dimensions -------------------------------------------------------------


def test_low_dimension_is_said_to_be_local() -> None:
    """The gap compares with the convex relaxation and is really open."""
    solution = solve([3] * 6, 5.0, 1.0, 2, "mean")
    relaxed = solve_free_head(FreeHeadProblem([3] * 6, 5.0, 1.0))
    assert solution.status is FreeHeadStatus.LOCAL
    assert "local" in solution.status.value
    assert solution.lower_bound <= relaxed.objective < solution.objective - 0.01
    assert (solution.head**2).sum() / 6 == pytest.approx(1.0)
    assert (solution.features**2).sum() / 6 == pytest.approx(5.0)


def test_low_dimension_that_suffices_is_recognised() -> None:
    """A collapsed minority leaves rank 1 here: two dimensions hold the convex optimum."""
    counts = [10**6, 1, 1, 1, 1]
    relaxed = solve_free_head(FreeHeadProblem(counts, 0.5, 0.5))
    assert relaxed.stats["rank"] == 1
    solution = solve(counts, 0.5, 0.5, 2, "mean")
    assert solution.status is FreeHeadStatus.OPTIMAL
    assert solution.objective == pytest.approx(relaxed.objective, abs=1e-8)


@pytest.mark.parametrize(
    ("reference", "energy"),
    [(regular_polygon(5), 4e3), (cross_polytope(3), 400.0), (icosahedron(), 4e3)],
)
def test_large_norms_approach_the_known_codes(reference, energy) -> None:
    """Balanced, per-vector, large norm: the head's margins are those of the known code."""
    k, dim = reference.shape
    solution = solve([1] * k, energy, 1.0, dim, "per-vector", starts=24)
    expected = class_margins(reference).min()
    assert class_margins(solution.head).min() == pytest.approx(expected, rel=0.03)


def test_more_starts_are_no_worse() -> None:
    few = solve([4, 3, 2, 2, 1, 1, 1], 30.0, 1.0, 2, "per-vector", starts=1)
    many = solve([4, 3, 2, 2, 1, 1, 1], 30.0, 1.0, 2, "per-vector", starts=12)
    assert many.objective <= few.objective


def test_a_generator_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"dim = 2 with K = 5 .* pass rng"):
        solve_free_head(FreeHeadProblem([1] * 5, 1.0, 1.0, 2))


# --- Margins ---------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [3, 4, 5, 12])
def test_polygon_margins(num_classes) -> None:
    expected = 1 - np.cos(2 * np.pi / num_classes)
    np.testing.assert_allclose(class_margins(regular_polygon(num_classes)), expected, rtol=1e-12)


def test_polytope_margins() -> None:
    """Cross-polytopes 1; icosahedron 1 - 1/sqrt 5; simplex K / (K - 1)."""
    np.testing.assert_allclose(class_margins(cross_polytope(4)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(class_margins(icosahedron()), 1 - 1 / np.sqrt(5), rtol=1e-12)
    simplex = np.sqrt(6 / 5) * (np.eye(6) - 1 / 6)
    np.testing.assert_allclose(class_margins(simplex), 6 / 5, rtol=1e-12)


@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_margins_are_optimal_distances(k, dim, seed) -> None:
    """No random convex combination of the others is nearer; translation changes nothing."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(k, dim))
    margins = class_margins(points)
    mixes = rng.dirichlet(np.full(k - 1, 0.3), size=200) @ points[1:]
    assert margins[0] <= np.linalg.norm(mixes - points[0], axis=1).min() + 1e-12
    np.testing.assert_allclose(class_margins(points + 3.0), margins, atol=1e-9)


def test_point_inside_the_hull_has_no_margin() -> None:
    points = np.vstack([cross_polytope(2), [[0.1, 0.2]]])
    assert class_margins(points)[4] == pytest.approx(0.0, abs=1e-12)
    assert np.all(class_margins(np.ones((3, 2))) == 0.0)


@pytest.mark.parametrize("vectors", [np.ones((1, 3)), np.ones(4), np.full((3, 2), np.nan)])
def test_bad_vectors_are_refused(vectors) -> None:
    with pytest.raises(ValueError, match="vectors"):
        class_margins(vectors)


def test_a_tiny_loss_is_not_a_certificate() -> None:
    """The gap counts relative to the objective: 5.8e-10 of 5.8e-10 proves nothing."""
    problem = FreeHeadProblem([3, 2, 1, 1, 1], 1000.0, 1.0, dim=2)
    solution = solve_free_head(problem, rng=np.random.default_rng(0), starts=4)
    assert solution.objective < 1e-6
    assert solution.status is FreeHeadStatus.LOCAL


@pytest.mark.parametrize("dim", [None, 1])
def test_energies_that_underflow_the_loss_are_refused(dim) -> None:
    problem = FreeHeadProblem([100, 10, 1], 1e6, 1.0, dim=dim)
    with pytest.raises(ValueError, match=r"rho = sqrt\(E_H E_W\) = 1000 .* use rho <= 460"):
        solve_free_head(problem, rng=np.random.default_rng(0))
