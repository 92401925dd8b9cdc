"""Tables of names and their definitions, generated from docstrings and mappings."""

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sources import UnresolvedName, resolve
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

logger = logging.getLogger(__name__)

_ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*) : (?P<type>.+)")


def attributes_section(docstring: str) -> dict[tuple[str, ...], str]:
    """Names and definitions in the ``Attributes`` section of a numpy-style docstring.

    Raises
    ------
    UnresolvedName
        There is no such section.
    """
    lines = iter(docstring.expandtabs().splitlines())
    if not any(line.strip() == "Attributes" for line in lines):
        raise UnresolvedName("the docstring has no Attributes section")
    next(lines)  # the underline
    return {names: " ".join(text) for names, text in _entries(lines)}


def _entries(lines: Iterator[str]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    names: tuple[str, ...] = ()
    text: list[str] = []
    for line in lines:
        match = _ENTRY.fullmatch(line.strip())
        # A definition is indented below its entry; the entry's own indent is that of the section.
        if match and not line.startswith(" " * 8):
            if names:
                yield names, text
            names, text = tuple(match["names"].split(", ")), []
        elif not line.strip():
            break
        else:
            text.append(line.strip())
    if names:
        yield names, text


def _inline(text: str) -> Iterator[nodes.Node]:
    """Text in which names between back quotes are code."""
    for i, part in enumerate(text.replace("``", "`").split("`")):
        yield nodes.literal("", part) if i % 2 else nodes.Text(part)


class Fields(SphinxDirective):
    """Define every name of a mapping, or every attribute in a class's docstring.

    ``:covers:`` names a collection of strings that the definitions must include.
    """

    required_arguments = 1
    option_spec: ClassVar = {"covers": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Build the list of definitions."""
        try:
            definitions = self._definitions(resolve(self.arguments[0]))
            wanted = resolve(self.options["covers"]) if "covers" in self.options else ()
        except UnresolvedName as error:
            logger.warning(str(error), location=self.get_location(), type="fields")
            return []
        missing = set(wanted) - {name for names in definitions for name in names}  # type: ignore[call-overload]
        if missing:
            text = f"{self.arguments[0]} does not define {', '.join(sorted(missing))}"
            logger.warning(text, location=self.get_location(), type="fields")
        table = nodes.definition_list(classes=["fields"])
        for names, text in definitions.items():
            term = nodes.term()
            for name in names:
                term += [nodes.literal("", name), nodes.Text(" ")]
            definition = nodes.definition("", nodes.paragraph("", "", *_inline(text)))
            table += nodes.definition_list_item("", term, definition)
        return [table]

    def _definitions(self, found: object) -> dict[tuple[str, ...], str]:
        if isinstance(found, Mapping):
            return {(str(name),): str(text) for name, text in found.items()}
        return attributes_section(found.__doc__ or "")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive ``fields``."""
    app.add_directive("fields", Fields)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
