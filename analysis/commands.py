"""What each command does: run, store rows in a run folder, draw from the rows, say where."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from analysis import figures, peeled
from analysis.claims import CLAIMS, RIGOROUS, Result, Verdict, verify
from analysis.cliff import Arm, arms, evaluate_bars, run_arm
from analysis.parallel import run_parts
from analysis.report import ReportFigure, render, summary
from analysis.storage import RunFolder, as_json, environment, source_digest

# Progress and tables for people go to stderr, so that stdout can be piped (`verify --json`).
console = Console(stderr=True)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g}/s", style="progress.data.speed")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


# --- verify --------------------------------------------------------------------------------------


def run_verify(
    seed: int, instances: int, only: str | None = None, rigorous: bool = False
) -> list[Result]:
    """Check every claim, or the one of that id, showing progress."""
    results = []
    count = len(CLAIMS) + (len(RIGOROUS) if rigorous else 0)
    with _progress() as progress:
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


# --- figure1 -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CliffFigure:
    """Figure 1 of the Ideal Cliff Walking for one training length, with what it is drawn from."""

    epochs: int
    arms: tuple[Arm, ...]
    rows: pd.DataFrame
    bars: pd.DataFrame
    caption: str
    png: bytes
    paths: tuple[Path, ...]

    @property
    def expectations_met(self) -> bool:
        """Whether every bar of this training length is met (true where there is none)."""
        return bool(self.bars["met"].all())


def run_cliff_figure(out: Path, epochs: int, seeds: int, workers: int) -> CliffFigure:
    """Train what is missing, draw Figure 1 from the rows, and store it as PNG and PDF."""
    chosen = arms(epochs)
    members = tuple(range(seeds))
    config = {
        "experiment": "figure1-cliff",
        "seeds": list(members),
        "arms": {arm.name: asdict(arm.config) for arm in chosen},
    }
    folder = RunFolder(out, f"figure1-cliff-{epochs}", config)
    with folder.session():
        with _progress() as progress:
            tasks = {
                arm.name: progress.add_task(f"{arm.name}, {epochs} epochs", total=epochs)
                for arm in chosen
            }
            run_parts(
                {arm.name: partial(run_arm, arm, members, folder) for arm in chosen},
                workers,
                lambda name, gained: progress.advance(tasks[name], gained),
            )
        rows = pd.concat([folder.read_rows(arm.name) for arm in chosen], ignore_index=True)
        caption = _cliff_caption(epochs, seeds)
        figure = figures.figure1(
            rows,
            learned=[figures.Curve(arm.name, arm.label) for arm in chosen if _learned(arm)],
            etf=[figures.Curve(arm.name, arm.label) for arm in chosen if not _learned(arm)],
            caption=caption,
            optimal_return=_optimal_return(chosen[0]),
        )
        png = figures.encode(figure, "png")
        paths = (
            folder.write(f"figures/figure1-cliff-{epochs}.png", png),
            folder.write(f"figures/figure1-cliff-{epochs}.pdf", figures.encode(figure, "pdf")),
        )
    bars = evaluate_bars(rows, epochs)
    return CliffFigure(epochs, chosen, rows, bars, caption, png, paths)


def _learned(arm: Arm) -> bool:
    return arm.config.head == "linear"


def _optimal_return(arm: Arm) -> float:
    mdp = arm.config.mdp()
    return float(mdp.optimal_value()[mdp.decision_states].mean())


def _cliff_caption(epochs: int, seeds: int) -> str:
    return (
        f"Ideal Cliff Walking (2×4 cells, 4 exits, reward −1 a step, γ = 0.95), {epochs} epochs, "
        f"{seeds} seeds, float64. MLP [64, 64] on one-hot states, Adam 1e-3. REINFORCE: sweep of 8 "
        "Monte-Carlo returns from each of the 8 cells (64 samples a collect, two passes), 32 "
        "updates an epoch. Paper's settings: running normalisation of the returns, rectified "
        "feature, no norm control, ETF with E_W = 1. Norm control: leave-one-out baseline, cosine "
        "learning rate, and either coupled L2 5e-4 (learned head, rectified feature) or linear "
        "features on the ball ‖h‖² ≤ 25 (ETF head). Eq. (2): exact objective, Ψ = 1, 125 updates "
        "an epoch, same norm control. Class-mean centre; population std; epoch 0 is the "
        "initialisation. Bands: 95 % bootstrap of the median. Both rows share their axes; (f) is "
        "cut off at 1e-8."
    )


def bars_table(figure: CliffFigure) -> Table:
    """The expectations of one training length for the terminal."""
    table = Table(title=f"Expectations, {figure.epochs} epochs (medians over seeds)")
    for column in ("arm", "quantity", "found", "expected", "met"):
        table.add_column(column)
    for bar in figure.bars.itertuples():
        met = "[green]yes[/]" if bar.met else "[bold red]no[/]"
        table.add_row(bar.arm, bar.column, f"{bar.value:.3g}", f"{bar.sense} {bar.limit:g}", met)
    return table


# --- figure-lpm ----------------------------------------------------------------------------------

_LPM_CAPTION = (
    "Layer-peeled model. (a)-(d) Learned head, K_A = K_B = 5, E_W = 1, average norm bounds, "
    "121 ratios R from 1 to 1000 for each E_H, each solved with a certified gap; circles: cvxpy's "
    "semidefinite program (Clarabel). R1: minority head rows coincide; R2: they vanish, their "
    "cosine is undefined then and not drawn. (e) Fixed simplex ETF, d = K−1: best feature found "
    "for Σ_a π(a|h)Q_a on the ball, 16 random starts and structured ones a point. (f) Features "
    "h ≥ 0 on the ball, 20 random orientations a d: median of the mean over k, band: central "
    "95 % of the orientations."
)


def run_lpm_figure(out: Path, seed: int) -> tuple[Path, ...]:
    """Compute what is missing of the peeled model's studies, draw them, store PNG and PDF."""
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
        "code": source_digest(),
        "seed": seed,
        "feature_energies": list(peeled.FEATURE_ENERGIES),
        "true_objective": {name: list(q) for name, q in peeled.TRUE_OBJECTIVE.items()},
        "rectified_dims": list(peeled.RECTIFIED_DIMS),
    }
    folder = RunFolder(out, "figure-lpm", config)
    with folder.session():
        with _progress() as progress:
            for name, (total, study) in studies.items():
                task = progress.add_task(name, total=total)
                if not folder.has_rows(name):
                    folder.write_rows(name, study(partial(progress.advance, task)))
                progress.update(task, completed=total)
        tables = {name: folder.read_rows(name) for name in studies}
        figure = figures.figure_lpm(tables, _LPM_CAPTION)
        return tuple(
            folder.write(f"figures/figure-lpm.{kind}", figures.encode(figure, kind))
            for kind in ("png", "pdf")
        )


# --- reproduce -----------------------------------------------------------------------------------


def run_reproduce(
    out: Path, seed: int, instances: int, seeds: int, lengths: Sequence[int], workers: int
) -> tuple[list[Result], list[CliffFigure], Path]:
    """Run `verify` and Figure 1 for every training length, and write one page that shows both."""
    config = {
        "experiment": "reproduce",
        "seed": seed,
        "instances": instances,
        "seeds": seeds,
        "lengths": list(lengths),
        "code": source_digest(),
    }
    folder = RunFolder(out, "reproduce", config)
    with folder.session():
        results = run_verify(seed, instances)
        store_claims(folder, results)
        drawn = [run_cliff_figure(out, epochs, seeds, workers) for epochs in lengths]
        page = folder.write("index.html", _page(results, drawn))
    return results, drawn, page


def _page(results: Sequence[Result], drawn: Sequence[CliffFigure]) -> str:
    medians = pd.concat(
        [summary(figure.rows, _labels(figure)) for figure in drawn], ignore_index=True
    )
    bars = [
        {"epochs": figure.epochs, **row}
        for figure in drawn
        for row in figure.bars.to_dict(orient="records")
    ]
    return render(
        title="Action collapse: theory verified, Figure 1 regenerated",
        claims=[result.as_row() for result in results],
        figures=[
            ReportFigure(
                title=f"Figure 1, Ideal Cliff Walking, {figure.epochs} epochs",
                png=figure.png,
                caption=figure.caption,
                alternative=_alternative(figure),
            )
            for figure in drawn
        ],
        medians=medians,
        bars=bars,
        environment=environment(),
    )


def _labels(figure: CliffFigure) -> dict[str, str]:
    heads = {"linear": "learned", "etf": "ETF"}
    return {arm.name: f"{heads[arm.config.head]}: {arm.label}" for arm in figure.arms}


def _alternative(figure: CliffFigure) -> str:
    """The figure in words: medians at the last epoch."""
    last = summary(figure.rows, _labels(figure))
    last = last[last["epoch"] == figure.epochs]
    arms_in_words = "; ".join(
        f"{row['arm']}: equinorm W {row['equinorm W']:.2g}, angle W {row['angle W']:.2g}, "
        f"angle H {row['angle H']:.2g}, NC1 {row['NC1']:.2g}"
        for _, row in last.iterrows()
    )
    return f"Grid diagram and five panels of curves over epochs. Final medians: {arms_in_words}."


def claims_json(results: Sequence[Result]) -> str:
    """The claims as JSON, one object a claim."""
    return as_json([result.as_row() for result in results])
