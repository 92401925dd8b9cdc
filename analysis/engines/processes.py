"""The engine on this machine's processes.

Each worker is a process of its own with a pipe of its own, so that one that is killed takes
nothing with it but the cell it was at. (A pool or a shared queue is unusable once a worker dies
while holding its lock.)
"""

import signal
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from agents.config import TrainConfig
from agents.workers import obey_parent
from analysis.engines.ledger import Ledger, Throttle, describe, one_thread
from analysis.sweep import Cell
from analysis.training import train

_PATIENCE = 10.0
"""Seconds that a worker is given to end by itself."""


def run_on_processes(ledger: Ledger, out: Path, device: str, workers: int) -> None:
    """Train the waiting cells, ``workers`` at a time."""
    idle: list[_Worker] = []
    busy: dict[Any, tuple[_Worker, Cell]] = {}
    try:
        while ledger.waiting or busy:
            while ledger.waiting and len(busy) < workers:
                worker = idle.pop() if idle else _Worker(out, device)
                cell = ledger.waiting.popleft()
                busy[worker.connection] = worker, cell
                ledger.started(cell)
                worker.give(cell.config)
            for connection in wait(list(busy)):
                worker, cell = busy[connection]
                kind, value = worker.hear()
                if kind == "advanced":
                    ledger.advanced(cell, value)
                    continue
                del busy[connection]
                if kind == "done":
                    idle.append(worker)
                    ledger.done(cell)
                else:
                    # What failed may have left its process unfit (a CUDA error does).
                    worker.end()
                    ledger.failed(cell, value)
    finally:
        everyone = [*idle, *(worker for worker, _ in busy.values())]
        for worker in everyone:
            worker.process.terminate()
        for worker in everyone:
            worker.end()


class _Worker:
    """A process that trains one configuration after another."""

    def __init__(self, out: Path, device: str) -> None:
        # spawn: no inherited locks, threads or pipe ends, the same on every platform. Not a
        # daemon, because A3C's learner has processes of its own.
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, out, device))
        self.process.start()
        theirs.close()  # else its death would not end the pipe

    def give(self, config: TrainConfig) -> None:
        """Let it train; if it is dead, `hear` will say so."""
        try:
            self.connection.send(config)
        except OSError:
            return

    def hear(self) -> tuple[str, Any]:
        """Its next message."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(_PATIENCE)
            return "failed", (
                f"the worker process died (exit code {self.process.exitcode}; killed, or out of "
                "memory)"
            )
        return kind, value

    def end(self) -> None:
        """End it, by force if need be."""
        self.process.terminate()
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


# --- inside a worker ------------------------------------------------------------------------------


def _work(connection: Connection, out: Path, device: str) -> None:
    obey_parent()
    # An orderly end, so that A3C's learner ends its own processes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    with one_thread():
        while True:
            config = connection.recv()
            advance = Throttle(lambda steps: connection.send(("advanced", steps)))
            try:
                train(config, out, device=device, advance=advance)
            except Exception as error:  # whatever it is, the parent wants to know
                connection.send(("failed", describe(error)))
            else:
                advance.flush()
                connection.send(("done", None))
