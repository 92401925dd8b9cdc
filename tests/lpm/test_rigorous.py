"""Enclosures against closed forms, 60-digit optima, bad candidates, and exact arithmetic."""

import math
import sys
from decimal import Decimal
from fractions import Fraction

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from strategies import etf_problems, general_problems, random_feasible, seeds

import lpm
from lpm import enclosure as balls
from lpm import rigorous_free
from lpm.enclosure import Enclosure
from lpm.rigorous_fixed import enclose_fixed_head
from lpm.rigorous_free import enclose_free_head

flint = pytest.importorskip("flint")


def encloses(enclosure: Enclosure, number: mpmath.mpf, tolerance=0) -> bool:
    """Both by the decimal ends and by the float64 ends."""
    lower, upper = mpmath.mpf(enclosure.lower_text), mpmath.mpf(enclosure.upper_text)
    assert Decimal(enclosure.lower) <= Decimal(enclosure.lower_text)
    assert Decimal(enclosure.upper_text) <= Decimal(enclosure.upper)
    return bool(lower - tolerance <= number <= upper + tolerance)


def is_sound(enclosure: Enclosure) -> bool:
    ends = (enclosure.lower, enclosure.upper, enclosure.width)
    return not any(map(math.isnan, ends)) and enclosure.lower <= enclosure.upper


# --- fixed head --------------------------------------------------------------------------------


@pytest.mark.theory
@pytest.mark.parametrize("rho", [1e-3, 1.0, 5.0, 30.0, 600.0])
@pytest.mark.parametrize("classes", [2, 4, 18])
def test_theorem_1_is_enclosed(classes, rho) -> None:
    """The float64 head is an ETF to a few eps only: F* moves by at most ρ times that."""
    head = lpm.simplex_etf(classes, classes + 1, rng=np.random.default_rng(0))
    problem = lpm.PeeledProblem(head, [0, 1], [2.0, 3.0], rho**2)
    enclosure = enclose_fixed_head(problem)
    with mpmath.workdps(60):
        exact = mpmath.log(classes - 1) - mpmath.mpf(rho) * classes / (classes - 1)
        for state in enclosure.log_odds:
            assert encloses(state, exact, tolerance=4e-15 * rho)
            assert state.width <= 1e-12
    assert enclosure.width <= 1e-12 * enclosure.upper + 1e-320


@pytest.mark.theory
def test_theorem_1_with_a_head_that_float64_holds_exactly() -> None:
    """d = K = 4 along the cube's diagonals, and ±1: F* and the loss to 40 digits."""
    cube = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])  # E_W = 3
    for head, e_w in ((cube, 3), (np.array([[1.0], [-1.0]]), 1)):
        classes = len(head)
        for e_h in (0.125, 7.0, 360_000.0):
            enclosure = enclose_fixed_head(lpm.PeeledProblem(head, [0], [0.75], e_h))
            with mpmath.workdps(60):
                rho = mpmath.sqrt(mpmath.mpf(e_h) * e_w)
                exact = mpmath.log(classes - 1) - rho * classes / (classes - 1)
                loss = mpmath.mpf(0.75) * mpmath.log1p(mpmath.exp(exact))
                # 40 digits of the ends; the enclosure itself is wider than their rounding.
                assert encloses(enclosure.log_odds[0], exact, tolerance=1e-37 * (1 + rho))
                assert encloses(enclosure, loss, tolerance=1e-37 * loss)
            assert enclosure.log_odds[0].width <= 1e-24


def optimum_at_60_digits(head, k, energy, start) -> mpmath.mpf:
    """F at the root of ∇F + 2λh = 0, ‖h‖² = E, by mpmath's own Newton iteration."""
    rows = [[mpmath.mpf(x) for x in row] for row in head.tolist()]
    differences = [
        [a - b for a, b in zip(row, rows[k], strict=True)] for j, row in enumerate(rows) if j != k
    ]

    def log_odds(h):
        return mpmath.log(mpmath.fsum(mpmath.exp(mpmath.fdot(h, d)) for d in differences))

    def system(*unknowns):
        *h, lam = unknowns
        z = [mpmath.fdot(h, d) for d in differences]
        e = [mpmath.exp(x - max(z)) for x in z]
        total = mpmath.fsum(e)
        return [
            mpmath.fsum(e[j] * d[i] for j, d in enumerate(differences)) / total + 2 * lam * h[i]
            for i in range(len(h))
        ] + [mpmath.fdot(h, h) - mpmath.mpf(energy)]

    problem = lpm.PeeledProblem(head, [k], [1.0], energy)
    lam = float(lpm.certify(problem, start[None]).multipliers[0])
    root = mpmath.findroot(system, [*map(mpmath.mpf, start.tolist()), mpmath.mpf(lam)])
    return log_odds(list(root[:-1]))


@pytest.mark.theory
@pytest.mark.parametrize("rho", [1e-2, 1.0, 30.0, 600.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_optimum_at_60_digits_is_enclosed(rho, seed) -> None:
    rng = np.random.default_rng(seed)
    head = rng.standard_normal((4, 3))
    head /= np.linalg.norm(head, axis=1).max()
    k = int(np.argmax(head @ rng.standard_normal(3)))  # a vertex of the hull: active ball
    problem = lpm.PeeledProblem(head, [k], [1.0], rho**2)
    (enclosure,) = enclose_fixed_head(problem).log_odds
    with mpmath.workdps(60):
        exact = optimum_at_60_digits(head, k, rho**2, lpm.solve(problem).features[0])
        assert encloses(enclosure, exact, tolerance=1e-38 * (1 + rho))
    assert enclosure.width <= 1e-12


@pytest.mark.theory
@settings(max_examples=30)
@given(st.one_of(etf_problems(), general_problems()))
def test_width_and_agreement_with_float64(problem) -> None:
    """Any head, inactive balls and d < K − 1 too, ρ from 1e-3 to 1e4."""
    enclosure = enclose_fixed_head(problem)
    solution = lpm.solve(problem)
    rho = float(np.sqrt(problem.energies.max()) * np.linalg.norm(problem.head, axis=1).max())
    for state, odds in zip(enclosure.log_odds, solution.log_odds, strict=True):
        assert is_sound(state)
        assert state.width <= 1e-12 * max(1.0, abs(state.upper))
        noise = 1e-13 * (1 + rho)
        assert state.lower - noise <= odds <= state.upper + noise
    assert is_sound(enclosure)
    # The loss is softplus(F), and its slope there is at most itself.
    steepest = max(1.0, *(abs(state.upper) for state in enclosure.log_odds))
    assert enclosure.width <= 1e-12 * steepest * enclosure.upper + 1e-320
    certificate = lpm.certify(problem, solution.features)
    assert certificate.lower_bound * (1 - 1e-10) <= enclosure.upper
    assert enclosure.lower <= certificate.upper_bound * (1 + 1e-10)


@pytest.mark.theory
@settings(max_examples=30)
@given(general_problems(max_log10_rho=2.5), seeds, st.floats(-8, 1))
def test_any_candidate_gives_a_true_if_wide_enclosure(problem, seed, log10_noise) -> None:
    """Feasible or not, good or bad: the optimum stays inside, and badness shows."""
    rng = np.random.default_rng(seed)
    kick = 10.0**log10_noise * random_feasible(rng, problem)
    tight = enclose_fixed_head(problem)
    wide = enclose_fixed_head(problem, lpm.solve(problem).features + kick, refine=False)
    assert is_sound(wide)
    assert wide.contains(tight) or wide.width <= 1e-12 * wide.upper
    for one, other in zip(wide.log_odds, tight.log_odds, strict=True):
        assert Decimal(one.lower_text) <= Decimal(other.upper_text)
        assert Decimal(other.lower_text) <= Decimal(one.upper_text)


def test_bad_candidates_are_wide_and_refinement_mends_them() -> None:
    head = lpm.simplex_etf(4, 6, rng=np.random.default_rng(2))
    problem = lpm.PeeledProblem(head, [0], [1.0], 25.0)
    optimum = enclose_fixed_head(problem)
    for bad in (-5.0 * head[[0]], np.zeros((1, 6)), 1e6 * head[[1]], 1e-300 * head[[2]]):
        wide = enclose_fixed_head(problem, bad, refine=False)
        assert wide.width > 1e-2
        assert wide.contains(optimum)
        assert enclose_fixed_head(problem, bad).width <= 1e-16


def test_infeasible_candidate_cannot_lower_the_upper_bound() -> None:
    """Twice the optimum has a lower F, but is not in the ball."""
    head = lpm.simplex_etf(4, 6, rng=np.random.default_rng(2))
    problem = lpm.PeeledProblem(head, [0], [1.0], 25.0)
    outside = 10.0 * head[[0]]
    assert float(problem.log_odds(outside)[0]) < lpm.optimal_log_odds(4, 5.0) - 1
    enclosure = enclose_fixed_head(problem, outside, refine=False)
    assert enclosure.log_odds[0].upper >= lpm.optimal_log_odds(4, 5.0) - 1e-13


def test_inactive_ball() -> None:
    """λ = 0: action 0 lies inside the hull of the others; F* does not depend on E_H."""
    head = np.array([[0.1, 0.0], [1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
    small, large = (
        enclose_fixed_head(lpm.PeeledProblem(head, [0], [1.0], e)).log_odds[0] for e in (50.0, 1e6)
    )
    assert max(small.width, large.width) <= 1e-24
    assert abs(Decimal(small.upper_text) - Decimal(large.upper_text)) <= Decimal("1e-23")


def test_states_share_enclosures_and_weights_add() -> None:
    head = lpm.simplex_etf(3, 4)
    labels, weights = [0, 1, 0, 2], [1e-12, 1.0, 3.0, 1e12]
    problem = lpm.PeeledProblem(head, labels, weights, [4.0, 4.0, 4.0, 9.0])
    enclosure = enclose_fixed_head(problem)
    assert enclosure.log_odds[0] is enclosure.log_odds[2]
    assert enclosure.log_odds[0].upper > enclosure.log_odds[3].upper
    assert enclosure.lower == pytest.approx(-lpm.solve(problem).objective, rel=1e-13)
    assert enclosure.width <= 1e-12 * enclosure.upper


# --- learned head ------------------------------------------------------------------------------


@pytest.mark.theory
@pytest.mark.parametrize("rho", [0.05, 1.0, math.sqrt(5.0), 30.0, 600.0])
@pytest.mark.parametrize("classes", [2, 4, 10])
def test_balanced_closed_form_is_enclosed(classes, rho) -> None:
    """CE = log(1 + (K−1)e^{−ρK/(K−1)}), at 40 digits, also where it is 1e-347."""
    energies = (0.5 * rho**2, 2.0)
    enclosure = enclose_free_head([7] * classes, *energies)
    with mpmath.workdps(60):
        exact_rho = mpmath.sqrt(mpmath.mpf(energies[0]) * mpmath.mpf(energies[1]))
        exact = mpmath.log1p((classes - 1) * mpmath.exp(-exact_rho * classes / (classes - 1)))
        assert encloses(enclosure, exact, tolerance=exact * mpmath.mpf("1e-38"))
        width = mpmath.mpf(enclosure.upper_text) - mpmath.mpf(enclosure.lower_text)
        assert width <= exact * mpmath.mpf("1e-14")
    assert enclosure.width <= 1e-12


def step_optimum(majority, minority, ratio, radius, start):
    """Two levels at 60 digits: four scalars (alpha_A, alpha_B, x, y) and a multiplier.

    Z = alpha_A(I − J/m) ⊕ alpha_B(I − J/m) + (x, y) ⊗ (√m_B, −√m_A)/√K on the normalised
    indicators; its nuclear norm is (m_A−1)alpha_A + (m_B−1)alpha_B + √(x² + y²).
    """
    classes = majority + minority
    a, b = mpmath.mpf(majority), mpmath.mpf(minority)
    weight_a = mpmath.mpf(ratio) / (ratio * a + b)
    weight_b = 1 / (ratio * a + b)

    def loss(alpha_a, alpha_b, x, y):
        across_a = -(x / mpmath.sqrt(a)) * mpmath.sqrt(classes) / mpmath.sqrt(a * b)
        across_b = (y / mpmath.sqrt(b)) * mpmath.sqrt(classes) / mpmath.sqrt(a * b)
        # z_kj − z_kk: within the level −alpha; across it, −alpha(1 − 1/m) plus the core's.
        rest_a = (a - 1) * mpmath.exp(-alpha_a)
        rest_a += b * mpmath.exp(-alpha_a * (1 - 1 / a) + across_a)
        rest_b = (b - 1) * mpmath.exp(-alpha_b)
        rest_b += a * mpmath.exp(-alpha_b * (1 - 1 / b) + across_b)
        return a * weight_a * mpmath.log1p(rest_a) + b * weight_b * mpmath.log1p(rest_b)

    def norm(alpha_a, alpha_b, x, y):
        return (a - 1) * alpha_a + (b - 1) * alpha_b + mpmath.sqrt(x * x + y * y)

    def lagrangian(*v):
        return loss(*v[:4]) + v[4] * (norm(*v[:4]) - radius)

    def system(*v):
        first = [
            mpmath.diff(lagrangian, v, tuple(int(i == j) for j in range(5)), h="1e-40")
            for i in range(4)
        ]
        return [*first, norm(*v[:4]) - radius]

    root = mpmath.findroot(system, [mpmath.mpf(s) for s in start], tol=1e-50)
    return loss(*root[:4])


@pytest.mark.theory
@pytest.mark.parametrize(
    ("majority", "minority", "ratio"), [(2, 2, 3), (5, 5, 2), (5, 5, 8), (2, 4, 3)]
)
def test_step_imbalance_at_60_digits_is_enclosed(majority, minority, ratio) -> None:
    """Below R1, where all four scalars are positive; the reduction shares nothing with A Bᵀ."""
    counts = [ratio] * majority + [1] * minority
    enclosure = enclose_free_head(counts, 5.0, 1.0)
    z = rigorous_free._FreeHead(flint, counts, 5.0, 1.0)._search()
    core = z[0, 0] - z[0, 1], z[-1, -1] - z[-1, -2]
    scale = math.sqrt(majority * minority / (majority + minority))
    x = math.sqrt(majority) * scale * (z[0].mean() - z[0, -1])
    y = math.sqrt(minority) * scale * (z[-1, 0] - z[-1].mean())
    multiplier = 1e-2
    with mpmath.workdps(90):
        exact = step_optimum(
            majority,
            minority,
            ratio,
            (majority + minority) * mpmath.sqrt(5),
            [*core, x, y, multiplier],
        )
        assert encloses(enclosure, exact, tolerance=mpmath.mpf("1e-36"))
    assert enclosure.width <= 1e-30


@pytest.mark.theory
@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 2000), min_size=2, max_size=8),
    st.floats(-1.5, 2.0),
    st.floats(-2.0, 2.0),
)
def test_any_counts(counts, log10_rho, log10_head_energy) -> None:
    head_energy = 10.0**log10_head_energy
    feature_energy = 100.0**log10_rho / head_energy
    enclosure = enclose_free_head(counts, feature_energy, head_energy)
    assert is_sound(enclosure)
    assert enclosure.width <= 1e-12
    assert enclosure.upper <= math.log(len(counts)) * (1 + 1e-15)
    # Only ρ and the proportions matter.
    doubled = enclose_free_head([2 * n for n in counts], head_energy, feature_energy)
    assert doubled.lower <= enclosure.upper
    assert enclosure.lower <= doubled.upper


@pytest.mark.theory
@settings(max_examples=30)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=6), seeds, st.floats(-2.0, 1.5))
def test_no_random_model_beats_the_lower_end(counts, seed, log10_rho) -> None:
    """Features and heads of the allowed energies, straight from the problem's definition."""
    rng = np.random.default_rng(seed)
    size, e_h = len(counts), 100.0**log10_rho
    enclosure = enclose_free_head(counts, e_h, 1.0)
    for spread in (1.0, 0.1, 0.0):
        frame = np.eye(size) - 1 / size
        h, w = (frame + spread * rng.standard_normal((size, size)) for _ in range(2))
        h *= np.sqrt(size * e_h) / np.linalg.norm(h)
        w *= np.sqrt(size) / np.linalg.norm(w)
        z = h @ w.T
        cross_entropy = np.logaddexp.reduce(z, axis=1) - np.diag(z)
        loss = float(np.array(counts) @ cross_entropy) / sum(counts)
        assert loss >= enclosure.lower * (1 - 1e-12) - 1e-14


@pytest.mark.theory
@settings(max_examples=30)
@given(seeds, st.floats(-9, 1))
def test_any_logits_give_a_true_if_wide_enclosure(seed, log10_noise) -> None:
    rng = np.random.default_rng(seed)
    counts = [5, 3, 1, 1]
    tight = enclose_free_head(counts, 5.0, 1.0)
    logits = 3 * np.eye(4) - 0.75 + 10.0**log10_noise * rng.standard_normal((4, 4))
    wide = enclose_free_head(counts, 5.0, 1.0, logits, refine=False)
    assert is_sound(wide)
    assert wide.contains(tight)
    assert wide.width > 1e-4  # the balanced optimum is not this one's


def test_poor_logits_are_wide_and_refinement_mends_them() -> None:
    counts = [4, 2, 1]
    tight = enclose_free_head(counts, 5.0, 1.0)
    for z in (np.zeros((3, 3)), np.ones((3, 3)), -9 * np.eye(3), 1e9 * np.eye(3)):
        wide = enclose_free_head(counts, 5.0, 1.0, z, refine=False)
        assert wide.width > 1e-2
        assert wide.contains(tight)
        assert enclose_free_head(counts, 5.0, 1.0, z).width <= 1e-30


def test_good_float64_logits_need_no_refinement() -> None:
    """A solver's own answer is certified to 1e-12 as it is."""
    model = rigorous_free._FreeHead(flint, [5, 3, 1, 1], 5.0, 1.0)
    with flint.ctx.workprec(192):
        left, values, right = np.linalg.svd(model._search())
        factors = left * np.sqrt(values), right.T * np.sqrt(values)
        a, b = model._newton(*(flint.arb_mat(x.tolist()) for x in factors))
        logits = balls.floats(a) @ balls.floats(b).T
    enclosure = enclose_free_head([5, 3, 1, 1], 5.0, 1.0, logits, refine=False)
    assert 0 < enclosure.width <= 1e-14


@pytest.mark.theory
def test_minority_collapse_transition() -> None:
    """At K = 10, 5 + 5, E_H = 5: R1 = 12.19245. Enclosed on both sides, and next to it."""
    for ratio in (12.19, 12.192, 12.1924, 12.19245, 12.1925, 12.193, 12.2):
        majority, minority = round(ratio * 10**5), 10**5
        enclosure = enclose_free_head([majority] * 5 + [minority] * 5, 5.0, 1.0)
        assert is_sound(enclosure)
        assert enclosure.width <= 1e-18


@pytest.mark.theory
@pytest.mark.slow
@pytest.mark.parametrize("classes", [16, 24])
def test_larger_models(classes) -> None:
    counts = [int(1000 / k) for k in range(1, classes + 1)]
    assert enclose_free_head(counts, 5.0, 1.0).width <= 1e-12


# --- outward rounding --------------------------------------------------------------------------

# Drawn integers are mostly short, exact in float64; these use all of their bits.
long_mantissas = seeds.map(lambda seed: int(np.random.default_rng(seed).integers(2**60)) ** 3)
mantissas = st.one_of(
    st.integers(-(2**200), 2**200), long_mantissas, long_mantissas.map(int.__neg__)
)


@given(mantissas, st.integers(-1400, 1200))
@settings(max_examples=200)
def test_float_ends_are_the_nearest_outside(mantissa, exponent) -> None:
    with flint.ctx.workprec(400):
        exact = flint.arb((mantissa, exponent))
        below = balls._float_down(exact)
    value = Fraction(mantissa) * Fraction(2) ** exponent
    assert below == -math.inf or Fraction(below) <= value
    above = math.nextafter(below, math.inf)
    assert above == math.inf or Fraction(above) > value


@given(mantissas, st.integers(-1400, 1200))
def test_decimal_ends_are_outside_and_close(mantissa, exponent) -> None:
    with flint.ctx.workprec(400):
        exact = flint.arb((mantissa, exponent))
        lower, upper = (balls._text(exact, mode) for mode in ("ROUND_FLOOR", "ROUND_CEILING"))
    value = Fraction(mantissa) * Fraction(2) ** exponent
    assert Fraction(lower) <= value <= Fraction(upper)
    assert Fraction(upper) - Fraction(lower) <= abs(value) * Fraction(1, 10**38)


@pytest.mark.parametrize("mantissa", [1, -1, 3, -(2**150) + 1])
@pytest.mark.parametrize("exponent", [-300_000, 300_000])
def test_decimal_ends_beyond_the_exact_range(mantissa, exponent) -> None:
    exact = flint.arb((mantissa, exponent))
    with flint.ctx.workprec(400):
        exact = flint.arb((mantissa, exponent))
        lower, upper = (
            Decimal(balls._text(exact, mode)) for mode in ("ROUND_FLOOR", "ROUND_CEILING")
        )
    log10 = math.log10(abs(mantissa)) + exponent * math.log10(2)
    small, large = sorted((lower.copy_abs(), upper.copy_abs()))
    assert lower < upper
    assert small.adjusted() <= log10 <= large.adjusted()


@given(seeds, st.integers(2, 6))
def test_positive_definite_is_proved_only_if_true(seed, size) -> None:
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((size, size))
    norm = float(np.linalg.norm(g, 2))
    with flint.ctx.workprec(128):
        square = flint.arb_mat((g.T @ g).tolist())
        assert rigorous_free._positive_definite(square, flint.arb(norm * (1 + 1e-9)) ** 2)
        assert not rigorous_free._positive_definite(square, flint.arb(norm * (1 - 1e-9)) ** 2)


@pytest.mark.parametrize("factor", [1.0, 0.5, 1e-3, 1e-30, 0.0, -1.0])
def test_spectral_bound_holds_for_any_guess(factor) -> None:
    g = np.random.default_rng(3).standard_normal((5, 5))
    norm = float(np.linalg.norm(g, 2))
    model = rigorous_free._FreeHead(flint, [1] * 5, 1.0, 1.0)
    with flint.ctx.workprec(192):
        bound = model._spectral_bound(flint.arb_mat(g.tolist()), flint.arb(factor * norm))
    assert norm * (1 - 1e-14) <= float(bound) <= np.linalg.norm(g) * (1 + 1e-14)


def test_balls_that_are_not_finite_bound_nothing() -> None:
    lost = flint.arb("nan")
    enclosure = balls.as_enclosure(balls.lower_end(lost), balls.upper_end(lost), 64)
    assert (enclosure.lower, enclosure.upper, enclosure.width) == (-math.inf, math.inf, math.inf)
    assert (enclosure.lower_text, enclosure.upper_text) == ("-Infinity", "Infinity")


def test_precision_of_the_caller_is_left_alone() -> None:
    before = flint.ctx.prec
    enclose_fixed_head(lpm.PeeledProblem(lpm.simplex_etf(3, 2), [0], [1.0], 4.0))
    enclose_free_head([2, 1], 1.0, 1.0)
    assert flint.ctx.prec == before


# --- the boundary ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda: enclose_fixed_head(lpm.PeeledProblem(lpm.simplex_etf(3, 2), [0], [1.0], 4.0)),
        lambda: enclose_free_head([1, 2], 1.0, 1.0),
    ],
)
def test_missing_flint_names_the_extra(monkeypatch, call) -> None:
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ImportError, match=r"pip install 'action-collapse\[rigorous\]'"):
        call()


def test_cone_is_refused() -> None:
    problem = lpm.PeeledProblem(lpm.simplex_etf(3, 2), [0], [1.0], 4.0, "nonnegative")
    with pytest.raises(ValueError, match=r"cone='nonnegative': lpm.certify"):
        enclose_fixed_head(problem)


def test_features_must_be_finite_and_of_the_right_shape() -> None:
    problem = lpm.PeeledProblem(lpm.simplex_etf(3, 2), [0], [1.0], 4.0)
    with pytest.raises(ValueError, match="1 non-finite entries of 2"):
        enclose_fixed_head(problem, [[math.nan, 0.0]])
    with pytest.raises(ValueError, match=r"\(N, d\) = \(1, 2\), got \(2,\)"):
        enclose_fixed_head(problem, [1.0, 0.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": [3]}, "K >= 2 classes"),
        ({"counts": [[1, 2]]}, r"got shape \(1, 2\)"),
        ({"counts": [1, 0]}, r"positive integers, got \[1, 0\]: leave out"),
        ({"counts": [1, 1.5]}, "positive integers"),
        ({"counts": [1, math.nan]}, "positive integers"),
        ({"counts": [True, True]}, "positive integers"),
        ({"feature_energy": 0.0}, "feature_energy must be > 0 and finite, got 0.0"),
        ({"head_energy": math.inf}, "head_energy must be > 0 and finite, got inf"),
        ({"logits": np.zeros((2, 3))}, r"\(K, K\) with K = 2 counts, got \(2, 3\)"),
        ({"logits": [[0.0, math.inf], [0.0, 0.0]]}, "1 non-finite"),
    ],
)
def test_refused(changes, message) -> None:
    arguments = {"counts": [1, 2], "feature_energy": 1.0, "head_energy": 1.0}
    with pytest.raises(ValueError, match=message):
        enclose_free_head(**(arguments | changes))
