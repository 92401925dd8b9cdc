"""The command line: ``action-collapse COMMAND`` or ``python -m analysis COMMAND``."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import threadpoolctl
import torch
import tyro
from rich.console import Console

from analysis import commands
from analysis.claims import CLAIMS, RIGOROUS
from analysis.storage import RunFolder, RunFolderError, source_digest

# Wide when piped, so that tables stay readable in a log.
stdout = Console(width=None if sys.stdout.isatty() else 160)

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


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

    def run(self) -> int:
        """Run the command and return its exit code."""
        _at_least_one("instances", self.instances)
        catalogue = (*CLAIMS, *(RIGOROUS if self.rigorous else ()))
        if self.claim is not None and self.claim not in {claim.id for claim in catalogue}:
            if self.claim in {claim.id for claim in RIGOROUS}:
                raise UsageError(f"claim {self.claim!r} needs --rigorous")
            known = ", ".join(claim.id for claim in catalogue)
            raise UsageError(f"unknown claim {self.claim!r}: choose from {known}")
        if self.claim is not None and self.out is not None:
            raise UsageError("--out stores the whole table: leave out --claim")
        results = commands.run_verify(self.seed, self.instances, self.claim, self.rigorous)
        if self.json:
            print(commands.claims_json(results))
        elif self.claim is not None:
            stdout.print(commands.evidence_table(results[0]))
        else:
            stdout.print(commands.verdict_table(results))
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
                commands.store_claims(folder, results)
            commands.console.print(f"rows: {folder.path}")
        return 0 if all(result.as_expected for result in results) else FAILED


@dataclass(frozen=True)
class Figure1:
    """Regenerate Figure 1 (a)-(f); exit code 1 when a median misses its expectation."""

    env: Literal["cliff"] = "cliff"
    """Which environment's column of the figure."""
    epochs: tuple[int, ...] = (500,)
    """Training lengths, a figure each (the paper has 100 and 500)."""
    seeds: int = 20
    """Number of seeds, 0, 1, …"""
    workers: int = os.cpu_count() or 1
    """Processes that train side by side; the rows do not depend on it."""
    out: Path = Path("runs")
    """Directory of run folders; the same command continues or reuses what is there."""

    def run(self) -> int:
        """Run the command and return its exit code."""
        _at_least_one("epochs", min(self.epochs, default=0))
        _enough_seeds(self.seeds)
        _at_least_one("workers", self.workers)
        met = True
        for epochs in self.epochs:
            figure = commands.run_cliff_figure(self.out, epochs, self.seeds, self.workers)
            if len(figure.bars):
                stdout.print(commands.bars_table(figure))
            met &= figure.expectations_met
            stdout.print(*(f"figure: {path}" for path in figure.paths), sep="\n")
        return 0 if met else FAILED


@dataclass(frozen=True)
class FigureLpm:
    """Draw the peeled model: minority collapse, its transitions, the edges of Theorem 1."""

    seed: int = 0
    """Seeds starts and orientations."""
    out: Path = Path("runs")
    """Directory of run folders; the same command continues or reuses what is there."""

    def run(self) -> int:
        """Run the command and return its exit code."""
        paths = commands.run_lpm_figure(self.out, self.seed)
        stdout.print(*(f"figure: {path}" for path in paths), sep="\n")
        return 0


@dataclass(frozen=True)
class Reproduce:
    """Verify the theory, regenerate Figure 1, show both on one page; 1 if either surprises."""

    seed: int = 0
    """Seeds the random instances of the checks."""
    instances: int = 50
    """Random instances a check."""
    seeds: int = 20
    """Number of training seeds."""
    epochs: tuple[int, ...] = (100, 500)
    """Training lengths, a figure each."""
    workers: int = os.cpu_count() or 1
    """Processes that train side by side; the rows do not depend on it."""
    out: Path = Path("runs")
    """Directory of run folders; the same command continues or reuses what is there."""

    def run(self) -> int:
        """Run the command and return its exit code."""
        _at_least_one("instances", self.instances)
        _at_least_one("epochs", min(self.epochs, default=0))
        _enough_seeds(self.seeds)
        _at_least_one("workers", self.workers)
        results, drawn, page = commands.run_reproduce(
            self.out, self.seed, self.instances, self.seeds, self.epochs, self.workers
        )
        stdout.print(commands.verdict_table(results))
        for figure in drawn:
            if len(figure.bars):
                stdout.print(commands.bars_table(figure))
        stdout.print(f"page: {page}")
        verified = all(result.as_expected for result in results)
        return 0 if verified and all(figure.expectations_met for figure in drawn) else FAILED


Command = (
    Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Figure1, tyro.conf.subcommand("figure1")]
    | Annotated[FigureLpm, tyro.conf.subcommand("figure-lpm")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
)


class UsageError(ValueError):
    """An option's value makes no sense; the message says what would."""


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"--{name} must be >= 1, got {value}")


def _enough_seeds(seeds: int) -> None:
    if seeds < 2:
        raise UsageError(f"--seeds must be >= 2 for a confidence band, got {seeds}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run the command and exit with its code."""
    command: Verify | Figure1 | FigureLpm | Reproduce = tyro.cli(
        Command,
        prog="action-collapse",
        description="Check the theory of action collapse against numbers.",
        args=arguments,
    )
    # All linear algebra here is small and dense: one thread is far faster than several.
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        try:
            code = command.run()
        except (UsageError, RunFolderError, ImportError) as error:
            commands.console.print(f"[bold red]error:[/] {error}", highlight=False)
            code = MISUSED
        except KeyboardInterrupt:
            commands.console.print("stopped; the same command continues from the last checkpoint")
            code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
