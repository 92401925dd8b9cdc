"""Three engines, one result: retries, killed workers, a killed parent, a lost node."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from analysis.engines import Engine, Event, ledger, local, run_cells
from analysis.engines.ledger import Throttle
from analysis.storage import RunFolderError
from analysis.sweep import Cell, Grid, collect_rows, read_grid
from analysis.training import run_folder

GRID = """
name = "tiny"
[[grid]]
algorithm = "ppo"
rollout_steps = 16
passes = 2
minibatches = 2
num_envs = 2
steps = {steps}
epoch_steps = 64
eval_episodes = 2
head = ["linear", "etf", "gaussian"]
"""
A3C = """
[[grid]]
algorithm = "a3c"
workers = 1
num_envs = 2
steps = 128
epoch_steps = 64
eval_episodes = 2
"""


def make_grid(folder: Path, text: str) -> Grid:
    path = folder / "grid.toml"
    path.write_text(text)
    return read_grid(path)


def make_reference(folder: Path, text: str) -> tuple[Grid, pd.DataFrame]:
    """A grid and its rows from the local engine, undisturbed."""
    grid = make_grid(folder, text)
    assert run_cells(grid.cells(), folder / "out", device="cpu") == {}
    return grid, collect_rows(grid, folder / "out")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Grid, pd.DataFrame]:
    return make_reference(tmp_path_factory.mktemp("local"), GRID.format(steps=512))


def checkpoint(cell: Cell, out: Path) -> Path:
    return run_folder(cell.config, out).path / "checkpoints" / "trainer.pt"


def sessions(cell: Cell, out: Path) -> int:
    """How many processes have trained a cell."""
    log = run_folder(cell.config, out).path / "environment.json"
    return len(json.loads(log.read_text())["sessions"])


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# --- progress -------------------------------------------------------------------------------------


def test_the_first_gain_is_passed_on_at_once_and_what_follows_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cell without a checkpoint begins by saying that it has gained nothing."""
    now = 0.0
    monkeypatch.setattr(ledger.time, "monotonic", lambda: now)
    reported: list[int] = []
    advance = Throttle(reported.append)
    gains = [
        (0.0, 0, []),
        (0.1, 32, [32]),
        (0.5, 32, [32]),
        (0.7, 1, [32, 33]),
        (0.8, 32, [32, 33]),
    ]
    for seconds, gained, expected in gains:
        now = seconds
        advance(gained)
        assert reported == expected
    advance.flush()
    advance.flush()
    assert reported == [32, 33, 32]


# --- local ----------------------------------------------------------------------------------------


def test_what_is_done_is_skipped_and_the_rest_trained(
    reference: tuple[Grid, pd.DataFrame], tmp_path: Path
) -> None:
    grid, rows = reference
    linear, etf, gaussian = grid.cells()
    assert run_cells([etf], tmp_path, device="cpu") == {}
    events: list[Event] = []
    assert run_cells(grid.cells(), tmp_path, device="cpu", on_event=events.append) == {}
    told = [(event.kind, event.cell) for event in events if event.kind != "advanced"]
    assert told == [
        ("skipped", etf.name),
        ("started", linear.name),
        ("done", linear.name),
        ("started", gaussian.name),
        ("done", gaussian.name),
    ]
    steps = [event.steps for event in events if event.cell == linear.name]
    assert sum(steps) == linear.config.steps
    assert sessions(etf, tmp_path) == 1
    pd.testing.assert_frame_equal(collect_rows(grid, tmp_path), rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("engine", ["local", "processes"])
def test_a_device_that_is_not_here_is_refused_before_any_cell(
    reference: tuple[Grid, pd.DataFrame], tmp_path: Path, engine: Engine
) -> None:
    events: list[Event] = []
    with pytest.raises(ValueError, match="'cuda' was asked for, and PyTorch sees 0 CUDA devices"):
        run_cells(
            reference[0].cells(), tmp_path, engine=engine, device="cuda", on_event=events.append
        )
    assert not events
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused_before_any_cell(
    reference: tuple[Grid, pd.DataFrame], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    events: list[Event] = []
    with pytest.raises(RunFolderError, match=r"file is a file; choose another --out"):
        run_cells(reference[0].cells(), tmp_path / "file" / "runs", on_event=events.append)
    assert not events


def test_a_failing_cell_is_tried_again_after_the_others(
    reference: tuple[Grid, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt at the first cell fails, every one at the second; the third is well."""
    grid, rows = reference
    linear, etf, _ = grid.cells()
    attempts: list[str] = []
    train = local.train

    def unreliable(config: Any, out: Path, **options: Any) -> None:
        kind = config.heads[0].kind
        attempts.append(kind)
        if kind == "etf" or (attempts.count(kind) == 1 and kind == "linear"):
            raise RuntimeError(f"no {kind} today")
        train(config, out, **options)

    monkeypatch.setattr(local, "train", unreliable)
    events: list[Event] = []
    failures = run_cells(grid.cells(), tmp_path, device="cpu", retries=2, on_event=events.append)
    assert attempts == ["linear", "etf", "gaussian", "linear", "etf", "etf"]
    assert list(failures) == [etf.name]
    assert failures[etf.name].endswith("RuntimeError: no etf today")
    failed = [(event.cell, event.again) for event in events if event.kind == "failed"]
    assert failed == [
        (linear.name, True),
        (etf.name, True),
        (etf.name, True),
        (etf.name, False),
    ]
    monkeypatch.undo()
    run_cells([etf], tmp_path, device="cpu")
    pd.testing.assert_frame_equal(collect_rows(grid, tmp_path), rows)


def test_interruption_is_passed_on_and_nothing_else_begins(
    reference: tuple[Grid, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "train", interrupted)
    events: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        run_cells(reference[0].cells(), tmp_path, device="cpu", on_event=events.append)
    assert [event.kind for event in events] == ["started"]


# --- processes ------------------------------------------------------------------------------------


def test_a_killed_worker_loses_only_its_cell_and_that_continues(tmp_path: Path) -> None:
    """The cells are long, so that the first is far from done when its worker is killed."""
    grid, rows = make_reference(tmp_path, GRID.format(steps=2560))
    out = tmp_path / "processes"
    first, second, third = grid.cells()
    events: list[Event] = []

    def kill_the_first(event: Event) -> None:
        killed = any((e.kind, e.cell) == ("advanced", first.name) for e in events)
        events.append(event)
        if event.kind == "advanced" and event.cell == first.name and not killed:
            wait_for(checkpoint(first, out).exists)
            victim = min(multiprocessing.active_children(), key=lambda child: child.pid or 0)
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)

    failures = run_cells(
        grid.cells(),
        out,
        engine="processes",
        workers=2,
        device="cpu",
        on_event=kill_the_first,
    )
    assert failures == {}
    assert multiprocessing.active_children() == []
    (failed,) = (event for event in events if event.kind == "failed")
    assert (failed.cell, failed.again) == (first.name, True)
    assert "exit code -9" in failed.error
    assert [sessions(cell, out) for cell in (first, second, third)] == [2, 1, 1]
    restart = max(i for i, e in enumerate(events) if (e.kind, e.cell) == ("started", first.name))
    resumed = next(event for event in events[restart:] if event.kind == "advanced")
    assert resumed.steps >= first.config.epoch_steps, "an iteration alone is half an epoch"
    pd.testing.assert_frame_equal(collect_rows(grid, out), rows)


SCRIPT = """
import sys
from pathlib import Path
from analysis.engines import run_cells
from analysis.sweep import read_grid

if __name__ == "__main__":
    cells = read_grid(Path(sys.argv[1])).cells()
    run_cells(cells, Path(sys.argv[2]), engine="processes", workers=int(sys.argv[3]), device="cpu")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("blow", "workers"), [(signal.SIGKILL, 1), (signal.SIGINT, 2)])
def test_a_killed_or_interrupted_parent_leaves_no_process(
    tmp_path: Path, blow: signal.Signals, workers: int
) -> None:
    """kill -9 to the parent alone; Ctrl-C to the whole group."""
    grid = make_grid(tmp_path, GRID.format(steps=1_000_000))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    command = [sys.executable, str(script), str(tmp_path / "grid.toml"), str(out), str(workers)]
    parent = subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    try:
        for cell in grid.cells()[:workers]:
            wait_for(checkpoint(cell, out).exists)
        if blow == signal.SIGINT:
            os.killpg(parent.pid, blow)
        else:
            parent.send_signal(blow)
        _, errors = parent.communicate(timeout=60)
        wait_for(lambda: not alive(parent.pid), seconds=60)
    finally:
        if alive(parent.pid):
            os.killpg(parent.pid, signal.SIGKILL)
    assert parent.returncode == -blow
    assert ("KeyboardInterrupt" in errors) == (blow == signal.SIGINT)


@pytest.mark.slow
def test_processes_give_the_rows_of_the_local_engine(tmp_path: Path) -> None:
    """More cells than workers, A3C (which starts processes itself), and a cell that is damaged."""
    text = GRID.format(steps=128) + A3C
    grid, rows = make_reference(tmp_path, text)
    out = tmp_path / "processes"
    linear = grid.cells()[0]
    damaged = checkpoint(linear, out)
    run_folder(linear.config, out).write("checkpoints/trainer.pt", b"damage")
    options: dict[str, Any] = {"engine": "processes", "workers": 2, "device": "cpu"}
    failures = run_cells(grid.cells(), out, **options)
    assert list(failures) == [linear.name]
    assert "RunFolderError" in failures[linear.name]
    damaged.unlink()
    assert run_cells(grid.cells(), out, **options) == {}
    assert multiprocessing.active_children() == []
    pd.testing.assert_frame_equal(collect_rows(grid, out), rows)


# --- Ray ------------------------------------------------------------------------------------------


def test_without_ray_the_remedy_is_named(
    reference: tuple[Grid, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"action-collapse\[ray\].*--engine processes"):
        run_cells(reference[0].cells(), tmp_path, engine="ray")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without processors and a node of one, on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.distributed
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")
def test_a_lost_node_loses_nothing(cluster: Any, tmp_path: Path) -> None:
    """The node that trains is killed; another joins and continues from the checkpoint.

    Only one node at a time has processors, so that it is certain where the cell is trained.
    """
    grid, rows = make_reference(tmp_path, GRID.format(steps=2560))
    out = tmp_path / "ray"
    cells = grid.cells()
    (node,) = cluster.worker_nodes
    events: list[Event] = []

    def lose_the_node(event: Event) -> None:
        events.append(event)
        if event.kind == "advanced" and cluster.worker_nodes == {node}:
            wait_for(lambda: any(checkpoint(cell, out).exists() for cell in cells))
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(num_cpus=1)

    failures = run_cells(
        cells, out, engine="ray", address=cluster.address, device="cpu", on_event=lose_the_node
    )
    assert failures == {}
    assert sorted(sessions(cell, out) for cell in cells) == [1, 1, 2]
    pd.testing.assert_frame_equal(collect_rows(grid, out), rows)
    kinds = [event.kind for event in events]
    assert kinds.count("failed") == 0, "Ray itself runs the task again"
    assert kinds.count("started") == 4


@pytest.mark.distributed
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")
def test_a_ray_session_of_its_own_gives_the_rows_of_the_local_engine(tmp_path: Path) -> None:
    """And a damaged cell fails with its traceback, while the others are trained."""
    import ray

    grid, rows = make_reference(tmp_path, GRID.format(steps=128) + A3C)
    out = tmp_path / "ray"
    linear = grid.cells()[0]
    damaged = checkpoint(linear, out)
    run_folder(linear.config, out).write("checkpoints/trainer.pt", b"damage")
    events: list[Event] = []
    options: dict[str, Any] = {"engine": "ray", "workers": 2, "device": "cpu"}
    failures = run_cells(grid.cells(), out, on_event=events.append, **options)
    assert not ray.is_initialized()
    assert list(failures) == [linear.name]
    assert "RunFolderError" in failures[linear.name]
    kinds = [event.kind for event in events if event.cell == linear.name]
    assert kinds.count("failed") == 2
    damaged.unlink()
    local_again = run_cells([linear], out, device="cpu")
    assert local_again == {}
    pd.testing.assert_frame_equal(collect_rows(grid, out), rows)


@pytest.mark.distributed
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")
def test_a_gpu_that_no_node_has_is_not_waited_for(tmp_path: Path) -> None:
    grid = make_grid(tmp_path, GRID.format(steps=128))
    with pytest.raises(ValueError, match="no node of the Ray cluster has a GPU"):
        run_cells(grid.cells(), tmp_path / "out", engine="ray", workers=1, device="cuda")


@pytest.mark.distributed
@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1"])
def test_no_cluster_at_the_address_is_said(tmp_path: Path, address: str) -> None:
    grid = make_grid(tmp_path, GRID.format(steps=128))
    with pytest.raises(ConnectionError, match=rf"no Ray cluster answers at '{address}'.*ray start"):
        run_cells(grid.cells(), tmp_path / "out", engine="ray", address=address)
