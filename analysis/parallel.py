"""Independent parts of a run on several processes, with progress, interruption and no orphans."""

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, Protocol

import threadpoolctl
import torch

from agents.workers import obey_parent
from analysis.storage import RunFolderError


class Part(Protocol):
    """A picklable unit of work; it stores its own results and reports its progress."""

    def __call__(self, advance: Callable[[int], None]) -> None:
        """Do the work, calling ``advance`` with each gain."""


class _Stopped(Exception):
    """Raised inside a worker when the run is being interrupted."""


def run_parts(
    parts: Mapping[str, Part], workers: int, on_advance: Callable[[str, int], None]
) -> None:
    """Run every part, at most ``workers`` at a time.

    Parameters
    ----------
    parts
        Named parts. They must store their results themselves, each exactly once.
    workers
        With 1 (or one part) everything happens in this process.
    on_advance
        Called in this process with a part's name and what it gained.

    Raises
    ------
    RunFolderError
        A worker process died (out of memory, killed); finished parts are kept.
    KeyboardInterrupt
        Passed on after all workers have ended.
    """
    if workers == 1 or len(parts) == 1:
        for name, part in parts.items():
            part(_named(on_advance, name))
        return
    # spawn: no inherited locks or threads, the same on every platform.
    context = get_context("spawn")
    gains, stop = context.Queue(), context.Event()
    with ProcessPoolExecutor(
        min(workers, len(parts)), context, _start_worker, (gains, stop)
    ) as pool:
        futures = {pool.submit(_run_part, name, part) for name, part in parts.items()}
        try:
            _follow(futures, gains, on_advance)
        except BaseException as error:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise RunFolderError(
                    "a worker process died (killed, or out of memory): run the same command "
                    "again to continue, with fewer --workers if memory is short"
                ) from error
            raise


def _named(on_advance: Callable[[str, int], None], name: str) -> Callable[[int], None]:
    return lambda gained: on_advance(name, gained)


def _follow(futures: set[Future[None]], gains: Any, on_advance: Callable[[str, int], None]) -> None:
    """Pass on progress until every part is done; the first failure is raised."""
    while futures:
        done, futures = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
        while True:
            try:
                on_advance(*gains.get_nowait())
            except queue.Empty:
                break
        for future in done:
            future.result()


# --- inside a worker ------------------------------------------------------------------------------

_WORKER: dict[str, Any] = {}


def _start_worker(gains: Any, stop: Any) -> None:
    obey_parent()
    torch.set_num_threads(1)
    _WORKER.update(gains=gains, stop=stop, limits=threadpoolctl.threadpool_limits(1))


def _run_part(name: str, part: Part) -> None:
    def advance(gained: int) -> None:
        if _WORKER["stop"].is_set():
            raise _Stopped
        _WORKER["gains"].put((name, gained))

    part(advance)
