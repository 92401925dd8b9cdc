"""Statistics over seeds and tasks; randomness only from the generator passed in.

A *stratum* is one task (an environment): an array of scores, one a run (a seed). Bootstraps
resample the runs within each stratum and keep the strata, as Agarwal et al. do: an interval says
how a result would vary with other seeds on the same tasks, nothing about other tasks.

Intervals are percentile intervals (Efron 1979). With fewer than two runs in any stratum there is
nothing to resample, and the interval is NaN. With few runs it is too narrow: for the mean of
normal scores a nominal 95 % covers 84 % with 5 runs and 92 % with 20 (4,000 simulations). From 2 or
3 runs it reaches from the lowest to the highest, which hold the centre of symmetric scores in 50 %
and 75 % of cases; :data:`TOO_NARROW` says so to readers. Where every resample agrees (all scores
equal, or every run of X above every run of Y) it has zero width, which says that the seeds agreed
and not that the next one must.

References
----------
Agarwal, Schwarzer, Castro, Courville, Bellemare, "Deep reinforcement learning at the edge of the
statistical precipice", NeurIPS 2021, arXiv:2108.13264: interquartile mean, probability of
improvement, stratified bootstrap; their library is ``rliable``.
Efron, "Bootstrap methods: another look at the jackknife", The Annals of Statistics 7(1), 1979.
Mann, Whitney, "On a test of whether one of two random variables is stochastically larger than the
other", The Annals of Mathematical Statistics 18(1), 1947: P(X > Y) with ties counted half.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


FEW_RUNS = 5
"""Runs below which intervals are so narrow that a reader has to be told."""
TOO_NARROW = (
    f"With fewer than {FEW_RUNS} seeds a 95 % interval or band is too narrow: from 3 it holds the "
    "true value in about 75 % of cases."
)


class Band(NamedTuple):
    """A statistic with a pointwise confidence band, each (T,)."""

    centre: Float
    lower: Float
    upper: Float


class Estimate(NamedTuple):
    """A statistic of the data with its confidence interval."""

    value: float
    lower: float
    upper: float


def median_band(
    values: Float, rng: np.random.Generator, level: float = 0.95, resamples: int = 4000
) -> Band:
    """Median over seeds with a percentile-bootstrap confidence band (Efron 1979).

    Parameters
    ----------
    values
        (n, T): n seeds, T positions. Seeds are resampled whole, so positions stay paired.
    rng
        Draws the resamples.
    level
        Coverage of the band at each position.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    Band
        NaN at positions where any seed is NaN.

    Raises
    ------
    ValueError
        ``values`` is not (n ≥ 2, T), or the level is not in (0, 1).
    """
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(
            f"a band over seeds needs values of shape (n >= 2, T), got {values.shape}: run more "
            "seeds"
        )
    _check_level(level)
    picks = rng.integers(0, len(values), (resamples, len(values)))
    medians = np.median(values[picks], axis=1)
    # np.quantile passes NaN on, as np.median does.
    lower, upper = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(np.median(values, axis=0), lower, upper)


def interquartile_mean(values: Float) -> Float:
    """Mean of the middle half along the last axis: the 25 % trimmed mean (Agarwal et al. 2021).

    ⌊n/4⌋ values are dropped at each end, so up to n = 3 it is the mean.

    Parameters
    ----------
    values
        (..., n) with n ≥ 1.

    Returns
    -------
    ndarray
        (...,); NaN where any of the n values is NaN.
    """
    count = values.shape[-1]
    cut = count // 4
    means: Float = np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1)
    # Sorting puts NaN last, where it would be trimmed away.
    return np.where(np.isnan(values).any(axis=-1), np.nan, means)


def stratified_bootstrap(
    strata: Sequence[Float],
    statistic: Callable[[Float], Float],
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 4000,
) -> Estimate:
    """A statistic of all runs pooled, with a stratified-bootstrap confidence interval.

    Parameters
    ----------
    strata
        One array (n_m,) for each task m, all on one scale. Runs count alike, so tasks weigh as n_m.
    statistic
        (..., N) to (...,), over the last axis, N = Σ n_m; for example :func:`interquartile_mean`.
    rng
        Draws the resamples.
    level
        Coverage of the interval.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    Estimate
        NaN if a score is NaN; a NaN interval if a task has fewer than two runs.

    Raises
    ------
    ValueError
        There is no stratum, one is empty or not a vector, or the level is not in (0, 1).
    """
    strata = _checked(strata, level)
    value = float(statistic(np.concatenate(strata)))
    if not _can_resample(strata):
        return Estimate(value, np.nan, np.nan)
    resampled = [
        scores[rng.integers(0, len(scores), (resamples, len(scores)))] for scores in strata
    ]
    return _interval(value, statistic(np.concatenate(resampled, axis=1)), level)


def probability_of_improvement(
    x: Sequence[Float],
    y: Sequence[Float],
    rng: np.random.Generator,
    paired: bool = False,
    level: float = 0.95,
    resamples: int = 4000,
) -> Estimate:
    """P(X > Y) + P(X = Y)/2 for independent runs on the same task, averaged over tasks.

    In each task this is the share of all n_x·n_y pairs of runs that X wins, ties counted half: the
    Mann-Whitney U statistic divided by n_x·n_y (Agarwal et al. 2021, Sec. 4.3).

    Parameters
    ----------
    x, y
        One array for each task, in the same order; (n_x,) and (n_y,) may differ.
    rng
        Draws the resamples.
    paired
        Entry i of x and of y are the same seed: resample them together, so that what a seed does to
        both widens or narrows the interval as it should. The value is the same either way.
    level
        Coverage of the interval.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    Estimate
        NaN if a score is NaN; a NaN interval if a task has fewer than two runs on either side.

    Raises
    ------
    ValueError
        As :func:`stratified_bootstrap`, or the numbers of tasks or, if paired, of runs differ.
    """
    x, y = _checked(x, level), _checked(y, level)
    _check_same_tasks(x, y, paired)
    wins = [_wins(*scores) for scores in zip(x, y, strict=True)]
    value = float(np.mean([task.mean() for task in wins]))
    if not (_can_resample(x) and _can_resample(y)):
        return Estimate(value, np.nan, np.nan)
    total = np.zeros(resamples)
    for task in wins:
        # How often each run is drawn is all that a resample changes: no (resamples, n_x, n_y).
        of_x = _multiplicities(task.shape[0], resamples, rng)
        of_y = of_x if paired else _multiplicities(task.shape[1], resamples, rng)
        total += ((of_x @ task) * of_y).sum(axis=1) / task.size
    return _interval(value, total / len(wins), level)


def paired_difference(
    x: Sequence[Float],
    y: Sequence[Float],
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 4000,
) -> Estimate:
    """Mean of x − y over seeds that both have, averaged over tasks.

    Parameters
    ----------
    x, y
        One array (n_m,) for each task m, in the same order; entry i of both is the same seed.
    rng
        Draws the resamples; seeds are resampled, so the pairs stay together.
    level
        Coverage of the interval.
    resamples
        Number of bootstrap samples.

    Returns
    -------
    Estimate
        In the unit of the scores. NaN if a score is NaN; a NaN interval if a task has fewer than
        two seeds.

    Raises
    ------
    ValueError
        As :func:`stratified_bootstrap`, or the numbers of tasks or of runs differ.
    """
    x, y = _checked(x, level), _checked(y, level)
    _check_same_tasks(x, y, paired=True)
    differences = [of_x - of_y for of_x, of_y in zip(x, y, strict=True)]
    value = float(np.mean([task.mean() for task in differences]))
    if not _can_resample(differences):
        return Estimate(value, np.nan, np.nan)
    total = np.zeros(resamples)
    for task in differences:
        total += _multiplicities(len(task), resamples, rng) @ task / len(task)
    return _interval(value, total / len(differences), level)


def few_runs_words(*counts: int) -> str:
    """:data:`TOO_NARROW` after a space if an interval is of few runs, else nothing."""
    return f" {TOO_NARROW}" if any(1 < count < FEW_RUNS for count in counts) else ""


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")


def _checked(strata: Sequence[Float], level: float) -> list[Float]:
    _check_level(level)
    arrays = [np.asarray(scores, dtype=np.float64) for scores in strata]
    shapes = [scores.shape for scores in arrays]
    if not shapes or any(len(shape) != 1 or shape[0] == 0 for shape in shapes):
        raise ValueError(
            "expected one non-empty vector of scores for each task, got shapes "
            f"{shapes}: leave out tasks without runs"
        )
    return arrays


def _check_same_tasks(x: list[Float], y: list[Float], paired: bool) -> None:
    runs_x, runs_y = [len(scores) for scores in x], [len(scores) for scores in y]
    if len(x) != len(y) or (paired and runs_x != runs_y):
        raise ValueError(
            f"x has {runs_x} runs in its tasks and y {runs_y}: pass the same tasks in the same "
            "order and, for paired seeds, only the seeds that both have"
        )


def _can_resample(strata: list[Float]) -> bool:
    return all(len(scores) >= 2 for scores in strata)


def _wins(x: Float, y: Float) -> Float:
    """(n_x, n_y): 1 where x is above y, ½ where they are equal, NaN where one is NaN."""
    wins: Float = 0.5 * (1 + np.sign(x[:, None] - y[None, :]))
    return wins


def _multiplicities(count: int, resamples: int, rng: np.random.Generator) -> Float:
    """(resamples, count): how often each run is drawn in each resample."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)


def _interval(value: float, resampled: Float, level: float) -> Estimate:
    lower, upper = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(lower), float(upper))
