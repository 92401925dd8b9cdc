"""Statements of the paper side by side with their code, their claim record and their test.

A ``statement`` names the function that computes it, the records in ``analysis.claims`` that
check it and the tests that guard it. Code is shown from the source and records are executed when
the site is built. A name that stands for nothing, a verdict other than the committed one, and a
statement of the paper or a claim without a place are warnings: ``sphinx-build -W`` fails.
"""

import functools
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from executed import details, summary
from sources import UnresolvedName, definition, find_test, link, setup_sources
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_id
from sphinx.util.typing import ExtensionMetadata

from analysis.claims import CLAIMS, Result, Verdict, verify

logger = logging.getLogger(__name__)

PAPER: tuple[str, ...] = (
    *(f"Definition {i}" for i in (1, 2)),
    *(f"Condition {i}" for i in (1, 2, 3)),
    *(f"Eq. ({i})" for i in range(1, 36)),
    "Section 4.2",
    "Theorem 1",
    "Lemma 1",
    "Proposition 1",
    *(f"Figure 1 ({panel})" for panel in "cdef"),
    *(f"NC{i}" for i in (1, 2, 3, 4)),
)
"""Everything that the paper numbers or defines, and that the derivation must therefore place."""

_EQUATIONS = re.compile(r"Eq\. \((\d+)\)(?:-\((\d+)\))?")
_LONG_CODE = 24
"""Lines from which code starts folded."""


def paper_items(text: str) -> list[str]:
    """Parse a list such as ``Theorem 1, Eq. (8)-(11)`` into the members of `PAPER` it names.

    Raises
    ------
    UnresolvedName
        The paper has no such statement.
    """
    items: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        match = _EQUATIONS.fullmatch(part)
        if match:
            first, last = int(match[1]), int(match[2] or match[1])
            named = [f"Eq. ({i})" for i in range(first, last + 1)]
        else:
            named = [part]
        missing = [item for item in named if item not in PAPER]
        if missing or not named:
            raise UnresolvedName(f"the paper has no {', '.join(missing) or part}")
        items.extend(named)
    return items


@functools.cache
def check_claim(claim_id: str, seed: int, instances: int) -> Result:
    """Execute one claim record.

    Raises
    ------
    UnresolvedName
        There is no record of that id.
    """
    results = list(verify(seed, instances, only=claim_id))
    if not results:
        raise UnresolvedName(f"claim {claim_id!r} does not exist in analysis.claims")
    return results[0]


class Places:
    """Where the pages have put the paper's statements and the claims, page by page."""

    def __init__(self) -> None:
        self.items: dict[str, list[tuple[str, str]]] = {}
        """docname -> (statement of the paper, label of the statement on the page)."""
        self.claims: dict[str, set[str]] = {}
        """docname -> claim ids."""

    @classmethod
    def of(cls, env: BuildEnvironment) -> "Places":
        """Return the places that belong to a build environment, and are saved with it."""
        if not hasattr(env, "paired_places"):
            env.paired_places = cls()  # type: ignore[attr-defined]
        places: Places = env.paired_places  # type: ignore[attr-defined]
        return places

    def purge(self, docname: str) -> None:
        """Forget a page that is read again or gone."""
        self.items.pop(docname, None)
        self.claims.pop(docname, None)

    def of_item(self, item: str) -> list[tuple[str, str]]:
        """List (docname, label) of the statements that place an item of the paper."""
        return [
            (docname, label)
            for docname, placed in sorted(self.items.items())
            for name, label in placed
            if name == item
        ]


class Statement(SphinxDirective):
    """A statement with its place in the paper, its code, its claim records and its tests.

    The argument is the label. ``:title:`` is what the statement is called here, ``:paper:`` what
    it is in the paper (see `paper_items`; absent if it is not there; code, claims and tests are
    then needed), ``:code:`` dotted names, ``:part:`` two texts separated by ``…`` between which
    the (only) function is shown,
    ``:claims:`` ids, ``:tests:`` pytest node ids, each separated by white space.
    """

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {
        "title": directives.unchanged_required,
        "paper": directives.unchanged_required,
        "code": directives.unchanged_required,
        "part": directives.unchanged_required,
        "claims": directives.unchanged_required,
        "tests": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Build the card."""
        label = self.arguments[0]
        title = self.options.get("title", label)
        card = nodes.container(classes=["statement"])
        card["ids"].append(make_id(self.env, self.state.document, "", label))
        self.state.document.note_explicit_target(card, card)
        self._register(label, card["ids"][0], title)
        card += self._heading(title)
        text = nodes.container(classes=["statement-text"])
        text += self.parse_content_to_nodes()
        text += self._claims()
        text += self._tests()
        columns = nodes.container("", text, classes=["statement-columns"])
        code = self._code()
        if code:
            columns += nodes.container("", *code, classes=["statement-code"])
        card += columns
        return [card]

    def _register(self, label: str, anchor: str, title: str) -> None:
        domain = self.env.domains.standard_domain
        if label.isidentifier():
            # MyST looks up a link's target among all objects of the reference, too.
            self._warn(f"the label {label!r} may be an object's name: put a hyphen into it")
        if label in domain.labels:
            self._warn(f"the label {label!r} is used twice")
        domain.labels[label] = (self.env.docname, anchor, title)
        domain.anonlabels[label] = (self.env.docname, anchor)

    def _heading(self, title: str) -> nodes.Element:
        heading = nodes.paragraph("", "", nodes.strong("", title), classes=["statement-heading"])
        if "paper" in self.options:
            try:
                items = paper_items(self.options["paper"])
            except UnresolvedName as error:
                self._warn(str(error))
                items = []
            placed = Places.of(self.env).items.setdefault(self.env.docname, [])
            placed += [(item, self.arguments[0]) for item in items]
            for name in ("code", "claims", "tests"):
                if not self.options.get(name, "").split():
                    self._warn(f"{self.arguments[0]!r} is in the paper and needs :{name}:")
            where = f"paper: {self.options['paper']}"
        else:
            where = "not in the paper"
        heading += [nodes.Text(" "), nodes.inline("", where, classes=["statement-paper"])]
        return heading

    def _code(self) -> list[nodes.Node]:
        part = None
        if "part" in self.options:
            first, _, last = self.options["part"].partition("…")
            part = (first.strip(), last.strip())
        shown: list[nodes.Node] = []
        for name in self.options.get("code", "").split():
            try:
                source = definition(name, part)
            except UnresolvedName as error:
                self._warn(str(error))
                continue
            self.env.note_dependency(str(source.path))
            block = nodes.literal_block(source.code, source.code, language="python")
            heading = summary("", "", nodes.literal("", name), nodes.Text(" "))
            heading += link(self._root, source.path, source.line)
            folded = source.code.count("\n") > _LONG_CODE
            shown.append(details("", heading, block, open=not folded, classes=["source"]))
        return shown

    def _claims(self) -> Iterator[nodes.Node]:
        config = self.env.config
        for claim_id in self.options.get("claims", "").split():
            try:
                result = check_claim(claim_id, config.paired_seed, config.paired_instances)
            except UnresolvedName as error:
                self._warn(str(error))
                continue
            if not result.as_expected:
                self._warn(
                    f"claim {claim_id!r} came out as {result.verdict!s}, committed is "
                    f"{result.claim.expected!s}: {result.evidence}"
                )
            Places.of(self.env).claims.setdefault(self.env.docname, set()).add(claim_id)
            yield self._record(result)

    def _record(self, result: Result) -> nodes.Element:
        claim, evidence = result.claim, result.evidence
        badge = nodes.inline("", str(result.verdict), classes=["verdict", result.verdict.name])
        heading = summary("", "", badge, nodes.Text(" "), nodes.literal("", claim.id))
        heading += nodes.inline("", f" residual {evidence.residual:.1e}", classes=["residual"])
        fields = {
            "Statement": claim.statement,
            "Hypotheses": claim.hypotheses,
            "Computed": f"{evidence.detail}. Tolerance {claim.tolerance:.0e}.",
        }
        if claim.correction:
            fields["Correction"] = claim.correction
            if evidence.corrected is not None:
                fields["Correction"] += f" (residual {evidence.corrected:.1e})"
        if evidence.counterexample:
            fields["Counterexample"] = evidence.counterexample
        table = nodes.field_list(classes=["claim-record"])
        table += [_field(name, nodes.Text(text)) for name, text in fields.items()]
        table += _field("Check", self._check_link(result))
        is_open = result.verdict is not Verdict.HOLDS
        return details("", heading, table, open=is_open, classes=["claim"])

    def _check_link(self, result: Result) -> nodes.Node:
        code = inspect.unwrap(result.claim.check).__code__
        self.env.note_dependency(code.co_filename)
        return link(self._root, Path(code.co_filename), code.co_firstlineno)

    def _tests(self) -> Iterator[nodes.Node]:
        for node_id in self.options.get("tests", "").split():
            try:
                path, line = find_test(self._root, node_id)
            except UnresolvedName as error:
                self._warn(str(error))
                continue
            self.env.note_dependency(str(path))
            test = link(self._root, path, line, text=node_id)
            yield nodes.paragraph("", "Test: ", test, classes=["statement-test"])

    @property
    def _root(self) -> Path:
        return Path(self.env.config.project_root)

    def _warn(self, message: str) -> None:
        logger.warning(message, location=self.get_location(), type="paired")


def _field(name: str, body: nodes.Node) -> nodes.field:
    return nodes.field(
        "", nodes.field_name("", name), nodes.field_body("", nodes.paragraph("", "", body))
    )


class paper_index(nodes.General, nodes.Element):
    """Filled once every page is read."""


class PaperIndex(SphinxDirective):
    """A list of everything the paper numbers, with links to where it is treated."""

    def run(self) -> list[nodes.Node]:
        """Leave a mark for `_fill_index`."""
        return [paper_index("")]


def _fill_index(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    places, labels = Places.of(app.env), app.env.domains.standard_domain.labels
    for mark in list(doctree.findall(paper_index)):
        fields = nodes.field_list(classes=["paper-index"])
        for item in app.config.paired_required:
            links = nodes.paragraph()
            for target, label in places.of_item(item):
                _, anchor, title = labels[label]
                uri = f"{app.builder.get_relative_uri(docname, target)}#{anchor}"
                links += nodes.reference("", title, refuri=uri, internal=True)
                links += nodes.Text("; ")
            links = nodes.paragraph("", "", *links.children[:-1])
            name = nodes.field_name("", item)
            fields += nodes.field("", name, nodes.field_body("", links))
        mark.replace_self(fields)


def _check_coverage(app: Sphinx, env: BuildEnvironment) -> None:
    places = Places.of(env)
    _report(
        "statement of the paper", (i for i in app.config.paired_required if not places.of_item(i))
    )
    if app.config.paired_all_claims:
        shown = set().union(*places.claims.values())
        _report("claim", (claim.id for claim in CLAIMS if claim.id not in shown))


def _report(kind: str, missing: Iterable[str]) -> None:
    for name in missing:
        logger.warning("%s without a place in the site: %s", kind, name, type="paired")


def _purge(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    Places.of(env).purge(docname)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives ``statement`` and ``paper-index``, and the check of coverage."""
    app.setup_extension("executed")
    setup_sources(app)
    app.add_config_value("paired_required", PAPER, "env", (tuple, list))
    app.add_config_value("paired_all_claims", True, "env", (bool,))
    app.add_config_value("paired_seed", 0, "env", (int,))
    app.add_config_value("paired_instances", 50, "env", (int,))
    app.add_node(paper_index)
    app.add_directive("statement", Statement)
    app.add_directive("paper-index", PaperIndex)
    app.connect("env-purge-doc", _purge)
    app.connect("env-check-consistency", _check_coverage)
    app.connect("doctree-resolved", _fill_index)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
