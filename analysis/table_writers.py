"""Tables as text: Markdown, HTML and terminal, the same bytes for the same table.

Columns ``c``, ``c_lower`` and ``c_upper`` are shown as one, an interval beside its number. NaN and
None are a dash. Numbers have four significant digits, or all of their integer part.
"""

import html
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

_DASH = "—"


def to_markdown(table: pd.DataFrame) -> str:
    """GitHub Markdown, columns of numbers right-aligned."""
    header, lines = _cells(table, lambda text: text.replace("|", r"\|"))
    rule = ["---:" if numeric else "---" for numeric in _numeric(table, header)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *lines))


def to_html(table: pd.DataFrame) -> str:
    """An HTML ``<table>`` with escaped text and no styles."""
    header, lines = _cells(table, html.escape)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>\n" for line in lines)
    head = "".join(f"<th>{name}</th>" for name in header)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def to_text(table: pd.DataFrame) -> str:
    """For a terminal: columns padded to their widest cell."""
    header, lines = _cells(table, str)
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    numeric = _numeric(table, header)
    return "".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        + "\n"
        for line in (header, *lines)
    )


def _cells(table: pd.DataFrame, escape: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    """Header and lines; columns ``c_lower`` and ``c_upper`` join ``c``."""
    names = [name for name in table if not name.endswith(("_lower", "_upper"))]
    lines = []
    for row in table.to_dict("records"):
        line = []
        for name in names:
            text = _shown(row[name])
            lower, upper = (_shown(row.get(f"{name}_{end}")) for end in ("lower", "upper"))
            line.append(escape(text if lower == _DASH else f"{text} [{lower}, {upper}]"))
        lines.append(line)
    return [escape(name.replace("_", " ")) for name in names], lines


def _numeric(table: pd.DataFrame, header: Sequence[str]) -> list[bool]:
    """Whether each shown column holds numbers."""
    numbers = {name.replace("_", " ") for name in table.select_dtypes("number")}
    return [name in numbers for name in header]


def _shown(value: object) -> str:
    if value is None or value != value:
        return _DASH
    if isinstance(value, float | np.floating):
        number = float(value) + 0.0  # no minus zero
        return f"{number:.0f}" if abs(number) >= 1000 or number.is_integer() else f"{number:.4g}"
    return str(value)
