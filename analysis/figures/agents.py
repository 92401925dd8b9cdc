"""Figures 1, 3 and 4 of the paper for agents, from rows of training runs."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from analysis.agent_words import HEADS, SETTING, runs_label, setting_label
from analysis.figures.frames import FRAMES, frame
from analysis.figures.panels import (
    EQUIANGULARITY,
    FLOOR,
    MAXIMAL_ANGLE,
    Panel,
    by_seed,
    draw_band,
    draw_medians,
    figure1_panels,
    legend_line,
    mean_over_seeds,
    say_nothing_shown,
)
from analysis.figures.style import COLOURS, STYLE, encode, write_caption
from analysis.storage import RunFolderError

FIGURE1_PANELS = figure1_panels("evaluation return", "eval_return")
FIGURE3_ENVS = ("CartPole-v1", "CarRacing-v3")
FIGURE4_ENVS = ("Breakout", "Pong")
FIGURE4_PANELS = (EQUIANGULARITY, MAXIMAL_ANGLE)

_ROWS = {"linear": "Learned head", "etf": "Fixed simplex-ETF head"}
_ACROSS = 5
"""Panels of Figure 3 in a row."""
_FRAME_END = 0.16
"""Right edge of panel (a) of Figure 1, of the figure's width."""


def figure1_agents(rows: pd.DataFrame, env: str, caption: str, seed: int = 0) -> Figure:
    """Figure 1 of one environment: learned head above, fixed ETF head below.

    Panel (a), a frame, is left out where none is stored (`analysis.figures.frames`).

    Parameters
    ----------
    rows
        Of :func:`analysis.runs.reported_rows`; those of other environments and heads are left out.
    env
        Environment id.
    caption
        Printed under the panels: what was run.
    seed
        Of the bootstrap behind the bands.

    Returns
    -------
    Figure
        Median over seeds against agent steps, with a 95 % bootstrap band where there are two seeds
        or more; a curve for each setting. Epoch 0 is initialisation.

    Raises
    ------
    RunFolderError
        There are no rows of the environment with either head, or more settings than colours.
    """
    columns = [
        (env, panel, f"({letter}) {panel.title}")
        for letter, panel in zip("bcdef", FIGURE1_PANELS, strict=True)
    ]
    solid = "head W (c–e); return (b); features (f)"
    return _geometry(rows, columns, solid, caption, seed, env if env in FRAMES else None)


def figure4(
    rows: pd.DataFrame, caption: str, envs: Sequence[str] = FIGURE4_ENVS, seed: int = 0
) -> Figure:
    """Figure 4: angles of class means and head over training, for a learned and for an ETF head.

    Parameters
    ----------
    rows, caption, seed
        As in :func:`figure1_agents`.
    envs
        Environments to show, from left to right.

    Raises
    ------
    RunFolderError
        As :func:`figure1_agents`, for any of the environments.
    """
    columns = [(env, panel, f"{env}: {panel.title}") for env in envs for panel in FIGURE4_PANELS]
    return _geometry(rows, columns, "head W", caption, seed)


def figure3(
    rows: pd.DataFrame, caption: str, envs: Sequence[str] = FIGURE3_ENVS, seed: int = 0
) -> Figure:
    """Figure 3: return against agent steps, a panel for each setting and a curve for each head.

    Parameters
    ----------
    rows
        Of :func:`analysis.runs.reported_rows`; those of other environments are left out.
    caption
        Printed under the panels: what was run.
    envs
        Environments to show, from top to bottom.
    seed
        Of the bootstrap behind the bands.

    Returns
    -------
    Figure
        Mean over seeds with a 95 % bootstrap band where there are two seeds or more, and as thin
        lines the lowest and the highest of any seed.

    Raises
    ------
    RunFolderError
        There are no rows of one of the environments.
    """
    lines = []
    for env in envs:
        settings = _settings(_of_environment(rows, env), SETTING[:-1])
        lines += [settings[at : at + _ACROSS] for at in range(0, len(settings), _ACROSS)]
    across = max(map(len, lines))
    with mpl.rc_context(STYLE):
        figure, bottom, _ = _sheet(max(11.0, 3.5 * across), 3.1 * len(lines), 0, caption)
        grid = figure.subplots(len(lines), across, squeeze=False)
        figure.subplots_adjust(
            left=0.065, right=0.985, top=_top(figure), bottom=bottom, wspace=0.28, hspace=0.45
        )
        for line, places in zip(lines, grid, strict=True):
            for axes in places[len(line) :]:
                axes.set_axis_off()
            for setting, axes in zip(line, places, strict=False):
                _draw_returns(axes, _matching(rows, setting), seed)
                label = setting_label({**setting, "feature": "rectified"}, with_env=False)
                axes.set_title(f"{setting['env']}\n{label}")
    return figure


def pictures(figure: Figure) -> dict[str, bytes]:
    """The figure as PNG and PDF, by file ending."""
    return {kind: encode(figure, kind) for kind in ("png", "pdf")}


def _draw_returns(axes: Axes, rows: pd.DataFrame, seed: int) -> None:
    for colour, (head, name) in zip(COLOURS, HEADS.items(), strict=False):
        for feature, own in rows[rows["head"] == head].groupby("feature"):
            style = "-" if feature == "rectified" else "--"
            places, values = by_seed(own, "eval_return", "steps")
            band = mean_over_seeds(values, np.random.default_rng(seed))
            draw_band(axes, places, band, colour, style)
            if len(values) > 1:
                for edge in (values.min(axis=0), values.max(axis=0)):
                    axes.plot(places, edge, style, color=colour, linewidth=0.5, alpha=0.7)
            label = name if feature == "rectified" else f"{name}, {feature} feature"
            axes.plot([], [], style, color=colour, label=f"{label}: {runs_label(own)}")
    axes.set_ylabel("evaluation return")
    _label_steps(axes)
    # On white: where there is no free place, thin lines run behind it.
    axes.legend(fontsize=7.5, loc="best", handlelength=1.2, frameon=True, edgecolor="none")


def _geometry(
    rows: pd.DataFrame,
    columns: Sequence[tuple[str, Panel, str]],
    solid: str,
    caption: str,
    seed: int,
    pictured: str | None = None,
) -> Figure:
    """A column for each environment, panel and title; learned head above, ETF head below.

    `solid` says what a solid line is, `pictured` the environment whose frame stands before them.
    """
    heads = rows[rows["head"].isin(_ROWS)]
    envs = list(dict.fromkeys(env for env, _, _ in columns))
    settings = [
        setting for env in envs for setting in _settings(_of_environment(heads, env), SETTING)
    ]
    if len(settings) > len(COLOURS):
        raise RunFolderError(
            f"{len(settings)} settings of {', '.join(envs)} are too many for {len(COLOURS)} "
            "colours: name directories of fewer runs with --results"
        )
    with mpl.rc_context(STYLE):
        width = 17 if pictured else 16
        figure, bottom, legends = _sheet(width, 6.4, max(len(settings), 2), caption)
        axes = figure.subplots(2, len(columns), sharex="col", sharey="col", squeeze=False)
        figure.subplots_adjust(
            left=_FRAME_END + 0.045 if pictured else 0.055,
            right=0.985,
            top=_top(figure),
            bottom=bottom,
            wspace=0.48 if pictured else 0.42,
            hspace=0.5,
        )
        if pictured:
            place = figure.add_axes((0.015, bottom, _FRAME_END - 0.015, _top(figure) - bottom))
            place.imshow(frame(pictured), interpolation="nearest")
            place.set_title(f"(a) {pictured}")
            place.set_axis_off()
        for column, (env, panel, title) in enumerate(columns):
            for row, head in enumerate(_ROWS):
                place = axes[row, column]
                for colour, setting in zip(COLOURS, settings, strict=False):
                    own = _matching(heads[heads["head"] == head], setting)
                    if setting["env"] == env and len(own):
                        draw_medians(place, own, panel, colour, seed, x="steps", marker=".")
                say_nothing_shown(place)
                place.set_title(title)
                place.set_ylabel(panel.ylabel)
                place.tick_params(labelbottom=True)
                _label_steps(place)
            if panel.logarithmic:
                place.set_yscale("log")
                place.set_ylim(bottom=max(FLOOR, place.get_ylim()[0]))
        for row, (head, heading) in enumerate(_ROWS.items()):
            box = axes[row, 0].get_position()
            figure.text(
                box.x0,
                box.y1 + 0.35 / figure.get_figheight(),
                heading,
                fontsize=11,
                fontweight="bold",
            )
            handles = [
                legend_line(
                    colour, "-", f"{setting_label(setting, with_env=len(envs) > 1)}: {_runs(own)}"
                )
                for colour, setting in zip(COLOURS, settings, strict=False)
                for own in [_matching(heads[heads["head"] == head], setting)]
            ]
            _legend(figure, handles, heading, (0.04 + 0.36 * row, legends))
        styles = [
            legend_line("black", "-", solid),
            legend_line("black", "--", "centred feature means H"),
        ]
        _legend(figure, styles, "Lines", (0.78, legends))
    return figure


def _runs(rows: pd.DataFrame) -> str:
    return runs_label(rows) if len(rows) else "not run"


def _legend(figure: Figure, handles: list[Any], title: str, place: tuple[float, float]) -> None:
    figure.legend(
        handles=handles,
        title=title,
        loc="lower left",
        bbox_to_anchor=place,
        alignment="left",
        fontsize=8.5,
    )


def _of_environment(rows: pd.DataFrame, env: str) -> pd.DataFrame:
    own = rows[rows["env"] == env]
    if own.empty:
        found = ", ".join(sorted(rows["env"].unique())) or "none"
        raise RunFolderError(
            f"no training run on {env} to draw (environments found: {found}): make one with "
            f"action-collapse train --env {env} --head linear etf, or name its directory with "
            "--results"
        )
    return own


def _settings(rows: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    found = (
        rows[list(names)]
        .drop_duplicates()
        .sort_values(
            list(names),
            ascending=[name != "feature" for name in names],  # rectified first
        )
    )
    return [dict(zip(names, values, strict=True)) for values in found.itertuples(index=False)]


def _matching(rows: pd.DataFrame, setting: dict[str, Any]) -> pd.DataFrame:
    return rows[np.logical_and.reduce([rows[name] == value for name, value in setting.items()])]


def _label_steps(axes: Axes) -> None:
    axes.set_xlabel("agent steps")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))


def _sheet(width: float, panels: float, entries: int, caption: str) -> tuple[Figure, float, float]:
    """A figure as high as its panels, legends and caption need, with the caption.

    Parameters
    ----------
    width, panels
        Of the figure and height of its panels, inches.
    entries
        Lines in the highest legend below the panels; 0 for none.

    Returns
    -------
    tuple
        The figure, and the bottoms of panels and of legends as fractions of its height.
    """
    text = textwrap.fill(caption, int(14.5 * width))
    words = 0.25 + 0.145 * (text.count("\n") + 1)
    legend = 0.35 + 0.17 * entries if entries else 0.0
    labels = 0.55
    height = panels + labels + legend + words
    figure = Figure(figsize=(width, height))
    write_caption(figure, text, 0.1 / height)
    return figure, (labels + legend + words) / height, words / height


def _top(figure: Figure) -> float:
    """Top of the panels, with room for a title of two lines or for a heading and a title."""
    return 1 - 0.6 / figure.get_figheight()
