"""What a deliberately broken build is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One edit of one file, and the test that must fail on it."""

    file: str
    """Path from the root of the project."""
    old: str
    """Text that occurs exactly once in the file."""
    new: str
    """What takes its place."""
    test: str
    """Identifier ``path::name`` of the test."""
    why: str
    """The bug, in a few words."""
