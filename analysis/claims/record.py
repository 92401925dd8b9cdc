"""What a claim is, and how its verdict follows from numbers alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Verdict(StrEnum):
    """What the numbers say of a statement."""

    HOLDS = "holds"
    """As stated."""
    UNDER = "holds under"
    """Not as stated; with the hypotheses named in the correction, yes."""
    TYPO = "typo"
    """Not as printed; with the symbols of the correction, yes."""
    FAILS = "fails"
    """Not as stated, and no small change saves it."""


@dataclass(frozen=True)
class Evidence:
    """What a check computed."""

    residual: float
    """Worst distance of the statement, taken literally, from being true."""
    detail: str
    """What the residual is, and over which instances it is the worst."""
    corrected: float | None = None
    """The same for the corrected statement, where there is one."""
    counterexample: str = ""
    """An instance, with numbers, on which the literal statement is false."""


Check = Callable[[np.random.Generator, int], Evidence]
"""Takes a generator and the number of random instances to draw."""


@dataclass(frozen=True)
class Claim:
    """One statement of the paper with the check that decides it."""

    id: str
    reference: str
    statement: str
    hypotheses: str
    tolerance: float
    check: Check
    expected: Verdict
    """The verdict this project has committed to; a run that finds another one says so."""
    correction: str
    """The hypotheses or the symbols that make it true; for a false statement, what is true."""


@dataclass(frozen=True)
class Result:
    """A claim after its check."""

    claim: Claim
    evidence: Evidence

    @property
    def verdict(self) -> Verdict:
        """Computed: literal residual first, then that of the correction. NaN is never true."""
        if self.evidence.residual <= self.claim.tolerance:
            return Verdict.HOLDS
        corrected = self.evidence.corrected
        if corrected is None or not corrected <= self.claim.tolerance:
            return Verdict.FAILS
        # Whether a correction changes hypotheses or symbols is a fact about the text.
        return Verdict.TYPO if self.claim.expected is Verdict.TYPO else Verdict.UNDER

    @property
    def as_expected(self) -> bool:
        """Whether the verdict is the committed one."""
        return self.verdict is self.claim.expected

    def as_row(self) -> dict[str, str | float | bool | None]:
        """Flat row for tables and storage."""
        return {
            "claim": self.claim.id,
            "reference": self.claim.reference,
            "statement": self.claim.statement,
            "hypotheses": self.claim.hypotheses,
            "verdict": str(self.verdict),
            "expected": str(self.claim.expected),
            "as_expected": self.as_expected,
            "correction": self.claim.correction,
            "detail": self.evidence.detail,
            "counterexample": self.evidence.counterexample,
            "residual": self.evidence.residual,
            "corrected_residual": self.evidence.corrected,
            "tolerance": self.claim.tolerance,
        }


class Catalogue:
    """Claims in the order of their definition."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._claims.values())

    def add(
        self,
        id: str,
        reference: str,
        statement: str,
        *,
        hypotheses: str,
        tolerance: float,
        expected: Verdict = Verdict.HOLDS,
        correction: str = "",
    ) -> Callable[[Check], Check]:
        """Register the decorated check; everything but a plain *holds* must state a correction."""
        if id in self._claims:
            raise ValueError(f"claim id {id!r} is used twice")
        if (expected is Verdict.HOLDS) == bool(correction):
            raise ValueError(f"claim {id!r}: a correction goes with every verdict but 'holds'")

        def register(check: Check) -> Check:
            self._claims[id] = Claim(
                id, reference, statement, hypotheses, tolerance, check, expected, correction
            )
            return check

        return register
