"""Code in the text, executed when the site is built: its output, values and figures.

The blocks of a page run one after the other in one namespace, as a reader would type them. An
exception is a warning with its place, so that ``sphinx-build -W`` fails.
"""

import contextlib
import hashlib
import io
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.osutil import relative_uri
from sphinx.util.typing import ExtensionMetadata

if TYPE_CHECKING:
    from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

_NAMESPACE = "executed_namespace"


def namespace(env: BuildEnvironment) -> dict[str, Any]:
    """Variables of the page that is being read; Sphinx drops them with it."""
    if _NAMESPACE not in env.temp_data:
        env.temp_data[_NAMESPACE] = {"__name__": "__page__"}
    variables: dict[str, Any] = env.temp_data[_NAMESPACE]
    return variables


class details(nodes.General, nodes.Element):
    """Something a reader may fold; its first child is a `summary`."""


class summary(nodes.General, nodes.TextElement):
    """The line of a `details` that stays visible."""


class drawn(nodes.General, nodes.Element):
    """A figure drawn at build time, kept as the bytes of its PNG."""


class Run(SphinxDirective):
    """Execute Python; show the code and what it prints.

    ``:fold:`` folds the code away, for a page that is about the result.
    """

    has_content = True
    option_spec: ClassVar = {"fold": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Execute the block."""
        code = "\n".join(self.content)
        shown: nodes.Element = nodes.literal_block(code, code, language="python")
        shown["classes"].append("executed")
        if "fold" in self.options:
            shown = details("", summary("", "How this was computed"), shown)
        printed = self._execute(code)
        if not printed:
            return [shown]
        output = nodes.literal_block(printed, printed, language="text")
        output["classes"].append("output")
        return [shown, output]

    def _execute(self, code: str) -> str:
        printed = io.StringIO()
        # Line numbers of a traceback are then those of the page.
        source = "\n" * self.content_offset + code
        try:
            with (
                contextlib.redirect_stdout(printed),
                contextlib.chdir(self.env.config.project_root),
            ):
                exec(compile(source, self.env.docname, "exec"), namespace(self.env))
        except Exception:
            _complain(self.get_location())
        return printed.getvalue().rstrip()


class Plot(SphinxDirective):
    """Draw a matplotlib figure: the argument is an expression, the content its caption."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Evaluate the expression and keep the picture."""
        from analysis.figures import encode

        if "alt" not in self.options:
            raise self.error("a figure needs :alt:, what it shows in words")
        try:
            with contextlib.chdir(self.env.config.project_root):
                figure = eval(self.arguments[0], namespace(self.env))
        except Exception:
            _complain(self.get_location())
            return []
        if not isinstance(figure, Figure):
            raise self.error(f"{self.arguments[0]} is {figure!r}, not a matplotlib figure")
        node = drawn("", png=encode(figure, "png"), alt=self.options["alt"])
        node += self.parse_content_to_nodes()
        return [node]


class Value(SphinxRole):
    """The value of an expression in the page's namespace, ``expression; format``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Evaluate and format."""
        expression, _, spec = self.text.partition(";")
        try:
            text = format(eval(expression.strip(), namespace(self.env)), spec.strip())
        except Exception:
            _complain(self.get_location())
            text = "?"
        return [nodes.inline("", text, classes=["value"])], []


def _complain(location: str) -> None:
    logger.warning("executed code failed:\n%s", traceback.format_exc(limit=-2), location=location)


def visit_details(translator: "HTML5Translator", node: details) -> None:
    """Open the element."""
    attributes = {"open": "open"} if node.get("open") else {}
    translator.body.append(translator.starttag(node, "details", **attributes))


def depart_details(translator: "HTML5Translator", node: details) -> None:
    """Close the element."""
    translator.body.append("</details>\n")


def visit_summary(translator: "HTML5Translator", node: summary) -> None:
    """Open the line that stays visible."""
    translator.body.append(translator.starttag(node, "summary", suffix=""))


def depart_summary(translator: "HTML5Translator", node: summary) -> None:
    """Close it."""
    translator.body.append("</summary>\n")


def visit_drawn(translator: "HTML5Translator", node: drawn) -> None:
    """Write the picture into the site and show it, a link to itself in full size."""
    name = f"_images/{hashlib.sha256(node['png']).hexdigest()[:16]}.png"
    path = Path(translator.builder.outdir) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(node["png"])
    page = translator.builder.get_target_uri(translator.builder.current_docname)
    uri = relative_uri(page, name)
    alt = translator.attval(node["alt"])
    translator.body.append(
        f'<figure class="drawn"><a href="{uri}"><img src="{uri}" alt="{alt}"></a><figcaption>\n'
    )


def depart_drawn(translator: "HTML5Translator", node: drawn) -> None:
    """Close the figure."""
    translator.body.append("</figcaption></figure>\n")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives ``run`` and ``plot`` and the role ``value``."""
    root = str(Path(app.confdir).resolve().parent)
    app.add_config_value("project_root", root, "env", (str,))
    app.add_node(details, html=(visit_details, depart_details))
    app.add_node(summary, html=(visit_summary, depart_summary))
    app.add_node(drawn, html=(visit_drawn, depart_drawn))
    app.add_directive("run", Run)
    app.add_directive("plot", Plot)
    app.add_role("value", Value())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
