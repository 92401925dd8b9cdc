"""The fixed-head solver against cvxpy on the same problem, and by itself at a million states."""

import time
from typing import Any

import numpy as np

import lpm
from benchmarks.harness import interleaved


def _problem(states: int, dim: int, classes: int, seed: int = 0) -> lpm.PeeledProblem:
    rng = np.random.default_rng(seed)
    return lpm.PeeledProblem(
        head=lpm.simplex_etf(classes, dim, 1.0, rng),
        labels=rng.integers(0, classes, states),
        weights=10.0 ** rng.uniform(-3, 3, states),
        feature_energy=25.0,
    )


def _accuracy(problem: lpm.PeeledProblem, solver: str) -> dict[str, float]:
    certificate = lpm.certify(problem, lpm.solve(problem, solver).features)
    return {
        "kkt_residual": certificate.kkt_residual,
        "log_odds_gap_nats": certificate.log_odds_gap,
    }


def run() -> dict[str, Any]:
    """N = 1000, K = 10, d = 16: `ball` against the joint conic program (Clarabel)."""
    problem = _problem(1000, 16, 10)
    timing = interleaved(
        lambda: lpm.solve(problem, "ball"), lambda: lpm.solve(problem, "conic"), rounds=3
    )
    return {
        "question": "solve(problem, 'ball') against cvxpy's joint problem, N=1000, K=10, d=16, ρ=5",
        "peer": "cvxpy, Clarabel, log-odds formulation, compilation included",
        **timing,
        "ours_accuracy": _accuracy(problem, "ball"),
        "peer_accuracy": _accuracy(problem, "conic"),
        "million_states": _million(),
    }


def _million() -> dict[str, Any]:
    problem = _problem(10**6, 512, 18)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        solution = lpm.solve(problem)
        seconds.append(time.perf_counter() - start)
        del solution
    return {
        "question": "N=10⁶, d=512, K=18; the first run also pays for touching 4 GB of new memory",
        "seconds": seconds,
    }
