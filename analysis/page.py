"""HTML of a self-contained page: styles, scripts, figures and data inside, no network."""

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
from markupsafe import Markup

from analysis.exhibits import CAPTION_ROW, FigureExhibit, FigureWords, TableExhibit


@dataclass(frozen=True)
class Run:
    """A run folder that the page is made from."""

    name: str
    shows: tuple[str, ...]
    """What of it is on the page."""
    environment: Mapping[str, object]
    """Of its last session."""


@dataclass(frozen=True)
class Missing:
    """A part that no folder holds."""

    what: str
    command: str


@dataclass(frozen=True)
class Page:
    """Everything that the page shows."""

    title: str
    claims: Sequence[Mapping[str, object]] = ()
    figures: Sequence[FigureExhibit] = ()
    tables: Sequence[TableExhibit] = ()
    views: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[Missing] = ()
    runs: Sequence[Run] = ()


def render_page(page: Page) -> str:
    """The page as HTML."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    expectations = [
        bool(met) for table in page.tables if "met" in table.rows for met in table.rows["met"]
    ]
    return templates.get_template("report.html").render(
        page=page,
        expectations=expectations,
        figures=[_figure(figure) for figure in page.figures],
        tables=[_table(table) for table in page.tables],
        views=[{**view, "json": _embedded(view)} for view in page.views],
        runs=[
            {
                "name": run.name,
                "shows": run.shows,
                "environment": list(_flat(run.environment)),
            }
            for run in page.runs
        ],
    )


_NO_WORDS = FigureWords(
    title="",
    caption="No caption is stored with this figure: the command that made it stores one now.",
    alternative="No text alternative is stored with this figure.",
)


def _figure(figure: FigureExhibit) -> dict[str, object]:
    words = figure.words or _NO_WORDS
    width, height, inches = _size(figure.png)
    return {
        "name": figure.name,
        "title": words.title or figure.name,
        "caption": words.caption,
        "alternative": words.alternative,
        "png": base64.b64encode(figure.png).decode(),
        "width": width,
        "height": height,
        "inches": f"{inches:.4g}",
    }


def _size(png: bytes) -> tuple[int, int, float]:
    """Columns and rows of pixels without the caption, which the page shows as text; inches across.

    A picture that does not say where its caption begins is shown whole, and one that does not say
    how large a pixel is has the browser's 96 to an inch.
    """
    width, height, inches = 0, 0, 0.0
    for kind, content in _chunks(png):
        if kind == b"IHDR":
            width, height = struct.unpack(">II", content[:8])
            inches = width / 96
        elif kind == b"pHYs":
            per_metre, _, _ = struct.unpack(">IIB", content)
            inches = width / (per_metre * 0.0254)
        elif kind == b"tEXt" and content.startswith(CAPTION_ROW.encode() + b"\0"):
            height = int(content.partition(b"\0")[2])
    return width, height, inches


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of what comes before the pixels (RFC 2083, 3.2)."""
    at = 8
    while (kind := png[at + 4 : at + 8]) != b"IDAT":
        (length,) = struct.unpack(">I", png[at : at + 4])
        yield kind, png[at + 8 : at + 8 + length]
        at += length + 12


def _table(table: TableExhibit) -> dict[str, object]:
    """Header and lines of (text, style); columns ``c_lower`` and ``c_upper`` stand beside ``c``."""
    names = [name for name in table.rows if not name.endswith(("_lower", "_upper"))]
    lines = []
    for row in table.rows.to_dict(orient="records"):
        line = []
        for name in names:
            text, style = _cell(row[name])
            ends = [_cell(row.get(f"{name}_{end}"))[0] for end in ("lower", "upper")]
            line.append((text if _DASH in ends else f"{text} [{', '.join(ends)}]", style))
        lines.append(line)
    numeric = set(table.rows.select_dtypes("number"))
    return {
        "name": table.name,
        "title": table.words.title,
        "caption": table.words.caption,
        "header": [(name.replace("_", " "), "number" if name in numeric else "") for name in names],
        "lines": lines,
    }


_DASH = "—"


def _cell(value: object) -> tuple[str, str]:
    if value is None or value != value:
        return _DASH, "number" if isinstance(value, float) else ""
    if isinstance(value, bool):
        return ("yes", "yes") if value else ("no", "no")
    if isinstance(value, float):
        text = f"{value:.0f}" if abs(value) >= 1000 else f"{value + 0.0:.4g}"
        return text, "number"
    return str(value), "number" if isinstance(value, int) else ""


def _embedded(view: Mapping[str, Any]) -> Markup:
    """JSON that nothing in it can end the script element that holds it."""
    text = json.dumps(view, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _flat(tree: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            pairs.append((prefix + name, shown))
    return pairs
