"""`verify` and `figure-lpm`: the paper's statements and the peeled model."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from analysis import figures, peeled
from analysis.claims import CLAIMS, RIGOROUS, Result, Verdict, verify
from analysis.commands.console import (
    BEGINS_ANEW,
    FAILED,
    KEEPS_PARTS,
    UsageError,
    at_least_one,
    console,
    progress_bars,
    say,
    stdout,
)
from analysis.exhibits import FigureWords, store_figure
from analysis.storage import RunFolder, as_json, source_digest


@dataclass(frozen=True)
class Verify:
    """Check the paper's statements; exit code 1 when a verdict is not the committed one."""

    seed: int = 0
    """Seeds the random instances."""
    instances: int = 50
    """Random instances a check (the conic references use a tenth)."""
    claim: str | None = None
    """Check only this claim (an id such as eq-33) and show its evidence."""
    rigorous: bool = False
    """Also enclose optima in outward-rounded ball arithmetic (needs the extra 'rigorous')."""
    json: bool = False
    """Print JSON to standard output instead of a table."""
    out: Path | None = None
    """Store the rows in a run folder under this directory."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        at_least_one("instances", self.instances)
        catalogue = (*CLAIMS, *(RIGOROUS if self.rigorous else ()))
        if self.claim is not None and self.claim not in {claim.id for claim in catalogue}:
            if self.claim in {claim.id for claim in RIGOROUS}:
                raise UsageError(f"claim {self.claim!r} needs --rigorous")
            known = ", ".join(claim.id for claim in catalogue)
            raise UsageError(f"unknown claim {self.claim!r}: choose from {known}")
        if self.claim is not None and self.out is not None:
            raise UsageError("--out stores the whole table: leave out --claim")
        results = run_verify(self.seed, self.instances, self.claim, self.rigorous)
        if self.json:
            print(claims_json(results))
        elif self.claim is not None:
            stdout.print(evidence_table(results[0]))
        else:
            stdout.print(verdict_table(results))
        if self.out is not None:
            config = {
                "experiment": "verify",
                "seed": self.seed,
                "instances": self.instances,
                "rigorous": self.rigorous,
                "code": source_digest(),
            }
            folder = RunFolder(self.out, "verify", config)
            with folder.session():
                store_claims(folder, results)
            say(console, f"rows: {folder.path}")
        return 0 if all(result.as_expected for result in results) else FAILED


def run_verify(
    seed: int, instances: int, only: str | None = None, rigorous: bool = False
) -> list[Result]:
    """Check every claim, or the one of that id, showing progress."""
    results = []
    count = len(CLAIMS) + (len(RIGOROUS) if rigorous else 0)
    with progress_bars() as progress:
        task = progress.add_task("verify", total=1 if only else count)
        for result in verify(seed, instances, only, rigorous):
            results.append(result)
            progress.advance(task)
    return results


_COLOURS = {
    Verdict.HOLDS: "green",
    Verdict.UNDER: "cyan",
    Verdict.TYPO: "yellow",
    Verdict.FAILS: "red",
}


def _number(residual: float | None) -> str:
    return "" if residual is None else f"{residual:.1e}"


def verdict_table(results: Sequence[Result]) -> Table:
    """Claims as a table for the terminal."""
    unexpected = sum(not result.as_expected for result in results)
    table = Table(
        title=f"{len(results)} claims checked, {unexpected} verdicts not as committed",
        show_lines=True,
    )
    table.add_column("claim", overflow="fold", max_width=24)
    for column in ("statement [hypotheses]", "verdict", "computed; counterexample"):
        table.add_column(column, overflow="fold")
    for column in ("residual", "corrected", "tolerance"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        claim, evidence = result.claim, result.evidence
        verdict = f"[{_COLOURS[result.verdict]}]{result.verdict}[/]"
        if claim.correction:
            verdict += f": {escape(claim.correction)}"
        if not result.as_expected:
            verdict += f" [bold red](committed: {claim.expected})[/]"
        found = evidence.detail
        if evidence.counterexample:
            found += f"\n{evidence.counterexample}"
        table.add_row(
            Text(f"{claim.id}\n{claim.reference}"),
            Text(f"{claim.statement} [{claim.hypotheses}]"),
            verdict,
            Text(found),
            _number(evidence.residual),
            _number(evidence.corrected),
            f"{claim.tolerance:.0e}",
        )
    return table


def evidence_table(result: Result) -> Table:
    """Show everything about one claim, a line each."""
    table = Table(title=result.claim.reference, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in result.as_row().items():
        table.add_row(name.replace("_", " "), Text("" if value is None else str(value)))
    code = inspect.unwrap(result.claim.check).__code__
    table.add_row(
        "computed by", Text(f"{result.claim.check.__module__}, line {code.co_firstlineno}")
    )
    return table


def store_claims(folder: RunFolder, results: Sequence[Result]) -> None:
    """Keep the claims' rows, unless an earlier session of the same configuration did."""
    if not folder.has_rows("claims"):
        folder.write_rows("claims", pd.DataFrame([result.as_row() for result in results]))


def claims_json(results: Sequence[Result]) -> str:
    """The claims as JSON, one object a claim."""
    return as_json([result.as_row() for result in results])


@dataclass(frozen=True)
class FigureLpm:
    """Draw the peeled model: minority collapse, its transitions, the edges of Theorem 1."""

    seed: int = 0
    """Seeds starts and orientations."""
    results: Path = Path("results")
    """Rows of the same code and seed that are found here are not computed again."""
    out: Path = Path("runs")
    """Directory of run folders; the same command continues or reuses what is there."""

    when_stopped: ClassVar[str] = KEEPS_PARTS

    def run(self) -> int:
        """Run the command and return its exit code."""
        paths = run_lpm_figure(self.out, self.seed, self.results)
        for path in paths:
            say(stdout, f"figure: {path}")
        return 0


_LPM_CAPTION = (
    "Layer-peeled model. (a)-(d) Learned head, K_A = K_B = 5, E_W = 1, average norm bounds, "
    "121 ratios R from 1 to 1000 for each E_H, each solved with a certified gap; circles: cvxpy's "
    "semidefinite program (Clarabel). R1: minority head rows coincide; R2: they vanish, their "
    "cosine is undefined then and not drawn. (e) Fixed simplex ETF, d = K−1: best feature found "
    "for Σ_a π(a|h)Q_a on the ball, 16 random starts and structured ones a point. (f) Features "
    "h ≥ 0 on the ball, 20 random orientations a d: median of the mean over k, band: central "
    "95 % of the orientations."
)


def run_lpm_figure(out: Path, seed: int, results: Path | None = None) -> tuple[Path, ...]:
    """Compute what is missing of the peeled model's studies, draw them, store PNG and PDF.

    Parameters
    ----------
    results
        Where rows of the same configuration, that is of the same code, are taken from.
    """
    studies: dict[str, tuple[int, Callable[[peeled.Advance], pd.DataFrame]]] = {
        "minority": (121 * len(peeled.FEATURE_ENERGIES), peeled.minority_study),
        "reference": (6, peeled.reference_study),
        "transitions": (1, peeled.transition_study),
        "true_objective": (
            49 * len(peeled.TRUE_OBJECTIVE),
            partial(peeled.true_objective_study, rng=np.random.default_rng([seed, 1])),
        ),
        "rectified": (
            len(peeled.RECTIFIED_DIMS),
            partial(peeled.rectified_study, rng=np.random.default_rng([seed, 2])),
        ),
    }
    config = {
        "experiment": "figure-lpm",
        "code": source_digest("lpm", "analysis/peeled.py"),
        "seed": seed,
        "feature_energies": list(peeled.FEATURE_ENERGIES),
        "true_objective": {name: list(q) for name, q in peeled.TRUE_OBJECTIVE.items()},
        "rectified_dims": list(peeled.RECTIFIED_DIMS),
    }
    folder = RunFolder(out, "figure-lpm", config)
    with folder.session():
        if results is not None:
            folder.take_over(results)
        with progress_bars() as progress:
            for name, (total, study) in studies.items():
                task = progress.add_task(name, total=total)
                if not folder.has_rows(name):
                    folder.write_rows(name, study(partial(progress.advance, task)))
                progress.update(task, completed=total)
        tables = {name: folder.read_rows(name) for name in studies}
        figure = figures.figure_lpm(tables, _LPM_CAPTION)
        pictures = {kind: figures.encode(figure, kind) for kind in ("png", "pdf")}
        words = FigureWords("Layer-peeled model", _LPM_CAPTION, _lpm_alternative(tables))
        return store_figure(folder, "figure-lpm", pictures, words)


def _lpm_alternative(tables: Mapping[str, pd.DataFrame]) -> str:
    """The figure in words: what the rows say at the ends of the axes."""
    ends = "; ".join(
        f"E_H = {energy:g}: minority cosine {own['minority_cosine'].iloc[0]:.3f} at R = 1, "
        f"minority norm {own['minority_norm'].iloc[-1]:.2g} at R = {own['ratio'].iloc[-1]:g}"
        for energy, own in tables["minority"].groupby("feature_energy")
    )
    gap = tables["minority"]["gap"].max()
    cosine = tables["rectified"].groupby("dim")["cosine"].median()
    return (
        f"Six panels. Learned head: {ends}; largest certified gap {gap:.0e} nats; heads vanish "
        f"only below E_H = {tables['transitions']['vanishing_energy'].iloc[0]:.3f}. Rectified "
        f"features: median cosine {cosine.iloc[0]:.2f} for d = {cosine.index[0]}, "
        f"{cosine.iloc[-1]:.2f} for d = {cosine.index[-1]}."
    )
