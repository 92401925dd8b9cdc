"""Timing and storage shared by the benchmarks."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.storage import as_json, environment, write_atomically

RESULTS = Path(__file__).resolve().parent.parent / "results" / "benchmarks"


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int
) -> dict[str, Any]:
    """Time two callables in turn, ours-peer-ours-peer, after one warm-up each.

    Machines drift; the ratio is taken round by round, and the median of the ratios is what to
    quote.
    """
    ours()
    peer()
    times: dict[str, list[float]] = {"ours_s": [], "peer_s": []}
    for _ in range(rounds):
        for name, function in (("ours_s", ours), ("peer_s", peer)):
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    ratios = [p / o for o, p in zip(times["ours_s"], times["peer_s"], strict=True)]
    return {
        **times,
        "ours_median_s": statistics.median(times["ours_s"]),
        "peer_median_s": statistics.median(times["peer_s"]),
        "peer_over_ours": {
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
        },
    }


def store(name: str, result: dict[str, Any]) -> Path:
    """Write a benchmark's numbers with the environment under ``results/benchmarks/``."""
    path = RESULTS / f"{name}.json"
    write_atomically(path, as_json({"environment": environment(), **result}).encode())
    return path
