"""`probe` on training runs: on states that it visits, and on those of a stored epoch."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.ppo import PPO
from analysis import __main__ as cli
from analysis.storage import RunFolder, RunFolderError, load_tensors
from analysis.trained import load_policy, load_trained, read_probed, read_snapshots
from analysis.training import run_folder, train

CONFIG = TrainConfig(
    env=EnvConfig("IdealCliffWalking-v0"),
    algorithm=PPO(rollout_steps=16, passes=1, minibatches=2),
    heads=(HeadConfig(bias=True), HeadConfig("etf")),
    num_envs=2,
    steps=64,
    epoch_steps=32,
    eval_episodes=4,
    snapshot_epochs=(0,),
    snapshot_states=10**6,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(CONFIG, tmp_path_factory.mktemp("runs"), device="cpu")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """After its first epoch of two."""
    out = tmp_path_factory.mktemp("stopped")
    gained = 0

    def advance(steps: int) -> None:
        nonlocal gained
        gained += steps
        if gained > CONFIG.epoch_steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, out, device="cpu", advance=advance)
    return run_folder(CONFIG, out)


def probe(out: Path, *arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["probe", *map(str, arguments), "--out", str(out)])
    return int(ended.value.code or 0)


def rows_in(out: Path) -> tuple[Path, pd.DataFrame]:
    (folder,) = out.glob("probe-*")
    return folder, pd.read_parquet(folder / "rows" / "probe.parquet")


@pytest.mark.parametrize("name", ["", "policy.pt"])
def test_every_member_is_measured_on_states_that_it_visits(
    trained: RunFolder, tmp_path: Path, name: str
) -> None:
    arguments = (trained.path / name, "--states", 300, "--labels", "optimal", "--snapshot", 50)
    assert probe(tmp_path, *arguments) == 0
    folder, rows = rows_in(tmp_path)
    assert list(rows["head"]) == ["linear", "etf"]
    assert list(rows["num_samples"]) == [300, 300]
    assert rows["greedy_share"].between(0, 1).all()
    assert list(rows["steps"]) == [64, 64]
    snapshots = read_probed(folder)
    assert [dict(snapshot.tags) for snapshot in snapshots] == [
        {"head_kind": "linear", "seed": 0, "labelled": "optimal"},
        {"head_kind": "etf", "seed": 0, "labelled": "optimal"},
    ]
    assert [snapshot.features.shape for snapshot in snapshots] == [(50, 64)] * 2
    assert [snapshot.step for snapshot in snapshots] == [64, 64]
    assert all(len(set(snapshot.episodes.tolist())) > 8 for snapshot in snapshots)
    state = load_policy(trained.path)[1].head
    for member, snapshot in enumerate(snapshots):
        np.testing.assert_array_equal(snapshot.head, state.weight[member].detach().double())
        assert (snapshot.bias is None) == (state.bias is None)
        if state.bias is not None:
            np.testing.assert_array_equal(snapshot.bias, state.bias[member].detach().double())
    assert snapshots[0].bias is not None


def test_a_stored_epoch_is_measured_as_it_was_in_training(
    trained: RunFolder, tmp_path: Path
) -> None:
    assert probe(tmp_path, trained.path, "--epoch", 0) == 0
    _, rows = rows_in(tmp_path)
    stored = trained.read_rows("epochs").query("epoch == 0").reset_index(drop=True)
    for name in ("feature_equinorm", "head_max_angle", "variance_ratio", "num_samples"):
        np.testing.assert_allclose(rows[name], stored[name], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(rows["entropy"], stored["policy_entropy"], rtol=1e-5)


def test_a_run_that_went_on_is_probed_anew(stopped: RunFolder, tmp_path: Path) -> None:
    run = tmp_path / "runs" / stopped.path.name
    shutil.copytree(stopped.path, run)
    assert probe(tmp_path, run, "--states", 40) == 0
    (before,) = tmp_path.glob("probe-*")
    train(CONFIG, run.parent, device="cpu")
    assert probe(tmp_path, run, "--states", 40) == 0
    assert probe(tmp_path, run, "--states", 40) == 0
    (after,) = set(tmp_path.glob("probe-*")) - {before}
    for folder, steps in ((before, 32), (after, 64)):
        rows = pd.read_parquet(folder / "rows" / "probe.parquet")
        assert list(rows["steps"]) == [steps, steps]
        assert [snapshot.step for snapshot in read_probed(folder)] == [steps, steps]


def test_a_probe_killed_between_snapshots_and_rows_is_completed(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_tensors", killed)
        assert probe(tmp_path, trained.path, "--states", 40) == 130
    (folder,) = tmp_path.glob("probe-*")
    assert not (folder / "rows").exists()
    assert probe(tmp_path, trained.path, "--states", 40) == 0
    assert len(read_probed(folder)) == len(rows_in(tmp_path)[1]) == 2


def test_what_is_stored_is_shown(
    trained: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert probe(tmp_path, trained.path, "--states", 40) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr("analysis.commands.probe.probe", None)
    assert probe(tmp_path, trained.path, "--states", 40) == 0
    assert capsys.readouterr().out == first


def test_the_file_that_is_named_is_the_one_that_is_loaded(
    trained: RunFolder, stopped: RunFolder, tmp_path: Path
) -> None:
    run = tmp_path / trained.path.name
    shutil.copytree(trained.path, run)
    checkpoint = run / "checkpoints" / "trainer.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    shutil.copy(stopped.path / "checkpoints" / "trainer.pt", checkpoint)
    named = {path: load_trained(path) for path in (run, run / "policy.pt", checkpoint)}
    assert [found.steps for found in named.values()] == [64, 64, 32]
    whole, finished, unfinished = named.values()
    assert whole.digest == finished.digest != unfinished.digest
    expected = load_tensors(checkpoint, "")["trainer"]["policy"]
    for name, tensor in unfinished.policy.state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("name", ["snapshots/epoch-00000.pt", "rows/epochs.parquet", "config.json"])
def test_other_files_of_a_run_are_refused(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert probe(tmp_path, trained.path / name) == 2
    said = capsys.readouterr().err
    assert "name the folder of a training run, its policy.pt or its checkpoints/trainer.pt" in said
    assert "--epoch N" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--states", 0), "--states must be >= 1, got 0"),
        (("--snapshot", -1), "--snapshot must be >= 0, got -1"),
        (("--seed", -1), "--seed must be >= 0, got -1"),
        (("--epoch", 0, "--states", 10000), "takes no --states"),
        (("--epoch", 0, "--seed", 0, "--snapshot", 5), "takes no --snapshot, --seed"),
    ],
)
def test_options_without_a_meaning_are_refused(
    trained: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    assert probe(tmp_path, trained.path, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_stored_epoch_is_not_of_a_checkpoint(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(tmp_path, trained.path / "policy.pt", "--epoch", 0) == 2
    assert "name its folder" in capsys.readouterr().err


def test_nan_is_explained_on_the_screen_and_in_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two actions have no angle between their centred means to measure."""
    config = replace(CONFIG, env=EnvConfig("CartPole-v1"), heads=(HeadConfig(),))
    run = train(config, tmp_path / "runs", device="cpu")
    assert probe(tmp_path, run.path, "--states", 200) == 0
    _, rows = rows_in(tmp_path)
    (row,) = rows.to_dict("records")
    reasons = json.loads(row["reasons"])
    assert np.isnan(row["feature_max_angle"])
    assert set(reasons) == {
        name for name, value in row.items() if isinstance(value, float) and np.isnan(value)
    }
    said = capsys.readouterr().out
    assert f"feature_max_angle is nan: {reasons['feature_max_angle']}" in said
    assert "ncc_agreement" not in said


def test_a_diverged_member_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = replace(CONFIG, algorithm=replace(CONFIG.algorithm, learning_rate=1e30))
    run = train(wild, tmp_path / "runs", device="cpu")
    assert probe(tmp_path, run.path, "--states", 20) == 2
    assert (
        "no member of this run can be measured (ValueError: head holds NaN"
        in capsys.readouterr().err
    )


def test_one_diverged_member_leaves_the_others_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(replace(CONFIG, seeds=(0, 1)), tmp_path / "runs", device="cpu")
    stored = load_tensors(run.path / "policy.pt", "")
    for name, tensor in stored["policy"].items():
        if name.startswith("backbone"):
            tensor[0] = torch.nan
    run.save_tensors("policy.pt", stored)
    assert probe(tmp_path, run.path, "--states", 20, "--snapshot", 5) == 0
    folder, rows = rows_in(tmp_path)
    metrics = rows.set_index("member").select_dtypes("number").drop(columns=["seed", "steps"])
    assert metrics.loc[0].isna().all()
    assert metrics.loc[1:, "feature_norm"].notna().all()
    assert set(json.loads(rows["reasons"][0])) == set(metrics.columns)
    assert "everything of linear 0 is nan: ValueError: " in capsys.readouterr().out
    assert [s.tags["seed"] for s in read_probed(folder)] == [1, 0, 1]


def test_a_stored_epoch_leaves_out_who_had_diverged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(replace(CONFIG, seeds=(0, 1)), tmp_path / "runs", device="cpu")
    (epoch,) = CONFIG.snapshot_epochs
    name = f"snapshots/epoch-{epoch:05d}.pt"
    stored = load_tensors(run.path / name, "")
    stored["features"][0][3, 1] = torch.nan
    run.save_tensors(name, stored)
    assert [one is None for one in read_snapshots(run.path, epoch)] == [True, False, False, False]
    assert probe(tmp_path, run.path, "--epoch", epoch) == 0
    _, rows = rows_in(tmp_path)
    assert rows["feature_norm"].isna().tolist() == [True, False, False, False]
    assert "everything of linear 0 is nan: the member has diverged" in capsys.readouterr().out
    for logits in stored["logits"]:
        logits.fill_(torch.inf)
    run.save_tensors(name, stored)
    assert probe(tmp_path, run.path, "--epoch", epoch) == 2
    assert "no member of this run can be measured (the member has" in capsys.readouterr().err


def test_steps_of_a_policy_without_its_rows_are_those_of_its_checkpoint(
    trained: RunFolder, stopped: RunFolder, tmp_path: Path
) -> None:
    """As a kill leaves it that comes between the two."""
    run = tmp_path / trained.path.name
    shutil.copytree(trained.path, run, ignore=shutil.ignore_patterns("rows"))
    checkpoint = load_tensors(stopped.path / "checkpoints" / "trainer.pt", "")
    checkpoint["trainer"]["steps"] = 64
    run_folder(CONFIG, tmp_path).save_checkpoint("trainer", checkpoint)
    assert load_trained(run).steps == 64


def test_probes_without_snapshots_are_said(trained: RunFolder, tmp_path: Path) -> None:
    assert probe(tmp_path, trained.path, "--states", 20, "--snapshot", 0) == 0
    folder, _ = rows_in(tmp_path)
    with pytest.raises(RunFolderError, match=r"no snapshots of members.*--snapshot above 0"):
        read_probed(folder)
    RunFolder.save_tensors(run_folder(CONFIG, tmp_path), "snapshots/member-0.pt", {"features": 1})
    with pytest.raises(RunFolderError, match=r"no snapshot that can be read.*probe again"):
        read_probed(run_folder(CONFIG, tmp_path).path)


def test_what_was_not_stored_is_said(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(tmp_path, trained.path, "--epoch", 1) == 2
    assert "no snapshot of epoch 1 (stored: 0)" in capsys.readouterr().err
    assert probe(tmp_path, trained.path, "--epoch", 0, "--labels", "optimal") == 2
    assert "no observations to label" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
