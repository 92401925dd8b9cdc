"""Conic references through cvxpy: the joint problem as written, solved by somebody else's code.

Slow and good to about 1e-8, but independent: nothing is decomposed by state, reduced to the
head's span, or scaled by hand beyond the unit ball. The only file that imports cvxpy.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from lpm.free_head import FreeHeadProblem
from lpm.problem import PeeledProblem
from lpm.solution import Multipliers, Solution, Status

Float = NDArray[np.float64]


def solve_conic(
    problem: PeeledProblem,
    *,
    formulation: Literal["log-odds", "cross-entropy"] = "log-odds",
    backend: str = "CLARABEL",
) -> Solution:
    """Solve all N states as one conic program.

    Parameters
    ----------
    problem
        Either cone. Keep N·K below about 10⁵ (seconds to a minute).
    formulation
        ``"cross-entropy"`` is the paper's own Eq. (8) with its weights, normalised to a maximum
        of one; past ρ ≈ 15 the loss is below the solver's tolerance, so it then reports
        "optimal" far from the optimum. ``"log-odds"`` minimises Σ F(h_s): each state's term
        is a monotone transform of the one in (8) under its own constraint, so the solution is
        the same, and the accuracy stays at about 1e-8 for large ρ.
    backend
        A cvxpy solver name that handles exponential cones.

    Returns
    -------
    Solution
        Multipliers come from the solver's dual variables.

    Raises
    ------
    RuntimeError
        The backend fails or calls the problem infeasible.
    """
    radius = np.sqrt(problem.energies)
    # Unit-ball variables: one scale for all states, whatever their energies.
    x = cp.Variable((problem.num_states, problem.dim))
    if formulation == "cross-entropy":
        scale = problem.weights / problem.weights.max()
    elif formulation == "log-odds":
        scale = np.ones(problem.num_states)
    else:
        raise ValueError(f"unknown formulation {formulation!r}: use 'log-odds' or 'cross-entropy'")
    terms = []
    for k in np.unique(problem.labels):
        states = np.flatnonzero(problem.labels == k)
        rows = np.arange(problem.num_classes)
        if formulation == "log-odds":
            rows = rows[rows != k]  # with its own zero logit the sum is softplus(F)
        differences = problem.head[rows] - problem.head[k]
        logits = cp.multiply(radius[states][:, None], x[states] @ differences.T)
        terms.append(scale[states] @ cp.log_sum_exp(logits, axis=1))
    ball = cp.norm(x, axis=1) <= 1
    constraints = [ball] + ([x >= 0] if problem.cone == "nonnegative" else [])
    program = cp.Problem(cp.Minimize(cp.sum(cp.hstack(terms))), constraints)
    with warnings.catch_warnings():
        # cvxpy warns of reduced accuracy; the status below carries that to the caller.
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        try:
            program.solve(solver=backend)
        except cp.SolverError as error:
            raise RuntimeError(
                f"{backend} failed on N={problem.num_states}, K={problem.num_classes}, "
                f"ρ up to {_largest_rho(problem):.3g}: try formulation='log-odds', a smaller N, "
                "or solver='ball'"
            ) from error
    statuses = {cp.OPTIMAL: Status.SOLVED, cp.OPTIMAL_INACCURATE: Status.INACCURATE}
    if program.status not in statuses:
        raise RuntimeError(
            f"{backend} ended with status {program.status!r} on a problem that is always feasible "
            f"(ρ up to {_largest_rho(problem):.3g}): use solver='ball'"
        )
    features = radius[:, None] * np.asarray(x.value)
    log_odds = problem.log_odds(features)
    # Constraint ‖x‖ ≤ 1 with multiplier ν: ∇F + (ν/‖h‖²)·h = 0, hence λ = ν/(2 E_H); with the
    # cross-entropy ν belongs to scale·softplus(F), whose derivative in F is scale·σ(F).
    dual = np.maximum(0.0, np.asarray(ball.dual_value)) / (2 * problem.energies)
    if formulation == "cross-entropy":
        dual = dual / scale * np.exp(np.logaddexp(0.0, -log_odds))
    return Solution(
        features=features,
        multipliers=Multipliers.from_log_odds(dual, log_odds),
        log_odds=log_odds,
        objective=problem.objective(features),
        status=statuses[program.status],
        stats={
            "solver": "conic",
            "backend": backend,
            "formulation": formulation,
            "iterations": int(program.solver_stats.num_iters or 0),
        },
    )


@dataclass(frozen=True)
class SdpResult:
    """Answer of a conic solver.

    Parameters
    ----------
    logits : (K, K) float array
        Row k belongs to the samples of class k.
    objective : float
        As the conic solver reports it.
    status : str
        cvxpy's status.
    """

    logits: Float
    objective: float
    status: str


def free_head_sdp(problem: FreeHeadProblem, solver: str = "CLARABEL") -> SdpResult:
    """Solve the learned-head model with ``dim >= 2 K`` through cvxpy.

    The logits are the off-diagonal block of a positive semidefinite ``[[P, Z], [Z^T, Q]]``, P and Q
    being the Grams of features and head. "mean" bounds ``tr P <= K E_H`` and ``tr Q <= K E_W``
    (the nuclear-norm ball), "per-vector" every diagonal entry (the max-norm ball).

    Parameters
    ----------
    problem : FreeHeadProblem
        The model; its dimension is ignored.
    solver : str
        ``"CLARABEL"`` or ``"SCS"``.

    Raises
    ------
    cvxpy.error.SolverError
        If the solver fails.
    """
    k = problem.num_classes
    # The balanced scaling: only rho = sqrt(E_H E_W) matters for the logits.
    rho = float(np.sqrt(problem.feature_energy * problem.head_energy))
    gram = cp.Variable((2 * k, 2 * k), PSD=True)
    logits = gram[:k, k:]
    share = problem.counts / problem.counts.sum()
    loss = cp.sum(
        cp.hstack([share[i] * (cp.log_sum_exp(logits[i]) - logits[i, i]) for i in range(k)])
    )
    if problem.constraint == "mean":
        bounds = [cp.trace(gram[:k, :k]) <= k * rho, cp.trace(gram[k:, k:]) <= k * rho]
    else:
        bounds = [cp.diag(gram) <= rho]
    model = cp.Problem(cp.Minimize(loss), bounds)
    model.solve(solver=solver)
    return SdpResult(np.asarray(logits.value), float(model.value), str(model.status))


def _largest_rho(problem: PeeledProblem) -> float:
    return float(np.sqrt(problem.energies.max()) * np.linalg.norm(problem.head, axis=1).max())
