"""What the features of any policy look like over stored observations, or over those of rollouts.

:func:`probe` runs a policy over observations, labels every state, and streams the features through
:class:`~analysis.metrics.CollapseMetrics`: millions of states pass in the memory of one batch, on
the device that the features are on. Beside the collapse metrics it measures the following, over
all N states whatever their labels, with Φ the (N, d) matrix of features.

Effective rank
    exp(−Σ_i p_i log p_i), p_i = σ_i / Σ_j σ_j, of the singular values σ_i of Φ (Roy & Vetterli),
    computed as the square roots of the eigenvalues of Φ^T Φ, which is streamed. Eigenvalues below
    d·ε (ε of float64) times the largest count as 0. ``effective_rank_centred`` is the same of Φ
    with its mean row subtracted; K collapsed, equally frequent classes at a simplex have K − 1.
Dead features
    ``dead_features`` is the share of the d features that are 0 in every state,
    ``nonpositive_features`` the share that are positive in none. For rectified features the two
    agree.
Entropy
    Mean over states of −Σ_a π(a|s) log π(a|s), in nats.

References
----------
O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from analysis.capture import Activations, HookedPolicy, as_source
from analysis.labelling import Labels, as_array, labeller
from analysis.metrics import CollapseMetrics, CollapseResult
from analysis.snapshot import Array, FeatureRows, Snapshot, check_bias, check_head, check_labels
from analysis.visits import PLAYABLE, Playable, Visits, visited
from gridworld import TabularMDP

__all__ = ["Activations", "HookedPolicy", "ProbeResult", "effective_rank", "probe"]

# Logits may be off by this share of their magnitude from what the head says: bfloat16's rounding.
_HEAD_TOLERANCE = 0.03

_HEAD_FIELDS = ("head_norm", "head_norm_std", "head_energy")


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What was measured; every NaN among the floats has its cause in :attr:`reasons`."""

    collapse: CollapseResult
    """The collapse metrics, with the class counts and their own reasons."""
    labels: str
    """Where the labels are from: ``"greedy"`` (the policy's likeliest action), ``"optimal"``
    (exact, from the tables of an MDP), ``"function"`` or ``"given"``."""
    num_states: int
    """N."""
    greedy_share: float
    """Share of states whose label is the policy's likeliest action; 1 for greedy labels."""
    entropy: float
    """Mean policy entropy in nats."""
    effective_rank: float
    effective_rank_centred: float
    dead_features: float
    nonpositive_features: float
    feature_norm: float
    """Mean over states of ‖h‖."""
    feature_norm_std: float
    """Population standard deviation of ‖h‖."""
    feature_energy: float
    """Mean over states of ‖h‖², the measured E_H."""
    head_norm: float
    """Mean over the K actions of ‖w_k‖."""
    head_norm_std: float
    head_energy: float
    """Mean over the K actions of ‖w_k‖², the measured E_W."""
    head_norms: NDArray[np.float64]
    """(K,) ‖w_k‖, NaN without a head."""
    reasons: Mapping[str, str]
    snapshot: Snapshot | None
    """At most `snapshot_size` of the states, in the order they were seen."""
    snapshot_rows: NDArray[np.int64]
    """Their positions among the N states, for weights or anything else that goes with them."""

    def as_row(self) -> dict[str, float | str]:
        """Return one flat row: the collapse metrics, the class counts and everything else."""
        own = (
            "greedy_share",
            "entropy",
            "effective_rank",
            "effective_rank_centred",
            "dead_features",
            "nonpositive_features",
            "feature_norm",
            "feature_norm_std",
            "feature_energy",
            *_HEAD_FIELDS,
        )
        return {
            "labels": self.labels,
            **self.collapse.as_row(counts=True),
            **{name: float(getattr(self, name)) for name in own},
            **{f"head_norm_{k}": float(norm) for k, norm in enumerate(self.head_norms)},
        }


def probe(
    policy: object,
    observations: Array | Visits | Iterable[Array | Visits] | Playable,
    *,
    states: int | None = None,
    act_rng: np.random.Generator | None = None,
    labels: Labels = "greedy",
    mdp: TabularMDP | None = None,
    member: int | None = None,
    head: ArrayLike | torch.Tensor | None = None,
    bias: ArrayLike | torch.Tensor | None = None,
    agreement: bool = False,
    batch_size: int = 1024,
    snapshot_size: int = 0,
    rng: np.random.Generator | None = None,
    step: int = 0,
    tags: Mapping[str, str | int | float] | None = None,
) -> ProbeResult:
    """Measure a policy's features over observations.

    Parameters
    ----------
    policy
        Anything that :func:`analysis.capture.as_source` takes: a policy of `agents`, a model of
        Stable-Baselines3 or Tianshou, a :class:`HookedPolicy` around any network, or a function
        of a batch of observations that returns ``(features, logits)``.
    observations
        An (N, …) array or tensor, or an iterable of such batches, of which one is held at a time.
        Each may be :class:`analysis.visits.Visits`, so that the snapshot knows its episodes.
        Or an environment in which the policy itself acts, sampling from its logits: a
        `gymnasium.Env`, a `gymnasium.vector.VectorEnv` or an `agents.config.EnvConfig`. Episodes
        are whole but for the last ones, which are cut at the number of states; what counts as a
        state is said in :func:`analysis.visits.visited`.
    states, act_rng
        How many states to visit in an environment, and what seeds it and draws the actions; both
        are needed there and for nothing else.
    labels
        ``"greedy"``: the policy's likeliest action (the first of several). ``"optimal"``: the
        exact optimal action from the tables of `mdp`, for observations that are its states,
        one-hot or by index. A function of a batch of observations that returns integers, or an
        (N,) integer array, for stored observations only.
    mdp
        The tables for ``labels="optimal"``.
    member
        Which member of a population of `agents`.
    head, bias
        (K, d) and (K,): the last layer of a policy that does not show its own.
    agreement
        Whether to run the policy a second time over the observations for ``ncc_agreement``, which
        needs the final class means. An iterator or an environment cannot be run through twice.
    batch_size
        States that go through the policy at once.
    snapshot_size
        States to keep, drawn evenly from all by `rng`; the first ones where that is None.
    rng
        Draws the snapshot, one number a state: the draw does not depend on the batches.
    step, tags
        For the snapshot.

    Returns
    -------
    ProbeResult

    Raises
    ------
    TypeError
        For a policy, observations or labels of no known kind, and for an environment whose actions
        are not `Discrete`.
    ValueError
        If an environment comes without `states` or `act_rng`, or they come without one. If there
        are no observations, labels do not fit them or a state has several optimal
        actions, a value is not finite, the logits are not those of the head, or `agreement` is
        asked of an iterator.
    """
    source = as_source(policy, member)
    kind, label = labeller(labels, mdp)
    if batch_size < 1 or snapshot_size < 0:
        raise ValueError(
            f"batch_size must be at least 1 and snapshot_size at least 0, got {batch_size} and "
            f"{snapshot_size}"
        )
    if isinstance(observations, PLAYABLE):
        if states is None or act_rng is None:
            raise ValueError(
                "in an environment the policy acts: pass states=, how many to visit, and act_rng=, "
                "a generator for its actions"
            )
        if kind == "given":
            raise ValueError(
                "nobody knows beforehand which states are visited: pass 'greedy', 'optimal' or a "
                "function of the observations as labels"
            )
        observations = visited(policy, observations, states, act_rng, member=member)
    elif states is not None or act_rng is not None:
        raise ValueError("states and act_rng are for an environment; observations are all measured")
    if agreement and isinstance(observations, Iterator):
        raise ValueError(
            "agreement=True runs through the observations twice and an iterator or an environment "
            "allows it once: pass an array or a list of batches, or leave agreement out"
        )
    state: _Pass | None = None
    keep = _Sample(snapshot_size, rng)
    for start, batch, episodes in _batches(observations, batch_size):
        seen = source(batch)
        if state is None:
            state = _Pass(seen, head, bias)
        y = state.add(seen, label(batch, seen.logits, start))
        keep.add(seen.features, y, episodes)
    if state is None:
        raise ValueError("no observations: probe needs at least one state")
    if kind == "given" and len(as_array(labels)) != state.metrics.num_samples:
        raise ValueError(
            f"{len(as_array(labels))} labels for {state.metrics.num_samples} states: pass one for "
            f"each"
        )
    if agreement:
        if state.head is None:
            raise ValueError("agreement=True needs a head; pass head= or leave agreement out")
        for _, batch, _ in _batches(observations, batch_size):
            state.metrics.update_agreement(source(batch).features, state.head, state.bias)
    return state.result(kind, keep, step, dict(tags or {}))


def effective_rank(eigenvalues: ArrayLike) -> float:
    """Roy & Vetterli's effective rank of a matrix Φ from the eigenvalues of Φ^T Φ.

    Parameters
    ----------
    eigenvalues : (d,) array
        Squared singular values, in any order and any scale; negative ones are rounding.

    Returns
    -------
    float
        Between 1 and d; NaN where all are 0.
    """
    squared = np.asarray(eigenvalues, dtype=np.float64)
    largest = squared.max()
    if not largest > 0.0:
        return math.nan
    kept = squared[squared > len(squared) * np.finfo(np.float64).eps * largest]
    shares = np.sqrt(kept) / np.sqrt(kept).sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


class _Pass:
    """Everything that is accumulated over the batches."""

    def __init__(
        self,
        first: Activations,
        head: ArrayLike | torch.Tensor | None,
        bias: ArrayLike | torch.Tensor | None,
    ) -> None:
        if first.head is not None and head is not None:
            raise ValueError("the policy shows its own head: leave head and bias out")
        given = head is not None
        dim, num_classes = FeatureRows(first.features).dim, int(first.logits.shape[1])
        weight, shift = (head, bias) if given else (first.head, first.bias)
        self.head = None if weight is None else check_head(weight, num_classes, dim)
        self.bias = None if shift is None else check_bias(shift, num_classes)
        self._require_own_head(first)
        self.metrics = CollapseMetrics(num_classes, dim)
        self._nonzero = torch.zeros(dim, dtype=torch.bool)
        self._positive = torch.zeros(dim, dtype=torch.bool)
        self._entropy, self._greedy = 0.0, 0
        self._norms = _RunningMoments()

    def _require_own_head(self, first: Activations) -> None:
        if self.head is None:
            return
        expected = _float64(first.features).cpu() @ self.head.T
        if self.bias is not None:
            expected = expected + self.bias
        gap = float((_float64(first.logits).cpu() - expected).abs().max())
        if gap > _HEAD_TOLERANCE * float(expected.abs().max()):
            raise ValueError(
                f"the logits differ by up to {gap:.3g} from head @ features + bias (at most "
                f"{float(expected.abs().max()):.3g}): this is not the layer the logits come from"
            )

    def add(self, seen: Activations, labels: ArrayLike | torch.Tensor) -> torch.Tensor:
        """Add a batch; its labels as a tensor."""
        logits = _float64(seen.logits)
        if not bool(torch.isfinite(logits).all()):
            raise ValueError("logits hold NaN or infinity: the policy has diverged")
        y = check_labels(labels, len(logits), self.metrics.num_classes)
        self.metrics.update(seen.features, y)
        log_policy = logits.log_softmax(-1)
        self._entropy -= float((log_policy.exp() * log_policy).sum())
        self._greedy += int((logits.argmax(-1).cpu() == y.cpu()).sum())
        features = _float64(seen.features)
        self._nonzero |= (features != 0).any(dim=0).cpu()
        self._positive |= (features > 0).any(dim=0).cpu()
        self._norms.add(torch.linalg.vector_norm(features, dim=1))
        return y

    def result(
        self, kind: str, keep: _Sample, step: int, tags: dict[str, str | int | float]
    ) -> ProbeResult:
        total, num_classes = self.metrics.num_samples, self.metrics.num_classes
        mean, covariance = self.metrics.moments()
        second = covariance + torch.outer(mean, mean)
        ranks = {
            "effective_rank": effective_rank(torch.linalg.eigvalsh(second)),
            "effective_rank_centred": effective_rank(torch.linalg.eigvalsh(covariance)),
        }
        why = ("all features are 0", "all features are equal")
        reasons = {
            name: reason
            for (name, value), reason in zip(ranks.items(), why, strict=True)
            if math.isnan(value)
        }
        if self.head is None:
            norms = np.full(num_classes, math.nan)
            reasons |= dict.fromkeys(_HEAD_FIELDS, "no head was given")
        else:
            norms = torch.linalg.vector_norm(self.head, dim=1).numpy()
        features, labels, episodes, rows = keep.taken()
        snapshot = None
        if len(rows):
            snapshot = Snapshot(
                features,
                labels,
                self.head,
                self.bias,
                num_classes=num_classes,
                step=step,
                tags=tags,
                episodes=episodes,
            )
        return ProbeResult(
            collapse=self.metrics.compute(self.head, self.bias),
            labels=kind,
            num_states=total,
            greedy_share=self._greedy / total,
            entropy=self._entropy / total,
            **ranks,
            dead_features=1.0 - float(self._nonzero.double().mean()),
            nonpositive_features=1.0 - float(self._positive.double().mean()),
            feature_norm=self._norms.mean,
            feature_norm_std=self._norms.std,
            feature_energy=float(torch.trace(second)),
            head_norm=float(norms.mean()),
            head_norm_std=float(norms.std()),
            head_energy=float((norms**2).mean()),
            head_norms=norms,
            reasons=reasons,
            snapshot=snapshot,
            snapshot_rows=rows,
        )


class _RunningMoments:
    """Mean and population standard deviation of a stream (Chan et al.'s update)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, values: torch.Tensor) -> None:
        mean = float(values.mean())
        self._squares += float(((values - mean) ** 2).sum())
        share = len(values) / (self.count + len(values))
        self._squares += self.count * share * (mean - self.mean) ** 2
        self.mean += share * (mean - self.mean)
        self.count += len(values)

    @property
    def std(self) -> float:
        return math.sqrt(self._squares / self.count)


class _Sample:
    """At most `size` states of a stream: those with the smallest of random keys, or the first."""

    def __init__(self, size: int, rng: np.random.Generator | None) -> None:
        self._size, self._rng, self._seen = size, rng, 0
        self._keys = np.empty(0)
        self._rows = np.empty(0, dtype=np.int64)
        self._features: torch.Tensor | None = None
        self._labels = torch.empty(0, dtype=torch.int64)
        self._episodes: NDArray[np.int64] | None = np.empty(0, dtype=np.int64)

    def add(
        self, features: Array, labels: torch.Tensor, episodes: NDArray[np.int64] | None
    ) -> None:
        if episodes is None:
            self._episodes = None
        rows = np.arange(self._seen, self._seen + len(labels))
        keys = rows.astype(np.float64) if self._rng is None else self._rng.random(len(rows))
        self._seen += len(rows)
        limit = math.inf if len(self._keys) < self._size else self._keys.max(initial=-math.inf)
        better = np.flatnonzero(keys < limit)
        if self._size == 0 or len(better) == 0:
            return
        new = torch.as_tensor(features)[better].detach().cpu()
        old = new[:0] if self._features is None else self._features
        all_keys = np.concatenate([self._keys, keys[better]])
        kept = np.sort(np.argsort(all_keys, kind="stable")[: self._size])
        self._keys = all_keys[kept]
        self._rows = np.concatenate([self._rows, rows[better]])[kept]
        self._features = torch.cat([old, new])[kept]
        self._labels = torch.cat([self._labels, labels.cpu()[better]])[kept]
        if self._episodes is not None and episodes is not None:
            self._episodes = np.concatenate([self._episodes, episodes[better]])[kept]

    def taken(
        self,
    ) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.int64] | None, NDArray[np.int64]]:
        features = torch.empty(0, 1) if self._features is None else self._features
        return features, self._labels, self._episodes, self._rows


def _batches(
    observations: Array | Visits | Iterable[Array | Visits], batch_size: int
) -> Iterator[tuple[int, Array, NDArray[np.int64] | None]]:
    """Pieces of at most `batch_size` states: position of the first, observations, episodes."""
    whole = isinstance(observations, np.ndarray | torch.Tensor | Visits)
    if not whole and not isinstance(observations, Iterable):
        raise TypeError(
            f"observations must be an (N, …) array or tensor, an iterable of them, or an "
            f"environment of Gymnasium, got a {type(observations).__name__}"
        )
    parts: Iterable[Array | Visits] = [observations] if whole else observations  # type: ignore[list-item]
    start = 0
    for part in parts:
        seen, episodes = part if isinstance(part, Visits) else (part, None)
        if not isinstance(seen, np.ndarray | torch.Tensor) or seen.ndim == 0:
            raise TypeError(
                f"observations must be an (N, …) array or tensor or an iterable of them, got a "
                f"{type(seen).__name__} among the batches"
            )
        for first in range(0, len(seen), batch_size):
            rows = slice(first, first + batch_size)
            yield start, seen[rows], None if episodes is None else episodes[rows]
            start += len(seen[rows])


def _float64(values: Array) -> torch.Tensor:
    """float64 on the device the values are on (the CPU for those that have none)."""
    tensor = values.detach() if isinstance(values, torch.Tensor) else torch.tensor(values)
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()
