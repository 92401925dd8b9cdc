"""The paper's statements as checks that compute: literal residual, corrected residual, verdict.

Every numbered definition, condition, equation, lemma, proposition, theorem, figure metric and NC
property has a record. A check draws its own random instances from the generator it is given, and
residuals decide between *holds*, *corrected* and *fails*; the verdict that the project expects is
kept beside them so that a change is noticed. Whether a correction that works changes hypotheses
(*holds under*) or symbols (*typo*) is a fact about the text, and comes with the record.
"""

from collections.abc import Iterator

import numpy as np

from analysis.claims import edges, frames, grid, metrics, objective, rigorous, theorem
from analysis.claims.record import Claim as Claim
from analysis.claims.record import Evidence as Evidence
from analysis.claims.record import Result as Result
from analysis.claims.record import Verdict as Verdict

CLAIMS: tuple[Claim, ...] = tuple(
    claim for part in (objective, frames, theorem, edges, grid, metrics) for claim in part.claims
)


RIGOROUS: tuple[Claim, ...] = tuple(rigorous.claims)
"""Enclosures in ball arithmetic; need the extra ``rigorous``."""


def verify(
    seed: int, instances: int, only: str | None = None, rigorous: bool = False
) -> Iterator[Result]:
    """Check every claim, or the one of that id, on ``instances`` random instances.

    A claim's generator depends on the seed and the claim's id only, so adding a claim changes no
    other claim's numbers.
    """
    for claim in (*CLAIMS, *(RIGOROUS if rigorous else ())):
        if only is not None and claim.id != only:
            continue
        rng = np.random.default_rng([seed, *claim.id.encode()])
        yield Result(claim, claim.check(rng, instances))
