"""The reference of a room: every module of a package, found rather than listed."""

import pkgutil
from collections.abc import Iterator

from docutils import nodes
from sources import UnresolvedName, resolve
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

logger = logging.getLogger(__name__)


def modules_of(package: str) -> Iterator[str]:
    """Names of a package's modules, subpackages included, in alphabetical order.

    Raises
    ------
    UnresolvedName
        The package cannot be imported.
    """
    found = resolve(package)
    for module in sorted(pkgutil.iter_modules(getattr(found, "__path__", ())), key=_by_name):
        name = f"{package}.{module.name}"
        if module.name.startswith("_"):
            continue
        yield name
        if module.ispkg:
            yield from modules_of(name)


def _by_name(module: pkgutil.ModuleInfo) -> str:
    return module.name


class Modules(SphinxDirective):
    """Document every module of the package in the argument from its docstrings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Leave the work to autodoc, a module at a time."""
        try:
            names = list(modules_of(self.arguments[0]))
        except UnresolvedName as error:
            logger.warning(str(error), location=self.get_location(), type="modules")
            return []
        text = "\n".join(
            f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n"
            for name in names
        )
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive ``modules``."""
    app.add_directive("modules", Modules)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
