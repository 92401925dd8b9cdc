"""Panels of collapse metrics over training: what Figure 1 of the grid and those of agents share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.statistics import Band, Float, median_band

FLOOR = 1e-8
"""Lower end of a logarithmic panel: what is below has collapsed for every purpose."""


@dataclass(frozen=True)
class Panel:
    """A metric of the features, of the head, or of both against training."""

    title: str
    ylabel: str
    features: str | None
    """Column of the features, or of what is no metric of the head."""
    head: str | None
    logarithmic: bool = False


EQUINORM = Panel(
    "equinorm of W",
    r"$\mathrm{Std}_k\Vert w_k\Vert \,/\, \mathrm{Avg}_k\Vert w_k\Vert$",
    None,
    "head_equinorm",
)
EQUIANGULARITY = Panel(
    "equiangularity",
    r"$\mathrm{Std}_{k\neq k'}\cos(k, k')$",
    "feature_equiangularity",
    "head_equiangularity",
)
MAXIMAL_ANGLE = Panel(
    "maximal angle",
    r"$\mathrm{Avg}_{k\neq k'}|\cos(k, k') + 1/(K-1)|$",
    "feature_max_angle",
    "head_max_angle",
)
WITHIN_CLASS = Panel(
    "within-class variation",
    r"$\mathrm{Tr}(\Sigma_W \Sigma_B^\dagger)/K$",
    "within_class_variation",
    None,
    logarithmic=True,
)


def figure1_panels(return_label: str, return_column: str) -> tuple[Panel, ...]:
    """Panels (b) to (f) of Figure 1; the return is the first."""
    returns = Panel("return", return_label, return_column, None)
    return returns, EQUINORM, EQUIANGULARITY, MAXIMAL_ANGLE, WITHIN_CLASS


def draw_medians(
    axes: Axes,
    rows: pd.DataFrame,
    panel: Panel,
    colour: str,
    seed: int,
    x: str = "epoch",
    marker: str = "",
) -> None:
    """One arm's curves: solid for the head or what stands alone, dashed for features beside a head.

    Parameters
    ----------
    rows
        Of one arm: one row for each seed and epoch.
    seed
        Of the bootstrap behind each band: equal values have equal bands.
    x
        ``"epoch"`` or ``"steps"``, the median of its seeds' agent steps at each epoch.
    marker
        At each epoch, so that a point between two NaN shows.
    """
    for metric, style in ((panel.head, "-"), (panel.features, "-" if panel.head is None else "--")):
        if metric is None:
            continue
        places, values = by_seed(rows, metric, x)
        band = median_over_seeds(values, np.random.default_rng(seed))
        draw_band(axes, places, band, colour, style, marker)


def draw_band(
    axes: Axes, places: Float, band: Band, colour: str, style: str, marker: str = ""
) -> None:
    """Draw a line with its band, which is not seen where it is NaN."""
    options: dict[str, Any] = {"marker": marker, "markersize": 3} if marker else {}
    axes.plot(places, band.centre, style, color=colour, linewidth=1.4, **options)
    if np.isfinite(band.lower).any():
        axes.fill_between(places, band.lower, band.upper, color=colour, alpha=0.18, linewidth=0)


def say_nothing_shown(axes: Axes) -> None:
    """Write into axes without a number why they are empty: nothing was run, or all is NaN."""
    if any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in axes.lines):
        return
    why = "undefined:\nevery value is NaN" if axes.lines else "not run"
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center")


def by_seed(rows: pd.DataFrame, column: str, x: str) -> tuple[Float, Float]:
    """Places (T,) and values (n seeds, T) of one arm, NaN where a seed has no such epoch.

    Raises
    ------
    ValueError
        A seed has two rows of one epoch.
    """
    if rows.duplicated(["seed", "epoch"]).any():
        raise ValueError("a seed has two rows of one epoch: draw one arm of one run at a time")
    table = rows.pivot(index="seed", columns="epoch", values=column)
    places = rows.groupby("epoch")[x].median()
    return places.to_numpy(dtype=float), table.to_numpy(dtype=float)


def median_over_seeds(values: Float, rng: np.random.Generator) -> Band:
    """Median of (n, T) with its 95 % bootstrap band, NaN for a single seed."""
    return median_band(values, rng) if len(values) > 1 else _line(values[0])


def mean_over_seeds(values: Float, rng: np.random.Generator, resamples: int = 4000) -> Band:
    """Mean of (n, T) with its 95 % percentile-bootstrap band, NaN for a single seed.

    Seeds are resampled whole, as in :func:`analysis.statistics.median_band`.
    """
    count = len(values)
    if count == 1:
        return _line(values[0])
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    lower, upper = np.quantile(drawn @ values / count, [0.025, 0.975], axis=0)
    return Band(values.mean(axis=0), lower, upper)


def _line(values: Float) -> Band:
    nothing = np.full_like(values, np.nan)
    return Band(values, nothing, nothing)


def legend_line(colour: str, style: Any, label: str) -> Line2D:
    """Entry of a legend that belongs to several axes."""
    return Line2D([], [], color=colour, linestyle=style, label=label)
