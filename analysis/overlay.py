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
              component goes only as fast as regularisation takes it.
``head``      ⟨w_k, w_j⟩ / E_W
``cross``     ⟨h̄_k, w_j⟩ / √(E_H E_W)

Which intervals
---------------
States are resampled within each action (actions keep their shares), deviations enlarged by
√(n_k/(n_k − 1)) for small n_k (Rao & Wu), E_H measured and the prediction made anew each time.
Entries of the differences get one simultaneous band: basic bootstrap, corrected for bias,
its width the quantile of the largest studentised deviation. Summaries get percentile
intervals. The states of a snapshot must be a sample for these to mean anything; over a population
of training runs use :func:`across`.

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
Rao, Wu, "Resampling inference with complex survey data", JASA 83(401), 1988.
Montiel Olea, Plagborg-Møller, "Simultaneous confidence bands", J. Appl. Econometrics 34(1), 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.bands import (
    ROUNDING,
    Interval,
    basic_interval,
    percentile_interval,
    simultaneous_band,
)
from analysis.overlay_grams import (
    GRAMS,
    gram_errors,
    measured_grams,
    pair_angles,
    row_norms,
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
from analysis.snapshot import Snapshot

__all__ = ["GRAMS", "TERMS", "Across", "Comparison", "Interval", "Overlay", "across", "overlay"]


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
    feature_energy: float
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
        """Whether the prediction lies within the simultaneous band in every entry."""
        return all(comparison.covered for comparison in self.comparisons.values())


@dataclass(frozen=True, eq=False)
class Across:
    """Mean difference over training runs with a band that is simultaneous over all entries."""

    difference: Mapping[str, Float]
    lower: Mapping[str, Float]
    upper: Mapping[str, Float]

    def covered(self, names: Sequence[str] = GRAMS, margin: float = 0.0) -> bool:
        """Whether in every entry of these matrices the band reaches within `margin` of 0."""
        slack = margin + ROUNDING
        return all(
            bool(((self.lower[name] <= slack) & (self.upper[name] >= -slack)).all())
            for name in names
        )


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
    if bootstrap < 2 or not 0 < level < 1:
        raise ValueError(f"bootstrap must be >= 2 and level in (0, 1), got {bootstrap}, {level}")
    measured = Measured.of(snapshot, head, weights, feature_energy)
    if cone == "nonnegative" and not measured.rectified:
        raise ValueError(
            f"{measured.negative} features are negative, the nonnegative cone does not hold them: "
            f'use cone="free"'
        )
    require_dimension(measured, head, cone)
    model = Model(measured, head, cone)
    point = Statistics.of(measured, [np.ones(n) for n in measured.counts])
    drawn = [rng.multinomial(n, np.full(n, 1.0 / n), bootstrap) for n in measured.counts]
    resampled = Statistics.of(measured, drawn)

    exact = model.predict(float(point.energy[0, 0]))
    again = interpolated(model.predict, resampled.energy[:, 0])
    losses = configuration_losses(model, measured, point, exact, gridded=False)
    redrawn = configuration_losses(model, measured, resampled, again, gridded=True)
    observed, predicted = (
        measured_grams(point, measured),
        scaled_grams(exact, point.energy, measured),
    )
    comparisons = _compare(
        observed,
        predicted,
        measured_grams(resampled, measured),
        scaled_grams(again, resampled.energy, measured),
        level,
    )
    terms = {
        name: basic_interval(float(value[0]), explained(redrawn, name), level)
        for name, value in ((name, explained(losses, name)) for name in TERMS)
    }
    gap = basic_interval(
        float((losses["observed"] - losses["free"])[0]),
        redrawn["observed"] - redrawn["free"],
        level,
    )

    reasons = {
        f"{name} angles": "no pair of vectors that both have a direction"
        for name, comparison in comparisons.items()
        if math.isnan(comparison.angle_error.value)
    }
    alone = measured.present[measured.counts == 1]
    if len(alone):
        reasons["intervals"] = (
            f"actions {alone.tolist()} have a single state: no variation to resample"
        )
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
        feature_energy=float(point.energy[0, 0]),
        head_energy=measured.head_energy,
        etf_angle=etf_angle,
        rectified=measured.rectified,
        level=level,
        notes=(*measured.notes, *_inside_note(head, exact, point, measured)),
        reasons=reasons,
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
    level: float,
) -> dict[str, Comparison]:
    """Set Gram matrices of the sample (1, ., .) and of its resamples (B, ., .) side by side."""
    difference = {name: (observed[name] - predicted[name])[0] for name in GRAMS}
    replicates = {name: observed_again[name] - predicted_again[name] for name in GRAMS}
    lower, upper = simultaneous_band(difference, replicates, level)
    comparisons = {}
    for name in GRAMS:
        once = gram_errors(name, observed, predicted)
        again = gram_errors(name, observed_again, predicted_again)
        summaries = (
            percentile_interval(float(value[0]), values, level)
            for value, values in zip(once, again, strict=True)
        )
        comparisons[name] = Comparison(
            predicted[name][0],
            observed[name][0],
            difference[name],
            lower[name],
            upper[name],
            *summaries,
        )
    return comparisons


def _without_interval(found: Interval) -> Interval:
    return Interval(found.value, math.nan, math.nan)


def _without_band(found: Comparison) -> Comparison:
    nothing = np.full_like(found.difference, math.nan)
    return replace(
        found,
        lower=nothing,
        upper=nothing,
        angle_error=_without_interval(found.angle_error),
        worst_angle=_without_interval(found.worst_angle),
        norm_error=_without_interval(found.norm_error),
    )


def _etf_angle(centred: Float) -> float:
    """Mean |angle − arccos(−1/(K' − 1))| between different rows, degrees, of (1, K', K')."""
    classes = centred.shape[1]
    if classes < 3:
        return math.nan
    lengths = row_norms(centred)
    angles = pair_angles(centred, lengths, lengths)[0][~np.eye(classes, dtype=bool)]
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
    runs = {name: np.stack([o.comparisons[name].difference for o in overlays]) for name in GRAMS}
    mean = {name: values.mean(axis=0) for name, values in runs.items()}
    count = len(overlays)
    picks = rng.multinomial(count, np.full(count, 1.0 / count), resamples) / count
    grow = math.sqrt(count / (count - 1))
    replicates = {
        name: mean[name] + grow * (np.tensordot(picks, values, 1) - mean[name])
        for name, values in runs.items()
    }
    lower, upper = simultaneous_band(mean, replicates, level)
    return Across(mean, lower, upper)
