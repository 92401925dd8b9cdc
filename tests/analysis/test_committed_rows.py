"""What is committed under ``results/`` is what the files under ``sweeps/`` say to run."""

from pathlib import Path

from analysis.sweep import read_grid
from analysis.training import run_folder

ROOT = Path(__file__).parents[2]


def test_every_committed_training_run_is_a_cell_of_a_committed_grid() -> None:
    """A preset that moves on, or a run that was made otherwise, leaves rows nobody can remake."""
    grids = [read_grid(path) for path in sorted((ROOT / "sweeps").glob("*.toml"))]
    cells = {run_folder(cell.config, ROOT).path.name for grid in grids for cell in grid.cells()}
    committed = {path.parent.name for path in (ROOT / "results").rglob("train-*/config.json")}
    assert len(committed) > 30
    assert committed <= cells, sorted(committed - cells)
