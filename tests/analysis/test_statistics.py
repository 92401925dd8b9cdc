"""The bootstrap band against SciPy's, and that its generator is the only randomness."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from analysis import statistics
from analysis.statistics import median_band


def test_band_against_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=(20, 3))
    band = median_band(values, np.random.default_rng(1), resamples=20_000)
    for t in range(3):
        reference = bootstrap(
            (values[:, t],), np.median, n_resamples=20_000, method="percentile", rng=2
        ).confidence_interval
        assert band.centre[t] == np.median(values[:, t])
        assert band.lower[t] == pytest.approx(reference.low, abs=0.05)
        assert band.upper[t] == pytest.approx(reference.high, abs=0.05)


def test_band_covers_the_median_at_its_level() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((25, 600))  # 600 independent experiments of 25 seeds
    band = median_band(values, rng, level=0.9, resamples=600)
    coverage = ((band.lower <= 0) & (band.upper >= 0)).mean()
    assert 0.85 <= coverage <= 0.97


@pytest.mark.parametrize(("seeds", "share"), [(2, 0.5), (3, 0.75)])
def test_band_of_few_seeds_covers_as_little_as_readers_are_told(seeds, share) -> None:
    rng = np.random.default_rng(0)
    band = median_band(rng.standard_normal((seeds, 4000)), rng, resamples=400)
    coverage = ((band.lower <= 0) & (band.upper >= 0)).mean()
    assert coverage == pytest.approx(share, abs=0.03)
    assert f"{100 * share:g} %" in (statistics.TOO_NARROW if seeds == 3 else statistics.__doc__)


def test_same_generator_same_band() -> None:
    values = np.random.default_rng(0).standard_normal((20, 4))
    first, again, other = (
        median_band(values, np.random.default_rng(seed), resamples=30) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.lower, again.lower)
    assert (first.lower != other.lower).any()


def test_nan_stays_nan() -> None:
    values = np.ones((5, 2))
    values[1, 1] = np.nan
    band = median_band(values, np.random.default_rng(0))
    assert np.isnan(band.centre).tolist() == [False, True]
    assert np.isnan(band.lower).tolist() == [False, True]


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        (np.ones((1, 3)), 0.95, r"n >= 2.*\(1, 3\): run more seeds"),
        (np.ones(3), 0.95, r"got \(3,\)"),
        (np.ones((3, 3)), 1.0, r"level must be in \(0, 1\), got 1.0"),
    ],
)
def test_refused(values, level, message) -> None:
    with pytest.raises(ValueError, match=message):
        median_band(values, np.random.default_rng(0), level)
