"""The documentation's extensions: what they show, and every way in which they stop the build."""

import subprocess
import sys

import check_links
import paired
import pytest
from small_site import ROOT, build, text_of

import lpm

PAGE = """# A page

```{statement} the-sum
:title: Lemma
:paper: Lemma 1, Eq. (24)-(26)
:code: lpm.frames.gram
:claims: lemma-1 eq-25
:tests: tests/lpm/test_frames.py::test_lemma_1_rows_sum_to_zero

It says $\\sum_k w_k = 0$.
```

```{run}
import lpm
total = lpm.simplex_etf(4, 3).sum()
print("printed", 6 * 7)
```

The value is {value}`1 + total; .2f`, see [the lemma](#the-sum).

$$\\|h\\|^2\\le E_H$$

```{plot} __import__("matplotlib.figure").figure.Figure(figsize=(1, 1))
:alt: nothing

A caption.
```

```{paper-index}
```
"""


def test_a_page_shows_code_claim_test_output_and_mathematics(tmp_path) -> None:
    required = ("Lemma 1", "Eq. (24)", "Eq. (25)", "Eq. (26)")
    assert build(tmp_path, PAGE, paired_required=required) == []
    html = text_of(tmp_path)
    assert "Gram matrix (K, K)" not in html, "the docstring is left out"
    assert "rows</span> <span" in html
    assert "printed 42" in html
    assert 'value is <span class="value">1.00</span>' in html
    assert "verdict HOLDS" in html
    assert "verdict TYPO" in html
    assert html.count("<math") == 2
    assert 'href="#the-sum">Lemma</a>' in html
    assert len(list((tmp_path / "out" / "_images").glob("*.png"))) == 1
    shown = (tmp_path / "out" / "_source" / "tests" / "lpm" / "test_frames.py.html").read_text()
    assert "test_lemma_1_rows_sum_to_zero" in shown
    assert check_links.problems(tmp_path / "out") == []


def statement(*options: str) -> str:
    return "\n".join(["# A page", "", "```{statement} a-label", *options, "", "Text.", "```"])


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (statement(":code: lpm.frames.grams"), "lpm.frames.grams does not resolve"),
        (statement(":code: lpm.no_room.gram"), "lpm.no_room.gram does not resolve"),
        (statement(":code: lpm.frames.gram", ":part: nothing … here"), "has no part from"),
        (statement(":claims: eq-99"), "claim 'eq-99' does not exist"),
        (statement(":paper: Eq. (36)"), "the paper has no Eq. (36)"),
        (statement(":paper: Lemma 2"), "the paper has no Lemma 2"),
        (statement(":tests: tests/lpm/test_frames.py::test_thousand_of_classes"), "did you mean"),
        (statement(":tests: tests/lpm/test_no.py::test_x"), "there is no file"),
        (statement() + "\n\n" + statement()[8:], "the label 'a-label' is used twice"),
        ("# A page\n\n```{statement} label\n\nText.\n```", "put a hyphen into it"),
        ("# A page\n\n```{run}\n1 / 0\n```", "ZeroDivisionError"),
        ("# A page\n\n{value}`1 / 0`", "ZeroDivisionError"),
        ("# A page\n\n```{plot} 1 / 0\n:alt: x\n```", "ZeroDivisionError"),
        ("# A page\n\n```{plot} 42\n:alt: x\n```", "not a matplotlib figure"),
        ("# A page\n\n$\\nocommand$", "mathematics not rendered"),
        ("# A page\n\n$$\\limits$$", "mathematics not rendered"),
        ("# A page\n\n```{fields} analysis.metrics.Nothing\n```", "does not resolve"),
        ("# A page\n\n```{fields} lpm.frames.gram\n```", "has no Attributes section"),
    ],
)
def test_a_name_that_stands_for_nothing_stops_the_build(tmp_path, page, message) -> None:
    warnings = build(tmp_path, page)
    assert any(message in warning for warning in warnings), warnings


def test_renaming_a_function_stops_the_build(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(lpm.frames, "gram_matrix", lpm.frames.gram, raising=False)
    monkeypatch.delattr(lpm.frames, "gram")
    assert any("lpm.frames.gram does not resolve" in w for w in build(tmp_path, PAGE))


def test_an_equation_or_claim_without_a_place_stops_the_build(tmp_path) -> None:
    warnings = build(
        tmp_path, PAGE, paired_required=("Lemma 1", "Eq. (27)"), paired_all_claims=True
    )
    assert "WARNING: statement of the paper without a place in the site: Eq. (27) [paired]" in [
        warning.replace("\x1b[91m", "").replace("\x1b[39;49;00m", "") for warning in warnings
    ]
    missing = [w for w in warnings if "claim without a place" in w]
    assert len(missing) == len(paired.CLAIMS) - 2
    assert not any("Lemma 1" in warning for warning in warnings)


@pytest.mark.parametrize("lacking", ["code", "claims", "tests"])
def test_a_statement_of_the_paper_without_code_claim_or_test_stops_the_build(
    tmp_path, lacking
) -> None:
    page = "\n".join(line for line in PAGE.splitlines() if not line.startswith(f":{lacking}:"))
    assert page != PAGE
    assert any(f"needs :{lacking}:" in warning for warning in build(tmp_path, page))


def test_punctuation_stays_on_the_line_of_its_formula(tmp_path) -> None:
    assert build(tmp_path, "# Title\n\nOne ($a$), and two.\n") == []
    before, after = text_of(tmp_path).split("<math", 1)
    assert before.endswith('<span class="unbroken">(') or before.rstrip().endswith("(")
    assert "</math>),</span>" in after or "</math></span>)," in after


def test_a_verdict_other_than_the_committed_one_stops_the_build(tmp_path, monkeypatch) -> None:
    etf = lpm.simplex_etf
    monkeypatch.setattr(lpm, "simplex_etf", lambda *a, **k: etf(*a, **k) + 1e-6)
    paired.check_claim.cache_clear()
    warnings = build(tmp_path, PAGE)
    paired.check_claim.cache_clear()
    assert any("'lemma-1' came out as fails, committed is holds" in w for w in warnings)


def test_blocks_of_a_page_share_variables_and_pages_do_not(tmp_path) -> None:
    first = "# A page\n\n```{run}\nx = 1\n```\n\n```{run}\nprint(x + 1)\n```"
    assert build(tmp_path, first) == []
    (tmp_path / "other").mkdir()
    assert any("NameError" in w for w in build(tmp_path / "other", "# A page\n\n{value}`x`"))


def test_dead_links_missing_anchors_and_foreign_files_are_found(tmp_path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="here"></p><a href="b.html">1</a><a href="#there">2</a><a href="#here">3</a>'
        '<script src="https://example.org/x.js"></script><a href="https://example.org">4</a>'
    )
    assert check_links.problems(tmp_path) == [
        "a.html: loads https://example.org/x.js from elsewhere",
        "a.html: b.html does not exist",
        "a.html: #there has no such anchor",
    ]


def test_the_site_builds_without_warnings_and_all_links_lead_somewhere(tmp_path) -> None:
    """With every block of its pages executed, as ``make docs`` does."""
    command = ["-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html"]
    subprocess.run([sys.executable, *command, str(ROOT / "docs"), str(tmp_path)], check=True)
    assert check_links.problems(tmp_path) == []
