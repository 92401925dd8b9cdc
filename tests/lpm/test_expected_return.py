"""Eq. (1) for one state: gradients, limits, ties, the global bound, and Eq. (2) beside it."""

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from strategies import random_rotation, seeds

import lpm
from lpm import expected_return_optimum as optimum
from lpm.expected_return import (
    angle,
    expected_return,
    gradient_angle,
    large_rho_angle,
    peeled_return,
    policy,
    small_rho_cosine,
    split_coefficients,
    tie_pitchfork_rho,
)
from lpm.expected_return_optimum import (
    Optimality,
    _log_shortfall_bound,
    maximise_expected_return,
)
from lpm.log_ratio import LogRatio, conditions


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def solve(head, values, energy, starts=6, **options):
    return maximise_expected_return(head, values, energy, rng(), starts=starts, **options)


@st.composite
def states(draw, max_log10_rho=2.8):
    """An ETF or a Gaussian head, action values with ties now and then, an energy."""
    random = rng(draw(seeds))
    classes = draw(st.integers(2, 6))
    energy = 100.0 ** draw(st.floats(-3.0, max_log10_rho))
    if draw(st.booleans()):
        head = lpm.simplex_etf(classes, classes + draw(st.integers(-1, 3)), rng=random)
    else:
        head = random.standard_normal((classes, draw(st.integers(1, 6))))
        head /= np.linalg.norm(head, axis=1).max()
    values = random.standard_normal(classes)
    if draw(st.booleans()):
        values = np.round(values)  # ties
    if np.ptp(values) == 0:
        values[0] += 1.0
    return head, values, energy


# --- Eq. (1) beside Eq. (2) --------------------------------------------------------------------


def test_the_two_objectives_differ() -> None:
    """K = 3, Q = (1, .5, 0), uniform policy: 0.5 against −log 3."""
    head = lpm.simplex_etf(3, 4)
    zero = np.zeros(4)
    assert expected_return(head, [1, 0.5, 0], zero) == pytest.approx(0.5, abs=1e-15)
    assert peeled_return(head, [1, 0.5, 0], zero) == pytest.approx(-math.log(3), abs=1e-15)
    # Q's scale counts in both, and log π is exact where π rounds to 1.
    assert peeled_return(head, [2, 0.5, 0], zero) == pytest.approx(-2 * math.log(3), abs=1e-15)
    assert expected_return(head, [3, 1.0, 0], 50 * head[0]) == pytest.approx(3.0, abs=1e-14)


def test_their_gradients_are_55_degrees_apart() -> None:
    head = lpm.simplex_etf(3, 5, energy=4.0, rng=rng())
    angle = gradient_angle(head, [1, 0.9, 0])
    assert math.degrees(angle) == pytest.approx(54.7912808971, abs=1e-9)
    assert math.cos(angle) == pytest.approx(small_rho_cosine([1, 0.9, 0]), abs=1e-14)
    assert gradient_angle(head, [1, 0.5, 0.5]) == pytest.approx(0.0, abs=1e-8)


def test_a_suboptimal_action_can_attract() -> None:
    """Sec. 4.2's split: Q = (1, .9, 0) and the uniform policy give (+, +, −)."""
    coefficients = split_coefficients(np.full(3, 1 / 3), [1, 0.9, 0])
    np.testing.assert_allclose(coefficients, [11 / 90, 8 / 90, -19 / 90], atol=1e-16)


@pytest.mark.theory
@given(states(max_log10_rho=0.7), seeds)
def test_gradients_against_finite_differences(state, seed) -> None:
    head, values, energy = state
    random = rng(seed)
    h = random.standard_normal(head.shape[1])
    h *= math.sqrt(energy) * random.uniform() / np.linalg.norm(h)
    split = split_coefficients(policy(head, h), values) @ head
    assert abs(split_coefficients(policy(head, h), values).sum()) <= 1e-14 * np.ptp(values)
    for i, direction in enumerate(np.eye(len(h))):
        step = 1e-5 * direction
        ahead, behind = (expected_return(head, values, h + s) for s in (step, -step))
        assert (ahead - behind) / 2e-5 == pytest.approx(split[i], abs=1e-8)


@pytest.mark.theory
@given(states(max_log10_rho=0.7), seeds)
def test_log_shortfall_its_gradient_and_hessian(state, seed) -> None:
    """What the search works on, against the definition and finite differences."""
    head, values, energy = state
    random = rng(seed)
    coordinates = math.sqrt(energy) * head
    with np.errstate(divide="ignore"):
        ratio = LogRatio(coordinates, np.log(values.max() - values)[None], np.zeros((1, len(head))))
    u = random.standard_normal((1, head.shape[1]))
    u /= 2 * np.linalg.norm(u)
    psi, q, p = ratio.value(u)
    shortfall = values.max() - expected_return(head, values, math.sqrt(energy) * u[0])
    assert math.exp(psi[0]) == pytest.approx(shortfall, rel=1e-9, abs=1e-12)
    step = 1e-5 / (1 + ratio.reach)
    for i, direction in enumerate(np.eye(u.shape[1])):
        ahead, behind = (ratio.value(u + s * direction) for s in (step, -step))
        slope = (ahead[0] - behind[0]) / (2 * step)
        assert slope[0] == pytest.approx(ratio.gradient(q, p)[0, i], abs=1e-8 * (1 + ratio.reach))
        bend = (ratio.gradient(*ahead[1:]) - ratio.gradient(*behind[1:])) / (2 * step)
        np.testing.assert_allclose(
            bend[0], ratio.hessian(q, p)[0, i], atol=1e-7 * (1 + ratio.reach) ** 2
        )


# --- the optimum -------------------------------------------------------------------------------


@pytest.mark.theory
@settings(max_examples=25)
@given(states())
def test_conditions_hold_and_the_bound_is_above(state) -> None:
    head, values, energy = state
    result = solve(head, values, energy)
    assert result.optimality is not Optimality.UNFINISHED
    assert np.linalg.norm(result.features) <= math.sqrt(energy) * (1 + 1e-12)
    assert result.value == pytest.approx(
        expected_return(head, values, result.features), abs=1e-11 * np.ptp(values)
    )
    assert result.log_shortfall_bound <= result.log_shortfall
    assert result.value <= result.upper_bound <= values.max()
    assert result.aligned_log_excess >= -1e-10
    assert result.aligned_regret >= -1e-10
    # The bound is tight once the best action is unique and V is above the second best value.
    second = np.sort(values)[-2]
    if result.stats["ties"] == 1 and result.value > second + 1e-6:
        assert result.optimality is Optimality.GLOBAL


@pytest.mark.theory
@settings(max_examples=25)
@given(states(), seeds)
def test_no_feasible_feature_beats_the_bound(state, seed) -> None:
    head, values, energy = state
    result = solve(head, values, energy, starts=2)
    random = rng(seed)
    for share in (1.0, 1.0, 0.3, 0.03, 1e-3):
        h = random.standard_normal(head.shape[1])
        h *= math.sqrt(energy) / np.linalg.norm(h)
        h = (1 - share) * result.features + share * h
        z = head @ h
        z -= z.max()
        with np.errstate(divide="ignore"):
            logs = np.log(values.max() - values)
        shortfall = np.logaddexp.reduce(z + logs) - np.logaddexp.reduce(z)
        assert shortfall >= result.log_shortfall_bound - 1e-12
        # Nor the value, whenever that is called global.
        if result.optimality is Optimality.GLOBAL:
            assert shortfall >= result.log_shortfall - 1e-8


@pytest.mark.theory
@settings(max_examples=25)
@given(states(), st.floats(0.0, 3.0))
def test_bound_from_a_poor_candidate_stays_below_the_optimum(state, excess) -> None:
    """The bound is a statement about the ball; the candidate only says where to look."""
    head, values, energy = state
    best = solve(head, values, energy, starts=2).log_shortfall
    gaps = values.max() - values
    poor = min(best + excess, math.log(gaps.max()) - 1e-6)
    centred = math.sqrt(energy) * (head - head.mean(axis=0))
    assert _log_shortfall_bound(centred, gaps, poor) <= best + 1e-12


@pytest.mark.theory
@settings(max_examples=15)
@given(states(max_log10_rho=1.5))
def test_many_more_starts_find_nothing_better(state) -> None:
    """Sixty random starts, compared with the structured ones alone."""
    head, values, energy = state
    few = solve(head, values, energy, starts=0)
    many = maximise_expected_return(head, values, energy, rng(1), starts=60)
    assert few.log_shortfall <= many.log_shortfall + 1e-9


@pytest.mark.theory
@settings(max_examples=25)
@given(states(max_log10_rho=1.5), st.floats(-3, 3), st.floats(-100, 100), seeds)
def test_symmetries(state, log10_scale, shift, seed) -> None:
    """Affine maps of Q, rotations, permutations of the actions, and translations of the head."""
    head, values, energy = state
    random = rng(seed)
    base = solve(head, values, energy)
    order = random.permutation(len(head))
    moved = (head + random.standard_normal(head.shape[1])) @ random_rotation(random, head.shape[1])
    scale = 2.0 ** round(log10_scale)
    other = solve(moved[order], scale * (values + round(shift))[order], energy)
    noise = 1e-12 * (1 + abs(shift)) / min(1.0, np.diff(np.unique(values)).min())
    assert other.log_shortfall == pytest.approx(
        base.log_shortfall + math.log(scale), abs=1e-9 + 10 * noise
    )
    assert (
        other.optimality is base.optimality
        or abs(base.log_shortfall - base.log_shortfall_bound - 1e-9) < 1e-8
    )


@pytest.mark.theory
@pytest.mark.parametrize("classes", [2, 3, 4, 7])
@pytest.mark.parametrize("rho", [0.3, 2.0, 20.0, 600.0])
def test_aligned_iff_all_other_values_agree(classes, rho) -> None:
    head = lpm.simplex_etf(classes, classes + 1, energy=2.0, rng=rng())
    values = np.zeros(classes)
    values[1] = 3.0
    result = solve(head, values, rho**2 / 2)
    assert result.label == 1
    # acos-free angle: sqrt(eps) would be 1e-8.
    assert result.angle <= 1e-12
    assert abs(result.aligned_log_excess) <= 1e-11
    # Theorem 1: π(a*) = 1/(1 + (K−1)A), so max Q − V = 3(1 − π).
    log_odds = lpm.optimal_log_odds(classes, rho)
    exact = math.log(3.0) - float(lpm.softplus(-log_odds))
    assert result.log_shortfall == pytest.approx(exact, abs=1e-12 * (1 + rho))
    assert result.optimality is Optimality.GLOBAL
    if classes > 2:
        values[0] = 0.5
        unequal = solve(head, values, rho**2 / 2)
        assert unequal.angle > 1e-4
        assert unequal.aligned_regret > 0 or rho > 300
        assert unequal.aligned_log_excess > 0


@pytest.mark.theory
@pytest.mark.parametrize("values", [(1, 0.9, 0), (2, 1, 0, -5), (1, 0.99, 0.98, 0.5, 0.2, 0)])
def test_small_rho_limit(values) -> None:
    """cos → √(K/(K−1))·Q̃_1/‖Q̃‖, with an error of order ρ."""
    head = lpm.simplex_etf(len(values), len(values), rng=rng())
    errors = [
        math.cos(solve(head, values, rho**2).angle) - small_rho_cosine(values)
        for rho in (1e-3, 1e-4)
    ]
    assert abs(errors[1]) <= 1e-4
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.02)


@pytest.mark.theory
@pytest.mark.parametrize("values", [(1, 0.9, 0), (2, 1, 0, -5), (1, 0.5, 0.4, 0.2, 0)])
def test_large_rho_limit(values) -> None:
    """∠ ≈ √((K−1)/K)‖centred log Δ‖/(ρ+K−1), relative error of order 1/ρ²."""
    head = lpm.simplex_etf(len(values), len(values), rng=rng())
    errors = []
    for rho in (300.0, 3000.0):
        result = solve(head, values, rho**2)
        assert result.optimality is Optimality.GLOBAL
        errors.append(abs(result.angle / float(large_rho_angle(values, rho)) - 1))
    assert errors[0] <= 1e-3
    assert errors[1] <= errors[0] / 50 + 1e-9


def mpmath_optimum(values, rho, start) -> tuple:
    """K = 3 in the plane at 40 digits: h = ρ(cos t, sin t), root of d log R/dt."""
    frame = [
        (mpmath.cos(2 * mpmath.pi * j / 3), mpmath.sin(2 * mpmath.pi * j / 3)) for j in range(3)
    ]
    gaps = [mpmath.mpf(max(values)) - mpmath.mpf(v) for v in values]

    def log_shortfall(t):
        e = [mpmath.exp(rho * (mpmath.cos(t) * x + mpmath.sin(t) * y)) for x, y in frame]
        return mpmath.log(mpmath.fdot(gaps, e) / mpmath.fsum(e))

    t = mpmath.findroot(lambda s: mpmath.diff(log_shortfall, s), mpmath.mpf(start))
    return t, log_shortfall(t)


@pytest.mark.theory
@pytest.mark.parametrize("rho", [0.01, 1.0, 5.0, 40.0, 600.0])
def test_optimum_at_40_digits(rho) -> None:
    values = (1.0, 0.75, 0.0)
    turn = 2 * np.pi * np.arange(3) / 3
    head = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    result = solve(head, values, rho**2)
    start = math.atan2(result.features[1], result.features[0])
    with mpmath.workdps(40):
        angle, log_shortfall = mpmath_optimum(values, rho, start)
        assert abs(abs(angle) - result.angle) <= 1e-13
        assert abs(log_shortfall - result.log_shortfall) <= 1e-14 * (1 + 2 * rho)


# --- ties --------------------------------------------------------------------------------------


@pytest.mark.theory
@pytest.mark.parametrize("classes", [3, 4, 8])
def test_pitchfork_of_two_tied_actions(classes) -> None:
    """From both sides: on w_1 + w_2 below, off it above, by √ of the distance."""
    critical = tie_pitchfork_rho(classes)
    head = lpm.simplex_etf(classes, classes, rng=rng())
    values = np.zeros(classes)
    values[[0, 1]] = 1.0
    middle = head[0] + head[1]

    def tilt(rho) -> float:
        result = solve(head, values, rho**2)
        assert result.optimality is not Optimality.UNFINISHED
        assert result.stats["ties"] == 2
        return angle(result.features, middle)

    assert tilt(critical * 0.5) <= 1e-9
    assert tilt(critical * 0.999) <= 1e-6
    above = [tilt(critical * (1 + step)) for step in (1e-3, 4e-3)]
    assert above[0] > 0.01
    assert above[1] / above[0] == pytest.approx(2.0, rel=0.02)
    # Far above, one of the two has it all.
    far = solve(head, values, (20 * critical) ** 2)
    assert policy(head, far.features)[:2].max() > 0.99


@pytest.mark.theory
@pytest.mark.parametrize("classes", [3, 4, 8])
def test_curvature_on_the_shared_direction_changes_sign(classes) -> None:
    """The Lagrangian's Hessian across w_1 − w_2 vanishes at the pitchfork."""
    head = lpm.simplex_etf(classes, classes - 1)
    gaps = np.ones(classes)
    gaps[[0, 1]] = 0.0
    middle = (head[0] + head[1]) / np.linalg.norm(head[0] + head[1])
    for side, sign in ((-1e-6, 1), (1e-6, -1)):
        rho = tie_pitchfork_rho(classes) * (1 + side)
        with np.errstate(divide="ignore"):
            ratio = LogRatio(rho * head, np.log(gaps)[None], np.zeros((1, classes)))
        report = conditions(ratio, middle[None])
        assert np.sign(report.curvature[0]) == sign
        assert abs(report.curvature[0]) <= 1e-4


def test_saddle_is_left_along_its_negative_curvature(monkeypatch) -> None:
    """Even when every start ends on the shared direction."""

    def only_shared(ratio, *_):
        middle = ratio.coordinates[:2].sum(axis=0, keepdims=True)
        return middle / np.linalg.norm(middle)

    monkeypatch.setattr(optimum, "_structured_starts", only_shared)
    head = lpm.simplex_etf(4, 3)
    result = solve(head, [1, 1, 0, 0], 25.0, starts=0)
    assert result.curvature > 1e-3
    assert policy(head, result.features)[:2].max() > 0.9


def test_pitchfork_needs_a_worse_action() -> None:
    assert tie_pitchfork_rho(3) == pytest.approx(2.0, abs=1e-15)
    with pytest.raises(ValueError, match="K >= 3, got num_classes=2"):
        tie_pitchfork_rho(2)


# --- edges -------------------------------------------------------------------------------------


def test_interior_optimum() -> None:
    """The best action inside the hull of the others: no need of a large norm."""
    head = np.array([[0.1, 0.0], [1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    result = solve(head, [1.0, 0.0, 0.0, 0.0], 1e4)
    assert np.linalg.norm(result.features) < 2.0
    assert result.optimality is Optimality.GLOBAL
    peeled = lpm.solve(lpm.PeeledProblem(head, [0], [1.0], 1e4))
    np.testing.assert_allclose(result.features, peeled.features[0], atol=1e-6)


def test_ground_truth_bound_at_a_moderate_rho() -> None:
    """Where the proof does not close, the answer says local and the bound says how far."""
    values = [1.0, 0.95, 0.9, 0.0, -1.0]
    result = solve(lpm.simplex_etf(5, 5), values, 1.0)
    assert result.value < 0.95
    assert result.optimality is Optimality.LOCAL
    assert "upper_bound" in result.optimality.advice
    assert 0 < result.upper_bound - result.value < 0.2


def test_iteration_limit_is_said() -> None:
    head = lpm.simplex_etf(6, 6, rng=rng())
    result = solve(head, [5, 4, 3, 2, 1, 0], 100.0, starts=0, max_iterations=1)
    assert result.optimality is Optimality.UNFINISHED
    assert "max_iterations" in result.optimality.advice
    assert result.upper_bound >= solve(head, [5, 4, 3, 2, 1, 0], 100.0).value


def test_best_action_out_of_reach() -> None:
    """On a line with the best action between others, V approaches the second best value only:
    a plateau where log(max Q − V) has no digits left is stationary, and alignment costs a lot."""
    head = np.array([[2.0], [1.0], [0.1], [-0.2], [-2.0]])
    result = solve(head, [0.6, -0.8, 1.1, 0.1, -0.5], 3e5)
    assert result.optimality is not Optimality.UNFINISHED
    assert result.value == pytest.approx(0.6, abs=1e-9)
    tiny = solve(lpm.simplex_etf(3, 2), [1.0, 0.5, 0.0], 1e6)
    assert tiny.aligned_regret >= 0


def test_zero_own_vector_has_no_angle() -> None:
    head = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    result = solve(head, [1.0, 0.0, 0.5], 4.0)
    assert math.isnan(result.angle)
    assert math.isfinite(result.value)


HEAD = lpm.simplex_etf(3, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_values": [1.0, 0.0]}, r"\(K,\) with K = 3, got shape \(2,\)"),
        ({"action_values": [1.0, math.nan, 0.0]}, "action_values has 1 non-finite"),
        ({"action_values": [2.0, 2.0, 2.0]}, "all 3 action values equal 2.*drop this state"),
        ({"feature_energy": 0.0}, "feature_energy must be > 0 and finite, got 0.0"),
        ({"feature_energy": math.inf}, "got inf"),
        ({"starts": -1}, "starts must be >= 0, got -1"),
        ({"head": np.ones((3, 4))}, "rows of the head are equal"),
    ],
)
def test_refused(changes, message) -> None:
    arguments = {"head": HEAD, "action_values": [1.0, 0.5, 0.0], "feature_energy": 1.0}
    with pytest.raises(ValueError, match=message):
        maximise_expected_return(**(arguments | {"rng": rng()} | changes))


def test_other_bad_input() -> None:
    with pytest.raises(ValueError, match=r"features must have shape \(d,\) = \(4,\), got \(3,\)"):
        expected_return(HEAD, [1, 0, 0], np.zeros(3))
    with pytest.raises(ValueError, match=r"sum 6: pass softmax"):
        split_coefficients([1.0, 2.0, 3.0], [1, 0, 0])
    with pytest.raises(ValueError, match="unique best action"):
        large_rho_angle([1, 1, 0], 10.0)
    with pytest.raises(ValueError, match="K >= 2 actions"):
        small_rho_cosine([1.0])
    assert math.isnan(gradient_angle([[1.0], [-1.0], [0.0]], [0.0, 0.0, 1.0]))
