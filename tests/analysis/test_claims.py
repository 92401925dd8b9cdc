"""The claims table: every claim computes, holds, and would notice a wrong formula."""

import dataclasses

import numpy as np
import pytest

import lpm
from analysis import claims
from analysis.claims import CLAIMS, Evidence, Result, verify

REQUIRED = (
    "lemma-1",
    "eq-3",
    "eq-4",
    "eq-10",
    "eq-11",
    "eq-21-22",
    "eq-27",
    "eq-32",
    "eq-8-multiplier",
    "theorem-1-kkt",
    "theorem-1-gap",
    "theorem-1-conic",
    "condition-1",
    "condition-2",
    "condition-3-sweep",
)


@pytest.mark.theory
@pytest.mark.parametrize("seed", [0, 1])
def test_every_claim_holds(seed) -> None:
    results = list(verify(seed, instances=12))
    assert [r.claim.id for r in results] == [c.id for c in CLAIMS]
    assert [r.claim.id for r in results if not r.holds] == []
    assert all(r.evidence.residual >= 0 for r in results)


def test_ids_are_unique_and_the_required_ones_are_there() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    assert set(REQUIRED) <= set(ids)


def test_a_claim_draws_from_its_own_generator() -> None:
    """The same seed gives the same residuals; another seed other instances."""
    by_seed = [
        [r.evidence for r in verify(seed, 3) if r.claim.id == "lemma-1"] for seed in (0, 0, 1)
    ]
    assert by_seed[0] == by_seed[1]
    assert by_seed[0] != by_seed[2]


def claim(name: str) -> claims.Claim:
    return next(c for c in CLAIMS if c.id == name)


def test_a_nan_residual_does_not_hold() -> None:
    assert not Result(CLAIMS[0], Evidence(float("nan"), "")).holds


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        # Eq. (32) without its factor ½, with E_W and E_H exchanged, or for objective (8).
        ("eq-32", lambda k, e_h, e_w: lpm.log_multiplier_exponential(k, e_h, e_w) + np.log(2)),
        ("eq-32", lambda k, e_h, e_w: lpm.log_multiplier_cross_entropy(k, e_h, e_w)),
        ("eq-8-multiplier", lambda k, e_h, e_w: lpm.log_multiplier_exponential(k, e_h, e_w)),
    ],
)
def test_a_wrong_multiplier_is_noticed(name, broken) -> None:
    kind = "exponential" if name == "eq-32" else "cross_entropy"
    check = claims._multiplier(broken, kind)
    evidence = check(np.random.default_rng(0), 20)
    assert not Result(dataclasses.replace(claim(name), check=check), evidence).holds


def test_a_wrong_frame_is_noticed(monkeypatch) -> None:
    def skewed(*arguments, **keywords):
        frame = true_etf(*arguments, **keywords)
        frame[0] *= 1 + 1e-10
        return frame

    true_etf = lpm.simplex_etf
    monkeypatch.setattr(claims.lpm, "simplex_etf", skewed)
    broken = {r.claim.id for r in verify(0, 5) if not r.holds}
    assert {"eq-4", "eq-10", "lemma-1", "eq-3-smallest"} <= broken


def test_a_wrong_theorem_is_noticed(monkeypatch) -> None:
    """Features of length √E_H·(1 − 1e-6): outside every tolerance of Theorem 1's checks."""
    solve = lpm.solve

    def short(problem, solver="ball", **options):
        solution = solve(problem, solver, **options)
        return dataclasses.replace(solution, features=solution.features * (1 - 1e-6))

    monkeypatch.setattr(claims.lpm, "solve", short)
    broken = {r.claim.id for r in verify(0, 5) if not r.holds}
    assert {"eq-27", "eq-11", "theorem-1-kkt", "theorem-1-gap"} <= broken
