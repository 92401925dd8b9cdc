"""The layer-peeled model's figure: minority collapse, its transitions, and the theory's edges."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import COLOURS, STYLE, write_caption


def figure_lpm(tables: Mapping[str, pd.DataFrame], caption: str) -> Figure:
    """Draw all six panels from the tables of `analysis.peeled`.

    Parameters
    ----------
    tables
        ``minority``, ``reference``, ``transitions``, ``true_objective``, ``rectified``.
    caption
        Printed under the panels: what was run.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(14, 8.6))
        axes = figure.subplots(2, 3)
        figure.subplots_adjust(
            left=0.055, right=0.985, top=0.95, bottom=0.16, wspace=0.27, hspace=0.36
        )
        _cosines(axes[0, 0], tables["minority"], tables["reference"], tables["transitions"])
        _norms(axes[0, 1], tables["minority"], tables["reference"], tables["transitions"])
        _gaps(axes[0, 2], tables["minority"], tables["reference"])
        _transitions(axes[1, 0], tables["transitions"])
        _true_objective(axes[1, 1], tables["true_objective"])
        _rectified(axes[1, 2], tables["rectified"])
        write_caption(figure, caption, 0.012)
    return figure


def _by_energy(axes: Axes, minority: pd.DataFrame, column: str) -> None:
    for colour, (energy, rows) in zip(COLOURS, minority.groupby("feature_energy"), strict=False):
        axes.plot(
            rows["ratio"], rows[column], color=colour, linewidth=1.5, label=f"$E_H$ = {energy:g}"
        )
    axes.set_xscale("log")
    axes.set_xlabel("imbalance ratio R = majority / minority count")


def _mark(axes: Axes, minority: pd.DataFrame, transitions: pd.DataFrame, column: str) -> None:
    """Vertical lines at a transition, in the colour of its E_H."""
    for colour, energy in zip(COLOURS, sorted(minority["feature_energy"].unique()), strict=False):
        exact = transitions.loc[np.isclose(transitions["feature_energy"], energy), column]
        for ratio in exact:
            if np.isfinite(ratio) and ratio <= minority["ratio"].max():
                axes.axvline(ratio, color=colour, linestyle=":", linewidth=1)


def _circles(axes: Axes, reference: pd.DataFrame, column: str, label: str | None = None) -> None:
    """Put the independent solver's points on top."""
    axes.plot(
        reference["ratio"],
        reference[column],
        "o",
        markerfacecolor="none",
        color="black",
        markersize=5,
        label=label,
    )


def _cosines(
    axes: Axes, minority: pd.DataFrame, reference: pd.DataFrame, transitions: pd.DataFrame
) -> None:
    _by_energy(axes, minority, "minority_cosine")
    _circles(axes, reference, "minority_cosine", "cvxpy SDP, $E_H$ = 5")
    _mark(axes, minority, transitions, "collapse_ratio")
    axes.set_title("(a) minority collapse: heads coincide at R1 (dotted)")
    axes.set_ylabel("cosine between minority head rows")
    axes.legend(loc="lower right")


def _norms(
    axes: Axes, minority: pd.DataFrame, reference: pd.DataFrame, transitions: pd.DataFrame
) -> None:
    _by_energy(axes, minority, "minority_norm")
    _circles(axes, reference, "minority_norm")
    _mark(axes, minority, transitions, "vanishing_ratio")
    axes.set_title("(b) minority heads vanish at R2 (dotted), if it is finite")
    axes.set_ylabel(r"norm of minority head rows, $\sqrt{E_W}$ = 1")
    axes.set_ylim(bottom=-0.03)


def _gaps(axes: Axes, minority: pd.DataFrame, reference: pd.DataFrame) -> None:
    _by_energy(axes, minority, "gap")
    _circles(axes, reference, "gap", "cvxpy SDP, against our bound")
    axes.set_yscale("log")
    axes.set_title("(c) certified duality gap")
    axes.set_ylabel("objective minus lower bound (nats)")
    axes.legend(loc="center right")


def _transitions(axes: Axes, transitions: pd.DataFrame) -> None:
    finite = transitions[np.isfinite(transitions["vanishing_ratio"])]
    energy = transitions["feature_energy"]
    axes.plot(energy, transitions["collapse_ratio"], color=COLOURS[0], label="R1: heads coincide")
    axes.plot(
        finite["feature_energy"],
        finite["vanishing_ratio"],
        color=COLOURS[1],
        label="R2: heads and features vanish",
    )
    limit = transitions["vanishing_energy"].iloc[0]
    axes.axvline(
        limit, color=COLOURS[1], linestyle=":", linewidth=1, label=f"R2 = ∞ from {limit:.4g} on"
    )
    axes.set_ylim(0.8, 2e4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title("(d) the two transitions, $K_A = K_B = 5$, $E_W = 1$")
    axes.set_xlabel("feature energy $E_H$")
    axes.set_ylabel("imbalance ratio")
    axes.legend()


def _true_objective(axes: Axes, rows: pd.DataFrame) -> None:
    for colour, (name, own) in zip(COLOURS, rows.groupby("action_values"), strict=False):
        axes.plot(own["rho"], own["angle_degrees"], color=colour, linewidth=1.5, label=name)
        axes.axhline(own["small_rho_degrees"].iloc[0], color=colour, linestyle=":", linewidth=1)
        large = own[own["rho"] > 1]
        axes.plot(large["rho"], large["large_rho_degrees"], "--", color=colour, linewidth=1)
    axes.set_xscale("log")
    axes.set_title("(e) optimum of the true objective, Eq. (1)")
    axes.set_xlabel(r"$\rho = \sqrt{E_H E_W}$")
    axes.set_ylabel("angle to $w_k$ (degrees)")
    handles, labels = axes.get_legend_handles_labels()
    handles += [
        mpl.lines.Line2D([], [], color="black", linestyle=":"),
        mpl.lines.Line2D([], [], color="black", linestyle="--"),
    ]
    axes.legend(handles, [*labels, "limit ρ → 0", "asymptote ρ → ∞"])


def _rectified(axes: Axes, rows: pd.DataFrame) -> None:
    for column, colour, label in (
        ("cosine", COLOURS[0], "optimum on ball ∩ orthant, ρ = 5"),
        ("largest_cosine", COLOURS[1], "largest cosine of any h ≥ 0"),
    ):
        grouped = rows.groupby("dim")[column]
        middle = grouped.median()
        axes.plot(middle.index, middle, color=colour, linewidth=1.5, label=label)
        axes.fill_between(
            middle.index,
            grouped.quantile(0.025),
            grouped.quantile(0.975),
            color=colour,
            alpha=0.18,
            linewidth=0,
        )
    axes.axhline(1, color="black", linestyle=":", linewidth=1, label="Theorem 1 (free features)")
    axes.axhline(np.sqrt(0.5), color="grey", linestyle="--", linewidth=1, label=r"$1/\sqrt{2}$")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.05)
    axes.set_title("(f) rectified features, random ETF, K = 4")
    axes.set_xlabel("feature dimension d")
    axes.set_ylabel("mean over k of cos(h, $w_k$)")
    axes.legend(loc="lower right")
