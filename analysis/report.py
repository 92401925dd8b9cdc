"""One self-contained HTML page: no network, no scripts, figures inside."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
import pandas as pd


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page with its words."""

    title: str
    png: bytes
    caption: str
    alternative: str
    """What a reader who cannot see the picture should know: the numbers it shows."""


_SUMMARY = {
    "head_equinorm": "equinorm W",
    "head_equiangularity": "std cos W",
    "feature_equiangularity": "std cos H",
    "head_max_angle": "angle W",
    "feature_max_angle": "angle H",
    "within_class_variation": "NC1",
    "variance_ratio": "tr Σ_W/tr Σ_B",
    "head_feature_cosine": "cos(h−h_c, w)",
    "min_feature_head_cosine": "min cos(h, w)",
    "optimal": "optimal seeds",
}


def summary(rows: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Medians over seeds (the mean for ``optimal``) of each arm at its first and last epoch.

    Parameters
    ----------
    rows
        Tidy rows of several arms.
    labels
        Names to show, by arm.
    """
    found = []
    for arm, label in labels.items():
        own = rows[rows["arm"] == arm]
        for epoch in (own["epoch"].min(), own["epoch"].max()):
            at = own[own["epoch"] == epoch]
            values = at[list(_SUMMARY)].median()
            values["optimal"] = at["optimal"].mean()
            found.append([label, int(epoch), *(float(v) for v in values)])
    return pd.DataFrame(found, columns=["arm", "epoch", *_SUMMARY.values()])


def render(
    title: str,
    claims: Sequence[Mapping[str, object]],
    figures: Sequence[ReportFigure],
    medians: pd.DataFrame,
    bars: Sequence[Mapping[str, object]],
    environment: Mapping[str, object],
) -> str:
    """Render the page."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return templates.get_template("report.html").render(
        title=title,
        claims=claims,
        figures=[
            {
                "title": figure.title,
                "png": base64.b64encode(figure.png).decode(),
                "caption": figure.caption,
                "alternative": figure.alternative,
            }
            for figure in figures
        ],
        medians=medians.to_numpy(dtype=object).tolist(),
        medians_columns=list(medians.columns),
        bars=bars,
        environment=list(_flat(environment)),
    )


def _flat(tree: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            pairs.append((prefix + name, shown))
    return pairs
