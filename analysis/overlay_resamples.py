"""Resamples of a snapshot, and intervals of what they give.

States, where nothing says which episodes they are from, are drawn with replacement within each
action. Episodes are weighted at random, all their states alike: a game that counts for more does so
for every action in it, which keeps what actions share within a game. The weights are exponential
(the Bayesian bootstrap) and never 0, so that no resample is without an action that few games show.

References
----------
Kish, "Survey sampling", 1965, on what samples of unequal weight tell.
Rao, Wu, "Resampling inference with complex survey data", JASA 83(401), 1988.
Rubin, "The Bayesian bootstrap", Ann. Statist. 9(1), 1981.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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


def draw(measured: Measured, bootstrap: int, rng: np.random.Generator) -> list[Float]:
    """Shares of the states of each class in resamples, (bootstrap + K'·_ALONE, n_k).

    All classes vary in the first ones. In the others one class varies and the rest stay as they
    are, _ALONE times for each class in turn.
    """
    if measured.episodes is None:
        return _draw_states(measured, bootstrap, rng)
    return _draw_episodes(measured, measured.episodes, bootstrap, rng)


def _draw_states(measured: Measured, bootstrap: int, rng: np.random.Generator) -> list[Float]:
    classes, drawn = len(measured.present), []
    for k, weights in enumerate(measured.weights):
        n = len(weights)
        even = np.full(n, 1.0 / n)
        alone = np.ones((classes, _ALONE, n), dtype=np.int64)
        alone[k] = rng.multinomial(n, even, _ALONE)
        times = np.concatenate([rng.multinomial(n, even, bootstrap), alone.reshape(-1, n)])
        # Resampled means of n states vary (n - 1)/n as much as means do.
        drawn.append(_shares(times, weights, math.sqrt(n / max(n - 1, 1))))
    return drawn


def _draw_episodes(
    measured: Measured,
    episodes: Sequence[NDArray[np.int64]],
    bootstrap: int,
    rng: np.random.Generator,
) -> list[Float]:
    classes, drawn = len(measured.present), []
    games = 1 + max(int(own.max()) for own in episodes)
    together = rng.standard_exponential((bootstrap, games))
    for k, (weights, own) in enumerate(zip(measured.weights, episodes, strict=True)):
        alone = np.ones((classes, _ALONE, games))
        alone[k] = rng.standard_exponential((_ALONE, games))
        times = np.concatenate([together, alone.reshape(-1, games)])[:, own]
        # Means of m values with Dirichlet weights vary (m - 1)/(m + 1) as much as means do.
        m = len(np.unique(own))
        drawn.append(_shares(times, weights, math.sqrt((m + 1) / max(m - 1, 1))))
    return drawn


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

        Of episodes with shares W_g of a class's weight, 1 / Σ W_g² count (Kish), and as many for
        all classes as for one. inf where only one state a class leaves no variation, and so no
        interval either.
        """
        alone = values[self.bootstrap :]
        alone = alone.reshape(len(self.measured.present), _ALONE, *values.shape[1:])
        units, episodes = self.measured.counts.astype(np.float64), self.measured.episodes
        if episodes is not None:
            groups = zip(episodes, self.measured.weights, strict=True)
            units = np.array([1.0 / (np.bincount(*group) ** 2).sum() for group in groups])
        return degrees_of_freedom(
            alone.var(axis=1), np.maximum(units, 2.0), common=episodes is not None
        )

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
