"""The layer-peeled model with a learned head (Fang et al., 2021), solved with a certificate.

    min_{H, W}  (1/N) sum_k n_k CE(W h_k, k)
    subject to  (1/K) sum_k ||h_k||^2 <= E_H,  (1/K) sum_k ||w_k||^2 <= E_W      ("mean")
          or    ||h_k||^2 <= E_H,  ||w_k||^2 <= E_W for every k                  ("per-vector")

One feature h_k stands for all samples of class k: CE is convex, so replacing them by their mean
costs nothing and shortens. For "mean" and ``dim >= K - 1`` the problem is convex in the logits
(:mod:`lpm.free_head_convex`) and the answer global. Otherwise it is found from many starts, and
only the gap says how far from global it can be.

Reference: C. Fang, H. He, Q. Long, W. J. Su, "Exploring deep neural networks via layer-peeled
model: Minority collapse in imbalanced training", PNAS 118(43), 2021.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from lpm.free_head_convex import Ball, ConvexResult, minimise
from lpm.free_head_gap import ball_gap
from lpm.free_head_levels import EPS, Array, LevelLoss, Levels
from lpm.free_head_local import LocalResult, minimise_local

Constraint = Literal["mean", "per-vector"]

# A local solution is reported as the global one below this gap, relative to small objectives.
_CERTIFIED = 1e-7


class FreeHeadStatus(enum.Enum):
    """How a solution was reached; the value is the advice."""

    OPTIMAL = "global optimum: the certified gap is on target"
    GAP_OPEN = (
        "the step limit came before the target gap; the gap is valid: raise max_steps or tolerance"
    )
    LOCAL = (
        "best of several local solutions of a nonconvex problem; the gap bounds what a global "
        "one could gain: raise dim to K - 1 (mean) or 2 K (per-vector), or the number of starts"
    )


@dataclass(frozen=True, eq=False)
class FreeHeadProblem:
    """A layer-peeled model with a learned head.

    Parameters
    ----------
    counts : (K,) sequence of positive whole numbers
        Samples of each class; K >= 2. Only their ratios matter.
    feature_energy, head_energy : float
        E_H and E_W, positive.
    dim : int, optional
        Dimension of features and head rows; K if left out. K - 1 already loses nothing for
        ``constraint="mean"``.
    constraint : {"mean", "per-vector"}
        Whether the energies bound the mean of the squared norms or each of them.

    Raises
    ------
    TypeError
        If ``dim`` is not a whole number.
    ValueError
        If a parameter is out of range; the message names the number.
    """

    counts: Array
    feature_energy: float
    head_energy: float
    dim: int | None = None
    constraint: Constraint = "mean"

    def __post_init__(self) -> None:
        """Validate, and store counts as a read-only float array."""
        object.__setattr__(self, "counts", check_counts(self.counts))
        for name in ("feature_energy", "head_energy"):
            object.__setattr__(self, name, check_positive(name, getattr(self, name)))
        if self.dim is not None:
            if isinstance(self.dim, bool) or not float(self.dim).is_integer():
                raise TypeError(f"dim must be a whole number, got {self.dim!r}")
            if self.dim < 1:
                raise ValueError(f"dim must be at least 1, got {self.dim}")
            object.__setattr__(self, "dim", int(self.dim))
        if self.constraint not in ("mean", "per-vector"):
            raise ValueError(f'constraint must be "mean" or "per-vector", got {self.constraint!r}')

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def head_dim(self) -> int:
        """Dimension of the head: ``dim``, or K if it was left out."""
        return self.num_classes if self.dim is None else self.dim

    @property
    def radius(self) -> float:
        """Nuclear-norm radius ``tau = K sqrt(E_H E_W)`` of the logits."""
        return self.num_classes * float(np.sqrt(self.feature_energy) * np.sqrt(self.head_energy))


@dataclass(frozen=True)
class FreeHeadSolution:
    """Solution of a :class:`FreeHeadProblem`.

    Parameters
    ----------
    logits : (K, K) float array
        ``features @ head.T``; row k belongs to the samples of class k.
    head : (K, d) float array
        W, one row a class.
    features : (K, d) float array
        H, the feature of each class.
    objective : float
        Cross-entropy, weighted by class shares.
    gap : float
        Certified bound on objective minus global optimum; positive, rounding included.
    multiplier : float
        Spectral norm of the gradient at the logits. At the optimum of the "mean" problem
        ``d objective / d tau = -multiplier`` with ``tau = K sqrt(E_H E_W)``, and classes of n
        samples have coincided iff ``multiplier >= n / N``. NaN for "per-vector".
    head_cosines, feature_cosines : (K, K) float arrays
        Cosines between rows; NaN where a norm is zero: a vanished vector has no direction.
    head_norms, feature_norms : (K,) float arrays
        Norms of rows; exactly 0 below the resolution of the logits.
    head_distances, feature_distances : (K, K) float arrays
        Distances between rows, meaningful for vanished vectors too.
    status : FreeHeadStatus
        What kind of solution it is, with advice.
    stats : dict
        ``levels``, ``rank``, ``gradient_steps``, ``newton_steps``; or ``starts``.
    """

    logits: Array
    head: Array
    features: Array
    objective: float
    gap: float
    multiplier: float
    head_cosines: Array
    feature_cosines: Array
    head_norms: Array
    feature_norms: Array
    head_distances: Array
    feature_distances: Array
    status: FreeHeadStatus
    stats: dict[str, int]

    @property
    def lower_bound(self) -> float:
        """No feasible point has a smaller objective than this."""
        return self.objective - self.gap


def check_counts(counts: ArrayLike | Sequence[float]) -> Array:
    """Return class counts as a read-only float array.

    Raises
    ------
    ValueError
        If they are not at least two positive whole numbers.
    """
    values = np.array(counts, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"counts must be a vector, one count a class; got shape {values.shape}")
    if len(values) < 2:
        raise ValueError(f"counts has {len(values)} class(es); a head needs K >= 2")
    bad = ~(np.isfinite(values) & (values > 0) & (values == np.round(values)))
    if bad.any():
        k = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"counts must be positive whole numbers, but counts[{k}] = {values[k]:g}; leave out "
            f"classes without samples, scale fractions to whole numbers (only ratios matter)"
        )
    values.setflags(write=False)
    return values


def check_positive(name: str, value: float) -> float:
    """Return a positive finite float.

    Raises
    ------
    ValueError
        If it is not one.
    """
    number = float(value)
    if not (np.isfinite(number) and number > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def solve_free_head(
    problem: FreeHeadProblem,
    *,
    tolerance: float = 1e-12,
    max_steps: int = 2000,
    starts: int = 16,
    rng: np.random.Generator | None = None,
) -> FreeHeadSolution:
    """Solve a layer-peeled model with a learned head.

    Parameters
    ----------
    problem : FreeHeadProblem
        The model.
    tolerance : float
        Target gap, relative to the objective where that is below 1; a target under the rounding
        of the certificate counts as reached there.
    max_steps : int
        Bound on gradient steps of the convex solver.
    starts : int
        Local searches, where the problem is not convex.
    rng : numpy.random.Generator, optional
        Draws their starting points; required there, unused otherwise.

    Returns
    -------
    FreeHeadSolution
        With a certified gap whatever the status.

    Raises
    ------
    ValueError
        If ``tolerance``, ``max_steps`` or ``starts`` is out of range, ``rng`` is missing for a
        nonconvex problem, or the energies make the loss underflow.
    """
    check_positive("tolerance", tolerance)
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    if starts < 1:
        raise ValueError(f"starts must be at least 1, got {starts}")
    # A balanced model's loss is about (K - 1) e^{-rho K / (K - 1)}, an imbalanced one's is near it:
    # past e^{-700} neither it nor its gradient is a float64 any more.
    exponent = problem.radius / max(problem.num_classes - 1, 1)
    if exponent > 690.0:
        raise ValueError(
            f"rho = sqrt(E_H E_W) = {problem.radius / problem.num_classes:.4g} makes the loss "
            f"about e^-{exponent:.0f}, below float64's range: use rho <= "
            f"{690.0 * (problem.num_classes - 1) / problem.num_classes:.4g}; the geometry has long "
            f"reached its large-norm limit there"
        )
    # K - 1 dimensions hold the global optimum: lpm.free_head_convex proves rank <= K - 1.
    if problem.constraint == "mean" and problem.head_dim >= problem.num_classes - 1:
        return _solve_convex(problem, tolerance, max_steps)
    if rng is None:
        raise ValueError(
            f"dim = {problem.head_dim} with K = {problem.num_classes} and constraint = "
            f'"{problem.constraint}" is not convex in the logits: pass rng, e.g. '
            f"numpy.random.default_rng(0), for the starting points of local searches"
        )
    return _solve_local(problem, starts, rng)


def _solve_convex(problem: FreeHeadProblem, tolerance: float, max_steps: int) -> FreeHeadSolution:
    levels = Levels.merge(problem.counts)
    loss = LevelLoss(levels, np.ones(len(levels.sizes)))
    result = minimise(loss, Ball(problem.radius), tolerance, max_steps)
    features, head = factor(result, levels, problem.head_dim)
    # ||H||_F^2 = ||W||_F^2 = ||Z||_* now; share the budget as the two energies ask.
    ratio = (problem.feature_energy / problem.head_energy) ** 0.25
    return _assemble(
        problem,
        features * ratio,
        head / ratio,
        logits=levels.expand(result.point.packed),
        objective=result.evaluation.value,
        gap=result.gap.bound,
        multiplier=result.gap.multiplier,
        status=FreeHeadStatus.OPTIMAL if result.converged else FreeHeadStatus.GAP_OPEN,
        stats={
            "levels": len(levels.sizes),
            "rank": int((result.point.alpha != 0.0) @ (levels.sizes - 1.0))
            + len(result.point.values),
            "gradient_steps": result.gradient_steps,
            "newton_steps": result.newton_steps,
        },
    )


def factor(result: ConvexResult, levels: Levels, dim: int) -> tuple[Array, Array]:
    """Split logits ``Z = U S V^T`` into ``U S^(1/2)`` and ``V S^(1/2)``, both (K, dim).

    In the basis of :mod:`lpm.free_head_levels`: the core's singular vectors spread evenly over
    each level, then an orthonormal basis of every level's sum-zero space, scaled by alpha.
    """
    point, index = result.point, levels.index
    spread = 1.0 / np.sqrt(levels.sizes[index])[:, None]
    root = np.sqrt(point.values)
    lefts = [point.left[index] * spread * root]
    rights = [point.right[index] * spread * root]
    for level in np.flatnonzero((point.alpha != 0.0) & (levels.sizes > 1)):
        members = np.flatnonzero(index == level)
        block = np.zeros((len(index), len(members) - 1))
        block[members] = helmert(len(members))
        scale = np.sqrt(abs(point.alpha[level]))
        lefts.append(scale * np.sign(point.alpha[level]) * block)
        rights.append(scale * block)
    features, head = np.hstack(lefts), np.hstack(rights)
    padding = np.zeros((len(index), dim - features.shape[1]))
    return np.hstack([features, padding]), np.hstack([head, padding])


def helmert(size: int) -> Array:
    """Orthonormal basis (size, size - 1) of the vectors that sum to zero."""
    # Column j: j + 1 equal entries, then minus their sum, then zeros.
    j = np.arange(1.0, size)
    basis = np.triu(np.ones((size, size - 1)))
    basis[np.arange(1, size), np.arange(size - 1)] = -j
    scaled: Array = basis / np.sqrt(j * (j + 1.0))
    return scaled


def _solve_local(
    problem: FreeHeadProblem, starts: int, rng: np.random.Generator
) -> FreeHeadSolution:
    result: LocalResult = minimise_local(
        problem.counts,
        problem.feature_energy,
        problem.head_energy,
        problem.head_dim,
        per_vector=problem.constraint == "per-vector",
        starts=starts,
        rng=rng,
    )
    logits = result.features @ result.head.T
    gap = result.gap
    multiplier = np.nan
    if problem.constraint == "mean":
        # The convex relaxation, dim >= K - 1, bounds what any dimension can reach.
        levels = Levels.keep_all(problem.counts)
        loss = LevelLoss(levels, np.ones(len(levels.sizes)))
        packed = levels.pack(np.zeros(len(logits)), logits)
        here = ball_gap(loss.evaluate(packed), packed, levels.sizes - 1.0, problem.radius)
        relaxed = _solve_convex(
            FreeHeadProblem(problem.counts, problem.feature_energy, problem.head_energy),
            1e-12,
            2000,
        )
        gap = min(here.bound, result.objective - relaxed.lower_bound + here.rounding)
        multiplier = here.multiplier
    return _assemble(
        problem,
        result.features,
        result.head,
        logits=logits,
        objective=result.objective,
        gap=gap,
        multiplier=float(multiplier),
        status=FreeHeadStatus.OPTIMAL
        if gap <= _CERTIFIED * min(1.0, result.objective)
        else FreeHeadStatus.LOCAL,
        stats={"starts": starts},
    )


def _assemble(
    problem: FreeHeadProblem,
    features: Array,
    head: Array,
    *,
    logits: Array,
    objective: float,
    gap: float,
    multiplier: float,
    status: FreeHeadStatus,
    stats: dict[str, int],
) -> FreeHeadSolution:
    head_norms, head_cosines, head_distances = geometry(head, problem.head_energy)
    feature_norms, feature_cosines, feature_distances = geometry(features, problem.feature_energy)
    return FreeHeadSolution(
        logits=logits,
        head=head,
        features=features,
        objective=objective,
        gap=gap,
        multiplier=multiplier,
        head_cosines=head_cosines,
        feature_cosines=feature_cosines,
        head_norms=head_norms,
        feature_norms=feature_norms,
        head_distances=head_distances,
        feature_distances=feature_distances,
        status=status,
        stats=stats,
    )


def geometry(vectors: Array, energy: float) -> tuple[Array, Array, Array]:
    """Norms (K,), cosines (K, K) and distances (K, K) of the rows of a (K, d) array.

    A squared norm below ``eps * energy`` is below the resolution of the logits it came from: that
    norm is reported as 0 and its cosines as NaN.
    """
    norms = np.linalg.norm(vectors, axis=1)
    norms = np.where(norms <= np.sqrt(EPS * energy), 0.0, norms)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: NDArray[np.float64] = np.where(norms[:, None] > 0.0, vectors / norms[:, None], np.nan)
    cosines = np.clip(unit @ unit.T, -1.0, 1.0)
    # Differences first: ||a||^2 + ||b||^2 - 2 a.b would lose half the digits of a small distance.
    distances: Array = cdist(vectors, vectors)
    return norms, cosines, distances
