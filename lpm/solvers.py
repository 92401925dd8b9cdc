"""The table of solvers for the fixed-head problem and the one entry point to them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lpm.ball import solve_ball
from lpm.closed_form import solve_closed_form
from lpm.free_head import FreeHeadProblem
from lpm.orthant import solve_orthant
from lpm.problem import PeeledProblem
from lpm.solution import Solution

if TYPE_CHECKING:
    from lpm.conic import SdpResult


def _solve_conic(problem: PeeledProblem, **options: Any) -> Solution:
    # cvxpy takes a second to import; pay it only when it is used.
    from lpm.conic import solve_conic

    return solve_conic(problem, **options)


SOLVERS: dict[str, Callable[..., Solution]] = {
    "ball": solve_ball,
    "orthant": solve_orthant,
    "conic": _solve_conic,
    "closed-form": solve_closed_form,
}


def solve(problem: PeeledProblem, solver: str = "ball", **options: Any) -> Solution:
    """Solve Eq. (8)-(9) for a fixed head.

    Parameters
    ----------
    problem
        The peeled problem.
    solver
        ``"ball"``: the project's own, any head, to rounding. ``"conic"``: cvxpy on the joint
        problem, an independent reference for small N. ``"closed-form"``: Theorem 1, for a
        simplex-ETF head only. ``"orthant"``: the project's own for ``cone="nonnegative"``
        (rectified features), any head, to rounding; the others but ``"conic"`` refuse it.
    **options
        Passed on to the solver's function (`lpm.ball.solve_ball`, `lpm.conic.solve_conic`,
        `lpm.orthant.solve_orthant`).

    Raises
    ------
    ValueError
        An unknown solver, or a problem that the named one cannot take.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}")
    return SOLVERS[solver](problem, **options)


def free_head_sdp(problem: FreeHeadProblem, solver: str = "CLARABEL") -> "SdpResult":
    """Solve the learned-head model as a semidefinite program, an independent reference.

    Parameters
    ----------
    problem
        Its dimension is ignored (taken as ≥ 2K).
    solver
        ``"CLARABEL"`` or ``"SCS"``.

    Returns
    -------
    SdpResult
        ``logits`` (K, K), ``objective`` and cvxpy's ``status``.

    Raises
    ------
    cvxpy.error.SolverError
        The backend fails.
    """
    from lpm.conic import free_head_sdp as sdp

    return sdp(problem, solver)
