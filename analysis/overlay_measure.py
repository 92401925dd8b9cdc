"""A snapshot as the peeled model sees it: class means, shares, energies, losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

import lpm
from analysis.labelling import as_array
from analysis.snapshot import Snapshot

Float = NDArray[np.float64]
Head = Literal["fixed", "learned"]
Cone = Literal["free", "nonnegative"]
Energy = Literal["means", "states"] | float


@dataclass(frozen=True, eq=False)
class Measured:
    """A snapshot as float64 arrays, grouped by the actions that occur."""

    features: list[Float]  # (n_k, d)
    weights: list[Float]  # (n_k,), each class sums to 1
    episodes: list[NDArray[np.int64]] | None  # (n_k,), 0 ... G - 1
    losses: list[Float]  # (n_k,)
    head: Float  # (J, d): K rows for a fixed head, K' for a learned one
    own_rows: NDArray[np.int64]  # (K',) row of `head` of each action present
    present: NDArray[np.int64]
    counts: NDArray[np.int64]
    units: NDArray[np.int64]  # (K',) episodes of each class, or its states
    shares: Float
    feature_energy: Energy
    head_energy: float
    rectified: bool
    negative: int
    whole_counts: Float
    notes: tuple[str, ...]
    reasons: dict[str, str]

    @property
    def unit(self) -> str:
        """What is resampled."""
        return "state" if self.episodes is None else "episode"

    @classmethod
    def of(
        cls, snapshot: Snapshot, head: Head, weights: ArrayLike | None, energy: Energy
    ) -> Measured:
        """Check and group a snapshot; the arguments and errors are those of `overlay`."""
        if snapshot.head is None:
            raise ValueError("the snapshot has no head: the peeled model needs E_W and W")
        if head not in get_args(Head):
            raise ValueError(f"head must be 'fixed' or 'learned', got {head!r}")
        _check_energy(energy)
        features = as_array(snapshot.features).astype(np.float64)
        labels = as_array(snapshot.labels).astype(np.int64)
        omega = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
        _check_weights(omega, len(labels))
        present, own, counts = np.unique(labels, return_inverse=True, return_counts=True)
        if head == "learned" and len(present) < 2:
            raise ValueError(
                f"only action {present[0]} occurs: a learned head has nothing to be set against; "
                f'use head="fixed" or more states'
            )
        rows = as_array(snapshot.head).astype(np.float64)
        own_rows = present
        if head == "learned":
            rows, own_rows = rows[present], np.arange(len(present))
        notes = []
        if len(present) < snapshot.num_classes:
            absent = np.setdiff1d(np.arange(snapshot.num_classes), present).tolist()
            model = "left out of the model" if head == "learned" else "without a predicted feature"
            notes.append(f"actions {absent} are no state's label: {model}")
        if snapshot.bias is not None and np.ptp(as_array(snapshot.bias)) > 0:
            notes.append("the policy's bias is no part of the model and left out of its losses")
        by_class = [own == k for k in range(len(present))]
        of_class = None
        if snapshot.episodes is not None:
            games = np.unique(as_array(snapshot.episodes), return_inverse=True)[1]
            of_class = [games[of] for of in by_class]
        mass = np.array([omega[of].sum() for of in by_class])
        shares = mass / mass.sum()
        # The learned model takes whole numbers, of which only ratios matter.
        whole = counts if weights is None else np.maximum(np.round(shares * 1e9), 1.0)
        problem = lpm.PeeledProblem(rows, own_rows[own], omega / omega.sum(), 1.0)
        losses = lpm.softplus(problem.log_odds(features))
        return cls(
            features=[features[of] for of in by_class],
            weights=[omega[of] / omega[of].sum() for of in by_class],
            episodes=of_class,
            losses=[losses[of] for of in by_class],
            head=rows,
            own_rows=own_rows,
            present=present,
            counts=counts,
            units=counts if of_class is None else np.array([len(np.unique(g)) for g in of_class]),
            shares=shares,
            feature_energy=energy,
            head_energy=float((rows**2).sum(axis=1).mean()),
            rectified=bool((features >= 0).all()),
            negative=int((features < 0).sum()),
            whole_counts=whole.astype(np.float64),
            notes=tuple(notes),
            reasons={},
        )


def _check_energy(energy: Energy) -> None:
    if isinstance(energy, str):
        fits = energy in ("means", "states")
    else:
        # Python takes True for 1.
        number = isinstance(energy, int | float | np.number) and not isinstance(energy, bool)
        fits = number and 0 < energy < math.inf
    if not fits:
        raise ValueError(
            f"feature_energy must be 'means', 'states' or a finite number above 0, got {energy!r}"
        )


def _check_weights(weights: Float, states: int) -> None:
    if weights.shape != (states,):
        raise ValueError(
            f"weights must be {states} positive numbers, one a state, got shape {weights.shape}"
        )
    wrong = ~(np.isfinite(weights) & (weights > 0))
    if wrong.any():
        raise ValueError(
            f"weights must be {states} positive finite numbers, one a state: {int(wrong.sum())} "
            f"are not, the first of them {weights[wrong][0]:g} (state {int(wrong.argmax())}); drop "
            f"states of weight 0, for negative ones the claim reverses"
        )


@dataclass(frozen=True, eq=False)
class Statistics:
    """What B resamples give, or the sample itself (B = 1)."""

    gram: Float  # (B, K', K') of class means
    cross: Float  # (B, K', J)
    energy: Float  # (B, 1)
    loss: Float  # (B,) of the features
    mean_loss: Float  # (B,) of the class means

    @classmethod
    def of_sample(cls, measured: Measured) -> Statistics:
        """Statistics of the sample itself, (1, ...)."""
        found = cls.of(measured, measured.weights, least=np.zeros(1))
        if not found.energy[0, 0] > 0:
            raise ValueError(
                f"the measured E_H is {found.energy[0, 0]:g}: the class means are all 0, there is "
                f"nothing to compare"
            )
        return found

    @classmethod
    def of(cls, measured: Measured, shares: Sequence[Float], *, least: Float) -> Statistics:
        """Statistics of samples, states having these shares of their class: (n_k,) or (B, n_k).

        Shares that are enlarged deviations may be negative, and so may then be an E_H of states
        that nearly all is in one episode: a thousandth of `least` is the smallest.
        """
        means, squares, losses = [], [], []
        groups = zip(measured.features, measured.losses, shares, strict=True)
        for features, loss, share in groups:
            share = np.atleast_2d(share)
            means.append(share @ features)
            squares.append(share @ (features**2).sum(axis=1))
            losses.append(share @ loss)
        h = np.stack(means, axis=1)
        gram, cross = h @ h.mT, h @ measured.head.T
        energy = measured.feature_energy
        if energy == "means":
            found = np.einsum("bkk->b", gram) / h.shape[1]
        elif energy == "states":
            found = np.mean(squares, axis=0)
        else:
            found = np.full(len(h), float(energy))
        found = np.maximum(found, 1e-3 * least.item())
        own = np.take_along_axis(cross, measured.own_rows[None, :, None], axis=2)
        other = cross - own
        np.put_along_axis(
            other, np.broadcast_to(measured.own_rows[None, :, None], own.shape), -np.inf, axis=2
        )
        mean_loss = lpm.softplus(np.logaddexp.reduce(other, axis=2)) @ measured.shares
        return cls(
            gram, cross, found[:, None], np.stack(losses, axis=1) @ measured.shares, mean_loss
        )
