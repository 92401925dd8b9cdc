"""The table of solvers for the fixed-head problem and the one entry point to them."""

from collections.abc import Callable
from typing import Any

from lpm.ball import solve_ball
from lpm.closed_form import solve_closed_form
from lpm.problem import PeeledProblem
from lpm.solution import Solution


def _solve_conic(problem: PeeledProblem, **options: Any) -> Solution:
    # cvxpy takes a second to import; pay it only when it is used.
    from lpm.conic import solve_conic

    return solve_conic(problem, **options)


SOLVERS: dict[str, Callable[..., Solution]] = {
    "ball": solve_ball,
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
        simplex-ETF head only.
    **options
        Passed on to the solver's function (`lpm.ball.solve_ball`, `lpm.conic.solve_conic`).

    Raises
    ------
    ValueError
        An unknown solver, or a problem that the named one cannot take.
    """
    if solver not in SOLVERS:
        raise ValueError(f"unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}")
    return SOLVERS[solver](problem, **options)
