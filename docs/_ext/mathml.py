"""Mathematics as MathML, made when the site is built: no script, no network, no fonts to fetch.

Browsers render MathML natively. LaTeX that docutils' converter does not know is a warning, so
that ``sphinx-build -W`` fails instead of showing a reader source code.
"""

import re
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

if TYPE_CHECKING:
    from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

_BARE_DIGITS = re.compile(r"(frac|\^|_)\s*\d\d")
"""To LaTeX \\frac12 is one half, to the converter it is twelve over what follows."""

_INDEXED_ACCENT = re.compile(r"\\(wide)?(hat|tilde|bar|dot|vec)\s*(\w|\{[^{}]*\})\s*\}?\s*[_^]")
"""The converter sets the index of an accented letter below the letter."""


def to_mathml(latex: str, *, block: bool) -> str:
    """Convert LaTeX to a ``<math>`` element.

    Raises
    ------
    MathError
        The converter does not know a command or an environment in it, or would misread it: two
        digits without braces, an index on an accent.
    """
    if _BARE_DIGITS.search(latex):
        raise MathError(f"put braces around the digits after \\frac, ^ and _ in {latex!r}")
    if _INDEXED_ACCENT.search(latex):
        raise MathError(
            f"an accented letter cannot carry an index in {latex!r}: use another letter"
        )
    try:
        markup: str = tex2mathml(latex, as_block=block)
    except IndexError as error:
        # The converter runs off its tree on some malformed input, such as a bare \limits.
        raise MathError(f"malformed LaTeX: {latex!r}") from error
    return re.sub(r"\s*\n\s*", " ", markup)


def _converted(node: nodes.Element, *, block: bool) -> str:
    try:
        return to_mathml(node.astext(), block=block)
    except MathError as error:
        logger.warning("mathematics not rendered: %s in %r", error, node.astext(), location=node)
        return ""


def visit_math(translator: "HTML5Translator", node: nodes.math) -> None:
    """Write inline mathematics."""
    translator.body.append(_converted(node, block=False))
    raise nodes.SkipNode


def visit_math_block(translator: "HTML5Translator", node: nodes.math_block) -> None:
    """Write displayed mathematics; it scrolls by itself where it is wider than the page."""
    translator.body.append(f'<div class="math-block">{_converted(node, block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer under the name ``mathml``."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(visit_math, None), block_renderers=(visit_math_block, None)
    )
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
