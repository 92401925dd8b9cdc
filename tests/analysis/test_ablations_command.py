"""`ablations`: rows that are stored elsewhere are taken over, and exhibits have their words."""

from dataclasses import replace

import pytest

from analysis import ablations
from analysis.ablation_settings import Case, cases
from analysis.commands import ablations as command
from analysis.commands.console import FAILED
from analysis.exhibits import read_figures, read_tables


def toy_cases() -> tuple[Case, ...]:
    return tuple(
        replace(
            case,
            arm=replace(
                case.arm,
                config=replace(case.arm.config, hidden=(8, 8), epochs=1, updates_per_epoch=2),
            ),
        )
        for case in cases()
    )


@pytest.mark.slow
def test_stored_rows_are_drawn_again_without_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ablations, "cases", toy_cases)
    monkeypatch.setattr(command, "cases", toy_cases)
    results, out = tmp_path / "results", tmp_path / "out"
    trained = ablations.run_ablations(results, seeds=2, workers=1)
    trained.paths[0].parent.parent.rename(results / "renamed")
    monkeypatch.setattr(ablations, "TabularTrainer", None)
    # Two updates do not collapse anything: the expectations are missed.
    assert command.Ablations(seeds=2, workers=1, results=results, out=out).run() == FAILED
    (folder,) = out.iterdir()
    (figure,) = read_figures(folder)
    assert figure.png == trained.png
    assert figure.words is not None
    assert figure.words.caption == trained.caption
    tables = {table.name: table.rows for table in read_tables(folder)}
    assert len(tables["ablations-cliff-expectations"]) == len(trained.bars)
    angles = tables["ablations-cliff-angles"].set_index(["condition", "arm", "cells"])
    case = toy_cases()[0]
    own = trained.rows[
        (trained.rows["condition"] == case.condition.name)
        & (trained.rows["arm"] == case.arm.name)
        & (trained.rows["cells"] == "all")
        & (trained.rows["epoch"] == 1)
    ]
    found = angles.loc[(case.condition.name, case.arm.name, "all")]
    assert found["n"] == 2
    assert found[["epochs", "updates", "episodes"]].tolist() == [1, 2, 0]
    sampled = angles.loc[("sampled-sweep", "etf-sphere", "all")]
    assert sampled[["epochs", "updates", "episodes"]].tolist() == [1, 2, 64]
    assert len(angles) == 2 * len(toy_cases())  # nothing that was not run
    assert found["feature_max_angle"] == pytest.approx(own["feature_max_angle"].median())
