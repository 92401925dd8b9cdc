"""The pages themselves, read without building them: every name resolves, nothing is left out."""

import re

import paired
import pytest
from small_site import ROOT
from sources import definition, find_test

from analysis.claims import CLAIMS

PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCKS = [
    (page.relative_to(ROOT).as_posix(), block)
    for page in PAGES
    for block in re.findall(r"^```\{statement\} (.*?)^```$", page.read_text(), re.DOTALL | re.M)
]


def option(block: str, name: str) -> str:
    found = re.search(rf"^:{name}: (.*)$", block, re.M)
    return found[1] if found else ""


@pytest.mark.parametrize(
    ("page", "block"), BLOCKS, ids=[f"{page}-{block.split()[0]}" for page, block in BLOCKS]
)
def test_every_name_in_a_statement_resolves(page, block) -> None:
    for name in option(block, "code").split():
        assert definition(name).code
    for node_id in option(block, "tests").split():
        assert find_test(ROOT, node_id)
    known = {claim.id for claim in CLAIMS}
    assert set(option(block, "claims").split()) <= known


def test_every_statement_of_the_paper_and_every_claim_has_a_place() -> None:
    placed, shown = set(), set()
    for _, block in BLOCKS:
        text = option(block, "paper")
        placed |= set(paired.paper_items(text)) if text else set()
        shown |= set(option(block, "claims").split())
    assert placed == set(paired.PAPER)
    assert shown == {claim.id for claim in CLAIMS}


def test_labels_are_unique() -> None:
    labels = [block.split()[0] for _, block in BLOCKS]
    assert len(set(labels)) == len(labels)
