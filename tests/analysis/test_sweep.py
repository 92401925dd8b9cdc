"""Grid files and their cells, collected rows, and the sweep command."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.commands.console import UsageError
from analysis.commands.sweep import Sweep, SweepView
from analysis.configure import training_config
from analysis.engines import Event
from analysis.epoch_rows import COLUMNS
from analysis.sweep import Grid, collect_rows, read_grid
from analysis.training import run_folder, train

TINY = """
name = "tiny"
[[grid]]
algorithm = "ppo"
rollout_steps = 16
passes = 1
minibatches = 2
num_envs = 2
steps = 64
epoch_steps = 32
eval_episodes = 2
head = ["linear", "etf"]
hidden = [8, 8]
seeds = 3
"""


def grid_of(tmp_path: Path, text: str) -> Grid:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return read_grid(path)


def test_cells_are_the_product_of_the_axes(tmp_path: Path) -> None:
    grid = grid_of(
        tmp_path,
        """
        [[grid]]
        algorithm = ["ppo", "trpo"]
        env = "CartPole-v1"
        head = ["linear", "etf"]
        learning_rate = [1e-3, 1e-4]
        seeds = {from = 5, count = 3}
        [[grid]]
        algorithm = "reinforce"
        """,
    )
    assert grid.name == "grid"
    cells = grid.cells()
    expected = [
        training_config(
            {
                "algorithm": algorithm,
                "env": "CartPole-v1",
                "head": head,
                "learning_rate": rate,
                "seeds": (seed,),
            }
        )
        for algorithm in ("ppo", "trpo")
        for head in ("linear", "etf")
        for rate in (1e-3, 1e-4)
        for seed in (5, 6, 7)
    ]
    assert [cell.config for cell in cells] == [
        *expected,
        training_config({"algorithm": "reinforce", "seeds": (0,)}),
    ]
    assert len({cell.name for cell in cells}) == len(cells)
    assert cells[0].name == "grid 1: ppo on CartPole-v1, head=linear, learning_rate=0.001, seeds=5"


@pytest.mark.parametrize(
    ("together", "count", "population"),
    [('["head", "seeds"]', 2, 6), ('["seeds"]', 4, 3), ('["head"]', 6, 2), ("[]", 12, 1)],
)
def test_what_is_together_is_one_cell(
    tmp_path: Path, together: str, count: int, population: int
) -> None:
    grid = grid_of(
        tmp_path,
        f"""
        [[grid]]
        algorithm = "ppo"
        learning_rate = [1e-3, 1e-4]
        head = ["linear", "etf"]
        seeds = [0, 1, 2]
        together = {together}
        """,
    )
    cells = grid.cells()
    assert [cell.config.population for cell in cells] == [population] * count
    assert sum(cell.steps for cell in cells) == 12 * cells[0].config.steps
    members = [
        (cell.config.algorithm.learning_rate, head.kind, seed)
        for cell in cells
        for head, seed in cell.config.members
    ]
    assert len(set(members)) == 12


def test_lists_are_values_or_axes_of_options_that_are_lists(tmp_path: Path) -> None:
    text = '[[grid]]\nalgorithm = "ppo"\nhidden = {}\nsnapshot_epochs = [0, 2]\n'
    (one,) = grid_of(tmp_path, text.format("[32, 16]")).cells()
    assert one.config.hidden == (32, 16)
    assert one.config.snapshot_epochs == (0, 2)
    two = grid_of(tmp_path, text.format("[[32, 16], [8]]")).cells()
    assert [cell.config.hidden for cell in two] == [(32, 16), (8,)]


def test_one_number_is_one_configuration_however_it_is_written(tmp_path: Path) -> None:
    """1e3 and 1000, or 1 and 1.0, must not make two run folders."""
    text = '[[grid]]\nalgorithm = "ppo"\nsteps = {}\nlearning_rate = {}\n'
    (one,) = grid_of(tmp_path, text.format("1e5", "1")).cells()
    (other,) = grid_of(tmp_path, text.format("100_000", "1.0")).cells()
    folders = [run_folder(cell.config, tmp_path / "out").path for cell in (one, other)]
    assert folders[0] == folders[1]


def test_equal_cells_of_two_grids_are_one(tmp_path: Path) -> None:
    grid = grid_of(
        tmp_path,
        """
        [[grid]]
        algorithm = ["ppo", "trpo"]
        [[grid]]
        algorithm = ["trpo", "a2c"]
        """,
    )
    names = [cell.config.algorithm.name for cell in grid.cells()]
    assert names == ["ppo", "trpo", "a2c"]


def test_a_member_in_two_different_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"grid 2.*head 'etf' with seed 1.*grid 1.*count twice"):
        grid_of(
            tmp_path,
            """
            [[grid]]
            algorithm = "ppo"
            head = ["linear", "etf"]
            seeds = [0, 1]
            together = ["head", "seeds"]
            [[grid]]
            algorithm = "ppo"
            head = "etf"
            seeds = [1, 2]
            together = ["seeds"]
            """,
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat = 1e-3", r"grid 2.*'learning_rat'.*did you mean 'learning_rate'"),
        ("learning_rate = -1.0", r"grid 2.*learning_rate.*-1"),
        ("learning_rate = [1e-3, inf]", r"grid 2: learning_rate must be finite"),
        ('learning_rate = "fast"', r"grid 2.*learning_rate takes a number, got 'fast'"),
        ("learning_rate = []", r"grid 2: learning_rate has no values"),
        ("learning_rate = [1e-3, 1e-3]", r"grid 2: learning_rate has 0.001 twice"),
        ("learning_rate = [[1e-3]]", r"grid 2: learning_rate cannot be \[0.001\]"),
        ("steps = 1.5", r"grid 2.*steps takes a whole number, got 1.5"),
        ("steps = true", r"grid 2.*steps takes a whole number"),
        ("anneal = 1", r"grid 2.*anneal takes a boolean"),
        ("network = 3", r"grid 2.*network takes a text"),
        ("hidden = 64", r"grid 2: hidden takes a list"),
        ('hidden = ["wide"]', r"grid 2.*hidden takes whole numbers"),
        ('head = ["linear", "round"]', r"grid 2.*HeadConfig.kind.*'round'"),
        ("head = 5", r"grid 2.*HeadConfig.kind"),
        ("heads = 5", r"grid 2.*unknown option 'heads'"),
        ("seeds = [0, -1]", r"grid 2.*seeds must be .* >= 0, got \(-1,\)"),
        ("seeds = {from = 0, to = 3}", r"grid 2: seeds takes {from = 0, count = 20}"),
        ("seeds = {from = 0, count = 0}", r"grid 2: seeds has no values"),
        ('together = [["head"]]', r"together takes a list .*got \[\['head'\]\]"),
        ('together = ["learning_rate"]', r"grid 2: together takes a list of 'head' and 'seeds'"),
        ('env = "Pole"', r"grid 2.*unknown environment 'Pole'"),
    ],
)
def test_errors_name_the_grid_and_the_option(tmp_path: Path, line: str, message: str) -> None:
    fine = '[[grid]]\nalgorithm = "trpo"\n'
    with pytest.raises(ValueError, match=message):
        grid_of(tmp_path, f'{fine}[[grid]]\nalgorithm = "ppo"\n{line}\n')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[grid]]\n", r"grid 1: algorithm is missing"),
        ('[[grid]]\nalgorithm = "dqn"\n', r"grid 1.*unknown algorithm 'dqn'"),
        ('[[grid]]\nalgorithm = "a3c"\nseeds = [0, 1]\ntogether = ["seeds"]\n', "a3c trains one"),
        ('[grid]\nalgorithm = "ppo"\n', "double brackets"),
        ('name = "x"\n', r"one or more \[\[grid\]\]"),
        ("grid = []\n", r"one or more \[\[grid\]\]"),
        ('algorithm = "ppo"\n[[grid]]\n', "unknown 'algorithm'.*below"),
        ('name = "a/b"\n[[grid]]\nalgorithm = "ppo"\n', "names a folder.*a/b"),
        ("name = \n", "cannot read the grid file"),
    ],
)
def test_errors_of_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_of(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("cartpole", 9),
        ("cartpole-a2c", 3),
        ("cartpole-a3c", 300),
        ("exploration", 4),
        ("pong", 5),
        ("breakout", 4),
        ("car-racing", 14),
    ],
)
def test_the_papers_grids_are_valid(name: str, cells: int) -> None:
    path = Path(__file__).parents[2] / "sweeps" / f"{name}.toml"
    grid = read_grid(path)
    assert grid.name == name
    assert len(grid.cells()) == cells


def test_every_cartpole_algorithm_has_heads_rates_and_seeds_alike() -> None:
    sweeps = Path(__file__).parents[2] / "sweeps"
    found: dict[str, set[tuple[str, float, int]]] = {}
    grids = [read_grid(path) for path in sorted(sweeps.glob("cartpole*.toml"))]
    for cell in (cell for grid in grids for cell in grid.cells()):
        members = found.setdefault(cell.config.algorithm.name, set())
        rate = cell.config.algorithm.learning_rate
        members |= {(head.kind, rate, seed) for head, seed in cell.config.members}
    heads = ("linear", "etf", "orthogonal", "gaussian")
    seeds = (*range(20), *range(100, 105))
    rates = {
        "reinforce": (1e-3, 1e-4, 1e-5),
        "ppo": (8e-5, 2.5e-4, 8e-4),
        "trpo": (8e-5, 2.5e-4, 8e-4),
        "a2c": (1e-3, 3e-3, 1e-2),
        "a3c": (7e-4, 2e-3, 6e-3),
    }
    assert found == {
        name: {(head, rate, seed) for head in heads for rate in own for seed in seeds}
        for name, own in rates.items()
    }


def test_rows_of_finished_cells_are_collected_and_nothing_is_written(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, TINY)
    linear, _ = grid.cells()
    out = tmp_path / "out"
    empty = collect_rows(grid, out)
    assert len(empty) == 0
    assert set(COLUMNS) < set(empty.columns)
    folder = train(linear.config, out, device="cpu")
    (out / "train-of-another-version").mkdir()
    before = sorted(out.rglob("*"))
    rows = collect_rows(grid, out)
    assert sorted(out.rglob("*")) == before
    own = folder.read_rows("epochs")
    pd.testing.assert_frame_equal(rows[own.columns], own)
    assert set(rows["run"]) == {folder.path.name}
    assert set(rows["hidden"]) == {"8+8"}
    assert list(rows["steps"]) == [0, 32, 64]


def test_the_command_trains_indexes_and_skips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_of(tmp_path, TINY)
    command = Sweep(tmp_path / "grid.toml", device="cpu", out=tmp_path / "out")
    assert command.run() == 0
    (index,) = (tmp_path / "out").glob("sweep-tiny-*/cells.json")
    cells = json.loads(index.read_text())
    assert {cell["state"] for cell in cells.values()} == {"done"}
    runs = [cells[cell.name]["run"] for cell in grid.cells()]
    assert list(collect_rows(grid, tmp_path / "out")["run"]) == list(np.repeat(runs, 3))
    assert "2 of 2 cells are done" in capsys.readouterr().out
    monkeypatch.setattr("analysis.engines.local.train", None)
    assert command.run() == 0


def test_the_command_fails_with_a_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = grid_of(tmp_path, TINY)
    linear, etf = grid.cells()
    folder = run_folder(linear.config, tmp_path / "out")
    folder.write("checkpoints/trainer.pt", b"[damage]")
    command = Sweep(tmp_path / "grid.toml", device="cpu", out=tmp_path / "out")
    assert command.run() == 1
    printed = capsys.readouterr()
    assert re.search(r"failed: grid 1.*head=linear: .*damaged", printed.out)
    assert re.search(r"head=linear failed, will be tried again: ", printed.err)
    assert re.search(r"head=linear failed, given up: ", printed.err)
    (index,) = (tmp_path / "out").glob("sweep-tiny-*/cells.json")
    cells = json.loads(index.read_text())
    assert cells[etf.name]["state"] == "done"
    assert cells[linear.name]["state"] == "failed"
    assert "Traceback" in cells[linear.name]["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "local", "workers": 2}, "one cell at a time.*use processes"),
        ({"engine": "processes", "workers": 0}, "workers must be >= 1, got 0"),
        ({"engine": "processes", "address": "auto"}, "only the ray engine has an address"),
        ({"retries": -1}, "retries must be >= 0"),
        ({"engine": "slurm"}, "unknown engine 'slurm'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    grid_of(tmp_path, TINY)
    with pytest.raises(UsageError, match=message):
        Sweep(tmp_path / "grid.toml", out=tmp_path / "out", **options).run()  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_grid_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the grid file"):
        Sweep(tmp_path / "missing.toml", out=tmp_path).run()


def test_the_view_counts_cells_and_steps(tmp_path: Path) -> None:
    one, other = grid_of(tmp_path, TINY).cells()
    view = SweepView((one, other))
    assert view.counts() == {"done": 0, "running": 0, "failed": 0, "waiting": 2}
    view(Event("started", one.name))
    view(Event("advanced", one.name, steps=32))
    view(Event("skipped", other.name))
    assert view.counts() == {"done": 1, "running": 1, "failed": 0, "waiting": 0}
    assert view.steps == 64 + 32
    view(Event("failed", one.name, error="oh", again=True))
    assert view.failures == {}
    assert view.counts()["waiting"] == 1
    assert view.steps == 64
    view(Event("started", one.name))
    view(Event("advanced", one.name, steps=96))
    assert view.steps == 64 + 64, "an overshoot is not more than the cell"
    view(Event("failed", one.name, error="oh"))
    assert view.counts() == {"done": 1, "running": 0, "failed": 1, "waiting": 0}
    assert view.failures == {one.name: "oh"}
