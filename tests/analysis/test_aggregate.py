"""Aggregates over seeds and tasks: against loops, exact enumeration, SciPy and rliable."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from analysis.statistics import (
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
    stratified_bootstrap,
)

# What rliable 1.2.0 gives on these scores (arch 7.2.0, pandas 2.3.3, numpy.random.seed(0)), by
# get_interval_estimates with aggregate_iqm and 50,000 repetitions on the first pair, and then with
# probability_of_improvement and 20,000 on the second, the first one rounded so that there are ties.
_IQM_X = [
    [2.0, -0.7, 2.2, 0.1, 2.3, 4.1, -3.7, 1.3, 2.5],
    [10.9, 8.6, 14.0, 11.5, 7.2, 6.0, 6.1, 6.2, 9.4],
    [-1.8, -4.0, -2.5, 0.1, -1.1, -2.4, -6.5, -0.2, -8.6],
]
_IQM_Y = [
    [-0.6, -3.6, -1.4, 0.9, 0.7, -2.7, -3.6, -0.9, -2.6, 0.4, 3.0, 1.6],
    [8.9, 7.6, 12.2, 11.7, 9.3, 9.2, 11.6, 15.0, 9.2, 11.0, 13.3, 7.6],
    [-0.7, -3.9, -3.4, -2.8, -0.8, 3.1, -0.6, 1.3, 0.7, -1.2, -3.0, -0.6],
]
_RLIABLE_IQM_X = (1.94, 1.0733333333333333, 2.6933333333333334)
_RLIABLE_IQM_Y = (1.6888888888888889, 0.8333333333333333, 2.4222222222222225)
_X = [
    [2.0, -1.0, 2.0, 0.0, 2.0, 4.0, -4.0, 1.0, 2.0],
    [11.0, 9.0, 14.0, 11.0, 7.0, 6.0, 6.0, 6.0, 9.0],
    [-2.0, -4.0, -2.0, 0.0, -1.0, -2.0, -7.0, 0.0, -9.0],
]
_Y = [
    [-1.0, -4.0, -1.0, 1.0, 1.0, -3.0, -4.0, -1.0, -3.0, 0.0, 3.0, 2.0],
    [9.0, 8.0, 12.0, 12.0, 9.0, 9.0, 12.0, 15.0, 9.0, 11.0, 13.0, 8.0],
    [-1.0, -4.0, -3.0, -3.0, -1.0, 3.0, -1.0, 1.0, 1.0, -1.0, -3.0, -1.0],
]
_RLIABLE_IMPROVEMENT = (0.45061728395061723, 0.3194444444444445, 0.5910493827160493)


def _strata(scores: list[list[float]]) -> list[np.ndarray]:
    return [np.array(task) for task in scores]


def _naive_wins(x: np.ndarray, y: np.ndarray) -> float:
    wins = 0.0
    for a in x:
        for b in y:
            wins += 1.0 if a > b else 0.5 if a == b else 0.0
    return wins / (len(x) * len(y))


def _resamples(scores: np.ndarray) -> list[np.ndarray]:
    """All n^n equally likely bootstrap samples."""
    return [scores[list(picks)] for picks in product(range(len(scores)), repeat=len(scores))]


@pytest.mark.parametrize(("scores", "golden"), [(_IQM_X, _RLIABLE_IQM_X), (_IQM_Y, _RLIABLE_IQM_Y)])
def test_interquartile_mean_as_rliable(scores, golden) -> None:
    estimate = stratified_bootstrap(
        _strata(scores), interquartile_mean, np.random.default_rng(0), resamples=50_000
    )
    assert estimate.value == pytest.approx(golden[0], abs=1e-12)
    assert estimate[1:] == pytest.approx(golden[1:], abs=0.02)


def test_probability_of_improvement_as_rliable() -> None:
    estimate = probability_of_improvement(
        _strata(_X), _strata(_Y), np.random.default_rng(0), resamples=20_000
    )
    assert estimate.value == pytest.approx(_RLIABLE_IMPROVEMENT[0], abs=1e-12)
    assert estimate[1:] == pytest.approx(_RLIABLE_IMPROVEMENT[1:], abs=0.005)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 20])
def test_interquartile_mean_as_scipy(count) -> None:
    values = np.random.default_rng(count).standard_normal((3, count))
    np.testing.assert_allclose(interquartile_mean(values), trim_mean(values, 0.25, axis=1))


def test_interquartile_mean_ignores_outliers_but_not_nan() -> None:
    values = np.array([[0.0, 1.0, 2.0, 3.0], [-1e9, 1.0, 2.0, 1e9], [0.0, 1.0, 2.0, np.nan]])
    np.testing.assert_array_equal(interquartile_mean(values), [1.5, 1.5, np.nan])


def test_improvement_as_a_loop_and_as_mann_whitney() -> None:
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 5, n).astype(float) for n in (4, 7)]  # many ties
    y = [rng.integers(0, 5, n).astype(float) for n in (6, 3)]
    estimate = probability_of_improvement(x, y, rng)
    loop = [_naive_wins(a, b) for a, b in zip(x, y, strict=True)]
    ranks = [mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(x, y, strict=True)]
    assert estimate.value == pytest.approx(np.mean(loop))
    assert estimate.value == pytest.approx(np.mean(ranks))
    assert estimate.lower < estimate.value < estimate.upper


def test_improvement_of_the_one_is_no_improvement_of_the_other() -> None:
    x, y = _strata(_X), _strata(_Y)
    forward = probability_of_improvement(x, y, np.random.default_rng(0), resamples=20_000)
    backward = probability_of_improvement(y, x, np.random.default_rng(1), resamples=20_000)
    assert forward.value + backward.value == pytest.approx(1)
    assert forward.lower + backward.upper == pytest.approx(1, abs=0.01)


def test_equal_scores_are_half_a_win() -> None:
    scores = [np.full(4, 500.0)]
    estimate = probability_of_improvement(scores, scores, np.random.default_rng(0))
    assert estimate == (0.5, 0.5, 0.5)


# Two tasks with 3 and 2 runs: 27 * 4 bootstrap samples a side, so the exact distribution is known.
# The level is chosen so that no jump of it is near either quantile.
_SMALL_X = [np.array([0.0, 3.0, 10.0]), np.array([1.0, 5.0])]
_SMALL_Y = [np.array([1.0, 2.0, 3.0]), np.array([0.0, 5.0])]
_LEVEL = 0.77


def _exact(values: list[float]) -> tuple[float, float]:
    lower, upper = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], method="inverted_cdf")
    return float(lower), float(upper)


def test_stratified_interval_is_that_of_all_resamples() -> None:
    def mean(values: np.ndarray) -> np.ndarray:
        return values.mean(axis=-1)

    estimate = stratified_bootstrap(
        _SMALL_X, mean, np.random.default_rng(0), _LEVEL, resamples=50_000
    )
    exact = [float(np.mean(np.concatenate(pair))) for pair in product(*map(_resamples, _SMALL_X))]
    assert estimate == pytest.approx((3.8, *_exact(exact)), abs=1e-12)


def test_improvement_interval_is_that_of_all_resamples() -> None:
    exact = [
        np.mean([_naive_wins(x1, y1), _naive_wins(x2, y2)])
        for x1, y1, x2, y2 in product(
            *map(_resamples, (_SMALL_X[0], _SMALL_Y[0], _SMALL_X[1], _SMALL_Y[1]))
        )
    ]
    estimate = probability_of_improvement(
        _SMALL_X, _SMALL_Y, np.random.default_rng(0), level=_LEVEL, resamples=50_000
    )
    assert estimate[1:] == pytest.approx(_exact(exact), abs=1e-12)


def test_paired_interval_is_that_of_all_resamples_of_seeds() -> None:
    seeds = [[list(p) for p in product(range(len(x)), repeat=len(x))] for x in _SMALL_X]
    both = list(product(*seeds))
    wins = [
        np.mean(
            [_naive_wins(x[p], y[p]) for x, y, p in zip(_SMALL_X, _SMALL_Y, picks, strict=True)]
        )
        for picks in both
    ]
    differences = [
        np.mean([np.mean(x[p] - y[p]) for x, y, p in zip(_SMALL_X, _SMALL_Y, picks, strict=True)])
        for picks in both
    ]
    options = {"level": _LEVEL, "resamples": 50_000}
    improvement = probability_of_improvement(
        _SMALL_X, _SMALL_Y, np.random.default_rng(0), paired=True, **options
    )
    difference = paired_difference(_SMALL_X, _SMALL_Y, np.random.default_rng(0), **options)
    assert improvement[1:] == pytest.approx(_exact(wins), abs=1e-12)
    assert difference == pytest.approx(((7 / 3 + 1 / 2) / 2, *_exact(differences)), abs=1e-12)


def test_pairing_narrows_the_interval_when_seeds_matter() -> None:
    rng = np.random.default_rng(0)
    seeds = 10 * rng.standard_normal(20)
    x, y = [seeds + 1 + 0.1 * rng.standard_normal(20)], [seeds]
    paired = probability_of_improvement(x, y, rng, paired=True)
    unpaired = probability_of_improvement(x, y, rng)
    assert paired.value == unpaired.value
    assert paired.upper - paired.lower < 0.5 * (unpaired.upper - unpaired.lower)
    difference = paired_difference(x, y, rng)
    assert difference.value == pytest.approx(1, abs=0.1)
    assert difference.upper - difference.lower < 0.2


def test_intervals_cover_at_their_level() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(150):
        x, y = rng.standard_normal((2, 3, 15))
        estimates = (
            stratified_bootstrap(list(x), interquartile_mean, rng, 0.9, 400),
            probability_of_improvement(list(x), list(y), rng, level=0.9, resamples=400),
            paired_difference(list(x), list(y), rng, level=0.9, resamples=400),
        )
        truths = (0.0, 0.5, 0.0)
        hits.append([e.lower <= t <= e.upper for e, t in zip(estimates, truths, strict=True)])
    coverage = np.mean(hits, axis=0)
    assert ((coverage > 0.82) & (coverage < 0.97)).all(), coverage


def test_one_run_has_a_value_and_no_interval() -> None:
    rng = np.random.default_rng(0)
    one, more = np.array([2.0]), np.array([1.0, 3.0])
    for estimate, value in [
        (stratified_bootstrap([one, more], interquartile_mean, rng), 2.0),
        (probability_of_improvement([one], [more], rng), 0.5),
        (probability_of_improvement([more], [one], rng), 0.5),
        (paired_difference([one], [more[:1]], rng), 1.0),
    ]:
        assert estimate.value == value
        assert np.isnan(estimate[1:]).all()


def test_nan_score_makes_every_number_nan() -> None:
    rng = np.random.default_rng(0)
    bad, good = [np.array([1.0, np.nan, 3.0])], [np.array([1.0, 2.0, 3.0])]
    for estimate in (
        stratified_bootstrap(bad, interquartile_mean, rng),
        probability_of_improvement(good, bad, rng),
        paired_difference(bad, good, rng),
    ):
        assert np.isnan(estimate).all()


def test_same_generator_same_interval() -> None:
    first, again, other = (
        probability_of_improvement(
            _strata(_X), _strata(_Y), np.random.default_rng(seed), resamples=30
        )
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


_GOOD = [np.arange(3.0)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: stratified_bootstrap([], interquartile_mean, rng), "leave out tasks without"),
        (lambda rng: stratified_bootstrap([np.ones((2, 2))], np.mean, rng), r"got shapes \[\(2, 2"),
        (lambda rng: paired_difference([np.ones(0)], [np.ones(0)], rng), r"got shapes \[\(0,\)\]"),
        (lambda rng: paired_difference(_GOOD, [np.ones(2)], rng), r"\[3\] runs.*y \[2\].*paired"),
        (lambda rng: probability_of_improvement(_GOOD, 2 * _GOOD, rng), r"\[3\].*y \[3, 3\]"),
        (lambda rng: paired_difference(_GOOD, _GOOD, rng, level=95), r"\(0, 1\), got 95"),
    ],
)
def test_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
