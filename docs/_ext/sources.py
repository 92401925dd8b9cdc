"""Names in the text resolved to code: objects by import, tests by their file's syntax tree.

The files that are named become pages of the site with an anchor for every line, so that a link
to a test or a check works without a code host.
"""

import ast
import difflib
import functools
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class UnresolvedName(LookupError):
    """A name in the text stands for nothing; the message says what is near."""


@dataclass(frozen=True)
class Source:
    """A piece of code and where it is."""

    path: Path
    line: int
    """Of the definition, from 1."""
    code: str
    """Without its docstring."""


def resolve(name: str) -> object:
    """Import the object of a dotted name, e.g. ``lpm.frames.simplex_etf``.

    Raises
    ------
    UnresolvedName
        No such module or attribute.
    """
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnresolvedName(f"{name} does not resolve: {error}") from error


def definition(name: str, part: tuple[str, str] | None = None) -> Source:
    """Source of a function, method, property or class, without its docstring.

    Parameters
    ----------
    name
        Dotted name.
    part
        Show only from the first line that contains the first text to the next one that contains
        the second.

    Raises
    ------
    UnresolvedName
        The name, or a text of the part, is not there.
    """
    found = resolve(name)
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, functools.cached_property):
        found = found.func
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(found))  # type: ignore[arg-type]
        path = inspect.getsourcefile(inspect.unwrap(found))  # type: ignore[arg-type]
    except (TypeError, OSError) as error:
        raise UnresolvedName(f"{name} has no Python source: {error}") from error
    code = without_docstring(textwrap.dedent("".join(lines)))
    if part is not None:
        code = _between(code, *part, name=name)
    return Source(Path(str(path)).resolve(), first, code)


def without_docstring(code: str) -> str:
    """Code of one function or class with its docstring, and nothing else, taken out."""
    node = ast.parse(code).body[0]
    if not isinstance(node, Definition) or ast.get_docstring(node, clean=False) is None:
        return code
    docstring = node.body[0]
    lines = code.splitlines(keepends=True)
    rest = lines[docstring.end_lineno :]
    while rest and not rest[0].strip():
        rest = rest[1:]
    return "".join(lines[: docstring.lineno - 1] + rest)


def _between(code: str, start: str, end: str, *, name: str) -> str:
    lines = code.splitlines()
    try:
        first = next(i for i, line in enumerate(lines) if start in line)
        last = next(i for i, line in enumerate(lines) if i >= first and end in line)
    except StopIteration:
        raise UnresolvedName(f"{name} has no part from {start!r} to {end!r}") from None
    return textwrap.dedent("\n".join(lines[first : last + 1]))


def find_test(root: Path, node_id: str) -> tuple[Path, int]:
    """File and line of a test named as pytest names it, ``tests/…/test_x.py::test_y``.

    The file is parsed, not imported: tests need not be importable where the site is built.

    Raises
    ------
    UnresolvedName
        No such file, or no such function in it.
    """
    file, _, name = node_id.partition("::")
    path = root / file
    if not path.is_file():
        raise UnresolvedName(f"test {node_id}: there is no file {file}")
    functions = _functions(path, path.stat().st_mtime_ns)
    if name not in functions:
        near = difflib.get_close_matches(name, functions, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnresolvedName(f"test {node_id}: {file} has no function {name!r}{hint}")
    return path, functions[name]


@functools.cache
def _functions(path: Path, _changed: int) -> dict[str, int]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name: node.lineno for node in ast.walk(tree) if isinstance(node, functions)}


class source_link(nodes.Inline, nodes.TextElement):
    """A link to a line of a file of the project; ``path`` is relative to its root."""


def link(root: Path, path: Path, line: int, text: str | None = None) -> source_link:
    """Make a link to a line, with the place itself as its text by default."""
    relative = path.resolve().relative_to(root.resolve()).as_posix()
    text = text or f"{relative}, line {line}"
    return source_link("", text, path=relative, line=line)


def page_of(path: str) -> str:
    """Name of the page that shows a file of the project."""
    return f"_source/{path}"


def _resolve_links(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    for node in list(doctree.findall(source_link)):
        uri = app.builder.get_relative_uri(docname, page_of(node["path"]))
        target = f"{uri}#L-{node['line']}"
        node.replace_self(nodes.reference("", node.astext(), refuri=target, internal=True))


def _collect(app: Sphinx, env: Any) -> None:
    paths: set[str] = set()
    for docname in env.found_docs:
        paths |= {node["path"] for node in env.get_doctree(docname).findall(source_link)}
    env.source_pages = sorted(paths)


def _pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    root = Path(app.config.project_root)
    formatter = HtmlFormatter(lineanchors="L", anchorlinenos=True, linenos="inline")
    for path in getattr(app.env, "source_pages", ()):
        text = (root / path).read_text(encoding="utf-8")
        body = f"<h1>{path}</h1>\n{highlight(text, PythonLexer(), formatter)}"
        yield page_of(path), {"title": path, "body": body}, "page.html"


def setup_sources(app: Sphinx) -> None:
    """Register the links and the pages they lead to."""
    app.add_node(source_link)
    app.connect("env-check-consistency", _collect)
    app.connect("doctree-resolved", _resolve_links)
    app.connect("html-collect-pages", _pages)
