"""Benchmark results drawn from their stored JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, STYLE


def figure_free_head_benchmark(result: Mapping[str, Any]) -> Figure:
    """Time and certified gap of the learned-head solver against K, beside cvxpy's SDP.

    Parameters
    ----------
    result
        ``results/benchmarks/free_head.json``: ``against`` and ``scaling``.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.9))
        axes = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.07, right=0.985, top=0.92, bottom=0.24, wspace=0.22)
        scaling: Sequence[Mapping[str, Any]] = result["scaling"]
        families = list(dict.fromkeys(row["family"] for row in scaling))
        for panel, column in zip(axes, ("cpu_s", "gap"), strict=True):
            for colour, family in zip(COLOURS, families, strict=False):
                own = [row for row in scaling if row["family"] == family]
                panel.plot(
                    [row["num_classes"] for row in own],
                    [row[column] for row in own],
                    "o-",
                    color=colour,
                    markersize=4,
                    label=f"ours, {family} counts",
                )
            for marker, backend, name in (("^", "CLARABEL", "Clarabel"), ("s", "SCS", "SCS")):
                panel.plot(
                    [row["num_classes"] for row in result["against"]],
                    [row[backend][column] for row in result["against"]],
                    marker,
                    linestyle=":",
                    color="black",
                    markerfacecolor="none",
                    label=f"cvxpy SDP, {name}, log-normal counts",
                )
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xlabel("number of classes K")
        axes[0].set_title("(a) time")
        axes[0].set_ylabel("CPU seconds, one core")
        axes[1].set_title("(b) certified gap, by the same bound for all")
        axes[1].set_ylabel("objective minus lower bound (nats)")
        axes[1].legend(loc="center right")
        machine = result["environment"]["machine"]
        caption = (
            f"Learned-head layer-peeled model, E_H = 5, E_W = 1, average norm bounds; "
            f"{machine['processor']}, one thread, one run. cvxpy: compilation included, solver's "
            "default tolerances, logits scaled into the feasible set before the bound is taken."
        )
        figure.text(0.02, 0.02, caption, fontsize=8.5, va="bottom", wrap=True)
    return figure


def figure_learning_curves(result: Mapping[str, Any]) -> Figure:
    """Return against steps of PPO here and in Stable-Baselines3.

    Parameters
    ----------
    result
        ``results/benchmarks/learning_curves.json``.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6))
        panel = figure.subplots()
        figure.subplots_adjust(left=0.12, right=0.97, top=0.95, bottom=0.27)
        steps = [step / 1000 for step in result["steps"]]
        for colour, marker, name, label in (
            (COLOURS[0], "o", "ours", "Action Collapse"),
            (COLOURS[1], "s", "theirs", "Stable-Baselines3"),
        ):
            own = result[name]
            panel.plot(steps, own["mean"], f"{marker}-", color=colour, label=label)
            panel.fill_between(steps, own["low"], own["high"], color=colour, alpha=0.2, lw=0)
        ends = result["difference"]
        agreeing = sum(a <= 0 <= b for a, b in zip(ends["low"], ends["high"], strict=True))
        panel.set_xlabel("agent steps a seed (thousands)")
        panel.set_ylabel("return of evaluation episodes")
        panel.set_ylim(0, 510)
        panel.legend(loc="lower right")
        caption = (
            f"PPO on CartPole-v1, learned head with bias, {result['seeds']} seeds each, "
            f"{result['evaluation']}. Mean over seeds; bands: {result['band']}. The band of "
            f"the difference ({result['difference_band']}) holds 0 at {agreeing} of {len(steps)} "
            "points."
        )
        figure.text(0.02, 0.02, caption, fontsize=8.5, va="bottom", wrap=True)
    return figure
