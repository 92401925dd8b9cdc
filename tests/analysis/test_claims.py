"""The claims: every one computes, has its committed verdict, and notices a wrong formula."""

import dataclasses

import numpy as np
import pytest

import lpm
from analysis.claims import CLAIMS, Claim, Evidence, Result, Verdict, theorem, verify
from analysis.claims.record import Catalogue

NUMBERED = {
    *(f"eq-{i}" for i in range(1, 36)),
    *("definition-1", "definition-2", "lemma-1", "proposition-1", "theorem-1"),
    *("condition-1", "condition-2", "condition-3"),
    *("figure-1c", "figure-1d", "figure-1e", "figure-1f"),
    *("nc-1", "nc-2", "nc-3", "nc-4"),
}


@pytest.mark.theory
@pytest.mark.parametrize("seed", [0, 1])
def test_every_verdict_is_the_committed_one(seed) -> None:
    results = list(verify(seed, instances=12))
    assert [r.claim.id for r in results] == [c.id for c in CLAIMS]
    assert [r.claim.id for r in results if not r.as_expected] == []
    for result in results:
        assert result.evidence.residual >= 0
        if result.verdict is not Verdict.HOLDS:
            assert any(c.isdigit() for c in result.evidence.counterexample)


def test_every_numbered_statement_has_a_record() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    assert sorted(NUMBERED - set(ids)) == []
    assert len(ids) >= 45


def test_a_claim_draws_from_its_own_generator() -> None:
    """The same seed gives the same residuals; another seed other instances."""
    by_seed = [[r.evidence for r in verify(seed, 3, "lemma-1")] for seed in (0, 0, 1)]
    assert by_seed[0] == by_seed[1]
    assert by_seed[0] != by_seed[2]


def claim(name: str) -> Claim:
    return next(c for c in CLAIMS if c.id == name)


@pytest.mark.parametrize(
    ("expected", "literal", "corrected", "verdict"),
    [
        (Verdict.HOLDS, 0.0, None, Verdict.HOLDS),
        (Verdict.HOLDS, 1.0, None, Verdict.FAILS),
        (Verdict.HOLDS, float("nan"), None, Verdict.FAILS),
        (Verdict.UNDER, 1.0, 0.0, Verdict.UNDER),
        (Verdict.TYPO, 1.0, 0.0, Verdict.TYPO),
        (Verdict.TYPO, 1.0, 1.0, Verdict.FAILS),
        (Verdict.UNDER, 1.0, float("nan"), Verdict.FAILS),
        (Verdict.UNDER, 0.0, 0.0, Verdict.HOLDS),
        (Verdict.FAILS, 0.0, None, Verdict.HOLDS),
    ],
)
def test_the_verdict_follows_from_the_residuals(expected, literal, corrected, verdict) -> None:
    subject = dataclasses.replace(CLAIMS[0], expected=expected, tolerance=0.5)
    result = Result(subject, Evidence(literal, "", corrected))
    assert result.verdict is verdict
    assert result.as_expected == (expected is verdict)


def test_catalogue_refuses_duplicates_and_missing_corrections() -> None:
    catalogue = Catalogue()
    texts = {"hypotheses": "", "tolerance": 0.0}
    catalogue.add("a", "A", "a", **texts)(CLAIMS[0].check)
    with pytest.raises(ValueError, match="'a' is used twice"):
        catalogue.add("a", "A", "a", **texts)
    with pytest.raises(ValueError, match="a correction goes with"):
        catalogue.add("b", "B", "b", expected=Verdict.TYPO, **texts)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        # Eq. (32) without its factor ½, with E_W and E_H exchanged, or for objective (8).
        ("eq-32", lambda k, e_h, e_w: lpm.log_multiplier_exponential(k, e_h, e_w) + np.log(2)),
        ("eq-32", lambda k, e_h, e_w: lpm.log_multiplier_cross_entropy(k, e_h, e_w)),
        ("eq-32-for-eq-8", lambda k, e_h, e_w: lpm.log_multiplier_exponential(k, e_h, e_w)),
    ],
)
def test_a_wrong_multiplier_is_noticed(name, broken) -> None:
    kind = "exponential" if name == "eq-32" else "cross_entropy"
    evidence = theorem.multiplier_check(broken, kind)(np.random.default_rng(0), 20)
    assert Result(claim(name), evidence).verdict is Verdict.FAILS


def test_a_wrong_frame_is_noticed(monkeypatch) -> None:
    def skewed(*arguments, **keywords):
        frame = true_etf(*arguments, **keywords)
        frame[0] *= 1 + 1e-10
        return frame

    true_etf = lpm.simplex_etf
    monkeypatch.setattr(lpm, "simplex_etf", skewed)
    broken = {r.claim.id for r in verify(0, 5) if not r.as_expected}
    assert {"eq-3", "eq-4", "eq-10", "eq-23", "lemma-1"} <= broken


def test_a_wrong_theorem_is_noticed(monkeypatch) -> None:
    """Features of length √E_H·(1 − 1e-6): outside every tolerance of Theorem 1's checks."""
    solve = lpm.solve

    def short(problem, solver="ball", **options):
        solution = solve(problem, solver, **options)
        return dataclasses.replace(solution, features=solution.features * (1 - 1e-6))

    monkeypatch.setattr(lpm, "solve", short)
    broken = {r.claim.id for r in verify(0, 5) if not r.as_expected}
    assert {"eq-27", "eq-34", "eq-11", "eq-35", "theorem-1"} <= broken
