"""Docstrings as reStructuredText: mathematics in them is typed for people, not for a parser."""

import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_CODE = re.compile(r"(``.*?``|`[^`]*`)")
_ENTRY = re.compile(r"(\s*)(``[^`]+``)\s{2,}(\S.*)")
_UNDERLINE = re.compile(r"\s*-{3,}\s*")


def prepare(lines: list[str]) -> list[str]:
    """Keep formulas as they are laid out, and bars and stars in sentences from being markup.

    A paragraph before the first section that is indented by four or more is a formula, shown
    line by line. Elsewhere ``|x|`` is no substitution and ``(n, *shape)`` no emphasis. What is
    returned may be described in sentences instead of by a type.
    """
    marked = _formulas_marked(list(_tables_as_definitions(lines)))
    return list(_escaped(_sentences_returned(list(marked))))


def _sentences_returned(lines: list[str]) -> Iterator[str]:
    """A ``Returns`` section without a type as one field: napoleon takes each line for a type."""
    returned = False
    for i, line in enumerate(lines):
        heads = i + 1 < len(lines) and _UNDERLINE.fullmatch(lines[i + 1]) is not None
        if heads:
            returned = line.strip() == "Returns" and _is_sentence(lines[i + 2 :])
            if returned:
                continue
        elif returned and _UNDERLINE.fullmatch(line):
            continue
        elif returned and i >= 2 and _UNDERLINE.fullmatch(lines[i - 1]):
            yield from ("", f":returns: {line.strip()}")
            continue
        yield "    " + line if returned and line.strip() else line


def _is_sentence(body: list[str]) -> bool:
    """Whether the first line is no type: it has several words and no text indented below it."""
    if not body or not re.search(r"\w \w", body[0]):
        return False
    below = body[1] if len(body) > 1 else ""
    return not below.strip() or _indent(below) <= _indent(body[0])


def _tables_as_definitions(lines: list[str]) -> Iterator[str]:
    """``name``, a gap and a text that goes on below itself: a definition."""
    entry: int | None = None
    for line in lines:
        match = _ENTRY.fullmatch(line)
        if match:
            entry = len(match[1])
            yield from (match[1] + match[2], f"{match[1]}    {match[3]}")
        elif entry is not None and line.strip() and _indent(line) > entry:
            yield " " * (entry + 4) + line.lstrip()
        else:
            entry = None
            yield line


def _formulas_marked(lines: list[str]) -> Iterator[str]:
    previous, outer, blank = 0, "", True
    formula: int | None = None
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and _UNDERLINE.fullmatch(lines[i + 1]) and line.strip():
            yield from lines[i:]
            return
        if not line.strip():
            blank = True
            yield line
            continue
        indent = len(line) - len(line.lstrip())
        if formula is not None and indent < formula:
            formula = None
        if formula is None:
            if blank and indent >= previous + 4 and not outer.endswith("::"):
                formula = indent
                yield from (" " * previous + "::", "")
            elif blank and indent >= previous + 4:
                formula = indent
            else:
                # The text of a bullet starts two columns in.
                previous, outer = indent + 2 * line.lstrip().startswith("* "), line.rstrip()
        blank = False
        yield line


def _escaped(lines: Iterator[str]) -> Iterator[str]:
    literal: int | None = None
    previous = ""
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip():
            if literal is not None and indent <= literal:
                literal = None
            previous_ends = previous.rstrip().endswith("::")
            if literal is None and previous_ends and indent > _indent(previous):
                literal = _indent(previous)
            previous = line
        yield line if literal is not None else _escape(line)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _escape(line: str) -> str:
    parts = _CODE.split(line)
    for i in range(0, len(parts), 2):
        text = parts[i].replace("|", "\\|")
        parts[i] = re.sub(r"(?<=[(\s])\*(?=\w+\))", r"\\*", text)
    return "".join(parts)


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = prepare(lines)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Prepare every docstring before napoleon reads it."""
    app.connect("autodoc-process-docstring", _process, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
