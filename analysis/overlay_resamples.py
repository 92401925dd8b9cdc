"""Resamples of a snapshot, and intervals of what they give.

States, where nothing says which episodes they are from, are drawn with replacement within each
action. Episodes are weighted at random, all their states alike: a game that counts for more does so
for every action in it, which keeps what actions share within a game. The weights are exponential
(the Bayesian bootstrap) and never 0, so that no resample is without an action that few games show.

References
----------
Rao, Wu, "Resampling inference with complex survey data", JASA 83(401), 1988.
Rubin, "The Bayesian bootstrap", Ann. Statist. 9(1), 1981.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.bands import (
    Interval,
    basic_interval,
    degrees_of_freedom,
    error_interval,
    student_ratio,
)
from analysis.overlay_measure import Float, Measured

# Resamples of each class alone, for its part in a variance: 40 tell it to within a quarter.
_ALONE = 40
# States of an action, or episodes, below which intervals of a known optimum miss it too often.
FEWEST = 8
# The same of episodes of unequal weight, in as many of equal weight as tell a variance as well.
FEWEST_EQUAL = 3.0


def equal_units(measured: Measured) -> Float:
    """How many states or episodes of equal weight tell a class's noise as well, (K',).

    Of episodes with shares W_g of a class's weight, the class mean has the noise Σ W_g e_g. From
    the e_g² its variance is known as well as from (Σ W²)² / Σ W⁴ of equal weight (Satterthwaite).
    """
    if measured.episodes is None:
        return measured.counts.astype(np.float64)
    squares = [shares**2 for shares in _episode_shares(measured)]
    return np.array([w.sum() ** 2 / (w**2).sum() for w in squares])


def too_few(measured: Measured) -> NDArray[np.bool_]:
    """Classes whose states, or episodes, are too few for intervals, (K',)."""
    few: NDArray[np.bool_] = measured.units < FEWEST
    if measured.episodes is not None:
        few = few | (equal_units(measured) < FEWEST_EQUAL)
    return few


def draw(measured: Measured, bootstrap: int, rng: np.random.Generator) -> list[Float]:
    """Shares of the states of each class in resamples, (bootstrap + K'·_ALONE, n_k).

    All classes vary in the first ones. In the others one class varies and the rest stay as they
    are, _ALONE times for each class in turn. Deviations are enlarged by as much as resampled means
    vary less than means do, but for classes that are `too_few`.
    """
    few = too_few(measured)
    times: Iterator[NDArray[Any]]
    if measured.episodes is None:
        # Rao & Wu: resampled means of n states vary (n - 1)/n as much.
        enlarged = [math.sqrt(n / max(n - 1, 1)) for n in measured.counts]
        times = _draw_states(measured, bootstrap, rng)
    else:
        enlarged = [_enlarged(shares) for shares in _episode_shares(measured)]
        times = _draw_episodes(measured, measured.episodes, bootstrap, rng)
    return [
        _shares(drawn, weights, 1.0 if few[k] else enlarged[k])
        for k, (drawn, weights) in enumerate(zip(times, measured.weights, strict=True))
    ]


def _draw_states(
    measured: Measured, bootstrap: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    for k, n in enumerate(measured.counts):
        even = np.full(n, 1.0 / n)
        alone = np.ones((len(measured.counts), _ALONE, n), dtype=np.int64)
        alone[k] = rng.multinomial(n, even, _ALONE)
        yield np.concatenate([rng.multinomial(n, even, bootstrap), alone.reshape(-1, n)])


def _draw_episodes(
    measured: Measured,
    episodes: Sequence[NDArray[np.int64]],
    bootstrap: int,
    rng: np.random.Generator,
) -> Iterator[Float]:
    games = 1 + max(int(own.max()) for own in episodes)
    together = rng.standard_exponential((bootstrap, games))
    for k, own in enumerate(episodes):
        alone = np.ones((len(measured.counts), _ALONE, games))
        alone[k] = rng.standard_exponential((_ALONE, games))
        yield np.concatenate([together, alone.reshape(-1, games)])[:, own]


def _episode_shares(measured: Measured) -> list[Float]:
    """Shares W_g of each class's weight that its episodes have."""
    assert measured.episodes is not None
    groups = zip(measured.episodes, measured.weights, strict=True)
    shares = [np.bincount(own, weights).astype(np.float64) for own, weights in groups]
    return [own[own > 0] for own in shares]


def _enlarged(shares: Float) -> float:
    """Root of how much more Σ W_g x_g varies than with exponential weights r_g on W_g.

    With x_g of variance 1 and S_p = Σ W^p: S_2, against Σ W_g² E (x_g − x̄)² = S_2 − 2 S_3 + S_2² to
    first order, which division by Σ W_g r_g makes smaller by 1 + S_2. For m equal shares the
    quotient is (m + 1)/(m − 1), exactly.
    """
    second, third = (shares**2).sum(), (shares**3).sum()
    varies = 1.0 - 2.0 * third / second + second
    return math.sqrt((1.0 + second) / varies) if varies > 0 else 1.0


def _shares(times: NDArray[Any], weights: Float, enlarged: float) -> Float:
    """Shares (B, n) of states that occur `times`, their deviations from `weights` enlarged."""
    share = times * weights
    share /= share.sum(axis=1, keepdims=True)
    found: Float = weights + enlarged * (share - weights)
    return found


@dataclass(frozen=True, eq=False)
class Resamples:
    """Intervals from values of the resamples that `draw` makes, in its order."""

    measured: Measured
    bootstrap: int
    level: float

    def together(self, values: Float) -> Float:
        """Those in which all classes vary together."""
        return values[: self.bootstrap]

    def freedom(self, values: Float) -> Float:
        """Degrees of freedom behind a quantity, from what each class contributes to its variance.

        Common episodes tell as much of all classes as of one. inf where only one state a class
        leaves no variation, and so no interval either.
        """
        alone = values[self.bootstrap :]
        alone = alone.reshape(len(self.measured.present), _ALONE, *values.shape[1:])
        units = np.maximum(equal_units(self.measured), 2.0)
        common = self.measured.episodes is not None
        return degrees_of_freedom(alone.var(axis=1), units, common=common)

    def basic(self, value: float, values: Float) -> Interval:
        """Bias-corrected interval of a number."""
        freedom = float(self.freedom(values))
        return basic_interval(value, self.together(values), self.level, freedom)

    def errors(
        self, values: Float, noise: Float, summaries: Sequence[Callable[..., Float]]
    ) -> list[Interval]:
        """Intervals of seminorms of some differences, (n,) measured, (B, n) noise in resamples."""
        defined = ~np.isnan(values)
        if not defined.any():
            return [Interval(math.nan, math.nan, math.nan)] * len(summaries)
        noise = noise[:, defined] * student_ratio(self.freedom(noise[:, defined]), self.level)
        sizes = np.abs(self.together(noise))
        return [
            error_interval(
                float(summary(np.abs(values[defined]))), summary(sizes, axis=1), self.level
            )
            for summary in summaries
        ]
