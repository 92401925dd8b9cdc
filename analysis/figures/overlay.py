"""Predicted and observed Gram matrices side by side, of one policy or of many runs."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analysis.bands import ROUNDING
from analysis.figures.style import COLOURS, STYLE, write_caption
from analysis.overlay import Across, Comparison, Overlay

_TITLES = {
    "features": r"class means, $\langle\bar h_k, \bar h_j\rangle / E_H$",
    "centred": "class means, centred and scaled",
    "head": r"head, $\langle w_k, w_j\rangle / E_W$",
    "cross": r"$\langle\bar h_k, w_j\rangle / \sqrt{E_H E_W}$",
}
_ROWS = {"predicted": "predicted", "observed": "observed", "difference": "observed − predicted"}
_TERMS = {
    "within_class": "variation within classes",
    "directions": "directions of class means",
    "norms": "unequal norms",
    "head": "head",
    "cone": "ReLU cone",
}
_ENERGIES = {
    "means": "measured $E_H$",
    "states": "$E_H$ measured state by state",
    "given": "given $E_H$",
}
# Characters a line at a font size of 8.5.
_CAPTION_WIDTH = 196
# Lines beside the bars, of this many characters at a font size of 8.
_NOTE_LINES, _NOTE_WIDTH = 16, 52
# Diverging, its ends apart in lightness-preserving red and blue, zero white.
_COLOUR_MAP = "RdBu_r"


def figure_overlay(overlay: Overlay, caption: str, actions: Sequence[str] | None = None) -> Figure:
    """Draw heat maps of prediction, observation and difference, and what explains the gap.

    Notes of the overlay, and reasons of what is NaN, stand beside the bars.

    Parameters
    ----------
    overlay
        The result of `analysis.overlay.overlay`.
    caption
        Printed underneath: what was measured.
    actions
        Names of all K actions; their numbers by default.
    """
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(13.5, 11))
        grid = figure.add_gridspec(
            3,
            5,
            width_ratios=(1, 1, 1, 1, 0.05),
            left=0.09,
            right=0.95,
            top=0.93,
            bottom=0.28,
            wspace=0.25,
            hspace=0.18,
        )
        shown = overlay.comparisons
        matrices = {
            what: {name: getattr(comparison, what) for name, comparison in shown.items()}
            for what in _ROWS
        }
        _heat_maps(figure, grid, matrices, overlay.present.tolist(), actions)
        for column, comparison in enumerate(shown.values()):
            _write_below(figure, grid, column, 0.025, _summary(comparison))
        _terms(figure.add_axes((0.2, 0.095, 0.5, 0.1)), overlay)
        _notes(figure, overlay)
        figure.suptitle(_headline(overlay), fontsize=11)
        write_caption(figure, textwrap.fill(caption, _CAPTION_WIDTH), 0.012)
    return figure


def figure_across(
    pooled: Across, title: str, caption: str, actions: Sequence[str], margin: float = 0.0
) -> Figure:
    """Draw heat maps of mean prediction, mean observation and their difference over runs.

    Entries of the difference whose band excludes 0 by more than `margin` are framed.

    Parameters
    ----------
    pooled
        The result of `analysis.overlay.across`.
    title
        Which policies.
    caption
        Printed underneath: what was run.
    actions
        Names of the actions that occur, in the order of the matrices.
    margin
        Differences that count as none.
    """
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(13.5, 9.8))
        grid = figure.add_gridspec(
            3,
            5,
            width_ratios=(1, 1, 1, 1, 0.05),
            left=0.09,
            right=0.95,
            top=0.93,
            bottom=0.175,
            wspace=0.25,
            hspace=0.18,
        )
        matrices = {what: getattr(pooled, what) for what in _ROWS}
        lowest = _heat_maps(figure, grid, matrices, range(len(actions)), actions)
        for column, (name, axes) in enumerate(lowest.items()):
            for i, j in np.argwhere(pooled.outside(name, margin)):
                frame = Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, linewidth=1.8)
                axes.add_patch(frame)
            _write_below(figure, grid, column, 0.025, _pooled_summary(pooled, name, margin))
        figure.suptitle(title, fontsize=11)
        write_caption(figure, textwrap.fill(caption, _CAPTION_WIDTH), 0.012)
    return figure


def _heat_maps(
    figure: Figure,
    grid: GridSpec,
    matrices: Mapping[str, Mapping[str, NDArray[np.float64]]],
    present: Sequence[int],
    actions: Sequence[str] | None,
) -> dict[str, Axes]:
    """Draw matrices by name, a row of the grid each of _ROWS; returns the axes of the last."""
    largest = max(
        np.abs(values).max()
        for what in ("predicted", "observed")
        for values in matrices[what].values()
    )
    off = max(float(np.abs(values).max()) for values in matrices["difference"].values())
    limits = {"predicted": largest, "observed": largest, "difference": max(off, 1e-12)}
    drawn: dict[str, Axes] = {}
    for row, (what, limit) in enumerate(limits.items()):
        for column, (name, values) in enumerate(matrices[what].items()):
            axes = drawn[name] = figure.add_subplot(grid[row, column])
            _heat_map(axes, values, limit, signed=what == "difference")
            _name_actions(axes, values.shape, present, actions)
            if row == 0:
                axes.set_title(_TITLES[name])
            if column == 0:
                axes.set_ylabel(_ROWS[what], fontsize=10, fontweight="bold")
        norm = mpl.colors.Normalize(-limit, limit)
        figure.colorbar(ScalarMappable(norm, _COLOUR_MAP), cax=figure.add_subplot(grid[row, 4]))
    return drawn


def _write_below(figure: Figure, grid: GridSpec, column: int, distance: float, text: str) -> None:
    """Write under a column of maps; the distance is in heights of the figure."""
    place = grid[2, column].get_position(figure)
    centre = (place.x0 + place.x1) / 2
    figure.text(centre, place.y0 - distance, text, ha="center", va="top", fontsize=8.5)


def _heat_map(axes: Axes, values: NDArray[np.float64], limit: float, *, signed: bool) -> None:
    axes.imshow(values, cmap=_COLOUR_MAP, vmin=-limit, vmax=limit)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if values.size > 64:  # more numbers than can be read
        return
    small = signed and limit < 5e-3
    digits = 3 if max(values.shape) <= 4 else 2  # what fits into a cell
    for (i, j), value in np.ndenumerate(values):
        text = f"{value:{'+' if signed else ''}.{digits}f}"
        if small:
            text = f"{value:.0e}" if value else "0"
        colour = "white" if abs(value) > 0.6 * limit else "black"
        axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour)


def _name_actions(
    axes: Axes, shape: tuple[int, ...], present: Sequence[int], actions: Sequence[str] | None
) -> None:
    rows, columns = shape
    # A fixed head has a row for every action, and so may be wider than the classes present.
    across = present if columns == len(present) else range(columns)
    down = present if rows == len(present) else range(rows)
    for indices, ticks in ((across, axes.set_xticks), (down, axes.set_yticks)):
        names = [str(k) if actions is None else actions[k] for k in indices]
        ticks(range(len(indices)), names if len(indices) <= 12 else [""] * len(indices))
    axes.tick_params(length=0, labelsize=8)


def _summary(comparison: Comparison) -> str:
    angle = comparison.angle_error
    text = "no angle to compare" if np.isnan(angle.value) else f"angles off by {angle.value:.3g}°"
    if np.isfinite(angle.lower):
        text += f" [{angle.lower:.3g}, {angle.upper:.3g}]"
    norm = comparison.norm_error
    if np.isfinite(norm.value):
        text += f"\nnorms off by {100 * norm.value:.2g} %"
    if not np.isfinite(comparison.lower).all():
        return text
    where = "inside" if comparison.covered else "outside"
    return text + f"\nprediction {where} the simultaneous band"


def _pooled_summary(pooled: Across, name: str, margin: float) -> str:
    outside = pooled.outside(name, margin)
    largest = np.abs(pooled.difference[name]).max()
    half_width = (pooled.upper[name] - pooled.lower[name]).max() / 2
    verdict = "matches: yes\n0 inside the band"
    if outside.any():
        verdict = f"matches: no\n0 outside the band in {outside.sum()} of {outside.size} entries"
    return (
        f"largest mean difference {_size(largest)}\n"
        f"largest half-width of the band {_size(half_width)}\n{verdict}"
    )


def _size(value: float) -> str:
    return f"< {ROUNDING:.0e}" if 0 < value < ROUNDING else f"{value:.2g}"


def _terms(axes: Axes, overlay: Overlay) -> None:
    shown: Mapping[str, float] = {name: overlay.terms[name].value for name in _TERMS}
    places = np.arange(len(shown))[::-1]
    colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in shown.values()]
    axes.barh(places, list(shown.values()), color=colours, height=0.65)
    for place, name in zip(places, shown, strict=True):
        term = overlay.terms[name]
        if np.isfinite(term.lower):
            axes.plot([term.lower, term.upper], [place, place], color="black", linewidth=1)
        end = max(term.value, term.upper if np.isfinite(term.upper) else term.value, 0.0)
        axes.annotate(
            f"{term.value:.2e}",
            (end, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(places, [_TERMS[name] for name in shown])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.margins(x=0.12)
    axes.set_xlabel(f"loss above the optimum in nats, {overlay.gap.value:.3e} in all")


def _notes(figure: Figure, overlay: Overlay) -> None:
    remarks = [*overlay.notes, *(f"no {what}: {why}" for what, why in overlay.reasons.items())]
    lines = [line for remark in remarks for line in textwrap.wrap(f"– {remark}", _NOTE_WIDTH)]
    size = 8.0 * min(1.0, _NOTE_LINES / max(len(lines), 1))
    figure.text(0.73, 0.2, "\n".join(lines), fontsize=size, va="top")


def _headline(overlay: Overlay) -> str:
    features = "h ≥ 0" if overlay.cone == "nonnegative" else "features of either sign"
    fewest, most = overlay.counts.min(), overlay.counts.max()
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return (
        f"Peeled model, {overlay.head} head, {features}, {_ENERGIES[overlay.energy_source]} = "
        f"{overlay.feature_energy:.4g}, $E_W$ = {overlay.head_energy:.4g}; "
        f"n = {overlay.counts.sum()} states, {each} an action"
    )
