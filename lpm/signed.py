r"""States of any weight: what becomes of Theorem 1 where d^π(s)·Ψ(s) ≤ 0.

The states decouple, so each one alone maximises weight·log π(k|h) = −weight·softplus(F(h)):

* weight > 0 **attracts**: F is minimised, the convex problem of `lpm.ball`.
* weight = 0 is **indifferent**: every feature is optimal. The one of least norm, 0, is returned.
* weight < 0 **repels**: F is *maximised* over the ball. F is convex, so the maximum lies on the
  sphere and the problem is not convex: what a search returns is the best of the local maxima it
  met. An upper bound on F, proven separately, says how much better anything else can be, and
  where the two meet the answer is global.

**The simplex ETF is solved exactly.** Write h = R(−cos α·ŵ_k + sin α·t), t ⊥ w_k a unit vector
in the span, m = K − 1, κ = √(K(K−2))/(K−1) and c_j = ⟨t, ê_j⟩, where the ê_j are the directions
of the other w_j orthogonal to w_k, themselves a simplex ETF of m vectors. Then

    F = ρ cos α·K/(K−1) + log Σ_{j≠k} exp(β c_j),   β = ρκ sin α,   Σc_j = 0, Σc_j² = m/(m−1).

For given α only Σ exp(βc_j) is left. Its stationarity under the two constraints, e^{βc_j} affine
in c_j, leaves two values of c at most; as the third derivative of exp is positive, the
largest sum has one large c and m − 1 equal small ones (Cîrtoaje's equal-variable theorem, J.
Inequal. Pure Appl. Math. 8(1):15, 2007): t = ê_j, c = (1, −1/(m−1), …). So the feature leans
from −w_k towards *one* competitor or none, and one scalar decides:

    tan α = κ(K−1)/K · L'(β),  ρ = β/(κ sin α),  L(β) = log(e^β + (m−1)e^{−β/(m−1)}).

As β → 0, ρ → K − 1. For K = 3 ρ(β) increases from there: the symmetry breaks continuously.
For K ≥ 4 it first falls to a fold and −w_k is overtaken by a distant state, a first-order
transition at the ρ_c of `critical_rho_negative_weight`, before it becomes unstable at K − 1.
"""

import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar

from lpm.ball import Batch, distinct_problems, solve_ball
from lpm.frames import etf_defect
from lpm.problem import PeeledProblem, softplus
from lpm.solution import Status
from lpm.sphere import Span, descend, evaluate, search_status

Float = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)
_ETF_TOLERANCE = 1e-9
_BRANCH_CLASSES = 6  # the simplex that is cut up has K − 2 dimensions


class Kind(IntEnum):
    """What a state's weight makes of its own action: the sign of the weight."""

    REPELLING = -1
    INDIFFERENT = 0
    ATTRACTING = 1


@dataclass(frozen=True, init=False, eq=False)
class SignedProblem:
    """max_H Σ_s weights_s · log π(a*(s) | h_s) subject to ‖h_s‖² ≤ E_H, weights of any sign.

    Parameters
    ----------
    head
        (K, d) W, any head.
    labels
        (N,) integers in [0, K).
    weights
        (N,) finite, of either sign or zero.
    feature_energy
        E_H > 0, one number or one per state (N,).

    Raises
    ------
    ValueError, TypeError
        As for `lpm.PeeledProblem`, but for the sign of the weights.
    """

    head: Float
    labels: NDArray[np.intp]
    weights: Float
    feature_energy: Float

    def __init__(
        self, head: ArrayLike, labels: ArrayLike, weights: ArrayLike, feature_energy: ArrayLike
    ) -> None:
        weights_ = np.array(weights, dtype=np.float64)
        # Everything but the weights' sign is PeeledProblem's to check.
        checked = PeeledProblem(head, labels, np.ones(len(np.atleast_1d(labels))), feature_energy)
        if weights_.shape != (checked.num_states,):
            raise ValueError(
                f"weights must have shape ({checked.num_states},), one a label, "
                f"got {weights_.shape}"
            )
        if not np.isfinite(weights_).all():
            bad = int((~np.isfinite(weights_)).sum())
            raise ValueError(f"weights has {bad} non-finite entries")
        weights_.setflags(write=False)
        for name, value in (
            ("head", checked.head),
            ("labels", checked.labels),
            ("weights", weights_),
            ("feature_energy", checked.feature_energy),
        ):
            object.__setattr__(self, name, value)

    @property
    def kinds(self) -> NDArray[np.int8]:
        """(N,) the `Kind` of every state."""
        return np.asarray(np.sign(self.weights).astype(np.int8))

    def objective(self, features: ArrayLike) -> float:
        """J = Σ weights · log π(a*); of either sign, −∞ at worst."""
        unit = PeeledProblem(self.head, self.labels, np.ones(len(self.labels)), self.feature_energy)
        return -float(self.weights @ softplus(unit.log_odds(features)))


@dataclass(frozen=True)
class SignedSolution:
    """The best features found for a `SignedProblem`, and what is proven about them."""

    features: Float
    """(N, d). Zero for an indifferent state, where any other would do as well."""
    kinds: NDArray[np.int8]
    """(N,) the `Kind` of every state: 1 attracting, 0 indifferent, −1 repelling."""
    log_odds: Float
    """(N,) F(h_s)."""
    log_odds_bound: Float
    """(N,) a proven bound on F over the ball from the other side: from below for an attracting
    state, from above for a repelling one; F itself for an indifferent one."""
    log_odds_gap: Float
    """(N,) |F − bound| ≥ 0: what any other feature can gain at most, in nats."""
    is_global: NDArray[np.bool_]
    """(N,) True: proven optimal, ``log_odds_gap`` ≤ ``gap_tolerance``·(1 + |F|). False: the best
    of the local maxima found, nothing more."""
    objective: float
    """J = Σ weights · log π(a*) at ``features``."""
    objective_bound: float
    """No features have a larger J."""
    status: Status
    """Whether every search ended at a stationary point; says nothing about global optimality."""
    stats: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class NegativeWeightTransition:
    """Where −w_k stops being the feature of a negative weight, for a simplex-ETF head.

    For K = 3 all three ρ are 2, the angle is 0 and the transition is continuous.
    """

    num_classes: int
    fold: float
    """ρ from which the leaning state exists as a local maximum (the upper branch's spinodal)."""
    critical: float
    """ρ_c: −w_k is the global maximum of F below, the leaning state above."""
    spinodal: float
    """ρ = K − 1: −w_k is a local maximum of F on the sphere below, not above."""
    angle: float
    """Radians by which the feature turns away from −w_k at ρ_c."""


def negative_weight_transition(num_classes: int) -> NegativeWeightTransition:
    """The transition of the negative-weight problem for a simplex ETF of K ≥ 3 vectors.

    Source: the symmetry reduction in this module's docstring. Both sides of ρ_c are values of the
    same function of one scalar β, so ρ_c is the root of their difference along the branch.

    Raises
    ------
    ValueError
        K < 3: for K = 2 the maximiser is −√(E_H/E_W)·w_k at every ρ, there is no transition.
    """
    if num_classes < 3:
        raise ValueError(
            f"num_classes must be >= 3, got {num_classes}: with two actions F is linear and "
            "-w_k is optimal at every rho"
        )
    spinodal = float(num_classes - 1)
    if num_classes == 3:
        # log(2 cosh) is even, so the cubic term that makes the transition jump vanishes, and
        # the quartic one is negative: ρ(β) increases from 2.
        return NegativeWeightTransition(3, spinodal, spinodal, spinodal, 0.0)
    fold_beta = _fold_beta(num_classes)
    high = fold_beta
    while _advantage(num_classes, high) <= 0:
        high *= 2.0
    beta = brentq(lambda b: _advantage(num_classes, b), fold_beta, high, xtol=1e-14, rtol=4 * _EPS)
    return NegativeWeightTransition(
        num_classes=num_classes,
        fold=_branch(num_classes, fold_beta)[0],
        critical=_branch(num_classes, beta)[0],
        spinodal=spinodal,
        angle=_branch(num_classes, beta)[1],
    )


def critical_rho_negative_weight(num_classes: int) -> float:
    """ρ_c up to which h = −√(E_H/E_W)·w_k is optimal for a negative weight, ETF head of K ≥ 3.

    K = 3: 2 exactly; K = 4: 2.834222697605…. `negative_weight_transition` has the two spinodals
    beside it.

    Raises
    ------
    ValueError
        K < 3.
    """
    return negative_weight_transition(num_classes).critical


def _branch(num_classes: int, beta: float) -> tuple[float, float]:
    """ρ and α of the state leaning towards one competitor, at β > 0."""
    k = num_classes
    kappa = math.sqrt(k * (k - 2)) / (k - 1)
    x = -math.expm1(-beta * (k - 1) / (k - 2))  # 1 − e^{−β m/(m−1)}
    slope = x / (1 + (k - 2) * (1 - x))  # L'(β)
    alpha = math.atan(kappa * (k - 1) / k * slope)
    return beta / (kappa * math.sin(alpha)), alpha


def _advantage(num_classes: int, beta: float) -> float:
    """F of the leaning state at β minus F at −w_k, at the leaning state's ρ."""
    k = num_classes
    rho, alpha = _branch(k, beta)
    # L(β) − log m, and 1 − cos α = 2 sin²(α/2).
    gain = beta + math.log1p((k - 2) * math.expm1(-beta * (k - 1) / (k - 2)) / (k - 1))
    return gain - rho * k / (k - 1) * 2 * math.sin(alpha / 2) ** 2


def _fold_beta(num_classes: int) -> float:
    """argmin of ρ(β); ρ is flat there, so its own error is the square of this one's."""
    if num_classes == 3:
        return 0.0
    # L' saturates once e^{−β m/(m−1)}·m is small: the fold lies below β = 2 log m + 4.
    upper = 2 * math.log(num_classes) + 4
    found = minimize_scalar(
        lambda b: _branch(num_classes, b)[0],
        bounds=(1e-3, upper),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(found.x)


def etf_largest_log_odds(num_classes: int, rho: float) -> float:
    """max F over the ball for a simplex ETF, exactly: the optimum for a negative weight.

    Parameters
    ----------
    num_classes
        K ≥ 2.
    rho
        ρ = √(E_H·E_W) > 0.

    Returns
    -------
    The larger of log(K−1) + ρK/(K−1), reached at −√(E_H/E_W)·w_k, and the value of the state
    leaning towards one competitor where it exists (module docstring).
    """
    k = num_classes
    if k < 2 or not rho > 0:
        raise ValueError(f"needs num_classes >= 2 and rho > 0, got {num_classes} and {rho}")
    symmetric = math.log(k - 1) + rho * k / (k - 1)
    if k == 2:
        return symmetric
    low = _fold_beta(k)
    if rho <= (_branch(k, low)[0] if low > 0 else 2.0):
        return symmetric
    # ρ(β) increases beyond the fold, and ρ ≥ β/κ bounds β.
    beta = brentq(
        lambda b: _branch(k, b)[0] - rho, max(low, 1e-9), max(2 * low, rho), rtol=4 * _EPS
    )
    # At the ρ asked for: the root's error enters squared, F being stationary in α.
    alpha = _branch(k, beta)[1]
    kappa = math.sqrt(k * (k - 2)) / (k - 1)
    b = rho * kappa * math.sin(alpha)
    leaning = (
        rho * math.cos(alpha) * k / (k - 1)
        + b
        + math.log1p((k - 2) * math.exp(-b * (k - 1) / (k - 2)))
    )
    return max(symmetric, leaning)


def solve_signed(
    problem: SignedProblem,
    rng: np.random.Generator,
    *,
    starts: int = 16,
    max_iterations: int = 500,
    gap_tolerance: float = 1e-6,
    branch_nodes: int = 200_000,
) -> SignedSolution:
    """Solve a problem with weights of any sign, states of negative weight as far as possible.

    Parameters
    ----------
    problem
        Weights of any sign.
    rng
        Draws random starts for the states of negative weight.
    starts
        Random starts for each distinct (label, E_H) of negative weight, beside −w_k and the
        K − 1 directions w_j − w_k.
    max_iterations
        Newton steps of each search.
    gap_tolerance
        Relative gap up to which a state counts as proven global; the branch and bound stops
        there.
    branch_nodes
        Simplices that the branch and bound may look at for each distinct problem of negative
        weight that nothing else decides (K ≤ 6 only); 0 turns it off.

    Returns
    -------
    SignedSolution
        With a bound for every state. For a negative weight the least of: the exact optimum for
        an ETF; log Σ_j e^{√E_H‖w_j − w_k‖}; a quadratic majorant of F maximised exactly; branch
        and bound on the dual form.

    Raises
    ------
    ValueError
        ``starts`` or ``branch_nodes`` is negative.
    """
    if starts < 0 or branch_nodes < 0:
        raise ValueError(f"starts and branch_nodes must be >= 0, got {starts} and {branch_nodes}")
    kinds = problem.kinds
    num_states, dim = len(problem.labels), problem.head.shape[1]
    energies = np.broadcast_to(problem.feature_energy, (num_states,))
    features = np.zeros((num_states, dim))
    # F(0) = log(K − 1): the value of every indifferent state.
    log_odds = np.full(num_states, np.log(len(problem.head) - 1.0))
    gap = np.zeros(num_states)
    stats: dict[str, float | int | str] = {"solver": "signed", "searches": 0, "branch_nodes": 0}
    status = Status.SOLVED

    up = np.flatnonzero(kinds == Kind.ATTRACTING)
    if up.size:
        part = PeeledProblem(
            problem.head, problem.labels[up], problem.weights[up], energies[up].copy()
        )
        solution = solve_ball(part)
        features[up], log_odds[up] = solution.features, solution.log_odds
        gap[up] = _gap_in_ball(part, solution.features)
        status = solution.status
    down = np.flatnonzero(kinds == Kind.REPELLING)
    if down.size:
        part = PeeledProblem(
            problem.head, problem.labels[down], np.ones(down.size), energies[down].copy()
        )
        labels, distinct_energies, inverse = distinct_problems(part)
        span = Span(part)
        coordinates = span.coordinates[:, : span.rank]  # the maximum lies in the span
        y, steps, residual = _maximise(
            coordinates, labels, np.sqrt(distinct_energies), rng, starts, max_iterations
        )
        batch = Batch(coordinates, labels, np.sqrt(distinct_energies))
        value = batch.value(y)[0]
        bound = np.empty(len(labels))
        nodes = 0
        defect = etf_defect(problem.head)
        for u, (k, energy) in enumerate(zip(labels, distinct_energies, strict=True)):
            bound[u], used = _upper_bound(
                coordinates,
                int(k),
                float(np.sqrt(energy)),
                defect,
                float(value[u]),
                gap_tolerance * (1 + abs(float(value[u]))),
                branch_nodes,
            )
            nodes += used
        features[down] = np.take(y @ span.basis[: span.rank], inverse, axis=0)
        log_odds[down] = value[inverse]
        # A bound below a value that was found proves one of the two wrong: say so, don't clip it.
        excess = value - bound
        if (excess > 1e-9 * (1 + np.abs(value))).any():
            worst = int(excess.argmax())
            raise ArithmeticError(
                f"log-odds {value[worst]:.15g} were found above their proven bound "
                f"{bound[worst]:.15g}: please report this head, K = {len(problem.head)}"
            )
        gap[down] = np.maximum(-excess, 0.0)[inverse]
        reach = float(np.sqrt(distinct_energies.max()) * part._distances.max())
        searched = search_status(residual, reach, steps, max_iterations)
        status = searched if status is Status.SOLVED else status
        stats |= {
            "searches": len(labels) * (starts + len(problem.head)),
            "branch_nodes": nodes,
            "gradient": residual,
        }
    bound_ = log_odds - kinds * gap
    return SignedSolution(
        features=features,
        kinds=kinds,
        log_odds=log_odds,
        log_odds_bound=bound_,
        log_odds_gap=gap,
        is_global=gap <= gap_tolerance * (1 + np.abs(log_odds)),
        objective=-float(problem.weights @ softplus(log_odds)),
        objective_bound=-float(problem.weights @ softplus(bound_)),
        status=status,
        stats=stats,
    )


def _gap_in_ball(problem: PeeledProblem, features: Float) -> Float:
    """(N,) F − [H(p) − R‖v‖] = R‖v‖ + ⟨h, v⟩ for every state, without cancellation."""
    gap = np.empty(problem.num_states)
    for rows in problem.blocks():
        h, energy = features[rows], problem.energies[rows]
        v = problem.log_odds_block(h, rows).gradient
        length = np.linalg.norm(v, axis=1)
        radius = np.sqrt(energy)
        mismatch = h + (radius / np.where(length > 0, length, 1.0))[:, None] * v
        slack = np.maximum(0.0, energy - np.einsum("nd,nd->n", h, h))
        gap[rows] = length / (2 * radius) * (np.einsum("nd,nd->n", mismatch, mismatch) + slack)
    return gap


def _maximise(
    coordinates: Float,
    labels: NDArray[np.intp],
    radius: Float,
    rng: np.random.Generator,
    starts: int,
    max_iterations: int,
) -> tuple[Float, int, float]:
    """Best local maximum of F on each sphere (U, r), Newton steps, and the worst gradient."""
    rank = coordinates.shape[1]
    # −c_k and every w_j − w_k; the label's own difference, zero, gives its place to −c_k.
    fixed = np.tile(coordinates[:, None, :], (1, len(labels), 1)) - coordinates[labels]
    fixed[labels, np.arange(len(labels))] = -coordinates[labels]
    points = np.concatenate([fixed, rng.standard_normal((starts, len(labels), rank))])
    lost = np.linalg.norm(points, axis=2) <= 1e-12 * np.linalg.norm(coordinates, axis=1).max()
    points[lost] = np.eye(rank)[0]
    many = len(points)
    batch = Batch(coordinates, np.tile(labels, many), np.tile(radius, many))
    y, steps = descend(batch, points.reshape(-1, rank), -1.0, max_iterations)
    if rank == 1:  # the sphere is ±R: look at both
        y = np.concatenate([y, -y])
        batch = Batch(coordinates, np.tile(batch.labels, 2), np.tile(batch.radius, 2))
        many *= 2
    at = evaluate(batch, y)
    value = at.value.reshape(many, -1)
    best = value.argmax(axis=0), np.arange(len(labels))
    return (
        y.reshape(many, len(labels), rank)[best],
        steps,
        float(at.residual.reshape(many, -1)[best].max()),
    )


def _upper_bound(
    coordinates: Float,
    k: int,
    radius: float,
    defect: float,
    found: float,
    tolerance: float,
    branch_nodes: int,
) -> tuple[float, int]:
    """A proven upper bound on max F over the ball, and the simplices spent on it."""
    num_classes = len(coordinates)
    differences = np.delete(coordinates, k, axis=0) - coordinates[k]
    # ⟨h, w_j − w_k⟩ ≤ R‖w_j − w_k‖ for each j at once. Rounding: R‖D_j‖·eps and a few of log's.
    lengths = radius * np.linalg.norm(differences, axis=1)
    rounding = 8 * _EPS * (1 + float(lengths.max()))
    top = float(lengths.max())
    bounds = [top + math.log(float(np.exp(lengths - top).sum())) + rounding]
    if defect <= _ETF_TOLERANCE:
        # max F = max_q H(q) + R√(qᵀGq), G the Gram matrix of the differences D. Its entries, four
        # of WWᵀ's each, are within 4·defect·E_W of the exact frame's; q sums to one, so qᵀGq is
        # too, and its root, at least √E_W·K/(K−1) for the frame, within 4·defect·√E_W. Twice
        # that covers the error of E_W itself.
        head_energy = float(np.mean(np.einsum("kd,kd->k", coordinates, coordinates)))
        rho = radius * math.sqrt(head_energy)
        exact = etf_largest_log_odds(num_classes, rho)
        bounds.append(exact + 8 * rho * defect + rounding)
    else:
        bounds.append(_quadratic_bound(differences, radius) + rounding)
    bound, used = min(bounds), 0
    if bound > found + tolerance and 3 <= num_classes <= _BRANCH_CLASSES and branch_nodes > 0:
        refined, used = _branch_and_bound(differences, radius, found, tolerance, branch_nodes)
        bound = min(bound, refined + rounding)
    return bound, used


def _quadratic_bound(differences: Float, radius: float) -> float:
    """Upper bound on F over the ball from a quadratic that lies above it everywhere.

    diag(p) − ppᵀ ⪯ ½(I − 11ᵀ/m) for every p in the simplex (Böhning 1992), so with the
    differences D, D̄ their mean and B = ½(D − D̄)ᵀ(D − D̄),

        F(h) ≤ log m + ⟨D̄, h⟩ + ½hᵀBh.

    Its maximum over the ball has no duality gap (a trust-region problem), and every
    λ > λ_max(B) bounds it: log m + ½D̄ᵀ(λI − B)⁻¹D̄ + ½λR². For an ETF it is tight for ρ ≤ 2.
    """
    mean = differences.mean(axis=0)
    centred = differences - mean
    curvature, vectors = np.linalg.eigh(0.5 * centred.T @ centred)
    linear = vectors.T @ mean
    size = float(np.linalg.norm(linear))
    largest = float(max(curvature[-1], 0.0))

    def dual(multiplier: float) -> float:
        return 0.5 * float(linear @ (linear / (multiplier - curvature))) + (
            0.5 * multiplier * radius**2
        )

    def slope(multiplier: float) -> float:
        step = linear / (multiplier - curvature)
        return radius**2 - float(step @ step)

    low = largest + 1e-12 * (largest + size / radius)
    high = largest + 2 * size / radius + low - largest
    multiplier = low
    if slope(low) < 0:  # convex in λ: the root of its slope is the least bound
        multiplier = float(brentq(slope, low, high, xtol=1e-15 * high, rtol=4 * _EPS))
    return math.log(len(differences)) + dual(multiplier)


def _branch_and_bound(
    differences: Float, radius: float, found: float, tolerance: float, max_nodes: int
) -> tuple[float, int]:
    """Upper bound on max F by simplicial branch and bound on F's dual form (Horst 1976).

    max_h F = max_q H(q) + R‖Dᵀq‖ over the simplex of m = K − 1 weights, the h best for given q
    being R·Dᵀq/‖Dᵀq‖. On a sub-simplex T with vertices q_i and barycentre q̄ the norm, convex,
    lies below the affine function with its values at the q_i, and the entropy, concave, below its
    tangent at q̄, which is the cross-entropy −Σ_j q_j log q̄_j. The sum of the two is affine, so

        max over T ≤ max_i [−Σ_j q_ij log q̄_j + R‖Dᵀq_i‖].

    The error is quadratic in T's diameter. Simplices that cannot beat ``found`` by more than
    ``tolerance`` are closed, the rest are halved at their longest edge.
    """
    m = len(differences)
    simplices = np.eye(m)[None]
    closed, nodes = -np.inf, 0
    first, second = np.triu_indices(m, 1)
    while True:
        barycentre = simplices.mean(axis=1)
        norms = radius * np.linalg.norm(simplices @ differences, axis=2)
        # A coordinate of q̄ is zero only where it is in every q_i: 0·log 0 = 0.
        log_barycentre = np.log(np.where(barycentre > 0, barycentre, 1.0))
        bounds = (norms - np.einsum("nij,nj->ni", simplices, log_barycentre)).max(axis=1)
        nodes += len(simplices)
        is_open = bounds > found + tolerance
        closed = max(closed, float(bounds[~is_open].max(initial=-np.inf)))
        if not is_open.any():
            return closed, nodes
        if nodes + 2 * int(is_open.sum()) > max_nodes:
            return max(closed, float(bounds.max())), nodes
        parents = simplices[is_open]
        edges = np.linalg.norm(parents[:, first] - parents[:, second], axis=2).argmax(axis=1)
        a, b = first[edges], second[edges]
        rows = np.arange(len(parents))
        middle = 0.5 * (parents[rows, a] + parents[rows, b])
        left, right = parents.copy(), parents.copy()
        left[rows, a] = middle
        right[rows, b] = middle
        simplices = np.concatenate([left, right])
