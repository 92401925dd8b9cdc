"""A fixed ETF head under an average norm bound: lengths follow weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from lpm.free_head_fixed import average_norm_lengths

pytestmark = pytest.mark.theory

weight_lists = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8)


def loss(lengths, weights, k, head_energy):
    decay = np.exp(-np.sqrt(head_energy) * k / (k - 1) * np.asarray(lengths))
    return np.dot(weights, np.log1p((k - 1) * decay))


def test_known_lengths() -> None:
    """K = 4, weights 1, 10, 100, E_H = 5, unit head: .570, 1.892, 3.331."""
    solution = average_norm_lengths([1, 10, 100], 4, 5.0, 1.0)
    np.testing.assert_allclose(solution.lengths, [0.570, 1.892, 3.331], atol=5e-4)
    assert solution.gap < 1e-12


@given(weight_lists, st.integers(2, 20), st.floats(0.01, 50.0), st.floats(0.1, 10.0))
def test_optimality(weights, k, feature_energy, head_energy) -> None:
    """Budget spent, stationary, gap small, heavier states longer."""
    solution = average_norm_lengths(weights, k, feature_energy, head_energy)
    weights, r = np.array(weights), solution.lengths
    assert np.mean(r**2) == pytest.approx(feature_energy, rel=1e-12)
    assert 0.0 < solution.gap <= 1e-10 * max(1.0, solution.objective)
    assert solution.objective == pytest.approx(loss(r, weights, k, head_energy), rel=1e-9)
    rate = np.sqrt(head_energy) * k / (k - 1)
    pull = weights * rate * (k - 1) / (np.exp(rate * r) + k - 1)
    np.testing.assert_allclose(pull, 2 * solution.multiplier * r, rtol=1e-6)
    assert np.all(np.diff(r[np.argsort(weights)]) >= -1e-9)


@given(weight_lists, st.integers(0, 2**32 - 1))
def test_no_feasible_lengths_beat_it(weights, seed) -> None:
    solution = average_norm_lengths(weights, 5, 3.0, 1.0)
    rng = np.random.default_rng(seed)
    for scale in (0.01, 0.3, 3.0):
        other = np.abs(solution.lengths + scale * rng.normal(size=len(weights)))
        other *= np.sqrt(3.0 * len(weights)) / np.linalg.norm(other)
        assert loss(other, weights, 5, 1.0) >= solution.objective - solution.gap - 1e-12


def test_full_vectors_do_no_better() -> None:
    """Directions along the head rows are a result, not an assumption: SLSQP on whole features."""
    k, weights, labels = 4, np.array([1.0, 10.0, 100.0]), np.array([0, 1, 1])
    head = np.sqrt(k / (k - 1)) * (np.eye(k) - 1 / k)

    def objective(flat):
        logits = flat.reshape(3, k) @ head.T
        return weights @ (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(3), labels])

    found = minimize(
        objective,
        0.1 * np.random.default_rng(0).normal(size=3 * k),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: 15.0 - x @ x},
        options={"maxiter": 500, "ftol": 1e-14},
    )
    ours = average_norm_lengths(weights, k, 5.0, 1.0)
    assert found.fun == pytest.approx(ours.objective, abs=1e-6)


def test_multiplier_is_a_derivative() -> None:
    step, weights = 1e-5, [1.0, 4.0, 0.2]

    def value(energy):
        return average_norm_lengths(weights, 6, energy, 2.0).objective

    slope = (value(2.0 + step) - value(2.0 - step)) / (2 * step * len(weights))
    assert average_norm_lengths(weights, 6, 2.0, 2.0).multiplier == pytest.approx(-slope, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 4, 1.0, 1.0), "nonempty"),
        (([1.0, 0.0], 4, 1.0, 1.0), r"weights\[1\] = 0"),
        (([1.0, np.nan], 4, 1.0, 1.0), r"weights\[1\] = nan"),
        (([1.0], 1, 1.0, 1.0), "num_classes"),
        (([1.0], 4, -1.0, 1.0), "feature_energy"),
        (([1.0], 4, 1.0, 0.0), "head_energy"),
    ],
)
def test_bad_input_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        average_norm_lengths(*arguments)
