r"""States of any weight: what becomes of Theorem 1 where d^π(s)·Ψ(s) ≤ 0.

The states decouple, so each one alone maximises weight·log π(k|h) = −weight·softplus(F(h)):

* weight > 0 **attracts**: F is minimised, the convex problem of `lpm.ball`.
* weight = 0 is **indifferent**: every feature is optimal. The one of least norm, 0, is returned.
* weight < 0 **repels**: F is *maximised* over the ball. F is convex, so the maximum lies on the
  sphere and the problem is not convex: what a search returns is the best of the local maxima it
  met. An upper bound on F, proven separately, says how much better anything else can be, and
  where the two meet the answer is global.

For a simplex ETF the maximum is known exactly (`lpm.negative_weight`).
"""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpm.ball import Batch, distinct_problems, solve_ball
from lpm.frames import etf_defect
from lpm.problem import PeeledProblem, softplus
from lpm.signed_bound import upper_bound
from lpm.solution import Status
from lpm.sphere import Span, descend, evaluate, search_status

Float = NDArray[np.float64]

_EPS = float(np.finfo(float).eps)


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
            bound[u], used = upper_bound(
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
