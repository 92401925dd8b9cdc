"""Objective, gradient and log-domain functions against mpmath, finite differences and loops."""

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given
from strategies import etf_problems, general_problems, random_feasible, seeds

import lpm


@pytest.mark.theory
@given(st.one_of(st.floats(-60, 10), st.floats(-2000, 2000)))
def test_log_softplus_against_mpmath(x) -> None:
    with mpmath.workdps(50):
        exact = mpmath.log(mpmath.log1p(mpmath.exp(x))) if x > -900 else mpmath.mpf(x)
    assert lpm.log_softplus(x) == pytest.approx(float(exact), rel=1e-12, abs=1e-15)


@pytest.mark.theory
@given(general_problems(max_log10_rho=1.5), seeds)
def test_objective_against_a_naive_loop(problem, seed) -> None:
    features = random_feasible(np.random.default_rng(seed), problem)
    total = mpmath.mpf(0)
    with mpmath.workdps(40):
        for h, k, weight in zip(features, problem.labels, problem.weights, strict=True):
            logits = [mpmath.fdot(h, w) for w in problem.head]
            pi = mpmath.exp(logits[k]) / mpmath.fsum(mpmath.exp(z) for z in logits)
            total += mpmath.mpf(weight) * mpmath.log(pi)
    assert problem.objective(features) == pytest.approx(float(total), rel=1e-11)


@pytest.mark.theory
@given(general_problems(max_log10_rho=1.0), seeds)
def test_gradient_against_finite_differences(problem, seed) -> None:
    rng = np.random.default_rng(seed)
    features = random_feasible(rng, problem)
    direction = rng.standard_normal(features.shape)
    eps = 1e-5  # max‖w_k‖ = 1, so F''' is of order one whatever the energy is
    ahead = problem.log_odds(features + eps * direction)
    behind = problem.log_odds(features - eps * direction)
    block = problem.log_odds_block(features, slice(None))
    analytic = np.einsum("nd,nd->n", block.gradient, direction)
    np.testing.assert_allclose((ahead - behind) / (2 * eps), analytic, rtol=1e-6, atol=1e-7)
    # ∂J/∂h = −weight·σ(F)·∇F: the chain rule spelled out with the policy itself.
    sigma = np.array(
        [
            1 - math.exp(z[k] - z.max()) / np.exp(z - z.max()).sum()
            for z, k in zip(features @ problem.head.T, problem.labels, strict=True)
        ]
    )
    np.testing.assert_allclose(
        problem.gradient(features),
        -(problem.weights * sigma)[:, None] * block.gradient,
        rtol=1e-8,
        atol=1e-10 * problem.weights.max(),
    )


@pytest.mark.theory
@given(etf_problems(), seeds)
def test_log_odds_is_convex(problem, seed) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_feasible(rng, problem), random_feasible(rng, problem)
    middle = problem.log_odds((a + b) / 2)
    chord = (problem.log_odds(a) + problem.log_odds(b)) / 2
    assert (middle <= chord + 1e-12 * (1 + np.abs(chord))).all()


def test_blocks_cover_every_state_once(monkeypatch) -> None:
    """A problem larger than one block gives what one block gives."""
    rng = np.random.default_rng(0)
    head = lpm.simplex_etf(3, 4)
    labels, weights = rng.integers(0, 3, 1000), rng.uniform(1, 2, 1000)
    problem = lpm.PeeledProblem(head, labels, weights, 4.0)
    features = random_feasible(rng, problem)
    whole = problem.objective(features), problem.gradient(features)
    certificate = lpm.certify(problem, features)
    monkeypatch.setattr("lpm.problem._CHUNK_FLOATS", 64)
    assert len(list(problem.blocks())) > 50
    assert problem.objective(features) == pytest.approx(whole[0], rel=1e-14)
    np.testing.assert_allclose(problem.gradient(features), whole[1], rtol=1e-14)
    pieces = lpm.certify(problem, features)
    assert pieces.gap == pytest.approx(certificate.gap, rel=1e-12)
    assert pieces.stationarity == pytest.approx(certificate.stationarity, rel=1e-12)


def test_labels_from_action_values() -> None:
    head = lpm.simplex_etf(3, 2)
    q = [[0.0, 1.0, 0.5], [3.0, -1.0, 2.0]]
    problem = lpm.PeeledProblem.from_action_values(head, q, [1.0, 2.0], 1.0)
    assert problem.labels.tolist() == [1, 0]


HEAD = lpm.simplex_etf(4, 3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": [1.0, 0.0]}, ValueError, r"weights must be > 0, but 1 of 2 .*entry 1 is 0"),
        ({"weights": [-2.0, 1.0]}, ValueError, r"entry 0 is -2.*claim reverses"),
        ({"weights": [1.0, math.nan]}, ValueError, "weights has 1 non-finite"),
        ({"weights": [1.0]}, ValueError, r"weights must have shape \(2,\).*got \(1,\)"),
        ({"weights": 1.0}, ValueError, r"weights must have shape \(2,\).*got \(\)"),
        ({"feature_energy": 0.0}, ValueError, "feature_energy must be > 0"),
        ({"feature_energy": math.inf}, ValueError, "feature_energy has 1 non-finite"),
        ({"feature_energy": [1.0, 2.0, 3.0]}, ValueError, r"\(2,\) or a single number"),
        ({"labels": [0, 4]}, ValueError, r"from 0 to 4 .* K = 4 rows"),
        ({"labels": [-1, 0]}, ValueError, "from -1 to 0"),
        ({"labels": [0.0, 1.0]}, TypeError, "must be integers.*float64"),
        ({"labels": [[0, 1], [1, 2]]}, ValueError, r"several optimal actions \(ties\)"),
        ({"labels": []}, ValueError, "N >= 1"),
        ({"head": np.ones((4, 3))}, ValueError, "all 4 rows of the head are equal"),
        ({"head": np.full((4, 3), np.nan)}, ValueError, "12 non-finite entries of 12"),
        ({"head": np.ones(3)}, ValueError, r"head must be \(K, d\)"),
        ({"head": np.ones((1, 3))}, ValueError, r"K >= 2 actions"),
        ({"cone": "positive"}, ValueError, "cone must be 'free' or 'nonnegative'"),
    ],
)
def test_refused(changes, error, message) -> None:
    arguments = {"head": HEAD, "labels": [0, 1], "weights": [1.0, 2.0], "feature_energy": 4.0}
    with pytest.raises(error, match=message):
        lpm.PeeledProblem(**(arguments | changes))


def test_ties_are_refused_with_the_state_and_its_values() -> None:
    q = [[1.0, 0.0, 0.0, 0.0], [2.0, 2.0, 1.0, 0.0]]
    with pytest.raises(ValueError, match=r"1 of 2 states .*state 1: Q = \[2.0, 2.0, 1.0, 0.0\]"):
        lpm.PeeledProblem.from_action_values(HEAD, q, [1.0, 1.0], 1.0)


def test_feature_shape_is_checked() -> None:
    problem = lpm.PeeledProblem(HEAD, [0, 1], [1.0, 1.0], 1.0)
    with pytest.raises(ValueError, match=r"\(N, d\) = \(2, 3\), got \(3, 2\)"):
        problem.objective(np.zeros((3, 2)))


def test_problem_does_not_alias_its_input() -> None:
    head = HEAD.copy()
    problem = lpm.PeeledProblem(head, [0, 1], [1.0, 1.0], 1.0)
    head[:] = 0
    assert np.abs(problem.head).max() > 0
    with pytest.raises(ValueError, match="read-only"):
        problem.head[0, 0] = 1.0
