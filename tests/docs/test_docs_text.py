"""Docstrings and sources as the documentation reads them."""

import docstrings
import fields
import mathml
import modules
import pytest
import sources
from docutils.utils.math import MathError
from small_site import ROOT

from analysis.metrics import METRIC_FIELDS, CollapseResult


def test_only_the_docstring_is_taken_out() -> None:
    code = 'def f(x):\n    """Doc.\n\n    More.\n    """\n\n    y = """text"""\n    return y\n'
    assert sources.without_docstring(code) == 'def f(x):\n    y = """text"""\n    return y\n'
    assert sources.without_docstring("def f():\n    pass\n") == "def f():\n    pass\n"


def test_methods_and_properties_are_shown_from_their_own_line() -> None:
    shown = sources.definition("lpm.problem.PeeledProblem.num_classes")
    assert shown.code == "@property\ndef num_classes(self) -> int:\n    return len(self.head)\n"
    assert (ROOT / "lpm" / "problem.py").read_text().splitlines()[shown.line - 1].strip() == (
        "@property"
    )


def test_a_part_runs_from_one_text_to_the_other() -> None:
    whole = sources.definition("lpm.frames.gram").code
    part = sources.definition("lpm.frames.gram", ("rows =", "return")).code
    assert part == "\n".join(line.strip() for line in whole.splitlines()[1:])


def test_tests_are_found_inside_classes_too(tmp_path) -> None:
    (tmp_path / "test_x.py").write_text("class TestA:\n    def test_b(self):\n        pass\n")
    assert sources.find_test(tmp_path, "test_x.py::test_b") == (tmp_path / "test_x.py", 2)


def test_formulas_keep_their_lines_and_bars_are_no_markup() -> None:
    assert docstrings.prepare(
        ["About |x| and ``|y|``:", "", "    |x| =", "      1", "", "After."]
    ) == [
        "About \\|x\\| and ``|y|``:",
        "",
        "::",
        "",
        "    |x| =",
        "      1",
        "",
        "After.",
    ]


def test_sections_and_shapes_are_left_to_napoleon() -> None:
    lines = ["Do.", "", "Parameters", "----------", "x", "    (n, *shape) array.", "", "    More."]
    expected = [*lines[:5], "    (n, \\*shape) array.", *lines[6:]]
    assert docstrings.prepare(lines) == expected


def test_a_formula_in_a_bullet_is_one() -> None:
    lines = ["* **Name.** Text", "  goes on:", "", "      F(h) = 0", "", "  and on."]
    assert docstrings.prepare(lines)[3:6] == ["  ::", "", "      F(h) = 0"]


def test_a_table_of_names_becomes_definitions() -> None:
    lines = ["``a``   first", "        goes on", "``bc``  second", "", "After."]
    expected = ["``a``", "    first", "    goes on", "``bc``", "    second", "", "After."]
    assert docstrings.prepare(lines) == expected


def test_every_metric_is_defined_where_the_reference_looks() -> None:
    definitions = fields.attributes_section(CollapseResult.__doc__ or "")
    names = {name for group in definitions for name in group}
    assert set(METRIC_FIELDS) <= names
    assert all(definitions.values())


def test_modules_are_found_in_subpackages_and_private_ones_are_not() -> None:
    found = list(modules.modules_of("agents"))
    assert {"agents.heads", "agents.envs", "agents.envs.cliff"} <= set(found)
    assert not any(part.startswith("_") for name in found for part in name.split("."))


@pytest.mark.parametrize(
    "latex",
    ["\\nocommand", "\\frac12", "\\tfrac12x", "{\\hat w}_k", "\\begin{tabular}\\end{tabular}"],
)
def test_latex_that_cannot_be_rendered_is_refused(latex) -> None:
    with pytest.raises(MathError):
        mathml.to_mathml(latex, block=False)


def test_mathematics_becomes_one_element() -> None:
    markup = mathml.to_mathml("\\begin{aligned}a&=b\\\\&\\ge c\\end{aligned}", block=True)
    assert markup.startswith("<math")
    assert markup.count("<mtr") == 2


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("a = b", ["a = b"]),
        (
            r"\log p = \langle h + g, w_k + v_k + u + t \rangle - \log \sum_j \exp z_j",
            [
                r"\log p =",
                r" \langle h + g, w_k + v_k + u + t \rangle -",
                r" \log \sum_j \exp z_j",
            ],
        ),
        (r"f(a + b + c + d + e + f + g + h + i)", [r"f(a + b + c + d + e + f + g + h + i)"]),
        (r"x_{n + m + k + p} y_{n + m + k + p}", [r"x_{n + m + k + p} y_{n + m + k + p}"]),
        (
            r"a b c d e f g h i j k l m n o p q r = -s",
            [r"a b c d e f g h i j k l m n o p q r =", " -s"],
        ),
    ],
)
def test_long_formulas_break_where_tex_would(formula, expected) -> None:
    found = mathml.pieces(formula)
    assert found == expected
    assert "".join(found) == formula


def test_what_is_returned_in_sentences_is_one_field() -> None:
    text = [
        "Sum.",
        "",
        "Returns",
        "-------",
        "The sum of both",
        "and no more.",
        "",
        "Raises",
        "------",
    ]
    assert docstrings.prepare(text) == [
        "Sum.",
        "",
        "",
        ":returns: The sum of both",
        "    and no more.",
        "",
        "Raises",
        "------",
    ]
    typed = ["Returns", "-------", "(n, d) float array", "    The rows.", ""]
    assert docstrings.prepare(typed) == typed
