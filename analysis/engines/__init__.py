"""Engines: where the cells of a sweep are trained. What they leave is the same.

* ``local``: this process, one cell after another.
* ``processes``: processes of this machine, ``workers`` at a time.
* ``ray``: a Ray cluster (an existing one by its address, else one started here). Every node needs
  this package and the file system that ``out`` is on.

Cells that are done are skipped; a cell that fails, or whose process or node dies, is tried again
and continues from its last checkpoint. Rows do not depend on the engine or on interruptions, with
two exceptions that are none of the engines': A3C with several workers is asynchronous by design,
and ``device="auto"`` is a GPU where a worker sees one.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from agents.training import resolve_device
from analysis.engines.ledger import Event as Event
from analysis.engines.ledger import Ledger
from analysis.engines.local import run_locally
from analysis.engines.processes import run_on_processes
from analysis.engines.ray_cluster import run_on_ray
from analysis.storage import require_writable
from analysis.sweep import Cell

Engine = Literal["local", "processes", "ray"]


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    address: str | None = None,
    retries: int = 1,
    device: str = "auto",
    on_event: Callable[[Event], None] = lambda event: None,
) -> dict[str, str]:
    """Train every cell that is not done.

    Parameters
    ----------
    cells
        Of different names and configurations.
    out
        Folder of run folders; for ``ray`` on a file system that all nodes share.
    engine
        Where to train.
    workers
        Cells at a time; by default as many as there are processors, and on an existing Ray
        cluster as many as it takes.
    address
        Of a Ray cluster (``"auto"`` for the one of this machine); None starts one here.
    retries
        How often a cell is tried again.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``; under Ray a cell on ``"cuda"`` asks for one GPU.
    on_event
        Told about every change, in this process and thread.

    Returns
    -------
    Traceback of the last attempt of every cell that failed for good, by the cell's name.

    Raises
    ------
    ValueError
        An option makes no sense for the engine, or nothing here or in the cluster has the device.
    ImportError
        Ray is not installed; the message names the extra.
    ConnectionError
        There is no Ray cluster at the address.
    RunFolderError
        ``out`` cannot be written.
    KeyboardInterrupt
        Passed on after all workers have ended.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"unknown engine {engine!r}: choose from {', '.join(get_args(Engine))}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}")
    if retries < 0:
        raise ValueError(f"retries must be >= 0, got {retries}")
    if engine == "local" and workers not in (None, 1):
        raise ValueError(
            f"the local engine trains one cell at a time, got workers={workers}: use processes"
        )
    if engine != "ray" and address is not None:
        raise ValueError(f"only the ray engine has an address, got {address!r} for {engine}")
    if engine != "ray":  # whose nodes have devices of their own
        resolve_device(device)
    out = out.resolve()
    require_writable(out)
    ledger = Ledger(cells, out, retries, on_event)
    if not ledger.waiting:
        return {}
    if engine == "local":
        run_locally(ledger, out, device)
    elif engine == "processes":
        run_on_processes(ledger, out, device, workers or os.cpu_count() or 1)
    else:
        run_on_ray(ledger, out, device, workers, address)
    return ledger.failures
