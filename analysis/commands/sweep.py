"""`sweep`: every cell of a grid file, on the engine of one's choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis.commands.console import (
    CONTINUES,
    FAILED,
    UsageError,
    console,
    progress_bars,
    say,
    stdout,
)
from analysis.engines import Engine, Event, run_cells
from analysis.sweep import Cell, read_grid, write_index

_SHOWN = 20
"""Running cells that the live table has room for."""


@dataclass(frozen=True)
class Sweep:
    """Train every cell of a grid file; the same command continues after any interruption."""

    grid: tyro.conf.Positional[Path]
    """TOML file of [[grid]] tables; see the folder sweeps/ for examples."""
    engine: Engine = "local"
    """local: one cell after another; processes: of this machine; ray: on a Ray cluster."""
    workers: int | None = None
    """Cells at a time; by default as many as there are processors."""
    address: str | None = None
    """Of an existing Ray cluster, whose nodes share the file system of --out; by default one is
    started on this machine."""
    retries: int = 1
    """How often a failed cell is tried again."""
    device: str = "auto"
    """auto, cpu or cuda."""
    out: Path = Path("runs")
    """Directory of run folders."""

    when_stopped: ClassVar[str] = CONTINUES

    def run(self) -> int:
        """Run the command and return its exit code."""
        try:
            grid = read_grid(self.grid)
        except ValueError as error:
            raise UsageError(str(error)) from error
        cells = grid.cells()
        view = SweepView(cells)
        try:
            with Live(get_renderable=view.render, console=console, refresh_per_second=2):
                failures = run_cells(
                    cells,
                    self.out,
                    engine=self.engine,
                    workers=self.workers,
                    address=self.address,
                    retries=self.retries,
                    device=self.device,
                    on_event=view,
                )
        except (ValueError, ConnectionError) as error:
            raise UsageError(str(error)) from error
        except KeyboardInterrupt:
            write_index(grid, self.out, view.failures)
            raise
        index = write_index(grid, self.out, failures)
        for name, trace in failures.items():
            say(stdout, f"failed: {name}: {last_line(trace)}", style="red")
        say(stdout, f"{len(cells) - len(failures)} of {len(cells)} cells are done; index: {index}")
        return FAILED if failures else 0


class SweepView:
    """What is known of a sweep in progress, and how it looks."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = {cell.name: cell for cell in cells}
        self._steps = dict.fromkeys(self._cells, 0)
        """Of each member."""
        self._states = dict.fromkeys(self._cells, "waiting")
        self.failures = dict[str, str]()
        """Error of every cell that was given up, by its name."""
        self._bar = progress_bars()
        self._task = self._bar.add_task(
            "steps of all members", total=sum(cell.steps for cell in cells)
        )

    def __call__(self, event: Event) -> None:
        """Take a change in."""
        name, config = event.cell, self._cells[event.cell].config
        if event.kind == "advanced":
            # An overshoot of the last iteration is not more than the cell.
            self._steps[name] = min(self._steps[name] + event.steps, config.steps)
        elif event.kind == "started":
            self._states[name], self._steps[name] = "running", 0
        elif event.kind == "failed":
            self._states[name], self._steps[name] = "waiting" if event.again else "failed", 0
            fate = "will be tried again" if event.again else "given up"
            say(console, f"{name} failed, {fate}: {last_line(event.error)}")
            if not event.again:
                self.failures[name] = event.error
        else:
            self._states[name], self._steps[name] = "done", config.steps
            if event.kind == "done" and not console.is_terminal:
                say(console, f"{name} done")
        self._bar.update(self._task, completed=self.steps)

    @property
    def steps(self) -> int:
        """Agent steps of all members of all cells so far."""
        return sum(self._steps[name] * cell.config.population for name, cell in self._cells.items())

    def counts(self) -> dict[str, int]:
        """How many cells are in each state."""
        states = list(self._states.values())
        return {state: states.count(state) for state in ("done", "running", "failed", "waiting")}

    def render(self) -> Group:
        """Table of the running cells below the counts, and the bar with rate and time left."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts().items())
        table = Table(
            "running", "steps of each member", title=f"{len(self._cells)} cells: {counts}"
        )
        running = [name for name, state in self._states.items() if state == "running"]
        for name in running[:_SHOWN]:
            table.add_row(
                Text(name), f"{self._steps[name]:,} of {self._cells[name].config.steps:,}"
            )
        if len(running) > _SHOWN:
            table.add_row(f"and {len(running) - _SHOWN} more", "")
        return Group(table, self._bar.get_renderable())


def last_line(error: str) -> str:
    """The message of a traceback."""
    return error.strip().splitlines()[-1]
