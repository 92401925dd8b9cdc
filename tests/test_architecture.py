"""The rooms and who may import whom: a wrong arrow fails here, not in a review."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("lpm", "gridworld", "agents", "analysis")
MAY_IMPORT = {
    "lpm": set(),
    "gridworld": set(),
    "agents": {"lpm", "gridworld"},
    "analysis": {"lpm", "gridworld", "agents"},
}
THIRD_PARTY = {
    "lpm": {"numpy", "scipy", "cvxpy", "flint"},
    "gridworld": {"numpy", "gymnasium"},
}
ONLY_HERE = {
    "cvxpy": {"lpm/conic.py"},
    "flint": {"lpm/enclosure.py"},
    "matplotlib": {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "analysis" / "figures").glob("*.py")
    },
}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    """Top-level names of every absolute import in a file, function bodies included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_import_direction(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    for path in sources(room):
        foreign = (imported_packages(path) & set(ROOMS)) - allowed
        assert not foreign, f"{path.relative_to(ROOT)} may not import {sorted(foreign)}"


@pytest.mark.parametrize("room", sorted(THIRD_PARTY))
def test_theory_rooms_stay_light(room: str) -> None:
    known = set(sys.stdlib_module_names) | set(ROOMS) | THIRD_PARTY[room]
    for path in sources(room):
        extra = imported_packages(path) - known
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}: not for {room}"


@pytest.mark.parametrize("package", sorted(ONLY_HERE))
def test_heavy_package_has_one_home(package: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in sources(room)
        if package in imported_packages(path)
    }
    assert users <= ONLY_HERE[package], f"{package} is imported by {sorted(users)}"


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_ours(room: str) -> None:
    """`agents` is also the import name of another popular package."""
    found = Path(importlib.import_module(room).__file__ or "").resolve()
    assert found.is_relative_to(ROOT), (
        f"`import {room}` gives {found}, not this project's: another distribution of the same "
        f"import name is installed; use an environment of its own for action-collapse"
    )
    assert (ROOT / room / "py.typed").exists()
