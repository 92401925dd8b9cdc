"""The engine on a Ray cluster: one task a cell.

Ray itself runs a task again when its node or process dies (`_NODE_DEATHS` times); it then goes on
from the cell's checkpoint, which is why ``out`` has to be on a file system that all nodes share.
"""

import logging
import socket
from pathlib import Path
from typing import Any

import filelock

from agents.config import TrainConfig
from analysis.engines.ledger import Ledger, Throttle, describe, one_thread
from analysis.sweep import Cell
from analysis.training import run_folder, train

_NODE_DEATHS = 3
"""How often Ray runs a task again, without it counting as one of our attempts."""
_POLL = 0.5
"""Seconds between two looks at the progress of cells."""
_PATIENCE = 120.0
"""Seconds to wait for a run folder whose last process is dying with its node."""


def run_on_ray(
    ledger: Ledger, out: Path, device: str, workers: int | None, address: str | None
) -> None:
    """Train the waiting cells on a cluster; a session that exists already is used as it is.

    Raises
    ------
    ImportError
        Ray is missing.
    ConnectionError
        There is no cluster at ``address``.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "the ray engine needs Ray: pip install 'action-collapse[ray]', or use "
            "--engine processes"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        place: dict[str, Any] = (
            {"address": "local", "num_cpus": workers, "include_dashboard": False}
            if address is None
            else {"address": address}
        )
        try:
            _knock(address)
            ray.init(**place, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            if address is None:
                raise
            raise ConnectionError(
                f"no Ray cluster answers at {address!r} ({error}): start one with `ray start "
                "--head`, or leave out --address to start one here"
            ) from error
    try:
        _run(ray, ledger, out, device, workers or len(ledger.waiting))
    finally:
        if ours:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Fail at once where nobody listens: Ray itself tries for minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _run(ray: Any, ledger: Ledger, out: Path, device: str, limit: int) -> None:
    gpus = int(device.startswith("cuda"))
    # Ray waits for ever for what no node has, as a cluster may grow.
    if gpus > ray.cluster_resources().get("GPU", 0):
        raise ValueError(
            f"device {device!r} was asked for, and no node of the Ray cluster has a GPU: use auto "
            "or cpu"
        )
    board = _start_board(ray)
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_NODE_DEATHS)(_train_cell)
    running: dict[Any, Cell] = {}
    try:
        while ledger.waiting or running:
            while ledger.waiting and len(running) < limit:
                cell = ledger.waiting.popleft()
                running[task.remote(cell.config, cell.name, out, device, board)] = cell
            ready, _ = ray.wait(list(running), timeout=_POLL)
            _pass_on(ray, board, ledger, {cell.name: cell for cell in running.values()})
            for reference in ready:
                cell = running.pop(reference)
                try:
                    error = ray.get(reference)
                except ray.exceptions.RayError as lost:
                    error = describe(lost)
                if error is None:
                    ledger.done(cell)
                else:
                    ledger.failed(cell, error)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.kill(board)


def _start_board(ray: Any) -> Any:
    """Actor on this node that takes the progress of all cells."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Board:  # here, so that it travels as it is and its process needs no PyTorch
        def __init__(self) -> None:
            self.notes: list[tuple[str, int | None]] = []

        def note(self, cell: str, steps: int | None) -> None:
            self.notes.append((cell, steps))

        def take(self) -> list[tuple[str, int | None]]:
            notes, self.notes = self.notes, []
            return notes

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(Board).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()


def _pass_on(ray: Any, board: Any, ledger: Ledger, running: dict[str, Cell]) -> None:
    """Tell the ledger what the board has gathered; progress is no reason for a sweep to fail."""
    try:
        notes = ray.get(board.take.remote(), timeout=10 * _POLL)
    except ray.exceptions.RayError:
        return
    for name, steps in notes:
        if name not in running:
            continue
        if steps is None:
            ledger.started(running[name])
        else:
            ledger.advanced(running[name], steps)


# --- inside a task --------------------------------------------------------------------------------


def _train_cell(config: TrainConfig, name: str, out: Path, device: str, board: Any) -> str | None:
    """Train and return None, or the traceback of what went wrong."""
    board.note.remote(name, None)
    advance = Throttle(lambda steps: board.note.remote(name, steps))
    try:
        # The processes of a lost node may outlive it for a moment, and its locks on a network
        # file system for a minute.
        with filelock.FileLock(run_folder(config, out).path / ".lock", timeout=_PATIENCE):
            pass
        with one_thread():
            train(config, out, device=device, advance=advance)
    except Exception as error:  # whatever it is, the driver wants to know
        return describe(error)
    advance.flush()
    return None
