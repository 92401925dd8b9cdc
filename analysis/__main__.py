"""The command line: ``action-collapse COMMAND`` or ``python -m analysis COMMAND``."""

import sys
from collections.abc import Sequence
from typing import Annotated

import threadpoolctl
import torch
import tyro
from rich.text import Text

from agents.errors import ConfigurationError, WorkerError
from analysis.commands.ablations import Ablations
from analysis.commands.agents import Figure3, Figure4, Table1, Table2
from analysis.commands.cliff import Figure1
from analysis.commands.console import INTERRUPTED, REFUSED, UsageError, console, say
from analysis.commands.overlay import Overlay
from analysis.commands.overlay_cliff import OverlayCliff
from analysis.commands.probe import Probe
from analysis.commands.report import CollapseView, Report
from analysis.commands.reproduce import Reproduce
from analysis.commands.sweep import Sweep
from analysis.commands.theory import FigureLpm, Verify
from analysis.commands.training import Train
from analysis.storage import RunFolderError

Command = (
    Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Figure1, tyro.conf.subcommand("figure1")]
    | Annotated[Figure3, tyro.conf.subcommand("figure3")]
    | Annotated[Figure4, tyro.conf.subcommand("figure4")]
    | Annotated[FigureLpm, tyro.conf.subcommand("figure-lpm")]
    | Annotated[Table1, tyro.conf.subcommand("table1")]
    | Annotated[Table2, tyro.conf.subcommand("table2")]
    | Annotated[Ablations, tyro.conf.subcommand("ablations")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Overlay, tyro.conf.subcommand("overlay")]
    | Annotated[OverlayCliff, tyro.conf.subcommand("overlay-cliff")]
    | Annotated[CollapseView, tyro.conf.subcommand("collapse-view")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run the command and exit with its code."""
    command: Command = tyro.cli(
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
        except (UsageError, ConfigurationError, ImportError, RunFolderError, WorkerError) as error:
            _complain(error)
            code = REFUSED
        except KeyboardInterrupt:
            say(console, f"stopped; {command.when_stopped}")
            code = INTERRUPTED
    sys.exit(code)


def _complain(error: Exception) -> None:
    # Not as markup, to which the extra in 'action-collapse[atari]' would be a style.
    console.print(Text.assemble(("error:", "bold red"), f" {error}"), soft_wrap=True)


if __name__ == "__main__":
    main()
