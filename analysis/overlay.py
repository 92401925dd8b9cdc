"""The peeled model's prediction laid over a measured policy.

:func:`overlay` measures class shares, E_H and E_W of a snapshot, solves the layer-peeled model for
them, sets its Gram matrices beside the measured ones, and splits the distance between the policy
and the optimum of its own objective into parts.

Which model
-----------
A *fixed* head is kept as it is, all K rows; each feature obeys ‖h‖² ≤ E_H, the bound of Eq. (9)
and Theorem 1. A *learned* head is solved for under the average bounds of Fang et al. (2021),
(1/K') Σ_k ‖h_k‖² ≤ E_H and (1/K') Σ_k ‖w_k‖² ≤ E_W, and only over the K' actions that occur. The
average bound is what the learned model can carry with a certified global optimum, and what the
measured configuration satisfies by construction. The bias, which the model does not have, is
left out (:attr:`Overlay.notes` says so).

Which energies
--------------
E_H is (1/K') Σ_k ‖h̄_k‖², h̄_k the mean feature of action k: each action counts once, as in the
average bound, and variation within actions, which the optimum does not have, is not counted as
length. ``feature_energy="states"`` takes (1/K') Σ_k mean_{s∈k} ‖h_s‖² instead; a number is taken as
it is, for example the radius of a policy that projects its features. E_W is the mean ‖w_k‖².

Where the best feature for some action lies inside the ball, as can happen with h ≥ 0, no
measurement tells E_H; a note says so, and it has to be given.

What is compared
----------------
``features``  ⟨h̄_k, h̄_j⟩ / E_H
``centred``   the same about the mean of the class means, divided by its mean diagonal. Softmax does
              not see a component that all features share when the head's rows sum to 0, and such a
              component goes only as fast as regularisation takes it. NaN with fewer than three
              actions: one centred mean is 0 and two are opposite, whatever the features.
``head``      ⟨w_k, w_j⟩ / E_W
``cross``     ⟨h̄_k, w_j⟩ / √(E_H E_W)

Which intervals
---------------
The states of a snapshot must be a sample for these to mean anything. Resamples keep the shares of
the actions; E_H is measured and the prediction made anew each time.

*Episodes.* States of one game resemble each other. Where a snapshot says which episode each state
is from, episodes are what varies: each gets a random weight (exponential, the Bayesian bootstrap)
for all its states, of every action, and deviations are enlarged by what few episodes lack in
variance, √((m + 1)/(m − 1)) for m of equal weight. Widths are those of Student's t; of episodes
with shares W_g of an action's states (Σ W²)² / Σ W⁴ count. Intervals are for other episodes *with
these shares of the actions*: how shares differ between games is in none of them, which matters to
the gap and its terms.

*States.* Where it does not say, states are taken for independent and resampled within each action,
deviations enlarged by √(n_k/(n_k − 1)) (Rao & Wu). A noise level known from n_k states has n_k − 1
degrees of freedom; those behind each number are Satterthwaite's, from resamples of one action at a
time.

*Band.* Entries of the differences get one simultaneous band: basic bootstrap, corrected for bias,
its width the quantile of the largest studentised deviation. About a fixed ETF's optimum (4 actions,
d = 8, noise of 10 % of the radius in each coordinate) the 95 % band held all entries in 94 % of
runs with 8, 12 and 50 states an action (300 runs each); with 6 in 90 %, with 5 in 87 % (900 runs),
with 2 or 3 in about 70 %. Below 8 states there are no intervals, and :attr:`Overlay.reasons` says
so; nor below 8 episodes, or what 3 of equal length tell. With half of the noise shared within a
game, by the states of each action or by all, and 8, 10, 20 or 50 games of 200 states: 93 to 97 %
(200 runs each). With games of exponential lengths 96 to 100 %, and intervals in a third of the runs
with 8 games, half of those with 10, nine in ten of those with 20. Taken as independent, the same
states gave bands that held all entries in at most 3 of 60 runs with up to 20 games, and in at most
12 of 60 with 50.

*Errors.* An error of angles or norms is a mean or a maximum of absolute values, positive for noise
alone. Its interval reaches as far as the same summary of the noise, and ends at 0: it contains the
measured value, and by the triangle inequality the true one with the stated probability or more, as
far as resamples tell the noise. Measured about the same optimum with 5 to 180 states, and displaced
from it by 5° and 20°: 92 to 100 % (60 to 100 runs each); about a learned head's optimum with 40 to
160 states: 88 to 100 % (24 runs); with games as above 95 to 100 %. Where noise is more than a tenth
of a class mean's squared length there are none for angles.

*Gap and terms* get basic intervals, which may reach below 0. Where both losses of a difference are
below float64's range, at √(E_H E_W) in the hundreds, it is NaN.

*Populations.* The 8 cells of the Ideal Cliff Walking are all states there are, two for each action:
nothing was sampled, no interval is given, and the differences are exact. What varies are training
runs. :func:`across` resamples them, and the statement that the prediction matches is one about its
band: the mean difference over runs is 0 in every entry as far as the runs can tell. The band is as
narrow as the runs agree, so a difference that they share is seen (the features of a learned head
fail; ``action-collapse overlay-cliff`` tells arm by arm).

What explains the distance
--------------------------
Losses L are Σ_s ω_s (−log π(a*|s)) with Σ ω = 1, of a sequence of configurations:

``observed``      every h_s with the measured head
``class_means``   every h_s replaced by its class mean
``directions``    class means turned to the best direction for the measured head, their lengths kept
``equal_norms``   all lengths set to √E_H, directions best for them
``head``          the learned-head optimum (left out for a fixed head)
``free``          the optimum for features of either sign

All but the last obey h ≥ 0 if the measured features do. The terms are successive differences and
sum to the total gap L(observed) − L(free). With the default E_H none is negative (``within_class``
by Jensen), except ``norms`` of a fixed head: where weights or the head's rows differ, unequal
lengths can be better than equal ones. At the optimum all are 0.

References
----------
Fang, He, Long, Su, "Exploring deep neural networks via layer-peeled model", PNAS 118(43), 2021.
Kish, "Survey sampling", 1965.
Rao, Wu, "Resampling inference with complex survey data", JASA 83(401), 1988.
Rubin, "The Bayesian bootstrap", Ann. Statist. 9(1), 1981.
Montiel Olea, Plagborg-Møller, "Simultaneous confidence bands", J. Appl. Econometrics 34(1), 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.bands import ROUNDING, Interval, simultaneous_band
from analysis.overlay_grams import (
    GRAMS,
    angle_noise,
    degrees,
    gram_errors,
    measured_grams,
    pair_cosines,
    scaled_grams,
)
from analysis.overlay_measure import Cone, Energy, Float, Head, Measured, Statistics
from analysis.overlay_model import (
    TERMS,
    Model,
    Prediction,
    configuration_losses,
    explained,
    interpolated,
    require_dimension,
)
from analysis.overlay_resamples import (
    FEWEST,
    FEWEST_EQUAL,
    Resamples,
    draw,
    equal_units,
    too_few,
)
from analysis.snapshot import Snapshot

# Noise of a class mean, in squared length, above which its direction is not known well enough.
_BLURRED = 0.1

__all__ = [
    "GRAMS",
    "TERMS",
    "Across",
    "Comparison",
    "Interval",
    "Overlay",
    "across",
    "across_runs",
    "overlay",
]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One Gram matrix, predicted and observed, in the units of the module's docstring."""

    predicted: Float
    """(K', K'); for ``cross`` of a fixed head (K', K)."""
    observed: Float
    difference: Float
    """observed − predicted."""
    lower: Float
    """Band of the difference, simultaneous over all entries of all matrices of the overlay."""
    upper: Float
    angle_error: Interval
    """Mean over pairs of |observed − predicted angle|, degrees."""
    worst_angle: Interval
    """The largest of them."""
    norm_error: Interval
    """Mean over rows of |observed − predicted norm|, relative to the root of the energy; NaN for
    ``cross``."""

    @property
    def covered(self) -> bool:
        """Whether the band holds a difference of 0 in every entry."""
        return bool(((self.lower <= ROUNDING) & (self.upper >= -ROUNDING)).all())


@dataclass(frozen=True, eq=False)
class Overlay:
    """Prediction, measurement and what lies between them."""

    head: Head
    cone: Cone
    comparisons: Mapping[str, Comparison]
    """By name, ``features``, ``centred``, ``head``, ``cross``."""
    gap: Interval
    """Total gap L(observed) − L(free), nats."""
    terms: Mapping[str, Interval]
    """Its parts by name, ``within_class``, ``directions``, ``norms``, ``head``, ``cone``."""
    losses: Mapping[str, float]
    """Loss of each configuration, nats."""
    present: NDArray[np.int64]
    """(K',) actions that occur, the rows of the matrices."""
    shares: Float
    """(K',) Σ ω of each of them."""
    counts: NDArray[np.int64]
    """(K',) states of each of them."""
    episodes: NDArray[np.int64] | None
    """(K',) episodes in which each of them occurs; None where states were resampled."""
    feature_energy: float
    energy_source: Literal["means", "states", "given"]
    """Where `feature_energy` is from: class means, states, or the caller."""
    head_energy: float
    etf_angle: float
    """Mean |angle − arccos(−1/(K'−1))| of the *predicted* centred means, degrees: what the weights
    (and a head that is no ETF) account for by themselves."""
    rectified: bool
    """Whether no measured feature is negative."""
    level: float
    notes: tuple[str, ...]
    reasons: Mapping[str, str]
    """Causes of what is NaN."""

    @property
    def covered(self) -> bool:
        """Whether the prediction lies within the simultaneous band in every entry.

        With fewer than three actions ``centred`` has no band and is left out.
        """
        shapeless = len(self.present) < 3
        return all(
            comparison.covered
            for name, comparison in self.comparisons.items()
            if not (shapeless and name == "centred")
        )


@dataclass(frozen=True, eq=False)
class Across:
    """Means over training runs, their difference with a band simultaneous over all entries."""

    predicted: Mapping[str, Float]
    observed: Mapping[str, Float]
    difference: Mapping[str, Float]
    """observed − predicted."""
    lower: Mapping[str, Float]
    upper: Mapping[str, Float]
    runs: int
    level: float

    def covered(self, names: Sequence[str] = GRAMS, margin: float = 0.0) -> bool:
        """Whether in every entry of these matrices the band reaches within `margin` of 0."""
        return not any(self.outside(name, margin).any() for name in names)

    def outside(self, name: str, margin: float = 0.0) -> NDArray[np.bool_]:
        """Entries of a matrix whose band does not reach within `margin` of 0."""
        slack = margin + ROUNDING
        outside: NDArray[np.bool_] = (self.lower[name] > slack) | (self.upper[name] < -slack)
        return outside


def overlay(
    snapshot: Snapshot,
    *,
    rng: np.random.Generator,
    head: Head = "fixed",
    cone: Cone = "free",
    weights: ArrayLike | None = None,
    feature_energy: Energy = "means",
    bootstrap: int = 500,
    level: float = 0.95,
) -> Overlay:
    """Hold a snapshot against the peeled model's optimum (module docstring).

    Parameters
    ----------
    snapshot : Snapshot
        With a head.
    rng : numpy.random.Generator
        Draws the resamples.
    head, cone
        Which model predicts.
    weights : (N,) array, optional
        d^π(s)·Ψ(s) > 0 of every state; all equal by default, so that classes weigh by count.
    feature_energy
        Where E_H is from.
    bootstrap : int
        Resamples, at least 2.
    level : float
        Coverage of the intervals.

    Returns
    -------
    Overlay

    Raises
    ------
    ValueError
        If the snapshot has no head, weights are not positive, features that the nonnegative cone
        is to hold are negative, all class means are 0, the dimension is below what the model needs
        (K' − 1 for a learned head, K' for a rectified one), or a learned head has one action only.
    """
    _check_options(rng, cone, bootstrap, level)
    measured = Measured.of(snapshot, head, weights, feature_energy)
    if cone == "nonnegative" and not measured.rectified:
        raise ValueError(
            f"{measured.negative} features are negative, the nonnegative cone does not hold them: "
            f'use cone="free"'
        )
    require_dimension(measured, head, cone)
    model = Model(measured, head, cone)
    point = Statistics.of_sample(measured)
    resampled = Statistics.of(measured, draw(measured, bootstrap, rng), least=point.energy)

    exact = model.predict(float(point.energy[0, 0]))
    again = interpolated(model.predict, resampled.energy[:, 0])
    losses = configuration_losses(model, measured, point, exact, gridded=False)
    redrawn = configuration_losses(model, measured, resampled, again, gridded=True)
    observed, predicted = (
        measured_grams(point, measured),
        scaled_grams(exact, point.energy, measured),
    )
    resamples = Resamples(measured, bootstrap, level)
    comparisons = _compare(
        observed,
        predicted,
        measured_grams(resampled, measured),
        scaled_grams(again, resampled.energy, measured),
        resamples,
    )
    terms = {
        name: resamples.basic(float(explained(losses, name)[0]), explained(redrawn, name))
        for name in TERMS
    }
    gap = resamples.basic(
        float((losses["observed"] - losses["free"])[0]), redrawn["observed"] - redrawn["free"]
    )

    reasons = {
        f"{name} angles": "no pair of vectors that both have a direction"
        for name, comparison in comparisons.items()
        if math.isnan(comparison.angle_error.value)
    }
    vanished = [name for name, value in losses.items() if value[0] == 0.0]
    if len(vanished) > 1:
        reasons["gap"] = (
            f"losses {vanished} are below float64's range at ρ = √(E_H E_W) = "
            f"{math.sqrt(float(point.energy[0, 0]) * measured.head_energy):.4g}: differences "
            f"between them are unknown"
        )
        nothing = Interval(math.nan, math.nan, math.nan)
        steps = list(losses)
        terms |= {
            name: nothing for i, name in enumerate(TERMS) if {*steps[i : i + 2]} <= {*vanished}
        }
        gap = nothing if "observed" in vanished else gap
    if len(measured.present) < 3:
        reasons.pop("centred angles", None)
        reasons["centred comparison"] = (
            "fewer than three actions are present: one centred mean is 0 and two are opposite for "
            "any features, so a comparison carries no information"
        )
        comparisons["centred"] = _without_numbers(comparisons["centred"])
    lengths = np.einsum("bkk->bk", point.gram)[0]
    noise = np.einsum("bkk->bk", resampled.gram)[:bootstrap].mean(axis=0) - lengths
    blurred = measured.present[noise > _BLURRED * lengths]
    if len(blurred):
        reasons["angle intervals"] = (
            f"the class means of actions {blurred.tolist()} are hardly longer than their noise: "
            f"more {measured.unit}s are needed to tell their directions"
        )
        comparisons |= {
            name: _without_angles(comparisons[name]) for name in ("features", "centred", "cross")
        }
    few = too_few(measured)
    if few.any():
        reasons["intervals"] = _few_words(measured, few)
        comparisons = {name: _without_band(found) for name, found in comparisons.items()}
        terms = {name: _without_interval(term) for name, term in terms.items()}
        gap = _without_interval(gap)
    etf_angle = _etf_angle(predicted["centred"])
    if math.isnan(etf_angle):
        reasons["etf_angle"] = "the predicted centred means have no free angle between them"
    return Overlay(
        head=head,
        cone=cone,
        comparisons=comparisons,
        gap=gap,
        terms=terms,
        losses={name: float(value[0]) for name, value in losses.items()},
        present=measured.present,
        shares=measured.shares,
        counts=measured.counts,
        episodes=None if measured.episodes is None else measured.units,
        feature_energy=float(point.energy[0, 0]),
        energy_source=feature_energy if isinstance(feature_energy, str) else "given",
        head_energy=measured.head_energy,
        etf_angle=etf_angle,
        rectified=measured.rectified,
        level=level,
        notes=(*measured.notes, *_inside_note(head, exact, point, measured)),
        reasons=reasons,
    )


def _check_options(rng: np.random.Generator, cone: Cone, bootstrap: int, level: float) -> None:
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {rng!r}: use default_rng(seed)")
    if cone not in get_args(Cone):
        raise ValueError(f"cone must be 'free' or 'nonnegative', got {cone!r}")
    whole = isinstance(bootstrap, int | np.integer) and not isinstance(bootstrap, bool)
    if not whole or bootstrap < 2:
        raise ValueError(f"bootstrap must be a whole number >= 2, got {bootstrap!r}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}")


def _few_words(measured: Measured, few: NDArray[np.bool_]) -> str:
    actions, counts = measured.present[few].tolist(), measured.units[few]
    most = f"{counts.max()} {measured.unit}{'s' if counts.max() > 1 else ''}"
    each = most if counts.min() == counts.max() else f"{counts.min()} to {most}"
    worth = needed = ""
    if measured.episodes is not None:
        worth = f", worth {equal_units(measured)[few].min():.1f} or more of equal length"
        needed = f", worth {FEWEST_EQUAL:g},"
    return (
        f"actions {actions} have {each} each{worth}: resampling needs {FEWEST} or more{needed} to "
        f"tell how much a class mean varies; over training runs use across"
    )


def _inside_note(
    head: Head, exact: Prediction, point: Statistics, measured: Measured
) -> tuple[str, ...]:
    """Say which actions of a fixed head do not use their whole ball."""
    used = np.diag(exact.features[0]) / point.energy[0, 0]
    inside = measured.present[used < 1.0 - 1e-6].tolist()
    if head == "learned" or not inside:
        return ()
    return (
        f"the best feature for actions {inside} lies inside the ball: E_H is not measured by "
        f"their norms; pass feature_energy if the bound is known",
    )


def _compare(
    observed: dict[str, Float],
    predicted: dict[str, Float],
    observed_again: dict[str, Float],
    predicted_again: dict[str, Float],
    resamples: Resamples,
) -> dict[str, Comparison]:
    """Set Gram matrices of the sample (1, ., .) and of its resamples (B, ., .) side by side."""
    difference = {name: (observed[name] - predicted[name])[0] for name in GRAMS}
    differences = {name: observed_again[name] - predicted_again[name] for name in GRAMS}
    lower, upper = simultaneous_band(
        difference,
        {name: resamples.together(values) for name, values in differences.items()},
        resamples.level,
        {name: resamples.freedom(values) for name, values in differences.items()},
    )
    comparisons = {}
    for name in GRAMS:
        angles, norms = gram_errors(name, observed, predicted)
        # Of the prediction, which moves with E_H, and of norms the noise is the plain difference.
        still = degrees(pair_cosines(name, predicted))
        moved = degrees(pair_cosines(name, predicted_again)) - still
        turned = angle_noise(name, observed, observed_again, resamples.bootstrap) - moved
        stretched = gram_errors(name, observed_again, predicted_again)[1] - norms
        count = len(turned)
        comparisons[name] = Comparison(
            predicted[name][0],
            observed[name][0],
            difference[name],
            lower[name],
            upper[name],
            *resamples.errors(angles.ravel(), turned.reshape(count, -1), (np.mean, np.max)),
            *resamples.errors(norms.ravel(), stretched, (np.mean,)),
        )
    return comparisons


def _without_interval(found: Interval) -> Interval:
    return Interval(found.value, math.nan, math.nan)


def _without_numbers(found: Comparison) -> Comparison:
    nothing = Interval(math.nan, math.nan, math.nan)
    found = replace(found, angle_error=nothing, worst_angle=nothing, norm_error=nothing)
    return _without_band(found)


def _without_angles(found: Comparison) -> Comparison:
    return replace(
        found,
        angle_error=_without_interval(found.angle_error),
        worst_angle=_without_interval(found.worst_angle),
    )


def _without_band(found: Comparison) -> Comparison:
    nothing = np.full_like(found.difference, math.nan)
    norm_error = _without_interval(found.norm_error)
    return replace(_without_angles(found), lower=nothing, upper=nothing, norm_error=norm_error)


def _etf_angle(centred: Float) -> float:
    """Mean |angle − arccos(−1/(K' − 1))| between different rows, degrees, of (1, K', K')."""
    classes = centred.shape[1]
    if classes < 3:
        return math.nan
    angles = degrees(pair_cosines("centred", {"centred": centred}))[0]
    angles = angles[~np.eye(classes, dtype=bool)]
    return float(np.abs(angles - np.degrees(np.arccos(-1.0 / (classes - 1)))).mean())


def across(
    overlays: Sequence[Overlay],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 4000,
) -> Across:
    """Pool overlays of independent training runs: the runs are what is resampled.

    Parameters
    ----------
    overlays
        At least two, with the same actions present and the same model.

    Raises
    ------
    ValueError
        If there are fewer, or their matrices differ in shape.
    """
    kinds = {(o.head, o.cone, tuple(o.present.tolist())) for o in overlays}
    if len(overlays) < 2 or len(kinds) > 1:
        raise ValueError(
            f"pooling needs at least two overlays of the same model and actions, got "
            f"{len(overlays)} of {len(kinds)} kinds: {sorted(map(str, kinds))}"
        )
    return across_runs(
        {name: np.stack([o.comparisons[name].predicted for o in overlays]) for name in GRAMS},
        {name: np.stack([o.comparisons[name].observed for o in overlays]) for name in GRAMS},
        rng,
        level=level,
        resamples=resamples,
    )


def across_runs(
    predicted: Mapping[str, Float],
    observed: Mapping[str, Float],
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    resamples: int = 4000,
) -> Across:
    """Pool Gram matrices of independent training runs, (n, ., .) by name, as :func:`across` does.

    Raises
    ------
    ValueError
        If n < 2.
    """
    (count,) = {len(values) for values in (*predicted.values(), *observed.values())}
    if count < 2:
        raise ValueError(f"pooling needs at least two runs, got {count}")
    runs = {name: observed[name] - predicted[name] for name in GRAMS}
    mean = {name: values.mean(axis=0) for name, values in runs.items()}
    picks = rng.multinomial(count, np.full(count, 1.0 / count), resamples) / count
    grow = math.sqrt(count / (count - 1))
    replicates = {
        name: mean[name] + grow * (np.tensordot(picks, values, 1) - mean[name])
        for name, values in runs.items()
    }
    freedom = dict.fromkeys(GRAMS, count - 1)
    lower, upper = simultaneous_band(mean, replicates, level, freedom)
    return Across(
        predicted={name: predicted[name].mean(axis=0) for name in GRAMS},
        observed={name: observed[name].mean(axis=0) for name in GRAMS},
        difference=mean,
        lower=lower,
        upper=upper,
        runs=count,
        level=level,
    )
