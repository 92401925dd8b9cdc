"""The local engine: one cell after another in this process."""

from functools import partial
from pathlib import Path

from analysis.engines.ledger import Ledger, Throttle, describe, one_thread
from analysis.training import train


def run_locally(ledger: Ledger, out: Path, device: str) -> None:
    """Train the waiting cells here."""
    with one_thread():
        while ledger.waiting:
            cell = ledger.waiting.popleft()
            ledger.started(cell)
            advance = Throttle(partial(ledger.advanced, cell))
            try:
                train(cell.config, out, device=device, advance=advance)
            except Exception as error:  # whatever it is, the other cells go on
                ledger.failed(cell, describe(error))
            else:
                advance.flush()
                ledger.done(cell)
