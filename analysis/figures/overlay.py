"""Predicted and observed Gram matrices side by side."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.style import COLOURS, STYLE, write_caption
from analysis.overlay import Comparison, Overlay

_TITLES = {
    "features": r"class means, $\langle\bar h_k, \bar h_j\rangle / E_H$",
    "centred": "class means, centred and scaled",
    "head": r"head, $\langle w_k, w_j\rangle / E_W$",
    "cross": r"$\langle\bar h_k, w_j\rangle / \sqrt{E_H E_W}$",
}
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
        largest = max(
            np.abs(part).max() for c in shown.values() for part in (c.predicted, c.observed)
        )
        off = max(float(np.abs(c.difference).max()) for c in shown.values())
        off = max(off, 1e-12)
        for row, (what, limit) in enumerate(
            (("predicted", largest), ("observed", largest), ("difference", off))
        ):
            for column, (name, comparison) in enumerate(shown.items()):
                axes = figure.add_subplot(grid[row, column])
                _heat_map(axes, getattr(comparison, what), limit, signed=what == "difference")
                _name_actions(axes, overlay, actions, name)
                if row == 0:
                    axes.set_title(_TITLES[name])
                if column == 0:
                    label = "observed − predicted" if what == "difference" else what
                    axes.set_ylabel(label, fontsize=10, fontweight="bold")
            norm = mpl.colors.Normalize(-limit, limit)
            figure.colorbar(ScalarMappable(norm, _COLOUR_MAP), cax=figure.add_subplot(grid[row, 4]))
        for column, comparison in enumerate(shown.values()):
            place = grid[2, column].get_position(figure)
            figure.text(
                (place.x0 + place.x1) / 2,
                place.y0 - 0.025,
                _summary(comparison),
                ha="center",
                va="top",
                fontsize=8.5,
            )
        _terms(figure.add_axes((0.2, 0.095, 0.5, 0.1)), overlay)
        _notes(figure, overlay)
        figure.suptitle(_headline(overlay), fontsize=11)
        write_caption(figure, textwrap.fill(caption, _CAPTION_WIDTH), 0.012)
    return figure


def _heat_map(axes: Axes, values: NDArray[np.float64], limit: float, *, signed: bool) -> None:
    axes.imshow(values, cmap=_COLOUR_MAP, vmin=-limit, vmax=limit)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if values.size > 64:  # more numbers than can be read
        return
    small = signed and limit < 5e-3
    digits = 3 if max(values.shape) <= 4 else 2  # what fits into a cell
    for (i, j), value in np.ndenumerate(values):
        text = f"{value:.0e}" if small else f"{value:{'+' if signed else ''}.{digits}f}"
        colour = "white" if abs(value) > 0.6 * limit else "black"
        axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour)


def _name_actions(axes: Axes, overlay: Overlay, actions: Sequence[str] | None, name: str) -> None:
    rows, columns = overlay.comparisons[name].observed.shape
    present = overlay.present.tolist()
    # A fixed head has a row for every action, and so may be wider than the classes present.
    across = present if columns == len(present) else list(range(columns))
    down = present if rows == len(present) else list(range(rows))
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
    return text + f"\n0 {'inside' if comparison.covered else 'outside'} the simultaneous band"


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
