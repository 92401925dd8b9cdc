"""The learned-head solver against cvxpy's semidefinite program, and by itself to K = 1000."""

import time
from typing import Any

import numpy as np

import lpm.free_head
from lpm.conic import free_head_sdp
from lpm.free_head_gap import ball_gap
from lpm.free_head_levels import LevelLoss, Levels

SIZES_WITH_PEER = (10, 20, 40)
SIZES = (10, 40, 100, 400, 1000)


def _counts(family: str, num_classes: int) -> np.ndarray:
    rank = np.arange(1, num_classes + 1)
    if family == "balanced":
        return np.full(num_classes, 100)
    if family == "two-level":
        return np.where(rank <= num_classes // 2, 10_000, 100)
    if family == "log-normal":
        normal = np.random.default_rng(0).normal(size=num_classes)
        return np.ceil(1e6 * np.exp(normal)).astype(int)
    return np.ceil(1e6 / rank).astype(int)


FAMILIES = ("balanced", "two-level", "log-normal", "zipf")


def _ours(problem: lpm.free_head.FreeHeadProblem) -> dict[str, Any]:
    start = time.process_time()
    solution = lpm.free_head.solve_free_head(problem)
    return {
        "cpu_s": time.process_time() - start,
        "gap": solution.gap,
        "objective": solution.objective,
        **solution.stats,
    }


def _peer(problem: lpm.free_head.FreeHeadProblem, backend: str) -> dict[str, Any]:
    """Time the conic solver and certify its logits by our bound, after scaling them feasible."""
    start = time.process_time()
    answer = free_head_sdp(problem, backend)
    seconds = time.process_time() - start
    size = np.linalg.norm(answer.logits, "nuc")
    logits = answer.logits * min(1.0, problem.radius / size)
    levels = Levels.keep_all(problem.counts)
    packed = np.vstack([np.zeros(len(logits)), logits])
    here = LevelLoss(levels, np.ones(len(logits))).evaluate(packed)
    gap = ball_gap(here, packed, np.zeros(len(logits)), problem.radius)
    return {
        "cpu_s": seconds,
        "gap": gap.bound,
        "objective": here.value,
        "status": answer.status,
    }


def run(sizes_with_peer: tuple[int, ...] = SIZES_WITH_PEER) -> dict[str, Any]:
    """E_H = 5, E_W = 1. The peer sees log-normal counts, which no merging simplifies."""
    against = []
    for k in sizes_with_peer:
        problem = lpm.free_head.FreeHeadProblem(_counts("log-normal", k), 5.0, 1.0)
        lpm.free_head.solve_free_head(problem)  # warm-up
        row: dict[str, Any] = {"num_classes": k, "ours": _ours(problem)}
        for backend in ("CLARABEL", "SCS"):
            row[backend] = _peer(problem, backend)
            row[f"{backend}_over_ours"] = row[backend]["cpu_s"] / row["ours"]["cpu_s"]
        against.append(row)
    scaling = [
        {
            "family": family,
            "num_classes": k,
            **_ours(lpm.free_head.FreeHeadProblem(_counts(family, k), 5.0, 1.0)),
        }
        for family in FAMILIES
        for k in SIZES
    ]
    return {
        "question": "solve_free_head against cvxpy's SDP (log-normal counts); scaling to K=1000",
        "peer": "cvxpy, 2K x 2K positive semidefinite variable, compilation included",
        "against": against,
        "scaling": scaling,
    }
