"""The README's Python examples run as written, one after the other."""

import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def test_examples_run(capsys) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 6
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    printed = capsys.readouterr().out
    assert "Theorem 1: True" in printed
    assert "Condition 3" in printed
    assert "minority cosine 0.517" in printed


def test_links_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / target).exists(), f"README links to {target}, which does not exist"
