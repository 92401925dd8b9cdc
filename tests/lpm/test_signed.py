"""Weights of any sign: the transition in closed form, the search, and the proven bounds.

For a negative weight three computations that share nothing must agree on an ETF: the scalar
branch, the local search in all coordinates, and branch and bound on the dual form.
"""

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import minimize
from scipy.special import logsumexp
from strategies import general_problems, random_feasible, random_rotation, seeds

import lpm
from lpm.negative_weight import (
    critical_rho_negative_weight,
    etf_largest_log_odds,
    negative_weight_transition,
)
from lpm.signed import Kind, SignedProblem, solve_signed
from lpm.signed_bound import _branch_and_bound, _quadratic_bound
from lpm.sphere import PointKind, classify_on_sphere

pytestmark = pytest.mark.theory


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def repelling(problem: lpm.PeeledProblem) -> SignedProblem:
    return SignedProblem(problem.head, problem.labels, -problem.weights, problem.feature_energy)


def etf_differences(classes: int) -> np.ndarray:
    head = lpm.simplex_etf(classes, classes - 1)
    return head[1:] - head[0]


# --- the transition ----------------------------------------------------------------------------


def test_k_4_transition() -> None:
    transition = negative_weight_transition(4)
    assert transition.fold == pytest.approx(2.8147252323, abs=1e-10)
    assert transition.critical == pytest.approx(2.8342226976, abs=1e-10)
    assert transition.spinodal == 3.0
    assert transition.angle == pytest.approx(0.2500531, abs=1e-7)


@pytest.mark.parametrize("classes", [4, 5, 6, 10, 40])
def test_critical_rho_against_mpmath_in_other_variables(classes) -> None:
    """Two equations in (α, ρ), F(α) = F(0) and F'(α) = 0, at 40 digits."""
    transition = negative_weight_transition(classes)
    with mpmath.workdps(40):
        k = mpmath.mpf(classes)

        def f(alpha, rho):
            kappa = mpmath.sqrt(k * (k - 2)) / (k - 1)
            b = rho * kappa * mpmath.sin(alpha)
            return rho * mpmath.cos(alpha) * k / (k - 1) + mpmath.log(
                mpmath.exp(b) + (k - 2) * mpmath.exp(-b / (k - 2))
            )

        root = mpmath.findroot(
            lambda a, r: [f(a, r) - f(0, r), mpmath.diff(lambda x: f(x, r), a)],
            (mpmath.mpf(transition.angle), mpmath.mpf(transition.critical)),
        )
        assert abs(root[1] - transition.critical) <= 1e-12 * transition.critical
        assert abs(root[0] - transition.angle) <= 1e-9


@pytest.mark.parametrize("classes", [3, 4, 5, 8])
def test_critical_rho_from_both_sides_by_the_general_solver(classes) -> None:
    """2e-6 (2 % for the continuous K = 3) below ρ_c −w_k is best, as much above it is not."""
    critical = critical_rho_negative_weight(classes)
    head = lpm.simplex_etf(classes, classes + 1, 1.0, rng(1))
    step = 0.02 if classes == 3 else 2e-6
    for factor, symmetric in ((1 - step, True), (1 + step, False)):
        problem = SignedProblem(head, [0], [-1.0], (factor * critical) ** 2)
        solution = solve_signed(problem, rng())
        cosine = float(solution.features[0] @ head[0]) / (factor * critical)
        assert (cosine < -1 + 1e-9) == symmetric
        assert solution.is_global.all()
    if classes > 3:
        angle = negative_weight_transition(classes).angle
        assert cosine == pytest.approx(-np.cos(angle), abs=1e-3)


@pytest.mark.parametrize("classes", [4, 6])
def test_both_spinodals_by_the_riemannian_hessian(classes) -> None:
    """−w_k is a maximum on the sphere up to K − 1; the leaning one exists from the fold on."""
    transition = negative_weight_transition(classes)
    head = lpm.simplex_etf(classes, classes - 1)
    for factor, kind in ((0.999, PointKind.LOCAL_MAXIMUM), (1.001, PointKind.LOCAL_MINIMUM)):
        rho = factor * transition.spinodal
        problem = lpm.PeeledProblem(head, [0], [1.0], rho**2)
        assert classify_on_sphere(problem, -rho * head[:1]).kinds == (kind,)
    # Ascent from the leaning state just above the fold stays, just below it falls to −w_k.
    for factor, leaning in ((1.003, True), (0.997, False)):
        rho = factor * transition.fold
        problem = lpm.PeeledProblem(head, [0], [1.0], rho**2)
        lean = head[1] + head[0] / (classes - 1)
        h = -np.cos(0.9) * head[0] + np.sin(0.9) * lean / np.linalg.norm(lean)
        for _ in range(4000):  # the power iteration h ← ∇F scaled to the sphere: F increases
            h = problem.log_odds_block(rho * h[None], slice(None)).gradient[0]
            h /= np.linalg.norm(h)
        assert (h @ head[0] > -0.999) == leaning


def test_k_3_is_continuous_and_k_2_has_none() -> None:
    assert critical_rho_negative_weight(3) == 2.0
    assert negative_weight_transition(3).angle == 0.0
    assert etf_largest_log_odds(3, 2.0 + 1e-4) > np.log(2) + 1.5 * (2.0 + 1e-4)
    with pytest.raises(ValueError, match="must be >= 3, got 2: with two actions F is linear"):
        critical_rho_negative_weight(2)
    with pytest.raises(ValueError, match="needs num_classes >= 2 and rho > 0"):
        etf_largest_log_odds(4, 0.0)


@given(st.integers(3, 12), st.floats(-1.0, 2.0))
def test_one_leading_competitor_beats_every_other_split(classes, log10_rho) -> None:
    """The equal-variable theorem by brute force: s competitors up, m − s down, any s and α."""
    rho, m = 10.0**log10_rho, classes - 1
    alpha = np.linspace(0, np.pi / 2, 2001)
    b = rho * np.sqrt(classes * (classes - 2)) / m * np.sin(alpha)
    best = -np.inf
    for s in range(1, m):
        up = np.sqrt((m - s) / (s * (m - 1)))
        down = np.sqrt(s / ((m - s) * (m - 1)))
        f = (
            logsumexp([np.log(s) + b * up, np.log(m - s) - b * down], axis=0)
            + rho * np.cos(alpha) * classes / m
        )
        best = max(best, float(f.max()))
    exact = etf_largest_log_odds(classes, rho)
    assert best <= exact + 1e-12 * (1 + rho)
    assert best >= exact - 1e-5 * (1 + rho)


@pytest.mark.parametrize("rho", [0.3, 1.9, 2.82, 2.9, 6.0, 100.0])
@pytest.mark.parametrize("classes", [3, 4, 5])
def test_etf_optimum_against_branch_and_bound(classes, rho) -> None:
    """An upper bound that knows nothing of symmetry comes within 1e-6 of the closed form."""
    exact = etf_largest_log_odds(classes, rho)
    bound, nodes = _branch_and_bound(etf_differences(classes), rho, exact, 1e-6 * rho, 400_000)
    assert exact - 1e-12 * (1 + rho) <= bound <= exact + 1e-6 * rho
    assert nodes < 400_000


@given(st.integers(2, 9), st.floats(-2.0, 3.0), st.integers(0, 3), seeds)
def test_etf_is_solved_and_proven(classes, log10_rho, spare, seed) -> None:
    rho = 10.0**log10_rho
    head = lpm.simplex_etf(classes, classes - 1 + spare, 3.0, rng(seed))
    problem = SignedProblem(head, [0, classes - 1], [-1.0, -1e6], rho**2 / 3.0)
    solution = solve_signed(problem, rng(seed), starts=4)
    exact = etf_largest_log_odds(classes, rho)
    np.testing.assert_allclose(solution.log_odds, exact, rtol=0, atol=1e-12 * (1 + rho))
    assert solution.is_global.all()
    assert (solution.log_odds_gap <= 1e-11 * (1 + rho)).all()
    assert solution.stats["branch_nodes"] == 0


# --- general heads -----------------------------------------------------------------------------


@settings(max_examples=40)
@given(general_problems(max_classes=8, max_log10_rho=2.0), seeds)
def test_bound_holds_and_no_feasible_point_is_better(problem, seed) -> None:
    signed = repelling(problem)
    solution = solve_signed(signed, rng(seed), starts=8, branch_nodes=2000)
    noise = 1e-11 * (1 + np.abs(solution.log_odds))
    norms = np.linalg.norm(solution.features, axis=1)
    np.testing.assert_allclose(norms, np.sqrt(problem.energies), rtol=1e-12)
    np.testing.assert_allclose(
        solution.log_odds, problem.log_odds(solution.features), rtol=0, atol=noise.max()
    )
    assert (solution.log_odds_bound >= solution.log_odds).all()
    for _ in range(20):
        other = random_feasible(rng(seed + 1), problem)
        other *= (np.sqrt(problem.energies) / np.linalg.norm(other, axis=1))[:, None]
        assert (problem.log_odds(other) <= solution.log_odds + noise).all()
    assert solution.objective == pytest.approx(signed.objective(solution.features), rel=1e-9)
    assert solution.objective <= solution.objective_bound * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rho", [0.5, 2.0, 20.0])
def test_small_heads_are_proven_global_and_match_a_grid(seed, rho) -> None:
    head = rng(seed).standard_normal((5, 2))
    problem = SignedProblem(head, [0, 3], [-1.0, -2.0], rho**2)
    solution = solve_signed(problem, rng(seed))
    assert solution.is_global.all()
    angles = np.linspace(0, 2 * np.pi, 20001)
    circle = rho * np.column_stack([np.cos(angles), np.sin(angles)])
    for value, k in zip(solution.log_odds, (0, 3), strict=True):
        rows = np.delete(head, k, axis=0) - head[k]
        assert value == pytest.approx(logsumexp(circle @ rows.T, axis=1).max(), abs=1e-5)


def test_against_slsqp_from_many_starts() -> None:
    head = rng(5).standard_normal((4, 3))
    solution = solve_signed(SignedProblem(head, [1], [-1.0], 4.0), rng())
    rows = np.delete(head, 1, axis=0) - head[1]
    best = max(
        -minimize(
            lambda h: -logsumexp(rows @ h), start, method="SLSQP", options={"ftol": 1e-14},
            constraints={"type": "ineq", "fun": lambda h: 4.0 - h @ h},
        ).fun
        for start in rng(6).standard_normal((20, 3))
    )  # fmt: skip
    assert solution.log_odds[0] == pytest.approx(best, abs=1e-8)
    assert solution.is_global.all()


@given(general_problems(max_classes=6, max_log10_rho=1.5), seeds)
def test_quadratic_majorant_bounds_f_everywhere(problem, seed) -> None:
    for k, energy in zip(problem.labels, problem.energies, strict=True):
        rows = np.delete(problem.head, k, axis=0) - problem.head[k]
        radius = float(np.sqrt(energy))
        bound = _quadratic_bound(rows, radius)
        h = rng(seed).standard_normal((200, problem.dim))
        h *= radius / np.linalg.norm(h, axis=1, keepdims=True)
        assert logsumexp(h @ rows.T, axis=1).max() <= bound + 1e-12 * (1 + abs(bound))


@pytest.mark.parametrize("classes", [2, 4, 9])
def test_quadratic_majorant_is_tight_for_an_etf_up_to_rho_2(classes) -> None:
    for rho in (0.1, 1.0, 2.0):
        symmetric = np.log(classes - 1) + rho * classes / (classes - 1)
        assert _quadratic_bound(etf_differences(classes), rho) == pytest.approx(symmetric, rel=1e-9)
    if classes > 2:
        assert _quadratic_bound(etf_differences(classes), 2.5) > etf_largest_log_odds(classes, 2.5)


@settings(max_examples=25)
@given(general_problems(max_classes=5, max_log10_rho=1.5), seeds)
def test_symmetries(problem, seed) -> None:
    """Rotation, action permutation, translation, and E_H against the head's scale."""
    q = random_rotation(rng(seed), problem.dim)
    actions = rng(seed).permutation(problem.num_classes)
    other = SignedProblem(
        3.0 * problem.head[actions] @ q + 1.0,
        np.argsort(actions)[problem.labels],
        -problem.weights,
        problem.feature_energy / 9.0,
    )
    a = solve_signed(repelling(problem), rng(), starts=24)
    b = solve_signed(other, rng(), starts=24)
    both = a.is_global & b.is_global
    np.testing.assert_allclose(a.log_odds[both], b.log_odds[both], rtol=2e-6, atol=2e-6)


# --- signs -------------------------------------------------------------------------------------


def test_each_kind_gets_its_own_problem() -> None:
    head = lpm.simplex_etf(4, 5, 1.0, rng())
    problem = SignedProblem(head, [0, 1, 1, 2], [2.0, 0.0, -1.0, 1e-9], 4.0)
    solution = solve_signed(problem, rng())
    assert solution.kinds.tolist() == [
        Kind.ATTRACTING, Kind.INDIFFERENT, Kind.REPELLING, Kind.ATTRACTING,
    ]  # fmt: skip
    np.testing.assert_allclose(solution.features[[0, 3]], 2 * head[[0, 2]], atol=1e-12)
    np.testing.assert_array_equal(solution.features[1], 0.0)
    np.testing.assert_allclose(solution.features[2], -2 * head[1], atol=1e-12)
    assert solution.is_global.all()
    assert solution.log_odds[1] == pytest.approx(np.log(3))
    assert solution.log_odds_bound[0] <= solution.log_odds[0]
    assert solution.log_odds_bound[2] >= solution.log_odds[2]
    assert solution.status is lpm.Status.SOLVED


@given(general_problems(max_log10_rho=2.0))
def test_positive_weights_are_the_ball_problem(problem) -> None:
    signed = SignedProblem(problem.head, problem.labels, problem.weights, problem.feature_energy)
    solution, ball = solve_signed(signed, rng()), lpm.solve(problem)
    np.testing.assert_array_equal(solution.features, ball.features)
    assert solution.objective == pytest.approx(ball.objective, rel=1e-12)
    certificate = lpm.certify(problem, ball.features)
    assert solution.log_odds_gap.max() == pytest.approx(
        certificate.log_odds_gap, rel=1e-6, abs=1e-13
    )


def test_zero_weight_is_indifferent_to_its_feature() -> None:
    head = lpm.simplex_etf(4, 5)
    problem = SignedProblem(head, [0, 1], [0.0, -1.0], 4.0)
    solution = solve_signed(problem, rng())
    other = solution.features.copy()
    other[0] = 2 * head[3]
    assert problem.objective(other) == problem.objective(solution.features)


# --- the boundary ------------------------------------------------------------------------------


def test_without_branch_and_bound_nothing_is_claimed() -> None:
    head = rng(2).standard_normal((5, 4))
    problem = SignedProblem(head, [0], [-1.0], 9.0)
    plain = solve_signed(problem, rng(), branch_nodes=0)
    assert not plain.is_global.any()
    proven = solve_signed(problem, rng())
    assert proven.is_global.all()
    assert proven.log_odds[0] == plain.log_odds[0]
    assert proven.log_odds_bound[0] < plain.log_odds_bound[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [1.0]}, r"weights must have shape \(2,\), one a label, got \(1,\)"),
        ({"weights": [1.0, np.nan]}, "weights has 1 non-finite"),
        ({"feature_energy": -1.0}, "feature_energy must be > 0"),
        ({"labels": [0, 4]}, "K = 4 rows"),
        ({"head": np.ones((4, 3))}, "all 4 rows of the head are equal"),
    ],
)
def test_refused(changes, message) -> None:
    arguments = {
        "head": lpm.simplex_etf(4, 3), "labels": [0, 1], "weights": [1.0, -2.0],
        "feature_energy": 4.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        SignedProblem(**(arguments | changes))


def test_negative_counts_are_refused() -> None:
    problem = SignedProblem(lpm.simplex_etf(4, 3), [0], [-1.0], 4.0)
    with pytest.raises(ValueError, match="starts and branch_nodes must be >= 0, got -1 and 5"):
        solve_signed(problem, rng(), starts=-1, branch_nodes=5)


def test_iteration_limit_is_said() -> None:
    head = rng(1).standard_normal((6, 4))
    solution = solve_signed(SignedProblem(head, [0], [-1.0], 2.0), rng(), max_iterations=1)
    assert solution.status is lpm.Status.ITERATION_LIMIT
