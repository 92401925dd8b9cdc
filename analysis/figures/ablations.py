"""The condition ablations: one group of dots a setting, one dot an arm."""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures.style import COLOURS, STYLE, write_caption
from analysis.statistics import median_band

_FLOOR = 1e-5
"""Left end of the axes: what is below has collapsed for every purpose."""
_SPREAD = 0.66
"""Share of a group's height that its dots take."""


@dataclass(frozen=True)
class _Panel:
    title: str
    xlabel: str
    column: str
    hollow: str
    """Column of the hollow dot, from the rows of all cells."""
    complement: bool = False
    learned_only: bool = False


_ANGLE = r"$\mathrm{Avg}_{k\neq k'}|\cos(k, k') + 1/(K-1)|$"
_PANELS = (
    _Panel("maximal angle of W", _ANGLE, "head_max_angle", "head_max_angle", learned_only=True),
    _Panel(
        "maximal angle of the centred means H", _ANGLE, "feature_max_angle", "feature_max_angle"
    ),
    _Panel(
        "alignment of single states",
        r"$1 - \min_s \cos(h_s, w_{a^*(s)})$",
        "min_feature_head_cosine",
        "unseen_feature_head_cosine",
        complement=True,
    ),
)


def figure_ablations(
    rows: pd.DataFrame,
    conditions: Mapping[str, str],
    arms: Mapping[str, str],
    sampled: Mapping[str, str],
    caption: str,
    seed: int = 0,
) -> Figure:
    """Draw geometry after training with each condition broken: Eq. (2) above, REINFORCE below.

    Parameters
    ----------
    rows
        Of `analysis.ablations.measure`, with the columns condition and arm.
    conditions, sampled
        Label of each setting by its name in the rows, from top to bottom.
    arms
        Label of each arm by its name; names that start with ``etf`` have a fixed head.
    caption
        Printed under the panels: what was run.
    seed
        Of the bootstrap behind the bands.

    Returns
    -------
    Figure
        Median over seeds with its 95 % bootstrap band, on logarithmic axes.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(14, 9.6))
        axes = figure.subplots(
            2, 3, sharey="row", height_ratios=(len(conditions), 0.2 + len(sampled))
        )
        figure.subplots_adjust(
            left=0.135, right=0.985, top=0.925, bottom=0.2, wspace=0.06, hspace=0.36
        )
        studies = (("Eq. (2)", conditions), ("REINFORCE", sampled))
        for row, (objective, settings) in enumerate(studies):
            for column, panel in enumerate(_PANELS):
                place = axes[row, column]
                _draw(place, rows, panel, settings, arms, seed)
                place.set_title(f"({'abcdef'[3 * row + column]}) {panel.title}, {objective}")
            labels = [_label(rows, name, label, row == 1) for name, label in settings.items()]
            axes[row, 0].set_yticks(range(len(settings)), labels)
            axes[row, 0].set_ylim(len(settings) - 0.5, -0.5)
        _draw_legend(figure, arms)
        write_caption(figure, caption, 0.015)
    return figure


def _label(rows: pd.DataFrame, name: str, label: str, with_ratio: bool) -> str:
    if not with_ratio:
        return label
    ratios = rows.loc[rows["condition"] == name].groupby("arm")["d_ratio"].median()
    low, high = (f"{float(f'{ratio:.3g}'):,g}" for ratio in (ratios.min(), ratios.max()))
    return f"{label}\nmax/min d: {low}" + ("" if low == high else f" to {high}")


def _draw(
    axes: Axes,
    rows: pd.DataFrame,
    panel: _Panel,
    settings: Mapping[str, str],
    arms: Mapping[str, str],
    seed: int,
) -> None:
    for place, setting in enumerate(settings):
        for position, (arm, colour) in enumerate(zip(arms, COLOURS, strict=False)):
            own = rows[(rows["condition"] == setting) & (rows["arm"] == arm)]
            if own.empty or (panel.learned_only and _fixed(arm)):
                continue
            y = place + _SPREAD * ((position + 0.5) / len(arms) - 0.5)
            some = own.loc[own["cells"] == "visited", panel.column].to_numpy(dtype=float)
            every = own.loc[own["cells"] == "all", panel.hollow].to_numpy(dtype=float)
            _dot(axes, _shown(some, panel), y, arm, colour, seed, hollow=False)
            # No cell without samples: no such cosine (NaN), or the same angle.
            if np.isfinite(every).all() and not np.array_equal(some, every):
                _dot(axes, _shown(every, panel), y, arm, colour, seed, hollow=True)
    if panel.complement:
        # An orthogonal frame of features, which rectification leads to, on its own head.
        axes.axvline(1 - 0.75**0.5, color="black", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(_FLOOR, 2.0)
    axes.set_xlabel(panel.xlabel)
    for edge in np.arange(len(settings) - 1) + 0.5:
        axes.axhline(edge, color="#bbbbbb", linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _shown(values: NDArray[np.float64], panel: _Panel) -> NDArray[np.float64]:
    return 1 - values if panel.complement else values


def _dot(
    axes: Axes,
    values: NDArray[np.float64],
    y: float,
    arm: str,
    colour: str,
    seed: int,
    *,
    hollow: bool,
) -> None:
    band = median_band(values[:, None], np.random.default_rng(seed))
    centre, lower, upper = (max(float(edge[0]), _FLOOR) for edge in band)
    axes.plot([lower, upper], [y, y], color=colour, linewidth=1.6, alpha=0.6)
    axes.plot(
        [centre],
        [y],
        _marker(arm),
        color=colour,
        markerfacecolor="white" if hollow else colour,
        markersize=5,
        clip_on=False,
        zorder=3,
    )


def _fixed(arm: str) -> bool:
    return arm.startswith("etf")


def _marker(arm: str) -> str:
    return "D" if _fixed(arm) else "o"


def _draw_legend(figure: Figure, arms: Mapping[str, str]) -> None:
    def dot(marker: str, colour: str, face: str, label: str) -> Line2D:
        return Line2D(
            [], [], linestyle="", marker=marker, color=colour, markerfacecolor=face, label=label
        )

    figure.legend(
        handles=[
            *(
                dot(_marker(arm), colour, colour, label)
                for (arm, label), colour in zip(arms.items(), COLOURS, strict=False)
            ),
            dot("s", "black", "white", "hollow: with, or of, cells never sampled"),
            Line2D([], [], color="black", linestyle=":", label=r"cosine $\sqrt{3}/2$"),
        ],
        ncols=4,
        loc="lower left",
        bbox_to_anchor=(0.12, 0.085),
    )
