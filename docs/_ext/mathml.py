"""Mathematics as MathML, made when the site is built: no script, no network, no fonts to fetch.

Browsers render MathML natively. LaTeX that docutils' converter does not know is a warning, so
that ``sphinx-build -W`` fails instead of showing a reader source code.

No browser breaks a formula in a sentence. A long one is therefore written in pieces that end where
TeX would break a line, and punctuation stays on the line of its formula.
"""

import re
from collections.abc import Iterator
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


_TOKEN = re.compile(r"\\(?:[a-zA-Z]+|.)|.", re.DOTALL)
_OPENING = {"{", "(", "[", "\\{", "\\langle", "\\left", "\\bigl", "\\Bigl", "\\begin"}
_CLOSING = {"}", ")", "]", "\\}", "\\rangle", "\\right", "\\bigr", "\\Bigr", "\\end"}
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\in", "\\propto", "\\sim", "\\to", "\\approx"}
_BINARY = {"+", "-"}
_LONG = 20
"""Characters on the page from which a formula in a sentence may need more than a line's rest."""


def pieces(latex: str) -> list[str]:
    """Split a long formula behind its relations, and a long piece behind plus and minus.

    Only outside brackets, braces and environments; the pieces joined are the formula.
    """
    found = []
    for piece in _split(latex, _RELATIONS):
        found += _split(piece, _BINARY)
    return found


def _split(latex: str, operators: set[str]) -> Iterator[str]:
    if _shown_length(latex) <= _LONG:
        yield latex
        return
    tokens, depth, start = list(_TOKEN.finditer(latex)), 0, 0
    for i, token in enumerate(tokens):
        depth += (token[0] in _OPENING) - (token[0] in _CLOSING)
        inside = start < token.start() and i + 1 < len(tokens)
        if token[0] in operators and depth == 0 and inside:
            # A sign, an index or a power belongs to what follows or precedes.
            if latex[: token.start()].rstrip().endswith(("^", "_", "=", "(", ",")):
                continue
            yield latex[start : token.end()]
            start = token.end()
    yield latex[start:]


def _shown_length(latex: str) -> int:
    """Roughly how many characters the formula has on the page."""
    plain = re.sub(
        r"\\(?:mathbb|mathcal|mathrm|operatorname|[bB]ig+[lr]?|tfrac|frac|sqrt)", "", latex
    )
    return len(re.sub(r"[{}^_\s]", "", re.sub(r"\\[a-zA-Z]+", "x", plain)))


def _converted(node: nodes.Element, latex: str, *, block: bool) -> str:
    try:
        return to_mathml(latex, block=block)
    except MathError as error:
        logger.warning("mathematics not rendered: %s in %r", error, latex, location=node)
        return ""


def visit_math(translator: "HTML5Translator", node: nodes.math) -> None:
    """Write inline mathematics, with a place to break the line between its pieces."""
    shown = [_converted(node, piece, block=False) for piece in pieces(node.astext())]
    shown[0] = translator.encode(node.get("before", "")) + shown[0]
    shown[-1] += translator.encode(node.get("after", ""))
    translator.body.append("<wbr>".join(f'<span class="unbroken">{part}</span>' for part in shown))
    raise nodes.SkipNode


def _keep_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Move a bracket before and punctuation behind a formula into its node."""
    for node in list(doctree.findall(nodes.math)):
        place = node.parent.index(node)
        _take(node, place - 1, "before", re.compile(r"(?s)(.*?)([(“]*)"))
        _take(node, place + 1, "after", re.compile(r"(?s)([.,;:!?)”]*)(.*)"))


def _take(node: nodes.math, place: int, edge: str, pattern: re.Pattern[str]) -> None:
    parent = node.parent
    if not (0 <= place < len(parent)) or not isinstance(parent[place], nodes.Text):
        return
    match = pattern.fullmatch(parent[place].astext())
    if match is None:
        return
    taken, rest = (match[2], match[1]) if edge == "before" else (match[1], match[2])
    if taken:
        node[edge] = taken
        parent[place] = nodes.Text(rest)


def visit_math_block(translator: "HTML5Translator", node: nodes.math_block) -> None:
    """Write displayed mathematics; it scrolls by itself where it is wider than the page."""
    translator.body.append(
        f'<div class="math-block">{_converted(node, node.astext(), block=True)}</div>'
    )
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer under the name ``mathml``."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(visit_math, None), block_renderers=(visit_math_block, None)
    )
    app.connect("doctree-resolved", _keep_punctuation)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
