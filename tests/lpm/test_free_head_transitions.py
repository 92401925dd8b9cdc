"""R1 and R2: against the full optimality system in mpmath, and from both sides by the solver."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpm.free_head import FreeHeadProblem, solve_free_head
from lpm.free_head_transitions import (
    minority_collapse_ratio,
    minority_vanishing_ratio,
    vanishing_energy,
)

pytestmark = pytest.mark.theory

SETTINGS = [
    (5, 5, 5.0, 1.0),
    (2, 3, 1.0, 1.0),
    (1, 2, 1.0, 2.0),
    (6, 2, 0.4, 2.0),
    (3, 9, 0.2, 0.2),
]


def dense_residuals(majority, minority, tau, ratio, alpha_a, c1, c2):
    """Optimality at alpha_B = 0, multiplier w_B, from K x K logits: nothing of the reduction."""
    k = majority + minority
    # Logits: alpha_A (I - J / K_A) on the majority, plus the rank-one contrast c v^T.
    root = [mpmath.sqrt(majority), mpmath.sqrt(minority)]
    v = [mpmath.sqrt(mpmath.mpf(minority) / k), -mpmath.sqrt(mpmath.mpf(majority) / k)]
    level = [0] * majority + [1] * minority
    c = (c1, c2)

    def logit(i, j):
        a, b = level[i], level[j]
        value = c[a] * v[b] / (root[a] * root[b])
        if a == b == 0:
            value += alpha_a * ((i == j) - mpmath.mpf(1) / majority)
        return value

    share = [ratio / (majority * ratio + minority), 1 / (majority * ratio + minority)]
    gradient = mpmath.matrix(k, k)
    for i in range(k):
        weights = [mpmath.exp(logit(i, j)) for j in range(k)]
        total = sum(weights)
        for j in range(k):
            gradient[i, j] = share[level[i]] * (weights[j] / total - (i == j))
    size = mpmath.sqrt(c1**2 + c2**2)
    mu = share[1]
    # -G u = mu (singular direction): the contrast pair, and one sum-zero vector of the majority.
    e = [mpmath.mpf(v[level[j]]) / root[level[j]] for j in range(k)]
    pulled = [-sum(gradient[i, j] * e[j] for j in range(k)) for i in range(k)]
    residuals = [
        pulled[0] * root[0] - mu * c1 / size,
        pulled[-1] * root[1] - mu * c2 / size,
        (majority - 1) * alpha_a + size - tau,
    ]
    if majority > 1:
        residuals.append(-(gradient[0, 0] - gradient[0, 1]) - mu)
    return residuals


@pytest.mark.parametrize("setting", SETTINGS)
def test_collapse_ratio_against_the_full_system(setting) -> None:
    """Newton in 40 digits on the K x K optimality conditions ends at the same R1, to 1e-12."""
    majority, minority, feature_energy, head_energy = setting
    ours = minority_collapse_ratio(*setting)
    scale = 10**6
    counts = [round(ours * scale)] * majority + [scale] * minority
    near = solve_free_head(FreeHeadProblem(counts, feature_energy, head_energy))
    k = majority + minority
    contrast = near.logits @ np.where(
        np.arange(k) < majority, np.sqrt(minority / majority), -np.sqrt(majority / minority)
    )
    start = [
        ours * 1.001,
        contrast[0] * np.sqrt(majority / k),
        contrast[-1] * np.sqrt(minority / k),
    ]
    with mpmath.workdps(40):
        tau = k * mpmath.sqrt(mpmath.mpf(feature_energy) * mpmath.mpf(head_energy))
        if majority > 1:
            start.append(near.logits[0, 0] - near.logits[0, 1])

            def system(ratio, c1, c2, alpha):
                return dense_residuals(majority, minority, tau, ratio, alpha, c1, c2)
        else:

            def system(ratio, c1, c2):
                return dense_residuals(majority, minority, tau, ratio, mpmath.mpf(0), c1, c2)

        root = mpmath.findroot(system, [mpmath.mpf(float(value)) for value in start])
        assert ours == pytest.approx(float(root[0]), rel=1e-12)


def near_collapse(setting, offset):
    """The general solver at R1 (1 + offset): own minus minority logit, and N mu / n_B - 1."""
    majority, minority, *powers = setting
    unit = 10**12
    above = round(minority_collapse_ratio(*setting) * (1 + offset) * unit)
    counts = [above] * majority + [unit] * minority
    solution = solve_free_head(FreeHeadProblem(counts, *powers), tolerance=1e-15)
    split = solution.logits[-1, -1] - solution.logits[-1, -2]
    return split, solution.multiplier * np.sum(counts) / unit - 1, solution


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("offset", [1e-7, 1e-5, 1e-3])
def test_collapse_from_both_sides(setting, offset) -> None:
    """The general solver separates the minority just below R1 and merges it just above."""
    split, threshold, solution = near_collapse(setting, -offset)
    assert split > 0.01 * offset
    assert threshold < 0
    assert solution.head_distances[-1, -2] > 0
    split, threshold, solution = near_collapse(setting, offset)
    assert split == pytest.approx(0.0, abs=1e-14)
    assert threshold > 0
    assert solution.head_cosines[-1, -2] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("side", [-1, 1])
def test_collapse_ratio_extrapolated_from_either_side(setting, side) -> None:
    """Where the solver's split (from below) or multiplier condition (above) reaches 0."""
    offsets = side * 1e-3 * np.arange(1, 8)
    values = np.array([near_collapse(setting, offset)[0 if side < 0 else 1] for offset in offsets])
    # Inverse interpolation: the offset as a polynomial of the value, at value 0.
    scale = np.abs(values).max()
    at_zero = np.polynomial.Polynomial.fit(values / scale, offsets, 6)(0.0)
    assert abs(at_zero) < 1e-10


@pytest.mark.parametrize("setting", [(5, 5, 0.5, 0.5), (2, 3, 0.1, 0.3), (4, 1, 0.2, 0.2)])
@pytest.mark.parametrize("offset", [1e-10, 1e-6, 1e-3])
def test_vanishing_from_both_sides(setting, offset) -> None:
    """Norms of minority vectors are positive just below R2 and exactly zero just above."""
    majority, minority, *powers = setting
    critical, unit = minority_vanishing_ratio(*setting), 10**12
    for sign in (-1, 1):
        above = round(critical * (1 + sign * offset) * unit)
        counts = [above] * majority + [unit] * minority
        solution = solve_free_head(FreeHeadProblem(counts, *powers), tolerance=1e-15)
        norms = solution.head_norms[majority:]
        if sign < 0:
            assert np.all(norms > 0.01 * offset)
        else:
            assert np.all(norms == 0.0)
            assert np.isnan(solution.head_cosines[-1]).all()


def test_known_values() -> None:
    assert minority_collapse_ratio(5, 5, 5.0, 1.0) == pytest.approx(12.19245, abs=5e-6)
    assert minority_vanishing_ratio(5, 5, 5.0, 1.0) == np.inf


@pytest.mark.parametrize("ratio", [1e3, 1e6, 1e9])
def test_nothing_vanishes_where_r2_is_infinite(ratio) -> None:
    solution = solve_free_head(FreeHeadProblem([ratio] * 5 + [1] * 5, 5.0, 1.0))
    assert np.all(solution.head_norms > 1e-3)


@settings(max_examples=200)
@given(st.integers(1, 30), st.integers(2, 30), st.floats(0.01, 10.0))
def test_order_of_the_transitions(majority, minority, rho) -> None:
    """1 < R1 <= R2, and R1 grows with the norm."""
    first = minority_collapse_ratio(majority, minority, rho, rho)
    assert 1.0 < first < np.inf
    assert first <= minority_vanishing_ratio(majority, minority, rho, rho)
    assert first < minority_collapse_ratio(majority, minority, 1.01 * rho, 1.01 * rho)


@given(st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_only_the_mean_norm_matters(feature_energy, head_energy) -> None:
    rho = np.sqrt(feature_energy * head_energy)
    for function in (minority_collapse_ratio, minority_vanishing_ratio):
        assert function(3, 4, feature_energy, head_energy) == pytest.approx(
            function(3, 4, rho, rho), rel=1e-10
        )


def test_large_norms_stay_finite_or_say_so() -> None:
    assert minority_collapse_ratio(5, 5, 100.0, 100.0) > 1e20
    with pytest.raises(ValueError, match=r"R1 = exp\(\d+.*beyond floating point"):
        minority_collapse_ratio(5, 5, 1e4, 1e4)


@pytest.mark.parametrize("function", [minority_collapse_ratio, minority_vanishing_ratio])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 1.0, 1.0), "K_A must be a whole number >= 1, got 0"),
        ((2.5, 3, 1.0, 1.0), "K_A must be a whole number >= 1, got 2.5"),
        ((2, 0, 1.0, 1.0), "K_B must be a whole number"),
        ((2, 2, 0.0, 1.0), "feature_energy must be positive"),
        ((2, 2, 1.0, np.nan), "head_energy must be positive"),
    ],
)
def test_bad_input_is_refused(function, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_one_minority_class_cannot_coincide() -> None:
    with pytest.raises(ValueError, match="K_B must be a whole number >= 2, got 1"):
        minority_collapse_ratio(5, 1, 1.0, 1.0)


@pytest.mark.theory
@pytest.mark.parametrize(("majority", "minority"), [(5, 5), (2, 1), (3, 17), (40, 4)])
@pytest.mark.parametrize("head_energy", [0.1, 1.0, 7.0])
def test_vanishing_energy_separates_finite_from_infinite(majority, minority, head_energy) -> None:
    limit = vanishing_energy(majority, minority, head_energy)
    below = minority_vanishing_ratio(majority, minority, limit * (1 - 1e-9), head_energy)
    above = minority_vanishing_ratio(majority, minority, limit * (1 + 1e-9), head_energy)
    assert np.isfinite(below)
    assert above == np.inf


def test_one_majority_class_never_lets_the_others_vanish() -> None:
    assert vanishing_energy(1, 4, 1.0) == 0.0
