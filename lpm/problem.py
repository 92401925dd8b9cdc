"""The layer-peeled problem of the paper with a fixed head, Eq. (8)-(9), in the log domain.

For a state s with optimal action k = a*(s) and feature h, everything about the policy is in
its *log-odds against* the optimal action,

    F(h) = log Σ_{j≠k} exp⟨h, w_j − w_k⟩ = log((1 − π(k|h)) / π(k|h)),

since −log π(k|h) = softplus(F) = log(1 + e^F). F is convex, stays of order one where the
cross-entropy underflows (already at ρ = √(E_H·E_W) ≈ 30 in float64 its gradient has lost all
digits next to 1), and is what Eq. (17) minimises after taking its logarithm.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

Float = NDArray[np.float64]
Cone = Literal["free", "nonnegative"]

_CHUNK_FLOATS = 1 << 22  # temporaries of about 32 MiB, whatever N is


def softplus(x: ArrayLike) -> Float:
    """log(1 + eˣ) elementwise without overflow."""
    return np.asarray(np.logaddexp(0.0, x))


def log_softplus(x: ArrayLike) -> Float:
    """log log(1 + eˣ) elementwise, accurate where log(1 + eˣ) underflows.

    With x = F this is log(−log π(a*)). For x ≤ −40, log(1 + eˣ) = eˣ(1 − eˣ/2 + …), so the
    result is x to within e^{−40}/2 < 2.2e-18.
    """
    x = np.asarray(x, dtype=np.float64)
    return np.where(x < -40.0, x, np.log(softplus(np.maximum(x, -40.0))))


def sigmoid(x: ArrayLike) -> Float:
    """1/(1 + e⁻ˣ) elementwise; with x = F it is 1 − π(a*)."""
    return np.asarray(np.exp(-softplus(-np.asarray(x, dtype=np.float64))))


@dataclass(frozen=True)
class LogOdds:
    """F, the softmax over the other actions, and the gradient of F, for a block of states."""

    value: Float
    """(n,) F(h_s)."""
    competitors: Float
    """(n, K) p_j = exp⟨h, w_j − w_k⟩ / Σ_{i≠k}, zero at the state's own action."""
    gradient: Float
    """(n, d) ∇F = Σ_j p_j (w_j − w_k)."""
    spread: Float
    """(n,) Σ_j p_j ‖w_j − w_k‖: size of the terms that cancel in the gradient, its yardstick."""


@dataclass(frozen=True, init=False, eq=False)
class PeeledProblem:
    """max_H Σ_s weights_s · log π(a*(s) | h_s) subject to ‖h_s‖² ≤ E_H, the head W fixed.

    Parameters
    ----------
    head
        (K, d) W, row k the vector of action k. Any head, not only an ETF.
    labels
        (N,) integers in [0, K): the optimal action of every state.
    weights
        (N,) d^π(s)·Ψ(s) > 0; the Theorem 1 of the paper is false for Ψ ≤ 0.
    feature_energy
        E_H > 0, one number or one per state (N,).
    cone
        ``"free"`` or ``"nonnegative"`` (rectified features, h ≥ 0).

    Raises
    ------
    ValueError
        Shapes that disagree, non-finite numbers, labels out of range, weights or energies
        that are not positive, fewer than two actions, or a head whose rows are all equal.
    TypeError
        Labels that are not integers.
    """

    head: Float
    labels: NDArray[np.intp]
    weights: Float
    feature_energy: Float
    cone: Cone = "free"

    def __init__(
        self,
        head: ArrayLike,
        labels: ArrayLike,
        weights: ArrayLike,
        feature_energy: ArrayLike,
        cone: Cone = "free",
    ) -> None:
        head_ = checked_head(head)
        labels_ = _checked_labels(labels, len(head_))
        num_states = len(labels_)
        weights_ = _checked_positive(weights, "weights", num_states, scalar=False)
        energy_ = _checked_positive(feature_energy, "feature_energy", num_states, scalar=True)
        if cone not in ("free", "nonnegative"):
            raise ValueError(f"cone must be 'free' or 'nonnegative', got {cone!r}")
        for name, value in (
            ("head", head_),
            ("labels", labels_),
            ("weights", weights_),
            ("feature_energy", energy_),
        ):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "cone", cone)

    @classmethod
    def from_action_values(
        cls,
        head: ArrayLike,
        action_values: ArrayLike,
        weights: ArrayLike,
        feature_energy: ArrayLike,
        cone: Cone = "free",
        tie_tolerance: float = 1e-9,
    ) -> "PeeledProblem":
        """Label every state by its best action, refusing states where it is not unique.

        Parameters
        ----------
        action_values
            (N, K) Q(s, a).
        tie_tolerance
            Two actions tie when their values differ by at most this much times the larger of
            1 and |max Q|.

        Raises
        ------
        ValueError
            A state with two optimal actions: Theorem 1 does not cover it.
        """
        q = np.asarray(action_values, dtype=np.float64)
        if q.ndim != 2 or q.shape[1] != len(np.asarray(head)):
            raise ValueError(
                f"action_values must be (N, K) with K = {len(np.asarray(head))} (the rows of "
                f"the head), got shape {q.shape}"
            )
        if not np.isfinite(q).all():
            raise ValueError(f"action_values has {int((~np.isfinite(q)).sum())} non-finite entries")
        best = q.max(axis=1, keepdims=True)
        tied = (q >= best - tie_tolerance * np.maximum(1.0, np.abs(best))).sum(axis=1) > 1
        if tied.any():
            state = int(np.argmax(tied))
            raise ValueError(
                f"{int(tied.sum())} of {len(q)} states have more than one optimal action (state "
                f"{state}: Q = {q[state].tolist()}); Theorem 1 needs a unique one: drop these "
                f"states, break the tie in Q, or lower tie_tolerance={tie_tolerance}"
            )
        return cls(head, q.argmax(axis=1), weights, feature_energy, cone)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.head)

    @property
    def dim(self) -> int:
        """d."""
        return int(self.head.shape[1])

    @property
    def num_states(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def energies(self) -> Float:
        """(N,) E_H of every state (a read-only broadcast view when it is one number)."""
        return np.broadcast_to(self.feature_energy, (self.num_states,))

    def checked_features(self, features: ArrayLike) -> NDArray[np.floating]:
        """Features as an (N, d) floating array, or an error that says what is wrong."""
        h = np.asarray(features)
        if h.dtype.kind != "f":
            h = h.astype(np.float64)
        if h.shape != (self.num_states, self.dim):
            raise ValueError(
                f"features must have shape (N, d) = {(self.num_states, self.dim)}, got {h.shape}"
            )
        return h

    def blocks(self) -> Iterator[slice]:
        """Slices over the states small enough that temporaries stay about 32 MiB."""
        size = max(1, _CHUNK_FLOATS // max(self.dim, self.num_classes))
        for start in range(0, self.num_states, size):
            yield slice(start, min(start + size, self.num_states))

    def log_odds(self, features: ArrayLike) -> Float:
        """(N,) F(h_s) = log((1 − π)/π) of the optimal action, at (N, d) features."""
        h = self.checked_features(features)
        out = np.empty(self.num_states)
        for rows in self.blocks():
            z, top = self._shifted_logits(h[rows], self.labels[rows])
            out[rows] = top[:, 0] + np.log(np.exp(z).sum(axis=1))
        return out

    def log_odds_block(self, features: ArrayLike, rows: slice) -> LogOdds:
        """F with its softmax and gradient for the states ``rows``; features is (n, d)."""
        labels = self.labels[rows]
        h = np.asarray(features, dtype=np.float64)
        z, top = self._shifted_logits(h, labels)
        p = np.exp(z)
        total = p.sum(axis=1, keepdims=True)
        p /= total
        return LogOdds(
            value=(top + np.log(total))[:, 0],
            competitors=p,
            # Σ p_j (w_j − w_k) with the label's own coefficient −1 folded in: one product.
            gradient=p @ self.head - self.head[labels],
            spread=np.einsum("nk,nk->n", p, self._distances[labels]),
        )

    def objective(self, features: ArrayLike) -> float:
        """J = Σ weights · log π(a*) ≤ 0 of Eq. (8), the quantity that is maximised."""
        return -float(self.weights @ softplus(self.log_odds(features)))

    def gradient(self, features: ArrayLike) -> Float:
        """(N, d) ∂J/∂h_s = −weights_s · σ(F) · ∇F."""
        h = self.checked_features(features)
        out = np.empty(h.shape)
        for rows in self.blocks():
            block = self.log_odds_block(h[rows], rows)
            out[rows] = -(self.weights[rows] * sigmoid(block.value))[:, None] * block.gradient
        return out

    @cached_property
    def _distances(self) -> Float:
        """(K, K) ‖w_j − w_k‖, exactly 0 for equal rows."""
        return np.asarray(cdist(self.head, self.head))

    def _shifted_logits(
        self, features: NDArray[np.floating], labels: NDArray[np.intp]
    ) -> tuple[Float, Float]:
        """⟨h, w_j − w_k⟩ minus its maximum over j ≠ k ((n, K), −inf at j = k), and the maximum."""
        z = features @ self.head.T
        own = np.arange(len(labels)), labels
        z = np.asarray(z - z[own][:, None], dtype=np.float64)
        z[own] = -np.inf
        top = z.max(axis=1, keepdims=True)
        return z - top, top


def checked_head(head: ArrayLike) -> Float:
    """Head as a finite (K ≥ 2, d ≥ 1) float64 copy with distinct rows, or a ValueError."""
    w = np.array(head, dtype=np.float64)
    if w.ndim != 2 or w.shape[0] < 2 or w.shape[1] < 1:
        raise ValueError(f"head must be (K, d) with K >= 2 actions and d >= 1, got {w.shape}")
    if not np.isfinite(w).all():
        bad = int((~np.isfinite(w)).sum())
        raise ValueError(f"head has {bad} non-finite entries of {w.size}: clean it first")
    if (w == w[0]).all():
        raise ValueError(
            f"all {len(w)} rows of the head are equal, so no feature changes the policy: "
            "use a head with distinct rows, e.g. lpm.simplex_etf"
        )
    return w


def _checked_labels(labels: ArrayLike, num_classes: int) -> NDArray[np.intp]:
    y = np.asarray(labels)
    if y.ndim != 1 or y.size == 0:
        raise ValueError(
            f"labels must be (N,) with N >= 1, one optimal action a state, got shape {y.shape}; "
            "states with several optimal actions (ties) are not covered by Theorem 1"
        )
    if y.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers in [0, {num_classes}), got dtype {y.dtype}")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"labels run from {y.min()} to {y.max()} but the head has K = {num_classes} rows: "
            f"every label must be in [0, {num_classes})"
        )
    return y.astype(np.intp)


def _checked_positive(value: ArrayLike, name: str, num_states: int, *, scalar: bool) -> Float:
    x = np.array(value, dtype=np.float64)
    shapes = [(num_states,)] + ([()] if scalar else [])
    if x.shape not in shapes:
        expected = f"({num_states},)" + (" or a single number" if scalar else "")
        raise ValueError(f"{name} must have shape {expected}, one a label, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has {int((~np.isfinite(x)).sum())} non-finite entries")
    if (x <= 0).any():
        flat = np.atleast_1d(x)
        first = int(np.argmax(flat <= 0))
        remedy = (
            "at weight 0 every feature is optimal and at a negative one the claim reverses: drop "
            "those states or shift the returns"
            if name == "weights"
            else "the ball ‖h‖² ≤ E_H must have an interior"
        )
        raise ValueError(
            f"{name} must be > 0, but {int((flat <= 0).sum())} of {flat.size} are not (entry "
            f"{first} is {flat[first]:g}); {remedy}"
        )
    return x
