"""Bands and intervals on numbers whose distribution is known."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.bands import (
    basic_interval,
    degrees_of_freedom,
    error_interval,
    simultaneous_band,
    student_ratio,
)


def test_satterthwaite() -> None:
    # One sample has all its n − 1; two of equal variance and size have those of both.
    assert degrees_of_freedom(np.array([2.0, 0.0]), [8, 8]) == pytest.approx(7)
    assert degrees_of_freedom(np.array([2.0, 2.0]), [8, 8]) == pytest.approx(14)
    assert degrees_of_freedom(np.array([1.0, 3.0]), [5, 11]) == pytest.approx(16 / (1 / 4 + 9 / 10))
    many = degrees_of_freedom(np.array([[2.0, 0.0], [2.0, 0.0]]), [8, 8])
    np.testing.assert_allclose(many, [14, math.inf])


def test_samples_of_the_same_units_tell_no_more_than_one_of_them() -> None:
    """A sum of two means over the same 8 games is the mean of 8 sums."""
    assert degrees_of_freedom(np.array([2.0, 2.0]), [8, 8], common=True) == pytest.approx(7)
    found = degrees_of_freedom(np.array([1.0, 3.0]), [5, 11], common=True)
    assert found == pytest.approx(1 / (0.25 / 4 + 0.75 / 10))
    many = degrees_of_freedom(np.array([[2.0, 0.0], [2.0, 0.0]]), [8, 8], common=True)
    np.testing.assert_allclose(many, [7, math.inf])


def test_one_entry_has_the_interval_of_student() -> None:
    draws = np.random.default_rng(0).standard_normal((20_000, 1))
    lower, upper = simultaneous_band({"a": np.zeros(1)}, {"a": draws}, 0.95, {"a": 7})
    half = float(upper["a"][0] - lower["a"][0]) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 7), rel=0.03)
    wide = basic_interval(0.0, draws[:, 0], 0.95, 7)
    assert (wide.upper - wide.lower) / 2 == pytest.approx(stats.t.ppf(0.975, 7), rel=0.03)
    assert student_ratio(math.inf, 0.95) == pytest.approx(1.0)


@pytest.mark.parametrize("count", [5, 8, 20])
def test_band_of_means_of_few_values_covers(count) -> None:
    """12 means of `count` normal values; replicates as a bootstrap would make them."""
    rng = np.random.default_rng(count)
    covered = 0
    for _ in range(400):
        values = rng.standard_normal((count, 12))
        mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(count)
        draws = mean + error * rng.standard_normal((200, 12))
        lower, upper = simultaneous_band({"a": mean}, {"a": draws}, 0.95, {"a": count - 1})
        covered += bool(((lower["a"] <= 0) & (upper["a"] >= 0)).all())
    # If the rate is 95 %, chance alone fails this with probability 0.1 %.
    assert covered >= 365


def test_an_error_has_an_interval_that_holds_it() -> None:
    """Mean |x + e| of 6 numbers, 0 or not, noise known."""
    rng = np.random.default_rng(0)
    for truth in (np.zeros(6), np.full(6, 3.0), np.array([0.0, 0.0, 0.0, 0.5, 1.0, 8.0])):
        held = 0
        for _ in range(300):
            value = float(np.abs(truth + rng.standard_normal(6)).mean())
            noise = np.abs(rng.standard_normal((200, 6))).mean(axis=1)
            found = error_interval(value, noise, 0.95)
            held += found.lower <= np.abs(truth).mean() <= found.upper
            assert 0 <= found.lower <= found.value <= found.upper
        assert held >= 273
    assert math.isnan(error_interval(1.0, np.array([1.0, math.nan]), 0.95).lower)
