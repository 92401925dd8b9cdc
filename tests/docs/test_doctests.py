"""Examples in the docstrings of all four rooms run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

ROOMS = ("lpm", "gridworld", "agents", "analysis")
OPTIONAL = ("agents.integrations.",)
"""Modules that import a package of an extra."""


def modules() -> list[str]:
    found = []
    for room in ROOMS:
        found.append(room)
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not module.name.endswith("__main__") and not module.name.startswith(OPTIONAL):
                found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_print_what_they_say(name) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = {
        name: sum(len(test.examples) for test in finder.find(importlib.import_module(name)))
        for name in ("lpm", "analysis.metrics")
    }
    assert all(examples.values()), examples
