"""Every property fails on a deliberately broken build; `catalogue` holds the builds.

The broken copies live in a temporary directory, never in the checkout. ``pytest -m slow
tests/mutants`` runs all of them; the default suite checks that the catalogue is complete and fits
the code.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue import MUTANTS
from mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("lpm", "gridworld", "agents", "analysis")

TIMEOUT = 300
"""Seconds for one test on one build; a healthy one takes two to six."""

# A failing example is all that is asked for; shrinking it would take most of the time.
_FIRST_FAILURE = """
from hypothesis import Phase

settings.register_profile(
    "first-failure", settings.get_profile("default"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("first-failure")
"""

# Errors of a build that does not run at all, which any test would notice.
_CRASH = re.compile(r"^E\s+(\w*SyntaxError|NameError|UnboundLocalError|ImportError)", re.MULTILINE)


def properties() -> Iterator[str]:
    """Identifiers of all tests decorated with hypothesis' ``given``."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
            if isinstance(node, ast.FunctionDef) and any(map(is_given, node.decorator_list)):
                yield f"{path.relative_to(ROOT).as_posix()}::{node.name}"


def is_given(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).split(".")[-1] == "given"


def test_every_property_has_a_mutant() -> None:
    found = set(properties())
    assert len(found) >= 20
    bare = sorted(found - {mutant.test for mutant in MUTANTS})
    assert not bare, f"no broken build is known to fail {bare}: add one to tests/mutants"


def test_named_tests_exist() -> None:
    for mutant in MUTANTS:
        path, _, name = mutant.test.partition("::")
        tree = ast.parse((ROOT / path).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in names, f"{path} has no test {name} any more ({mutant.why})"


@pytest.mark.parametrize("file", sorted({mutant.file for mutant in MUTANTS}))
def test_the_catalogue_fits_the_code(file: str) -> None:
    source = (ROOT / file).read_text()
    for mutant in MUTANTS:
        if mutant.file == file:
            count = source.count(mutant.old)
            assert count == 1, f"{mutant.old!r} occurs {count} times in {file}, expected once"
            ast.parse(source.replace(mutant.old, mutant.new))


def test_no_mutant_is_listed_twice() -> None:
    assert len({(m.file, m.old, m.new, m.test) for m in MUTANTS}) == len(MUTANTS)
    assert all(m.old != m.new for m in MUTANTS)


def run(build: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Pytest on a build of its own: the directory comes first on the import path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=build,
        # No bytecode: a restored file may have the size and the second of the broken one.
        env=environment | {"PYTHONPATH": str(build), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of rooms and tests, of which it is certain that its tests import its rooms."""
    copy = tmp_path_factory.mktemp("build")
    ignore = shutil.ignore_patterns("__pycache__", "mutants")
    for name in (*ROOMS, "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", copy)
    with (copy / "tests/conftest.py").open("a") as conftest:
        conftest.write(_FIRST_FAILURE)
    # Fails where `import lpm` finds the checkout instead, through an editable install.
    outcome = run(copy, "tests/test_architecture.py::test_room_is_ours")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return copy


@pytest.fixture
def broken(build: Path, mutant: Mutant) -> Iterator[Path]:
    """The build with one mutant in it, whole again afterwards."""
    path = build / mutant.file
    source = path.read_text()
    path.write_text(source.replace(mutant.old, mutant.new))
    yield build
    path.write_text(source)


def label(mutant: Mutant) -> str:
    return f"{mutant.file}-{mutant.test.partition('::')[2]}"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=label)
def test_fails_on_the_broken_build(broken: Path, mutant: Mutant) -> None:
    outcome = run(broken, mutant.test)
    said = f"{mutant.why}: {mutant.test}\n{outcome.stdout[-3000:]}{outcome.stderr[-1000:]}"
    assert outcome.returncode != 0, f"survived: {said}"
    assert outcome.returncode == 1, f"pytest itself failed with {outcome.returncode}: {said}"
    assert f"FAILED {mutant.test}" in outcome.stdout, f"no test failed: {said}"
    assert not _CRASH.search(outcome.stdout), f"the build does not run: {said}"
