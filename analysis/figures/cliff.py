"""Figure 1 for the Ideal Cliff Walking."""

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import gridworld  # noqa: F401  (registers IdealCliffWalking-v0)
from analysis.figures.panels import FLOOR, draw_medians, figure1_panels, legend_line
from analysis.figures.style import COLOURS, STYLE, write_caption


@dataclass(frozen=True)
class Curve:
    """One arm in one row of the figure."""

    arm: str
    """Its name in the rows."""
    label: str


_PANELS = figure1_panels("exact discounted return, γ = 0.95", "expected_return")


def figure1(
    rows: pd.DataFrame,
    learned: Sequence[Curve],
    etf: Sequence[Curve],
    caption: str,
    optimal_return: float,
    seed: int = 0,
) -> Figure:
    """Figure 1 (a)-(f): collapse over training, learned head above, fixed ETF head below.

    Parameters
    ----------
    rows
        Tidy rows with columns arm, seed, epoch and the metrics.
    learned, etf
        The arms of each row; equal positions share a colour.
    caption
        Printed under the panels: what was run.
    optimal_return
        Drawn as a dotted line in panel (b).
    seed
        Of the bootstrap behind the bands.

    Returns
    -------
    Figure
        Median over seeds with a 95 % bootstrap band of the median. Epoch 0 is initialisation.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(16, 8.2))
        grid = figure.add_gridspec(
            2,
            6,
            left=0.02,
            right=0.985,
            top=0.91,
            bottom=0.27,
            wspace=0.42,
            hspace=0.5,
            width_ratios=(1.25, 1, 1, 1, 1, 1),
        )
        _draw_environment(figure.add_subplot(grid[:, 0]))
        for column, (letter, panel) in enumerate(zip("bcdef", _PANELS, strict=True), start=1):
            upper = figure.add_subplot(grid[0, column])
            lower = figure.add_subplot(grid[1, column], sharex=upper, sharey=upper)
            for axes, curves in ((upper, learned), (lower, etf)):
                for curve, colour in zip(curves, COLOURS, strict=False):
                    draw_medians(axes, rows[rows["arm"] == curve.arm], panel, colour, seed)
                if panel.features == "expected_return":
                    axes.axhline(optimal_return, color="black", linestyle=":", linewidth=1)
                if panel.logarithmic:
                    axes.set_yscale("log")
                    axes.set_ylim(bottom=FLOOR)
                # Most happens early: linear up to epoch 1, logarithmic after it, 0 included.
                axes.set_xscale("symlog", linthresh=1)
                axes.set_xticks(*_epoch_ticks(int(rows["epoch"].max())))
                axes.set_title(f"({letter}) {panel.title}")
                axes.set_ylabel(panel.ylabel)
                axes.set_xlabel("epoch")
        for row, heading in enumerate(("Learned head", "Fixed simplex-ETF head")):
            box = figure.axes[1 + row].get_position()
            figure.text(box.x0, box.y1 + 0.045, heading, fontsize=11, fontweight="bold")
        _draw_legends(figure, learned, etf)
        write_caption(figure, caption, 0.015)
    return figure


def _epoch_ticks(last: int) -> tuple[list[int], list[str]]:
    ticks = [0, *(10**i for i in range(9) if 10**i < last / 1.5), last]
    return ticks, [str(tick) for tick in ticks]


def _draw_environment(axes: Axes) -> None:
    environment = gymnasium.make("IdealCliffWalking-v0", render_mode="rgb_array")
    environment.reset(seed=0)
    axes.imshow(environment.render())
    environment.close()
    axes.set_title("(a) Ideal Cliff Walking: 8 cells, 4 exits,\narrows show the optimal action")
    axes.set_axis_off()


def _draw_legends(figure: Figure, learned: Sequence[Curve], etf: Sequence[Curve]) -> None:
    for curves, title, left in ((learned, "Learned head", 0.2), (etf, "Fixed ETF head", 0.45)):
        figure.legend(
            handles=[legend_line(c, "-", x.label) for c, x in zip(COLOURS, curves, strict=False)],
            title=title,
            loc="lower left",
            bbox_to_anchor=(left, 0.105),
            alignment="left",
        )
    figure.legend(
        handles=[
            legend_line("black", "-", "head W (c–e); return (b); features (f)"),
            legend_line("black", "--", "centred feature means H (d, e)"),
            legend_line("black", ":", "optimal return (b)"),
        ],
        title="Lines: median over seeds, band: 95 % of the median",
        loc="lower left",
        bbox_to_anchor=(0.7, 0.105),
        alignment="left",
    )
