"""The weight-decay form: certificate, global-optimality condition, factors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lpm.free_head import FreeHeadStatus
from lpm.free_head_penalised import WeightDecayProblem, solve_weight_decay

pytestmark = pytest.mark.theory

counts_lists = st.lists(st.sampled_from([1, 2, 3, 7, 40, 500]), min_size=2, max_size=7)


def objective(features, head, problem):
    """The nonconvex problem as written."""
    logits = features @ head.T
    share = problem.counts / problem.counts.sum()
    loss = share @ (np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
    return (
        loss
        + 0.5 * problem.head_decay * (head**2).sum()
        + 0.5 * problem.feature_decay * (problem.counts @ features**2).sum()
    )


@settings(max_examples=25)
@given(counts_lists, st.floats(1e-6, 0.1), st.floats(1e-6, 0.1))
def test_certified_and_consistent(counts, feature_decay, head_decay) -> None:
    """The gap is tiny, the factors' own objective the one reported, the gradient in bounds."""
    problem = WeightDecayProblem(counts, feature_decay, head_decay)
    solution = solve_weight_decay(problem)
    assert solution.status is FreeHeadStatus.OPTIMAL
    assert 0.0 < solution.gap <= 1e-10
    assert objective(solution.features, solution.head, problem) == pytest.approx(
        solution.objective, rel=1e-10, abs=1e-13
    )
    assert solution.spectral_norm <= problem.logit_decay * (1 + 1e-6)
    np.testing.assert_allclose(solution.features @ solution.head.T, solution.logits, atol=1e-10)


@pytest.mark.parametrize("counts", [[30, 5, 2], [9, 9, 4, 1]])
def test_local_search_ends_at_the_global_value(counts) -> None:
    """Every local minimum is global (Zhu et al., 2021): L-BFGS on H and W finds our value."""
    problem = WeightDecayProblem(counts, 2e-3, 5e-3)
    solution, k = solve_weight_decay(problem), len(counts)
    rng = np.random.default_rng(0)
    found = minimize(
        lambda x: objective(*x.reshape(2, k, k), problem),
        rng.normal(size=2 * k * k),
        method="L-BFGS-B",
        options={"maxfun": 10**6, "maxiter": 10**4, "ftol": 1e-15, "gtol": 1e-9},
    )
    assert found.fun == pytest.approx(solution.objective, abs=1e-7)
    assert found.fun >= solution.objective - solution.gap


def test_too_much_decay_gives_zero() -> None:
    solution = solve_weight_decay(WeightDecayProblem([5, 5, 5], 10.0, 10.0))
    assert np.all(solution.logits == 0.0)
    assert np.all(solution.head_norms == 0.0)
    assert np.isnan(solution.head_cosines).all()
    assert solution.objective == pytest.approx(np.log(3))


def test_step_limit_is_reported() -> None:
    problem = WeightDecayProblem([50, 20, 9, 5, 2, 1], 1e-3, 1e-3)
    short, full = solve_weight_decay(problem, max_steps=2), solve_weight_decay(problem)
    assert short.status is FreeHeadStatus.GAP_OPEN
    assert short.objective - short.gap <= full.objective <= short.objective


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([5, 1.5], 1.0, 1.0), r"counts\[1\] = 1.5"),
        (([5, 1], 0.0, 1.0), "feature_decay"),
        (([5, 1], 1.0, np.inf), "head_decay"),
    ],
)
def test_bad_input_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        WeightDecayProblem(*arguments)
