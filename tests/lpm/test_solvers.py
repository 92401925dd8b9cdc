"""Theorem 1 and the solvers: properties, limits, and independent references.

Invariants of the optimum of max Σ weights·log π(a*) over ‖h‖² ≤ E_H, each a property below:
KKT at any weight and class size; closed form on an ETF; equivariance under rotation, action
permutation and head translation; only ρ matters; weights drop out; a state's solution does not
depend on the others; bounds enclose; limits ρ → 0 (mean direction) and ρ → ∞ (maximal margin);
the multiplier is the sensitivity of the optimum to E_H.
"""

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import minimize, nnls
from strategies import etf_problems, general_problems, random_feasible, random_rotation, seeds

import lpm

pytestmark = pytest.mark.theory


def replace(problem: lpm.PeeledProblem, **changes) -> lpm.PeeledProblem:
    fields = ("head", "labels", "weights", "feature_energy", "cone")
    return lpm.PeeledProblem(**({name: getattr(problem, name) for name in fields} | changes))


def close(a, b, problem, tolerance=1e-9) -> None:
    """Features agree relative to the radius; at ρ = 1e4 logits carry 1e4·eps of noise."""
    radius = np.sqrt(problem.energies)[:, None]
    np.testing.assert_allclose(a / radius, b / radius, rtol=0, atol=tolerance)


# --- Theorem 1 and KKT -----------------------------------------------------------------------


@given(etf_problems())
def test_theorem_1(problem) -> None:
    """Eq. (27) and (11) from a solver that knows no closed form."""
    solution = lpm.solve(problem, "ball")
    e_w = float(problem.head[0] @ problem.head[0])
    k = problem.num_classes
    close(solution.features, lpm.solve(problem, "closed-form").features, problem, 1e-11)
    expected = np.where(np.eye(k, dtype=bool), 1.0, -1.0 / (k - 1))[problem.labels]
    inner = solution.features @ problem.head.T / np.sqrt(problem.energies * e_w)[:, None]
    np.testing.assert_allclose(inner, expected, atol=1e-11)
    assert solution.status is lpm.Status.SOLVED


@given(st.one_of(etf_problems(), general_problems()))
def test_kkt_residual_at_most_1e_12(problem) -> None:
    certificate = lpm.certify(problem, lpm.solve(problem).features)
    assert certificate.kkt_residual <= 1e-12


@given(etf_problems())
def test_both_multipliers(problem) -> None:
    """Eq. (32)'s λ belongs to objective (17); objective (8) has π(a*)λ instead."""
    k, e_h = problem.num_classes, problem.energies
    e_w = float(problem.head[0] @ problem.head[0])
    multipliers = lpm.solve(problem).multipliers
    rho = float(np.sqrt(e_h[0] * e_w))
    tolerance = 1e-11 * (1 + rho)
    eq32 = np.log(0.5 * np.sqrt(e_w / e_h) * k) - rho * k / (k - 1)
    np.testing.assert_allclose(multipliers.log_exponential, eq32, rtol=0, atol=tolerance)
    a = np.exp(-rho * k / (k - 1))
    np.testing.assert_allclose(
        multipliers.log_cross_entropy, eq32 - np.log1p((k - 1) * a), rtol=0, atol=tolerance
    )
    np.testing.assert_allclose(
        lpm.solve(problem, "closed-form").multipliers.log_odds, multipliers.log_odds, rtol=1e-10
    )


@given(general_problems(max_log10_rho=1.5))
def test_multiplier_is_the_sensitivity_to_the_energy(problem) -> None:
    """dF*/dE_H = −λ_F, by central differences of solved problems."""
    step = 1e-4
    up = lpm.solve(replace(problem, feature_energy=problem.feature_energy * (1 + step)))
    down = lpm.solve(replace(problem, feature_energy=problem.feature_energy * (1 - step)))
    slope = (up.log_odds - down.log_odds) / (2 * step * problem.energies)
    multiplier = lpm.solve(problem).multipliers.log_odds
    scale = multiplier.max() + 1e-9 * np.abs(up.log_odds).max() / problem.energies.max()
    np.testing.assert_allclose(-slope, multiplier, rtol=1e-3, atol=1e-3 * scale)


# --- symmetries --------------------------------------------------------------------------------


@given(general_problems(), seeds)
def test_rotation_equivariance(problem, seed) -> None:
    q = random_rotation(np.random.default_rng(seed), problem.dim)
    rotated = lpm.solve(replace(problem, head=problem.head @ q))
    same = lpm.solve(problem)
    np.testing.assert_allclose(rotated.log_odds, same.log_odds, rtol=1e-11, atol=1e-11)
    # Where the constraint is inactive (λ = 0) F may be flat and the minimiser not unique.
    unique = same.multipliers.log_odds * problem.energies > 1e-3
    error = np.linalg.norm(rotated.features @ q.T - same.features, axis=1)
    assert (error[unique] <= 1e-6 * np.sqrt(problem.energies[unique])).all()


@given(st.one_of(etf_problems(), general_problems()), seeds)
def test_action_permutation_equivariance(problem, seed) -> None:
    permutation = np.random.default_rng(seed).permutation(problem.num_classes)
    inverse = np.argsort(permutation)
    permuted = lpm.solve(
        replace(problem, head=problem.head[permutation], labels=inverse[problem.labels])
    )
    same = lpm.solve(problem)
    np.testing.assert_allclose(permuted.log_odds, same.log_odds, rtol=1e-11, atol=1e-11)
    # On an ETF F is the same for every action: only the features tell one from another.
    unique = same.multipliers.log_odds * problem.energies > 1e-3
    error = np.linalg.norm(permuted.features - same.features, axis=1)
    assert (error[unique] <= 1e-6 * np.sqrt(problem.energies[unique])).all()


@given(general_problems(max_log10_rho=2.0), seeds)
def test_translating_the_head_changes_nothing(problem, seed) -> None:
    """Softmax ignores a common vector added to every row."""
    shift = np.random.default_rng(seed).standard_normal(problem.dim)
    moved = lpm.solve(replace(problem, head=problem.head + shift))
    np.testing.assert_allclose(moved.log_odds, lpm.solve(problem).log_odds, rtol=1e-9, atol=1e-9)


@given(general_problems(), st.floats(-12, 12))
def test_weights_drop_out_and_scale_the_objective(problem, log10_scale) -> None:
    scale = 10.0**log10_scale
    base, scaled = lpm.solve(problem), lpm.solve(replace(problem, weights=problem.weights * scale))
    np.testing.assert_array_equal(base.features, scaled.features)
    assert scaled.objective == pytest.approx(scale * base.objective, rel=1e-12)


@given(st.one_of(etf_problems(), general_problems()), st.floats(-3, 3))
def test_only_rho_matters(problem, log10_scale) -> None:
    """(cW, E_H/c²) has the same logits as (W, E_H)."""
    c = 10.0**log10_scale
    other = lpm.solve(
        replace(problem, head=problem.head * c, feature_energy=problem.feature_energy / c**2)
    )
    base = lpm.solve(problem)
    np.testing.assert_allclose(other.log_odds, base.log_odds, rtol=1e-11, atol=1e-11)
    assert other.objective == pytest.approx(base.objective, rel=1e-8)


@given(general_problems())
def test_batch_equals_singles(problem) -> None:
    """Imbalance, empty classes and other states' energies have no influence on a state."""
    together = lpm.solve(problem)
    for s in range(problem.num_states):
        alone = lpm.solve(
            lpm.PeeledProblem(
                problem.head,
                problem.labels[[s]],
                problem.weights[[s]],
                problem.energies[[s]].copy(),
            )
        )
        assert alone.log_odds[0] == pytest.approx(together.log_odds[s], rel=1e-12, abs=1e-12)


@given(etf_problems(max_log10_rho=2.0))
def test_dtype(problem) -> None:
    """A float32 head and float32 features mean their float64 values, nothing else."""
    single = replace(problem, head=problem.head.astype(np.float32))
    double = replace(problem, head=problem.head.astype(np.float32).astype(np.float64))
    np.testing.assert_array_equal(lpm.solve(single).features, lpm.solve(double).features)
    features = lpm.solve(problem).features.astype(np.float32)
    narrow, wide = lpm.certify(problem, features), lpm.certify(problem, features.astype(float))
    assert narrow.kkt_residual == pytest.approx(wide.kkt_residual, rel=1e-12)
    assert narrow.gap == pytest.approx(wide.gap, rel=1e-12)


# --- limits ------------------------------------------------------------------------------------


@given(general_problems())
def test_small_rho_limit(problem) -> None:
    """ρ → 0: h/√E_H → the direction of w_k minus the mean of the other actions."""
    problem = replace(problem, feature_energy=1e-12)
    h = lpm.solve(problem).features / 1e-6
    k = problem.num_classes
    others = (problem.head.sum(axis=0) - problem.head) / (k - 1)
    direction = (problem.head - others)[problem.labels]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    np.testing.assert_allclose(h, direction, atol=1e-4)


def margin(head: np.ndarray, k: int) -> float:
    """Distance from w_k to the convex hull of the other rows, by non-negative least squares.

    Lawson-Hanson on [D; c·1]x ≈ [0; c] with a heavy last row enforces Σx = 1: an active-set
    method that shares nothing with the solver under test.
    """
    differences = (np.delete(head, k, axis=0) - head[k]).T
    heavy = 1e5
    x, _ = nnls(
        np.vstack([differences, heavy * np.ones(differences.shape[1])]),
        np.append(np.zeros(len(differences)), heavy),
    )
    return float(np.linalg.norm(differences @ (x / x.sum())))


@given(general_problems())
def test_large_rho_limit_is_the_maximal_margin(problem) -> None:
    """−√E_H·m ≤ F* ≤ log(K−1) − √E_H·m, m the distance of w_k to the hull of the others."""
    problem = replace(problem, feature_energy=1e8)
    log_odds = lpm.solve(problem).log_odds
    m = np.array([margin(problem.head, k) for k in problem.labels])
    noise = 1e4 * 1e-8
    assert (log_odds >= -1e4 * m - noise).all()
    assert (log_odds <= np.log(problem.num_classes - 1) - 1e4 * m + noise).all()


# --- certificate -------------------------------------------------------------------------------


@given(st.one_of(etf_problems(), general_problems()), seeds)
def test_gap_is_never_negative_and_bounds_enclose(problem, seed) -> None:
    rng = np.random.default_rng(seed)
    certificate = lpm.certify(problem, random_feasible(rng, problem))
    solution = lpm.solve(problem)
    optimum = -solution.objective
    # At the optimum too, where a gap computed by subtraction would round to either side of 0.
    assert lpm.certify(problem, solution.features).gap >= 0
    assert certificate.gap >= 0
    assert certificate.log_odds_gap >= 0
    rounding = 1e-11 * abs(certificate.upper_bound)
    assert certificate.lower_bound <= optimum * (1 + 1e-11)
    assert optimum <= certificate.upper_bound + rounding
    assert certificate.upper_bound - certificate.lower_bound == pytest.approx(
        certificate.gap, rel=1e-6, abs=rounding
    )


@given(general_problems(), seeds)
def test_no_feasible_point_beats_the_lower_bound(problem, seed) -> None:
    rng = np.random.default_rng(seed)
    best = lpm.solve(problem).features
    lower = lpm.certify(problem, best).lower_bound
    # Points anywhere are far above the bound; on the way to the optimum they come near it.
    for share in (1.0, 1.0, 0.1, 1e-2, 1e-4, 1e-8):
        point = (1 - share) * best + share * random_feasible(rng, problem)
        assert -problem.objective(point) >= lower * (1 - 1e-11)


@given(st.one_of(etf_problems(), general_problems()))
def test_gap_closes_at_the_optimum(problem) -> None:
    certificate = lpm.certify(problem, lpm.solve(problem).features)
    rho = np.sqrt(problem.energies.max()) * np.linalg.norm(problem.head, axis=1).max()
    assert certificate.log_odds_gap <= 1e-14 + 1e-14 * rho


@given(etf_problems(max_log10_rho=1.0), seeds)
def test_perturbation_is_noticed(problem, seed) -> None:
    """Certificates are not flattery: a rotation by 1e-3 rad shows in every number."""
    if problem.dim == 1:
        return
    # A stream of its own: with the head's own seed the kick would be along the head.
    rng = np.random.default_rng([seed, 1])
    h = lpm.solve(problem).features
    kick = rng.standard_normal(h.shape)
    kick -= np.einsum("nd,nd->n", kick, h)[:, None] * h / problem.energies[:, None]
    kick *= np.sqrt(problem.energies)[:, None] / np.linalg.norm(kick, axis=1, keepdims=True)
    tilted = np.cos(1e-3) * h + np.sin(1e-3) * kick
    certificate = lpm.certify(problem, tilted)
    assert certificate.stationarity >= 1e-4
    assert certificate.log_odds_gap >= 1e-8 * np.sqrt(
        problem.energies[0] * float(problem.head[0] @ problem.head[0])
    )


@given(etf_problems(max_log10_rho=2.0), st.floats(-15.0, -11.0))
def test_upper_bound_holds_for_slightly_infeasible_candidates(problem, log10_excess) -> None:
    optimum = lpm.solve(problem)
    outside = optimum.features * (1 + 10.0**log10_excess)
    certificate = lpm.certify(problem, outside)
    assert certificate.upper_bound >= -optimum.objective * (1 - 2e-12)


def test_infeasible_candidate_is_reported_and_bounded_inside_the_ball() -> None:
    problem = lpm.PeeledProblem(lpm.simplex_etf(4, 5), [0, 1, 1], [1.0, 2.0, 3.0], 9.0)
    optimum = lpm.solve(problem)
    certificate = lpm.certify(problem, 1.1 * optimum.features)
    assert certificate.feasibility == pytest.approx(0.21, rel=1e-12)
    assert certificate.upper_bound == pytest.approx(-optimum.objective, rel=1e-12)
    assert certificate.gap >= 0


def test_candidates_that_are_not_finite_certify_nothing() -> None:
    problem = lpm.PeeledProblem(lpm.simplex_etf(4, 5), [0, 1], [1.0, 2.0], 9.0)
    features = lpm.solve(problem).features
    features[1, 2] = np.nan
    certificate = lpm.certify(problem, features)
    assert np.isnan(certificate.stationarity)
    assert certificate.gap == np.inf
    assert not certificate.kkt_residual <= 1e-12


def test_inactive_constraint() -> None:
    """An action inside the hull of the others is optimal strictly inside a large ball."""
    head = np.array([[0.1, 0.0], [1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    solution = lpm.solve(lpm.PeeledProblem(head, [0, 1], [1.0, 1.0], 100.0))
    norms = np.linalg.norm(solution.features, axis=1)
    assert norms[0] < 1.0
    assert norms[1] == pytest.approx(10.0)
    assert solution.multipliers.log_odds[0] == 0.0
    assert solution.multipliers.log_exponential[0] == -np.inf
    reference = minimize(
        lambda h: np.log(np.exp((head[1:] - head[0]) @ h).sum()), np.zeros(2), tol=1e-12
    )
    np.testing.assert_allclose(solution.features[0], reference.x, atol=1e-5)


# --- independent references --------------------------------------------------------------------


@settings(max_examples=12)
@given(st.one_of(etf_problems(max_classes=5), general_problems(max_classes=5, max_log10_rho=2.5)))
def test_ball_against_conic(problem) -> None:
    """F form of the joint problem: objective to 1e-6 nats, multipliers from the solver's duals."""
    ball, conic = lpm.solve(problem), lpm.solve(problem, "conic")
    scale = 1 + np.abs(ball.log_odds)
    assert (np.abs(ball.log_odds - conic.log_odds) <= 1e-6 * scale).all()
    assert (ball.log_odds <= conic.log_odds + 1e-8 * scale).all()
    np.testing.assert_allclose(
        ball.multipliers.log_odds * problem.energies,
        conic.multipliers.log_odds * problem.energies,
        rtol=1e-4,
        atol=1e-5 * float(scale.max()),
    )


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (1.0, 10.0, 100.0, 0.1)])
def test_ball_against_the_papers_own_cross_entropy(weights) -> None:
    """Eq. (8) with its weights, solved jointly, imbalanced: 3 states of one action, none of two."""
    head = lpm.simplex_etf(4, 6, 2.0, np.random.default_rng(1))
    problem = lpm.PeeledProblem(head, [0, 0, 0, 2], weights, 1.5)
    conic = lpm.solve(problem, "conic", formulation="cross-entropy")
    ball = lpm.solve(problem)
    assert conic.objective == pytest.approx(ball.objective, rel=1e-6)
    close(conic.features, ball.features, problem, 3e-3)
    np.testing.assert_allclose(
        conic.multipliers.cross_entropy, ball.multipliers.cross_entropy, rtol=1e-2
    )


def test_cross_entropy_form_of_the_reference_loses_the_optimum_at_large_rho() -> None:
    """Why the reference works on F: at ρ = 20 the CE form says "optimal" far from the optimum."""
    problem = lpm.PeeledProblem(lpm.simplex_etf(4, 4), [0, 1, 2, 3], np.ones(4), 400.0)
    exact = lpm.solve(problem, "closed-form").features
    wrong = lpm.solve(problem, "conic", formulation="cross-entropy").features
    right = lpm.solve(problem, "conic").features
    assert np.abs(wrong - exact).max() > 0.1
    assert np.abs(right - exact).max() < 1e-4


def kkt_root_mpmath(head: np.ndarray, k: int, energy: float, start: np.ndarray):
    """Root of ∇F + 2λh = 0, ‖h‖² = E at 50 digits, by mpmath's own Newton iteration."""
    d = head.shape[1]
    rows = [[mpmath.mpf(x) for x in row] for row in head]

    def system(*unknowns):
        h, lam = unknowns[:d], unknowns[d]
        logits = [
            mpmath.fdot(h, [a - b for a, b in zip(row, rows[k], strict=True)]) for row in rows
        ]
        top = max(z for j, z in enumerate(logits) if j != k)
        e = [mpmath.exp(z - top) if j != k else mpmath.mpf(0) for j, z in enumerate(logits)]
        total = mpmath.fsum(e)
        gradient = [
            mpmath.fsum(e[j] * (rows[j][i] - rows[k][i]) for j in range(len(rows))) / total
            for i in range(d)
        ]
        return [g + 2 * lam * x for g, x in zip(gradient, h, strict=True)] + [
            mpmath.fdot(h, h) - mpmath.mpf(energy)
        ]

    problem = lpm.PeeledProblem(head, [k], [1.0], energy)
    lam0 = float(lpm.certify(problem, start[None]).multipliers[0])
    root = mpmath.findroot(system, [*map(mpmath.mpf, start.tolist()), mpmath.mpf(lam0)])
    return root[:d], root[d]


@pytest.mark.parametrize("rho", [1e-2, 1.0, 30.0, 600.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ball_against_mpmath_at_50_digits(rho, seed) -> None:
    rng = np.random.default_rng(seed)
    head = rng.standard_normal((4, 3))
    head /= np.linalg.norm(head, axis=1).max()
    # Active constraint: the action furthest out along a random direction is a hull vertex.
    k = int(np.argmax(head @ rng.standard_normal(3)))
    solution = lpm.solve(lpm.PeeledProblem(head, [k], [1.0], rho**2))
    with mpmath.workdps(50):
        h, lam = kkt_root_mpmath(head, k, rho**2, solution.features[0])
        odds = mpmath.log(
            mpmath.fsum(
                mpmath.exp(mpmath.fdot(h, [mpmath.mpf(a) - mpmath.mpf(b) for a, b in pair]))
                for pair in (list(zip(head[j], head[k], strict=True)) for j in range(4) if j != k)
            )
        )
        error = max(abs(a - mpmath.mpf(b)) for a, b in zip(h, solution.features[0], strict=True))
        assert error / rho <= 1e-12
        assert abs(odds - solution.log_odds[0]) <= 1e-14 * (1 + rho)
        assert abs(lam / solution.multipliers.log_odds[0] - 1) <= 1e-11


@pytest.mark.parametrize("classes", [2, 3, 4, 18])
def test_rho_600_keeps_log_of_minus_log_pi(classes) -> None:
    """π(a*) rounds to 1 and −log π to 0 in float64; log(−log π) still has 12 digits."""
    problem = lpm.PeeledProblem(lpm.simplex_etf(classes, 20), [0], [1.0], 600.0**2)
    solution = lpm.solve(problem)
    with mpmath.workdps(50):
        a = (classes - 1) * mpmath.exp(-mpmath.mpf(600) * classes / (classes - 1))
        exact = mpmath.log(mpmath.log1p(a))
    assert lpm.log_softplus(solution.log_odds[0]) == pytest.approx(float(exact), rel=1e-12)
    h = solution.features[0]
    probability = np.exp(problem.head @ h - (problem.head @ h).max())
    assert -np.log(probability[0] / probability.sum()) == 0.0


# --- the boundary ------------------------------------------------------------------------------


def test_unknown_solver_lists_the_known() -> None:
    problem = lpm.PeeledProblem(lpm.simplex_etf(3, 2), [0], [1.0], 1.0)
    with pytest.raises(
        ValueError, match="'newton': choose one of ball, orthant, conic, closed-form"
    ):
        lpm.solve(problem, "newton")


def test_closed_form_refuses_a_head_that_is_no_etf() -> None:
    head = lpm.simplex_etf(3, 2)
    head[0] *= 1.01
    with pytest.raises(ValueError, match=r"off by 0\.0\d+ of its energy.*solver='ball'"):
        lpm.solve(lpm.PeeledProblem(head, [0], [1.0], 1.0), "closed-form")


@pytest.mark.parametrize("solver", ["ball", "closed-form"])
def test_nonnegative_cone_is_left_to_its_own_solvers(solver) -> None:
    problem = lpm.PeeledProblem(lpm.simplex_etf(4, 6), [0, 1], [1.0, 1.0], 4.0, "nonnegative")
    with pytest.raises(ValueError, match=r"cone='nonnegative'.*solver='orthant'"):
        lpm.solve(problem, solver)
    solution = lpm.solve(problem, "conic")
    assert solution.features.min() >= -1e-7
    assert lpm.certify(problem, solution.features).log_odds_gap <= 1e-5


def test_unknown_formulation() -> None:
    problem = lpm.PeeledProblem(lpm.simplex_etf(3, 2), [0], [1.0], 1.0)
    with pytest.raises(ValueError, match="unknown formulation 'primal'"):
        lpm.solve(problem, "conic", formulation="primal")


def test_iteration_limit_is_said() -> None:
    head = np.random.default_rng(0).standard_normal((6, 4))
    problem = lpm.PeeledProblem(head, [0, 1], [1.0, 1.0], 100.0)
    solution = lpm.solve(problem, max_iterations=1)
    assert solution.status is lpm.Status.ITERATION_LIMIT
    assert "max_iterations" in solution.status.advice


def test_a_million_states_gather_from_eighteen_problems() -> None:
    """N = 10⁶ at small d: the number of distinct problems, not N, sets the work."""
    rng = np.random.default_rng(0)
    head = lpm.simplex_etf(18, 20, rng=rng)
    labels = rng.integers(0, 17, 10**6)  # class 17 is empty
    problem = lpm.PeeledProblem(head, labels, 10.0 ** rng.uniform(-12, 12, 10**6), 25.0)
    solution = lpm.solve(problem)
    assert solution.stats["distinct_problems"] == 17
    np.testing.assert_allclose(solution.features[::997], 5.0 * head[labels[::997]], atol=1e-12)
