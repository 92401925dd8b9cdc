"""Features of forced norm: curvature against finite differences, minima against a grid.

Invariants: the ball's optimum stays optimal; −w_k is a spurious local minimum exactly for
ρ > K − 1 in d = K − 1; with a spare dimension nothing spurious is left, whatever the head.
"""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import approx_fprime, minimize
from strategies import general_problems, random_rotation, seeds

import lpm
from lpm.sphere import PointKind, classify_on_sphere, etf_pole_eigenvalues, solve_sphere

pytestmark = pytest.mark.theory


def on_sphere(rng: np.random.Generator, problem: lpm.PeeledProblem) -> np.ndarray:
    h = rng.standard_normal((problem.num_states, problem.dim))
    return h * (np.sqrt(problem.energies) / np.linalg.norm(h, axis=1))[:, None]


def etf_problem(classes, dim, rho, head_energy=2.0, seed=0) -> lpm.PeeledProblem:
    head = lpm.simplex_etf(classes, dim, head_energy, np.random.default_rng(seed))
    return lpm.PeeledProblem(head, [0, 1], [1.0, 3.0], rho**2 / head_energy)


def pole(problem: lpm.PeeledProblem, sign: float) -> np.ndarray:
    w = problem.head[problem.labels]
    lengths = np.sqrt(problem.energies) / np.linalg.norm(w, axis=1)
    return sign * lengths[:, None] * w


# --- gradient and Hessian ----------------------------------------------------------------------


@given(general_problems(max_log10_rho=1.0), seeds)
def test_gradient_and_curvature_against_differences_along_great_circles(problem, seed) -> None:
    """F(R(h cos θ + u sin θ)) has derivatives R⟨grad, u⟩ and R²·uᵀ Hess u in θ at 0."""
    if problem.dim == 1:
        return
    rng = np.random.default_rng(seed)
    h = on_sphere(rng, problem)
    radius = np.sqrt(problem.energies)
    report = classify_on_sphere(problem, h)
    curvatures, slopes = [], []
    angle = 2e-3 / (1 + radius.max())
    for _ in range(3 * problem.dim):
        u = rng.standard_normal(h.shape)
        u -= np.einsum("nd,nd->n", u, h)[:, None] * h / problem.energies[:, None]
        u *= (radius / np.linalg.norm(u, axis=1))[:, None]
        ahead, middle, behind = (
            problem.log_odds(np.cos(t) * h + np.sin(t) * u) for t in (angle, 0.0, -angle)
        )
        slopes.append((ahead - behind) / (2 * angle) / radius)
        curvatures.append((ahead - 2 * middle + behind) / angle**2 / problem.energies)
    scale = 1 + 1 / radius
    assert (np.array(curvatures) <= report.max_eigenvalue + 1e-4 * scale).all()
    assert (np.array(curvatures) >= report.min_eigenvalue - 1e-4 * scale).all()
    if problem.dim == 2:  # one tangent direction: equality
        np.testing.assert_allclose(curvatures[0], report.max_eigenvalue, atol=1e-4 * scale.max())
        spread = problem.log_odds_block(h, slice(None)).spread
        np.testing.assert_allclose(
            np.abs(slopes[0]), report.gradient_norm * spread, atol=1e-4 * scale.max()
        )


@pytest.mark.parametrize(("dim", "off"), [(3, False), (4, False), (9, False), (9, True)])
def test_extreme_eigenvalues_against_a_dense_hessian(dim, off) -> None:
    """The d × d matrix P∇²FP + 2λP built plainly; also with a part outside the head's span."""
    rng = np.random.default_rng(dim)
    head = rng.standard_normal((6 if off else 4, dim))
    if off:  # rank 2 of K − 1 = 5: ∇²F has no null direction in the span
        head[:, 2:] = 0.0
    problem = lpm.PeeledProblem(head, [2], [1.0], 3.0)
    h = on_sphere(rng, problem)[0]
    report = classify_on_sphere(problem, h[None])

    def gradient(x):
        return problem.log_odds_block(x[None], slice(None)).gradient[0]

    hessian = approx_fprime(h, gradient, 1e-7)
    multiplier = -gradient(h) @ h / 6.0
    basis = np.linalg.svd(h[None])[2][1:]
    dense = np.linalg.eigvalsh(basis @ hessian @ basis.T + 2 * multiplier * np.eye(dim - 1))
    assert report.multiplier[0] == pytest.approx(multiplier, rel=1e-12)
    assert report.min_eigenvalue[0] == pytest.approx(dense[0], abs=1e-6)
    assert report.max_eigenvalue[0] == pytest.approx(dense[-1], abs=1e-6)


@given(
    st.integers(2, 12),
    st.integers(0, 4),
    st.floats(-1.0, 2.0),
    st.floats(-1.0, 1.0),
    st.sampled_from([("optimum", 1.0), ("antipode", -1.0)]),
)
def test_pole_eigenvalues_in_closed_form(classes, spare, log10_rho, log10_energy, which) -> None:
    dim, rho, head_energy = classes - 1 + spare, 10.0**log10_rho, 10.0**log10_energy
    if dim == 1:
        return
    problem = etf_problem(classes, dim, rho, head_energy)
    report = classify_on_sphere(problem, pole(problem, which[1]))
    within, outside = etf_pole_eigenvalues(
        classes, float(problem.feature_energy), head_energy, which[0]
    )
    present = ([within] if classes > 2 else []) + ([outside] if spare else [])
    tolerance = 1e-10 * (abs(within) + abs(outside))
    np.testing.assert_allclose(report.min_eigenvalue, min(present), rtol=0, atol=tolerance)
    np.testing.assert_allclose(report.max_eigenvalue, max(present), rtol=0, atol=tolerance)
    assert (report.gradient_norm <= 1e-13 * (1 + rho)).all()


# --- the spurious optimum ----------------------------------------------------------------------


@pytest.mark.parametrize("classes", [3, 4, 7])
@pytest.mark.parametrize(
    ("spare", "excess", "kind"),
    [
        (0, -0.01, PointKind.LOCAL_MAXIMUM),
        (0, 0.0, PointKind.DEGENERATE),
        (0, 0.01, PointKind.LOCAL_MINIMUM),
        (0, 50.0, PointKind.LOCAL_MINIMUM),
        (1, -0.01, PointKind.LOCAL_MAXIMUM),
        (1, 0.01, PointKind.SADDLE),
        (3, 50.0, PointKind.SADDLE),
    ],
)
def test_antipode_is_spurious_above_k_minus_1_and_without_a_spare_dimension(
    classes, spare, excess, kind
) -> None:
    problem = etf_problem(classes, classes - 1 + spare, classes - 1 + excess)
    assert classify_on_sphere(problem, pole(problem, -1.0)).kinds == (kind, kind)
    optimum = classify_on_sphere(problem, pole(problem, 1.0))
    assert optimum.kinds == (PointKind.LOCAL_MINIMUM,) * 2
    assert optimum.is_global.all()
    assert not classify_on_sphere(problem, pole(problem, -1.0)).is_global.any()
    if kind is PointKind.DEGENERATE:
        return
    # The search, which starts there too, keeps it iff it is a local minimum.
    solution = solve_sphere(problem, np.random.default_rng(0), starts=24)
    spurious = kind is PointKind.LOCAL_MINIMUM
    assert {len(m) for m in solution.minima} == {2 if spurious else 1}
    for minima, antipode in zip(solution.minima, pole(problem, -1.0), strict=True):
        found = np.linalg.norm(minima - antipode, axis=1).min() <= 1e-6
        assert found == spurious


@pytest.mark.parametrize("rho", [1.0, 5.0, 100.0])
def test_the_ball_has_no_such_point(rho) -> None:
    """−w_k violates KKT there: its best multiplier is 0 and ∇F, pointing inwards, remains."""
    problem = etf_problem(4, 3, rho)
    certificate = lpm.certify(problem, pole(problem, -1.0))
    assert certificate.stationarity > 0.5
    assert (certificate.multipliers == 0).all()
    report = classify_on_sphere(problem, pole(problem, -1.0))
    assert (report.multiplier < 0).all()
    # A projected gradient method started beside it leaves for the optimum.
    h = pole(problem, -1.0) + 1e-3
    for _ in range(2000):
        h = h - 0.3 * problem.log_odds_block(h, slice(None)).gradient
        h *= np.minimum(1, np.sqrt(problem.energies) / np.linalg.norm(h, axis=1))[:, None]
    error = np.linalg.norm(h - pole(problem, 1.0), axis=1)
    assert (error <= 1e-3 * np.sqrt(problem.energies)).all()


def test_the_antipode_attracts_gradient_flow_on_the_sphere() -> None:
    """Not a matter of the solver: plain normalised gradient steps return to −w_k for ρ > K − 1."""
    for rho, returns in ((3.5, True), (2.5, False)):
        problem = etf_problem(4, 3, rho)
        rng = np.random.default_rng(1)
        target = pole(problem, -1.0)
        h = target + 0.02 * np.linalg.norm(target[0]) * rng.standard_normal(target.shape)
        radius = np.sqrt(problem.energies)[:, None]
        for _ in range(4000):
            h = h * radius / np.linalg.norm(h, axis=1, keepdims=True)
            h = h - 0.02 * radius * problem.log_odds_block(h, slice(None)).gradient
        h = h * radius / np.linalg.norm(h, axis=1, keepdims=True)
        end = target if returns else -target
        assert (np.linalg.norm(h - end, axis=1) <= 1e-3 * radius[:, 0]).all()


# --- the solver --------------------------------------------------------------------------------


@settings(max_examples=30)
@given(general_problems(max_classes=6, max_log10_rho=2.0))
def test_with_a_spare_dimension_every_minimum_is_global(problem) -> None:
    wide = lpm.PeeledProblem(
        np.hstack([problem.head, np.zeros((problem.num_classes, 2))]),
        problem.labels, problem.weights, problem.feature_energy,
    )  # fmt: skip
    solution = solve_sphere(wide, np.random.default_rng(0), starts=6)
    ball = lpm.solve(problem)
    noise = 1e-9 * (1 + np.abs(ball.log_odds))
    np.testing.assert_allclose(solution.log_odds, ball.log_odds, rtol=0, atol=noise.max())
    for values in solution.minima_log_odds:
        assert np.ptp(values) <= 1e-7 * (1 + np.abs(values).max())
    norms = np.linalg.norm(solution.features, axis=1)
    np.testing.assert_allclose(norms, np.sqrt(problem.energies), rtol=1e-12)


@settings(max_examples=25)
@given(general_problems(max_classes=6, max_log10_rho=2.0))
def test_the_balls_optimum_is_found_and_proven_where_the_ball_binds(problem) -> None:
    solution, ball = solve_sphere(problem, np.random.default_rng(0), starts=4), lpm.solve(problem)
    tolerance = 1e-10 * (1 + np.abs(ball.log_odds))
    assert (solution.log_odds >= ball.log_odds - tolerance).all()
    binds = ball.multipliers.log_odds * problem.energies > 1e-6
    assert (solution.log_odds - ball.log_odds <= tolerance)[binds].all()
    assert solution.is_global[binds].all()
    assert solution.objective == pytest.approx(problem.objective(solution.features), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_all_minima_on_a_circle(seed) -> None:
    """d = 2: a fine grid of the circle shows every local minimum there is."""
    rng = np.random.default_rng(seed)
    problem = lpm.PeeledProblem(rng.standard_normal((5, 2)), [0], [1.0], 36.0)
    angles = np.linspace(0, 2 * np.pi, 20001)[:-1]
    circle = 6.0 * np.column_stack([np.cos(angles), np.sin(angles)])
    many = lpm.PeeledProblem(problem.head, np.zeros(20000, dtype=int), np.ones(20000), 36.0)
    f = many.log_odds(circle)
    minima = (f < np.roll(f, 1)) & (f < np.roll(f, -1))
    solution = solve_sphere(problem, rng, starts=40)
    np.testing.assert_allclose(solution.minima_log_odds[0], np.sort(f[minima]), atol=1e-5)
    report = classify_on_sphere(problem, solution.features)
    assert report.kinds == (PointKind.LOCAL_MINIMUM,)


def test_where_the_ball_does_not_bind_the_sphere_is_only_solved_locally() -> None:
    """w_0 in the middle of the others: on the sphere F is far above the ball's minimum."""
    head = np.array([[0.1, 0.0], [1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    problem = lpm.PeeledProblem(head, [0], [1.0], 100.0)
    solution = solve_sphere(problem, np.random.default_rng(0))
    assert not solution.is_global.any()
    assert len(solution.minima[0]) == 3
    differences = head[1:] - head[0]
    for point, value in zip(solution.minima[0], solution.minima_log_odds[0], strict=True):
        reference = minimize(
            lambda h: np.log(np.exp(differences @ h).sum()), point + 0.1,
            constraints={"type": "eq", "fun": lambda h: h @ h - 100.0}, method="SLSQP",
            options={"ftol": 1e-14},
        )  # fmt: skip
        assert reference.fun == pytest.approx(value, abs=1e-8)


@settings(max_examples=20)
@given(general_problems(max_classes=5, max_log10_rho=1.5), seeds)
def test_rotation_and_permutation(problem, seed) -> None:
    rng = np.random.default_rng(seed)
    q, actions = random_rotation(rng, problem.dim), rng.permutation(problem.num_classes)
    h = on_sphere(rng, problem)
    turned = lpm.PeeledProblem(
        problem.head[actions] @ q,
        np.argsort(actions)[problem.labels],
        problem.weights,
        problem.feature_energy,
    )
    a, b = classify_on_sphere(problem, h), classify_on_sphere(turned, h @ q)
    for name in ("gradient_norm", "multiplier", "min_eigenvalue", "max_eigenvalue", "log_odds_gap"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-7, atol=1e-9)


# --- the boundary ------------------------------------------------------------------------------


def test_one_dimension_has_no_tangent_space() -> None:
    problem = etf_problem(2, 1, 3.0)
    report = classify_on_sphere(problem, pole(problem, -1.0))
    assert report.kinds == (PointKind.ISOLATED,) * 2
    assert np.isnan(report.min_eigenvalue).all()
    solution = solve_sphere(problem, np.random.default_rng(0))
    np.testing.assert_allclose(solution.features, pole(problem, 1.0))


def test_a_point_that_is_not_stationary() -> None:
    problem = etf_problem(4, 3, 5.0)
    h = on_sphere(np.random.default_rng(0), problem)
    assert classify_on_sphere(problem, h).kinds == (PointKind.NOT_STATIONARY,) * 2


def test_refusals() -> None:
    problem = etf_problem(4, 3, 5.0)
    with pytest.raises(ValueError, match=r"state \d has norm .* scale the features onto"):
        classify_on_sphere(problem, 0.5 * pole(problem, 1.0))
    with pytest.raises(ValueError, match="6 non-finite entries"):
        classify_on_sphere(problem, np.full((2, 3), np.nan))
    with pytest.raises(ValueError, match="starts must be >= 0, got -1"):
        solve_sphere(problem, np.random.default_rng(0), starts=-1)
    cone = lpm.PeeledProblem(problem.head, [0], [1.0], 1.0, cone="nonnegative")
    with pytest.raises(ValueError, match=r"cone='free'.*'orthant'"):
        solve_sphere(cone, np.random.default_rng(0))
    for arguments, message in (
        ((1, 1.0, 1.0), "num_classes must be >= 2, got 1"),
        ((4, 0.0, 1.0), "energies must be > 0"),
        ((4, 1.0, 1.0, "north"), "'optimum' or 'antipode', got 'north'"),
    ):
        with pytest.raises(ValueError, match=message):
            etf_pole_eigenvalues(*arguments)


def test_iteration_limit_is_said() -> None:
    problem = lpm.PeeledProblem(np.random.default_rng(0).standard_normal((6, 4)), [0], [1.0], 400.0)
    solution = solve_sphere(problem, np.random.default_rng(0), max_iterations=2)
    assert solution.status is lpm.Status.ITERATION_LIMIT
