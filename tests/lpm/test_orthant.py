"""Rectified features: the solver against closed forms, the ball, cvxpy, SLSQP and mpmath.

The best oracle is an embedding: with the head [W, −W] a feature (a, b) ≥ 0 acts as a − b, and
any vector is [x]₊ − [−x]₊ at no cost in norm, so the orthant's optimum must be the ball's.
"""

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import minimize
from strategies import general_problems, random_feasible, seeds

import lpm
from lpm.orthant import largest_orthant_cosine, solve_orthant

pytestmark = pytest.mark.theory


def rectified(problem: lpm.PeeledProblem, **changes) -> lpm.PeeledProblem:
    fields = ("head", "labels", "weights", "feature_energy")
    values = {name: getattr(problem, name) for name in fields} | changes
    return lpm.PeeledProblem(**values, cone="nonnegative")


orthant_problems = general_problems(max_log10_rho=3.0).map(rectified)


def reach(problem: lpm.PeeledProblem) -> float:
    return float(np.sqrt(problem.energies.max()) * np.linalg.norm(problem.head, axis=1).max())


# --- certificates ------------------------------------------------------------------------------


@given(orthant_problems)
def test_certificate_up_to_rho_1000(problem) -> None:
    solution = lpm.solve(problem, "orthant")
    certificate = lpm.certify(problem, solution.features)
    assert certificate.log_odds_gap <= 1e-12 * (1 + reach(problem))
    assert certificate.feasibility <= 1e-14
    # Of a multiplier that is zero the certificate fits noise/‖h‖.
    inactive = solution.multipliers.log_odds == 0
    small = np.linalg.norm(solution.features, axis=1) < 1e-6 * np.sqrt(problem.energies)
    if not (inactive & small).any():
        assert certificate.kkt_residual <= 1e-10
    assert solution.features.min() >= 0


@pytest.mark.parametrize("rho", [1e-2, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize(("classes", "dim"), [(4, 512), (18, 2048)])
def test_randomly_oriented_frames_in_many_dimensions(classes, dim, rho) -> None:
    head = lpm.simplex_etf(classes, dim, rng=np.random.default_rng(1))
    problem = lpm.PeeledProblem(head, range(classes), np.ones(classes), rho**2, cone="nonnegative")
    solution = lpm.solve(problem, "orthant")
    assert solution.status is lpm.Status.SOLVED
    certificate = lpm.certify(problem, solution.features)
    assert certificate.kkt_residual <= 1e-12
    assert certificate.log_odds_gap <= 1e-14 * (1 + rho)


@given(orthant_problems, seeds)
def test_no_feasible_point_is_better(problem, seed) -> None:
    rng = np.random.default_rng(seed)
    solution = lpm.solve(problem, "orthant")
    noise = 1e-12 * (1 + reach(problem))
    for share in (1.0, 0.1, 1e-3):
        other = np.abs(random_feasible(rng, problem))
        point = (1 - share) * solution.features + share * other
        assert (problem.log_odds(point) >= solution.log_odds - noise).all()


@pytest.mark.parametrize("rho", [1.0, 30.0, 600.0])
def test_primal_and_dual_meet_at_40_digits(rho) -> None:
    """F(h) and H(p) − R‖[−Dᵀp]₊‖, both in mpmath from the solver's h alone."""
    rng = np.random.default_rng(3)
    head = rng.standard_normal((5, 9))
    head /= np.linalg.norm(head, axis=1).max()
    problem = lpm.PeeledProblem(head, [2], [1.0], rho**2, cone="nonnegative")
    solution = lpm.solve(problem, "orthant")
    with mpmath.workdps(40):
        h = [mpmath.mpf(x) for x in solution.features[0]]
        rows = [
            [mpmath.mpf(a) - mpmath.mpf(b) for a, b in zip(head[j], head[2], strict=True)]
            for j in (0, 1, 3, 4)
        ]
        e = [mpmath.exp(mpmath.fdot(h, row)) for row in rows]
        total = mpmath.fsum(e)
        p = [x / total for x in e]
        v = [mpmath.fsum(q * row[i] for q, row in zip(p, rows, strict=True)) for i in range(9)]
        dual = -mpmath.fsum(q * mpmath.log(q) for q in p) - rho * mpmath.sqrt(
            mpmath.fsum(x**2 for x in v if x < 0)
        )
        assert abs(mpmath.log(total) - dual) <= 1e-14 * (1 + rho)
        assert abs(mpmath.log(total) - solution.log_odds[0]) <= 1e-14 * (1 + rho)


# --- oracles -----------------------------------------------------------------------------------


@given(general_problems(max_log10_rho=3.0))
def test_a_head_with_its_negative_embeds_the_ball(problem) -> None:
    doubled = rectified(problem, head=np.hstack([problem.head, -problem.head]))
    ball, orthant = lpm.solve(problem), lpm.solve(doubled, "orthant")
    noise = 1e-11 * (1 + reach(problem))
    np.testing.assert_allclose(orthant.log_odds, ball.log_odds, rtol=0, atol=noise)
    energies = problem.energies
    np.testing.assert_allclose(
        orthant.multipliers.log_odds * energies, ball.multipliers.log_odds * energies,
        rtol=1e-8, atol=1e-9,
    )  # fmt: skip
    unique = ball.multipliers.log_odds * energies > 1e-3
    half = problem.dim
    difference = orthant.features[:, :half] - orthant.features[:, half:] - ball.features
    error = np.linalg.norm(difference, axis=1)
    assert (error[unique] <= 1e-8 * np.sqrt(energies[unique])).all()


@given(st.integers(2, 12), st.floats(-3.0, 3.0), st.sampled_from([1.0, -1.0]))
def test_frame_along_the_axes(classes, log10_rho, sign) -> None:
    """w_k = ±(e_k − 1/K): by Jensen F ≥ log(K−1) ∓ (h_k − mean of the others).

    With + the best h ≥ 0 is R·e_k, F* = log(K−1) − R; with − it is zero at k and R/√(K−1)
    elsewhere, F* = log(K−1) − R/√(K−1).
    """
    radius = 10.0**log10_rho
    head = sign * (np.eye(classes) - 1 / classes)
    problem = lpm.PeeledProblem(
        head, range(classes), np.ones(classes), radius**2, cone="nonnegative"
    )
    solution = lpm.solve(problem, "orthant")
    root = np.sqrt(classes - 1)
    expected = np.eye(classes) if sign > 0 else (1 - np.eye(classes)) / root
    drop = radius if sign > 0 else radius / root
    np.testing.assert_allclose(solution.features / radius, expected, atol=1e-10)
    np.testing.assert_allclose(
        solution.log_odds, np.log(classes - 1) - drop, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(
        solution.multipliers.log_odds, drop / (2 * radius**2), rtol=1e-10
    )  # λ = −dF*/dE_H


@given(seeds, st.integers(1, 40), st.floats(-3.0, 3.0))
def test_two_actions_have_a_closed_form(seed, dim, log10_rho) -> None:
    """K = 2: F = ⟨h, w_j − w_k⟩ is linear, h = R[w_k − w_j]₊/‖·‖, or 0 where that vanishes."""
    rng = np.random.default_rng(seed)
    head, radius = rng.standard_normal((2, dim)), 10.0**log10_rho
    positive = np.maximum(head - head[::-1], 0.0)
    length = np.linalg.norm(positive, axis=1)
    expected = radius * positive / np.where(length > 0, length, 1.0)[:, None]
    problem = lpm.PeeledProblem(head, [0, 1], [1.0, 1.0], radius**2, cone="nonnegative")
    solution = lpm.solve(problem, "orthant")
    np.testing.assert_allclose(solution.features / radius, expected / radius, atol=1e-14)
    np.testing.assert_allclose(solution.log_odds, -radius * length, rtol=1e-13)


@settings(max_examples=15)
@given(general_problems(max_classes=5, max_log10_rho=2.0).map(rectified))
def test_against_conic(problem) -> None:
    orthant, conic = lpm.solve(problem, "orthant"), lpm.solve(problem, "conic")
    scale = 1 + np.abs(orthant.log_odds)
    feasible = np.maximum(conic.features, 0.0)
    norm = np.linalg.norm(feasible, axis=1, keepdims=True)
    feasible *= np.minimum(1.0, np.sqrt(problem.energies)[:, None] / np.maximum(norm, 1e-300))
    assert (np.abs(orthant.log_odds - conic.log_odds) <= 1e-6 * scale).all()
    assert (orthant.log_odds <= problem.log_odds(feasible) + 1e-12 * scale).all()
    np.testing.assert_allclose(
        orthant.multipliers.log_odds * problem.energies,
        conic.multipliers.log_odds * problem.energies,
        rtol=1e-4,
        atol=1e-5 * float(scale.max()),
    )


def test_best_cosine_of_a_rectified_feature_is_about_0_705() -> None:
    """d = 512, K = 4, 20 orientations: √½ − O(1/d) for small ρ, a little less for large ρ.

    ‖[w]₊‖²/‖w‖² has mean ½ and variance 5/(4d) for a random direction.
    """
    for rho, expected in ((0.01, 0.7066), (30.0, 0.7055)):
        cosines, limits = [], []
        for seed in range(20):
            head = lpm.simplex_etf(4, 512, rng=np.random.default_rng(seed))
            problem = lpm.PeeledProblem(head, range(4), np.ones(4), rho**2, cone="nonnegative")
            h = lpm.solve(problem, "orthant").features
            cosines.append(np.einsum("nd,nd->n", h, head) / np.linalg.norm(h, axis=1))
            limits.append(largest_orthant_cosine(head))
        error = np.sqrt(5 / (4 * 512)) * 2**-0.5 / np.sqrt(60)  # K − 1 = 3 free directions
        assert np.mean(cosines) == pytest.approx(expected, abs=3 * error)
        assert (np.array(cosines) <= np.array(limits) + 1e-12).all()
        assert np.max(cosines) < 0.85  # Theorem 1's 1 is out of reach
    square = np.array(limits) ** 2
    assert np.mean(square) == pytest.approx(0.5, abs=3 * np.sqrt(5 / (4 * 512) / 60))


# --- inactive ball and the origin --------------------------------------------------------------


def test_inside_the_ball_against_slsqp() -> None:
    """w_0 in the hull of the others: for a large ball the optimum is inside, on two faces."""
    head = np.array([[0.1, 0.1, 0.3], [1.0, 0.0, 0.4], [-0.5, 0.8, 0.5], [-0.5, -0.8, 0.6]])
    problem = lpm.PeeledProblem(head, [0], [1.0], 1e4, cone="nonnegative")
    solution = lpm.solve(problem, "orthant")
    differences = head[1:] - head[0]
    reference = minimize(
        lambda h: np.log(np.exp(differences @ h).sum()),
        np.ones(3),
        bounds=[(0, None)] * 3,
        method="SLSQP",
        options={"ftol": 1e-15},
    )
    np.testing.assert_allclose(solution.features[0], reference.x, atol=1e-5)
    assert solution.log_odds[0] <= reference.fun + 1e-14
    assert solution.multipliers.log_odds[0] == 0.0
    assert solution.stats["inactive_balls"] == 1
    assert lpm.certify(problem, solution.features).kkt_residual <= 1e-12


@given(seeds, st.integers(2, 6), st.integers(1, 8), st.floats(-2.0, 3.0))
def test_origin_is_optimal_where_the_gradient_there_is_nonnegative(seed, k, dim, log10) -> None:
    rng = np.random.default_rng(seed)
    head = rng.standard_normal((k, dim))
    head[0] = head[1:].mean(axis=0) - rng.uniform(0, 1, dim)
    problem = lpm.PeeledProblem(head, [0], [1.0], 10.0 ** (2 * log10), cone="nonnegative")
    solution = lpm.solve(problem, "orthant")
    np.testing.assert_array_equal(solution.features, 0.0)
    assert solution.status is lpm.Status.SOLVED


@given(seeds, st.integers(3, 8), st.integers(1, 10), st.floats(-3.0, 3.0))
def test_an_action_at_the_mean_of_the_others_gets_exactly_zero(seed, classes, dim, log10) -> None:
    """∇F(0) = 0 to rounding: an iterate of size 1e-17 would have a meaningless multiplier."""
    head = np.abs(np.random.default_rng(seed).standard_normal((classes, dim)))
    head[0] = head[1:].mean(axis=0)
    problem = lpm.PeeledProblem(head, [0], [1.0], 10.0 ** (2 * log10), cone="nonnegative")
    solution = lpm.solve(problem, "orthant")
    np.testing.assert_array_equal(solution.features, 0.0)
    assert lpm.certify(problem, solution.features).kkt_residual <= 1e-12


def test_nearly_inactive_balls_on_both_sides_of_the_threshold() -> None:
    """λ → 0+ as R grows to the norm of the unconstrained optimum, then stays zero."""
    head = np.array([[0.1, 0.1, 0.3], [1.0, 0.0, 0.4], [-0.5, 0.8, 0.5], [-0.5, -0.8, 0.6]])
    inside = lpm.solve(
        lpm.PeeledProblem(head, [0], [1.0], 1e4, cone="nonnegative"), "orthant"
    ).features[0]
    threshold = float(inside @ inside)
    shares = np.array([0.5, 0.9, 0.999, 1 - 1e-6, 1 + 1e-6, 1.1, 10.0])
    problem = lpm.PeeledProblem(
        head, np.zeros(7, dtype=int), np.ones(7), threshold * shares, cone="nonnegative"
    )
    solution = lpm.solve(problem, "orthant")
    assert lpm.certify(problem, solution.features).kkt_residual <= 1e-11
    multipliers = solution.multipliers.log_odds
    assert (np.diff(multipliers[:4]) < 0).all()
    assert (multipliers[:4] > 0).all()
    assert (multipliers[4:] == 0).all()
    np.testing.assert_allclose(solution.features[4:], np.tile(inside, (3, 1)), atol=1e-9)


# --- invariances -------------------------------------------------------------------------------


@given(orthant_problems, seeds)
def test_permuting_coordinates_and_actions(problem, seed) -> None:
    """The orthant keeps coordinate permutations of all rotations, and every action permutation."""
    rng = np.random.default_rng(seed)
    axes, actions = rng.permutation(problem.dim), rng.permutation(problem.num_classes)
    permuted = rectified(
        problem,
        head=problem.head[np.ix_(actions, axes)],
        labels=np.argsort(actions)[problem.labels],
    )
    a, b = lpm.solve(problem, "orthant"), lpm.solve(permuted, "orthant")
    np.testing.assert_allclose(a.log_odds, b.log_odds, rtol=1e-11, atol=1e-11)
    unique = a.multipliers.log_odds * problem.energies > 1e-3
    error = np.linalg.norm(a.features[:, axes] - b.features, axis=1)
    assert (error[unique] <= 1e-7 * np.sqrt(problem.energies[unique])).all()


@given(orthant_problems, seeds, st.floats(-2, 2))
def test_only_the_product_of_scales_matters_and_shifts_do_not(problem, seed, log10) -> None:
    scale = 10.0**log10
    shift = np.random.default_rng(seed).standard_normal(problem.dim)
    other = rectified(
        problem,
        head=scale * problem.head + shift,
        feature_energy=problem.feature_energy / scale**2,
        weights=problem.weights * 7.0,
    )
    a, b = lpm.solve(problem, "orthant"), lpm.solve(other, "orthant")
    tolerance = 1e-12 * (1 + reach(problem)) * (1 + 1 / scale)
    np.testing.assert_allclose(a.log_odds, b.log_odds, rtol=1e-11, atol=tolerance)


@given(general_problems(max_log10_rho=1.5).map(rectified))
def test_multiplier_is_the_sensitivity_to_the_energy(problem) -> None:
    step = 1e-4
    up = lpm.solve(
        rectified(problem, feature_energy=problem.feature_energy * (1 + step)), "orthant"
    )
    down = lpm.solve(
        rectified(problem, feature_energy=problem.feature_energy * (1 - step)), "orthant"
    )
    slope = (up.log_odds - down.log_odds) / (2 * step) / problem.energies
    multiplier = lpm.solve(problem, "orthant").multipliers.log_odds
    scale = multiplier.max() + 1e-9 * np.abs(up.log_odds).max() / problem.energies.max()
    np.testing.assert_allclose(-slope, multiplier, rtol=1e-3, atol=1e-3 * scale)


@given(general_problems(max_log10_rho=2.0))
def test_rectifying_costs_and_a_larger_ball_helps(problem) -> None:
    free, orthant = lpm.solve(problem), lpm.solve(rectified(problem), "orthant")
    noise = 1e-12 * (1 + reach(problem))
    assert (orthant.log_odds >= free.log_odds - noise).all()
    wider = rectified(problem, feature_energy=2.0 * problem.feature_energy)
    assert (lpm.solve(wider, "orthant").log_odds <= orthant.log_odds + noise).all()


# --- the boundary ------------------------------------------------------------------------------


def test_states_share_the_solution_of_their_label_and_energy(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    head, labels = rng.standard_normal((5, 7)), rng.integers(0, 4, 300)
    energy = rng.choice([1.0, 9.0], 300)
    problem = lpm.PeeledProblem(head, labels, np.ones(300), energy, cone="nonnegative")
    whole = solve_orthant(problem)
    assert whole.stats["distinct_problems"] == 8
    monkeypatch.setattr("lpm.orthant._CHUNK_FLOATS", 1)
    pieces = solve_orthant(problem)
    np.testing.assert_allclose(pieces.features, whole.features, atol=1e-12)
    assert pieces.objective == pytest.approx(problem.objective(whole.features), rel=1e-13)


def test_free_features_are_refused_with_the_remedy() -> None:
    problem = lpm.PeeledProblem(lpm.simplex_etf(3, 2), [0], [1.0], 1.0)
    with pytest.raises(ValueError, match=r"needs cone='nonnegative'.*'free'.*solver='ball'"):
        lpm.solve(problem, "orthant")


def test_iteration_limit_is_said() -> None:
    head = np.random.default_rng(0).standard_normal((6, 9))
    problem = lpm.PeeledProblem(head, [0, 1], [1.0, 1.0], 100.0, cone="nonnegative")
    solution = lpm.solve(problem, "orthant", max_iterations=1)
    assert solution.status is lpm.Status.ITERATION_LIMIT
    assert solution.features.min() >= 0


def test_cosine_of_a_vector_without_positive_entries() -> None:
    assert largest_orthant_cosine([[3.0, -4.0]])[0] == pytest.approx(0.6)
    with pytest.raises(ValueError, match="1 of 2 vectors have no positive entry"):
        largest_orthant_cosine([[1.0, 0.0], [-1.0, -2.0]])
