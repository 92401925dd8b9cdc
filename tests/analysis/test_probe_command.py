"""`probe` on training runs: on states that it visits, and on those of a stored epoch."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.ppo import PPO
from analysis import __main__ as cli
from analysis.storage import RunFolder, load_tensors
from analysis.training import train

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
    assert load_tensors(folder / "snapshots" / "member-1.pt", "")["features"].shape == (50, 64)


def test_a_stored_epoch_is_measured_as_it_was_in_training(
    trained: RunFolder, tmp_path: Path
) -> None:
    assert probe(tmp_path, trained.path, "--epoch", 0) == 0
    _, rows = rows_in(tmp_path)
    stored = trained.read_rows("epochs").query("epoch == 0").reset_index(drop=True)
    for name in ("feature_equinorm", "head_max_angle", "variance_ratio", "num_samples"):
        np.testing.assert_allclose(rows[name], stored[name], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(rows["entropy"], stored["policy_entropy"], rtol=1e-5)


def test_what_was_not_stored_is_said(
    trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe(tmp_path, trained.path, "--epoch", 1) == 2
    assert "no snapshot of epoch 1 (stored: 0)" in capsys.readouterr().err
    assert probe(tmp_path, trained.path, "--epoch", 0, "--labels", "optimal") == 2
    assert "no observations to label" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
