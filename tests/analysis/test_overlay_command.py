"""`overlay` on training runs and on the rows of the view in three dimensions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.ppo import PPO
from analysis import __main__ as cli
from analysis.exhibits import read_figures
from analysis.overlay import overlay
from analysis.storage import RunFolder, load_tensors
from analysis.trained import read_snapshots
from analysis.training import run_folder, train
from analysis.trajectory import cliff_arms, cliff_folder, run_trajectory

CONFIG = TrainConfig(
    env=EnvConfig("IdealCliffWalking-v0"),
    algorithm=PPO(rollout_steps=16, passes=1, minibatches=2),
    heads=(HeadConfig(), HeadConfig("etf")),
    seeds=(0, 1),
    num_envs=2,
    steps=64,
    epoch_steps=32,
    eval_episodes=4,
    snapshot_epochs=(0, 2),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(CONFIG, tmp_path_factory.mktemp("runs"), device="cpu")


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = cliff_folder(tmp_path_factory.mktemp("view"), 1, 0)
    for arm in cliff_arms(1)[:2]:
        run_trajectory(arm, 0, folder)
    return folder


def run(out: Path, *arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["overlay", *map(str, arguments), "--bootstrap", "20", "--out", str(out)])
    return int(ended.value.code or 0)


def stored(out: Path) -> tuple[Path, pd.DataFrame]:
    (folder,) = out.glob("overlay-*")
    return folder, pd.read_parquet(folder / "rows" / "overlay.parquet")


def test_every_member_of_the_last_epoch_has_a_row(trained: RunFolder, tmp_path: Path) -> None:
    assert run(tmp_path, trained.path) == 0
    folder, rows = stored(tmp_path)
    assert list(rows["name"]) == ["linear-0", "linear-1", "etf-0", "etf-1"]
    assert list(rows["model"]) == ["learned", "learned", "fixed", "fixed"]
    assert set(rows["cone"]) == {"nonnegative"}
    assert set(rows["epoch"]) == {2}
    assert set(rows["episodes"]) == {4}
    done = rows[rows["gap"].notna()]
    for row in done.to_dict("records"):
        snapshot = read_snapshots(trained.path, 2)[row["member"]]
        rng = np.random.default_rng([0, row["member"]])
        found = overlay(snapshot, rng=rng, head=row["model"], cone="nonnegative", bootstrap=20)
        assert row["gap"] == found.gap.value
        assert row["features_norm_error"] == found.comparisons["features"].norm_error.value
        assert row["gap_directions"] == found.terms["directions"].value
    assert (rows.loc[rows["gap"].isna(), "reasons"] != "").all()
    # One figure a head, of its first seed that has an overlay.
    assert len(done) > 0
    first = done.drop_duplicates("head")
    assert list(rows.loc[rows["figure"] != "", "name"]) == list(first["name"])
    figures = read_figures(folder)
    assert sorted(figure.name for figure in figures) == sorted(first["figure"])
    assert all(
        figure.words and "over IdealCliffWalking-v0: PPO" in figure.words.title
        for figure in figures
    )


def test_a_diverged_member_is_no_reason_to_withhold_the_others(
    trained: RunFolder, tmp_path: Path
) -> None:
    path = tmp_path / trained.path.name
    shutil.copytree(trained.path, path)
    stored_states = load_tensors(path / "snapshots" / "epoch-00002.pt", "")
    stored_states["logits"][3][0] = torch.nan
    run_folder(CONFIG, tmp_path).save_tensors("snapshots/epoch-00002.pt", stored_states)
    assert run(tmp_path / "whole", trained.path) == 0
    assert run(tmp_path / "out", path) == 0
    _, whole = stored(tmp_path / "whole")
    _, rows = stored(tmp_path / "out")
    assert rows["states"][3] == 0
    assert "the member has diverged" in rows["reasons"][3]
    assert list(rows["gap"][:3]) == pytest.approx(list(whole["gap"][:3]), nan_ok=True)


def test_captions_say_setting_and_steps(trained: RunFolder, tmp_path: Path) -> None:
    assert run(tmp_path / "out", trained.path) == 0
    folder, _ = stored(tmp_path / "out")
    rows = pd.read_parquet(trained.path / "rows" / "epochs.parquet")
    (steps,) = set(rows.loc[rows["epoch"] == 2, "steps"])
    for words in (figure.words for figure in read_figures(folder)):
        assert words
        assert words.caption.startswith("IdealCliffWalking-v0: PPO, MLP on states, states of the")
        assert f"head, seed 0, epoch 2, {steps} agent steps: " in words.caption
        assert words.caption.endswith(
            " of the games of the states, where every action is in enough of them (4 in all)."
        )
    # A run that goes on has snapshots, and not yet its rows.
    going = tmp_path / "going" / trained.path.name
    shutil.copytree(trained.path, going, ignore=shutil.ignore_patterns("rows"))
    assert run(tmp_path / "other", going) == 0
    folder, _ = stored(tmp_path / "other")
    assert all("epoch 2: " in str(figure.words) for figure in read_figures(folder))


def test_without_games_the_states_are_resampled_and_the_caption_says_so(
    trained: RunFolder, tmp_path: Path
) -> None:
    """As in runs of earlier versions, whose snapshots did not keep them."""
    path = tmp_path / trained.path.name
    shutil.copytree(trained.path, path)
    kept = load_tensors(path / "snapshots" / "epoch-00002.pt", "")
    del kept["episodes"]
    run_folder(CONFIG, tmp_path).save_tensors("snapshots/epoch-00002.pt", kept)
    assert run(tmp_path / "out", path) == 0
    folder, rows = stored(tmp_path / "out")
    assert set(rows["episodes"]) == {0}
    for words in (figure.words for figure in read_figures(folder)):
        assert words
        assert words.caption.endswith(" enough of them, not of the 4 games that they are from.")


def test_titles_say_convention_and_matched_entropy(trained: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / trained.path.name
    shutil.copytree(trained.path, path)
    config = json.loads((path / "config.json").read_text())
    config["config"] |= {
        "env": {"id": "Breakout", "observations": "image", "convention": "v5"},
        "network": "cnn",
        "hidden": [512],
        "match_entropy": 0.9,
    }
    (path / "config.json").write_text(json.dumps(config))
    assert run(tmp_path / "out", path) == 0
    folder, _ = stored(tmp_path / "out")
    for words in (figure.words for figure in read_figures(folder)):
        assert words
        setting = "Breakout: PPO, CNN on images, v5, initial entropy 0.9 log K, "
        assert words.title.startswith(f"Peeled model over {setting}")
        assert words.caption.startswith(f"{setting}states of the")


def test_again_reads_what_is_there_and_draws_what_is_gone(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, trained.path, "--epoch", 0) == 0
    folder, _ = stored(tmp_path)
    rows = folder / "rows" / "overlay.parquet"
    picture = next((folder / "figures").glob("*.png"))
    before, drawn = rows.stat().st_mtime_ns, picture.read_bytes()
    capsys.readouterr()
    assert run(tmp_path, trained.path, "--epoch", 0) == 0
    assert "overlays" not in capsys.readouterr().err
    picture.unlink()
    assert run(tmp_path, trained.path, "--epoch", 0) == 0
    assert picture.read_bytes() == drawn
    assert rows.stat().st_mtime_ns == before


def test_the_view_of_the_cliff_is_measured(view: RunFolder, tmp_path: Path) -> None:
    assert run(tmp_path, view.path) == 0
    folder, rows = stored(tmp_path)
    assert list(rows["name"]) == ["learned-controlled", "etf-controlled"]
    assert list(rows["model"]) == ["learned", "fixed"]
    assert list(rows["cone"]) == ["nonnegative", "free"]
    assert list(rows["states"]) == [8, 8]
    assert rows["reasons"].str.contains("intervals: actions .* have 2 states each").all()
    assert (rows["gap"] > 0).all()
    assert rows["gap_lower"].isna().all()
    words = [figure.words for figure in read_figures(folder)]
    assert len(words) == 2
    assert all(one and "epoch 1: 8 states, labelled by the optimal" in one.caption for one in words)


def test_what_cannot_be_measured_is_said(
    trained: RunFolder, view: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for arguments, said in (
        ((tmp_path / "nothing",), "is no run folder"),
        ((trained.path, "--epoch", 1), "no snapshot of epoch 1 (stored: 0, 2)"),
        ((trained.path, "--seed", -1), "--seed must be >= 0, got -1"),
        ((view.path, "--epoch", 7), "has no epoch 7 of all its tracks (stored: 0, 1)"),
    ):
        assert run(out, *arguments) == 2
        assert said in capsys.readouterr().err
    assert not out.exists()
