"""Training runs on disk: rows, snapshots, resumption after a kill, and refusals."""

import errno
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from agents.a2c import A2C
from agents.a3c import A3C
from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.ppo import PPO
from agents.reinforce import Reinforce
from agents.trpo import TRPO
from analysis import storage
from analysis.epoch_rows import COLUMNS, StateMeasurer
from analysis.metrics import collapse_metrics, snapshot_metrics
from analysis.storage import RunFolderError, load_tensors
from analysis.trained import load_policy, read_config, read_snapshots, stored_epochs
from analysis.training import run_folder, train

CONFIG = TrainConfig(
    algorithm=PPO(rollout_steps=16, passes=2, minibatches=2, learning_rate=1e-3),
    heads=(HeadConfig(), HeadConfig("etf")),
    seeds=(0, 1),
    num_envs=2,
    steps=256,
    epoch_steps=64,
    eval_episodes=3,
    snapshot_epochs=(0, 3),
    snapshot_states=20,
    target_return=20.0,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> storage.RunFolder:
    return train(CONFIG, tmp_path_factory.mktemp("runs"), device="cpu")


def test_rows_are_tidy(finished: storage.RunFolder) -> None:
    rows = finished.read_rows("epochs")
    assert len(rows) == 4 * 5
    assert list(rows["epoch"].unique()) == [0, 1, 2, 3, 4]
    assert list(rows[rows["epoch"] == 2]["head"]) == ["linear", "linear", "etf", "etf"]
    assert list(rows[rows["epoch"] == 2]["seed"]) == [0, 1, 0, 1]
    assert set(COLUMNS) <= set(rows.columns)
    undocumented = set(rows.columns) - set(COLUMNS)
    metrics = set(collapse_metrics(np.eye(2), np.arange(2), num_classes=2).as_row())
    assert all(name.startswith("loss_") for name in undocumented - metrics)
    assert rows[rows["epoch"] == 0]["loss_policy_loss"].isna().all()
    assert rows[rows["epoch"] > 0]["loss_policy_loss"].notna().all()
    assert (rows[rows["head"] == "etf"]["head_equinorm"] < 1e-6).all()


def test_target_is_reached_once_and_for_all(finished: storage.RunFolder) -> None:
    rows = finished.read_rows("epochs")
    for _, member in rows.groupby(["head", "seed"]):
        expected = (member["eval_return"] >= 20.0).cummax()
        assert list(member["reached_target"]) == list(expected)
    assert rows["reached_target"].any()


def test_snapshots_hold_what_the_head_saw(finished: storage.RunFolder) -> None:
    names = sorted(path.name for path in (finished.path / "snapshots").iterdir())
    assert names == ["epoch-00000.pt", "epoch-00003.pt"]
    snapshot = load_tensors(finished.path / "snapshots" / "epoch-00003.pt", "")
    assert snapshot["epoch"] == 3
    assert snapshot["heads"] == ["linear", "linear", "etf", "etf"]
    for features, logits, head in zip(
        snapshot["features"], snapshot["logits"], snapshot["head"], strict=True
    ):
        assert features.shape == (20, 64)
        torch.testing.assert_close(features @ head.T, logits)
    for episodes in snapshot["episodes"]:
        assert episodes.shape == (20,)
        assert set(episodes.tolist()) <= set(range(CONFIG.eval_episodes))


def test_snapshots_are_read_back_for_probing(finished: storage.RunFolder) -> None:
    assert stored_epochs(finished.path) == [0, 3]
    snapshots = read_snapshots(finished.path, 3)
    assert [dict(snapshot.tags) for snapshot in snapshots] == [
        {"head_kind": head.kind, "seed": seed} for head, seed in CONFIG.members
    ]
    rows = finished.read_rows("epochs")
    rows = rows[rows["epoch"] == 3]
    assert all(len(snapshot.episodes) == snapshot.num_samples for snapshot in snapshots)
    for snapshot, expected in zip(snapshots, rows["head_max_angle"], strict=True):
        assert snapshot_metrics(snapshot).head_max_angle == pytest.approx(expected, abs=1e-6)
    with pytest.raises(RunFolderError, match=r"no snapshot of epoch 2 \(stored: 0, 3\).*set 'snap"):
        read_snapshots(finished.path, 2)


def test_lost_or_foreign_weights_are_said(finished: storage.RunFolder, tmp_path: Path) -> None:
    copy = tmp_path / finished.path.name
    shutil.copytree(finished.path, copy)
    run_folder(CONFIG, tmp_path).save_tensors("policy.pt", {"policy": {"weight": torch.ones(2)}})
    with pytest.raises(RunFolderError, match=r"not those of its configuration.*train again"):
        load_policy(copy)
    (copy / "policy.pt").unlink()
    with pytest.raises(RunFolderError, match=r"policy\.pt are gone.*train again"):
        load_policy(copy)


@pytest.mark.parametrize(
    "content",
    [
        {"hello": 1},
        {"trainer": {"policy": {}}, "rows": []},
        {"trainer": [1], "initial_entropy": torch.zeros(4), "rows": [{}]},
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_the_remedy(
    tmp_path: Path, content: dict[str, object]
) -> None:
    folder = interrupted(tmp_path)
    folder.save_checkpoint("trainer", content)
    with pytest.raises(RunFolderError, match=r"not one of this run.*delete .*trainer\.pt"):
        train(CONFIG, tmp_path, device="cpu")


def test_a_run_does_not_change_its_precision(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    checkpoint = folder.load_checkpoint("trainer")
    assert checkpoint is not None
    for row in checkpoint["rows"]:
        row["precision"] = "bf16"
    folder.save_checkpoint("trainer", checkpoint)
    with pytest.raises(RunFolderError, match=r"begun in bf16 .* float32.*precision=bf16"):
        train(CONFIG, tmp_path, device="cpu")


def test_what_cannot_be_trained_here_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device"):
        train(CONFIG, tmp_path / "out", device="no such device")
    assert not (tmp_path / "out").exists()


def test_the_configuration_is_read_back(finished: storage.RunFolder) -> None:
    assert read_config(finished.path) == CONFIG
    with pytest.raises(RunFolderError, match="not a training run"):
        read_config(finished.path.parent)


def test_a_finished_run_is_not_trained_again(
    finished: storage.RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.training.Trainer", None)
    gained: list[int] = []
    again = train(CONFIG, finished.path.parent, advance=gained.append)
    assert again.path == finished.path
    assert gained == [CONFIG.steps]


def test_measured_states_give_the_metrics_of_all_of_them() -> None:
    """Against the one-shot function on the states that counted, over several flushes."""
    rng = np.random.default_rng(0)
    head = torch.from_numpy(rng.standard_normal((1, 3, 4)))
    measurer = StateMeasurer(3, 4, [np.random.default_rng(1)], keep=7)
    kept = []
    for _ in range(900):
        features = torch.from_numpy(rng.standard_normal((1, 10, 4)))
        counts = rng.random((1, 10)) < 0.7
        features[0, :, 3] = torch.arange(10)
        measurer(features, features @ head.mT, counts)
        kept.append(features[0][torch.from_numpy(counts[0])])
    measurer.flush()
    states = torch.cat(kept)
    logits = states @ head[0].T
    expected = collapse_metrics(states, logits.argmax(-1), head=head[0], num_classes=3).as_row()
    found = measurer.collapse[0].compute(head[0]).as_row()
    for name in ("feature_max_angle", "within_class_variation", "head_feature_cosine"):
        assert found[name] == pytest.approx(expected[name], rel=1e-9)
    assert found["num_samples"] == len(states)
    entropies = -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)
    assert measurer.entropy_sum[0] / measurer.count[0] == pytest.approx(float(entropies.mean()))
    sampled, of_sample, games = measurer.sample(0)
    assert len(sampled) == 7
    torch.testing.assert_close(of_sample, sampled @ head[0].T)
    assert games.tolist() == sampled[:, 3].tolist(), "the last feature says which column it was"


def test_the_kept_states_are_a_uniform_sample_in_order_of_time() -> None:
    """Each of 300 states is kept in 30 of 300 of the runs, over batches and flushes of any size."""
    times = torch.arange(300, dtype=torch.float64)
    hits = np.zeros(300)
    for seed in range(2000):
        measurer = StateMeasurer(2, 1, [np.random.default_rng(seed)], keep=30)
        for part in times.split([1, 20, 150, 129]):
            n = len(part)
            measurer(part.view(1, n, 1), torch.zeros(1, n, 2), np.ones((1, n), bool))
            if n != 20:
                measurer.flush()
        kept = measurer.sample(0)[0][:, 0].numpy()
        assert (np.diff(kept) > 0).all()
        hits[kept.astype(int)] += 1
    # Binomial(2000, 0.1) at each time: five standard deviations are 67.
    assert np.abs(hits - 200).max() < 67
    assert abs(hits[:21].sum() - 21 * 200) < 5 * (21 * 2000 * 0.1 * 0.9) ** 0.5


def test_a_diverged_member_is_said_and_the_others_go_on() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.standard_normal((2, 60, 4)))
    head = torch.from_numpy(rng.standard_normal((2, 3, 4)))
    alone = StateMeasurer(3, 4, [rng], keep=0)
    alone(features[1:], features[1:] @ head[1:].mT, np.ones((1, 60), bool))
    alone.flush()
    both = StateMeasurer(3, 4, [rng, rng], keep=0)
    for part in (slice(0, 30), slice(30, 60)):
        seen = features[:, part].clone()
        if part.start == 0:
            seen[0, 3, 2] = torch.inf
        both(seen, seen @ head.mT, np.ones((2, 30), bool))
        both.flush()
    assert list(both.diverged) == [True, False]
    lost = both.measured(0, head[0])
    assert lost.pop("num_samples") == 60
    assert np.isnan(list(lost.values())).all()
    found, expected = both.measured(1, head[1]), alone.measured(0, head[1])
    assert found.keys() == expected.keys() == {*lost, "num_samples"}
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_a_run_that_diverges_still_has_all_its_rows(tmp_path: Path) -> None:
    wild = replace(CONFIG, algorithm=replace(CONFIG.algorithm, learning_rate=1e30))
    rows = train(wild, tmp_path, device="cpu").read_rows("epochs")
    assert len(rows) == 4 * 5
    lost = rows[rows["diverged"]]
    assert set(lost["epoch"]) == {1, 2, 3, 4}
    assert lost["policy_entropy"].isna().all()
    assert lost["feature_max_angle"].isna().all()
    assert lost["eval_return"].notna().all()


IMAGES = TrainConfig(
    env=EnvConfig("Breakout", "image"),
    algorithm=PPO(rollout_steps=16, passes=1, minibatches=2),
    heads=(HeadConfig(), HeadConfig("etf")),
    network="cnn",
    hidden=(32,),
    critic="shared",
    num_envs=2,
    steps=256,
    epoch_steps=64,
    eval_episodes=1,
    snapshot_epochs=(0, 3),
)
KILLED = {
    "ppo": CONFIG,
    # An epoch is one iteration: more of them, so that there is time for three kills.
    "reinforce": replace(CONFIG, algorithm=Reinforce(), steps=1024),
    "trpo": replace(CONFIG, algorithm=TRPO(rollout_steps=16)),
    "a2c": replace(CONFIG, algorithm=A2C(anneal=True)),
    # The same; one worker, as several are not deterministic.
    "a3c": replace(
        CONFIG, algorithm=A3C(workers=1), heads=(HeadConfig("etf"),), seeds=(0,), steps=1024
    ),
    "images": IMAGES,
    "ram": replace(
        CONFIG, env=EnvConfig("Pong", "ram"), eval_episodes=1, target_return=None, hidden=(16,)
    ),
    "car racing": replace(IMAGES, env=EnvConfig("CarRacing-v3", "image")),
}
SCRIPT = """
import sys, torch
from pathlib import Path
from typing import Any
sys.path.insert(0, {tests!r})
from test_training_runs import KILLED
from analysis.training import train
if __name__ == "__main__":
    torch.set_num_threads(1)
    config = KILLED[{name!r}]
    train(config, Path({out!r}), device="cpu", advance=lambda steps: print(steps, flush=True))
"""


@pytest.mark.parametrize(
    "name",
    ["ppo", *(pytest.param(name, marks=pytest.mark.slow) for name in KILLED if name != "ppo")],
)
def test_killed_at_any_moment_and_resumed_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    config, out = KILLED[name], tmp_path / "killed"
    finished = train(config, tmp_path / "whole", device="cpu")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), name=name, out=str(out)))
    rng = np.random.default_rng(0)
    folder = run_folder(config, out)
    kills = 0
    while not folder.has_rows("epochs"):
        process = subprocess.Popen(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        # Let it do one to three iterations (an epoch has two), then kill -9; after a few kills
        # let it finish.
        patience = int(rng.integers(1, 4)) if kills < 3 else 10**9
        for line, _ in zip(process.stdout, range(patience), strict=False):
            assert line
        if kills < 3:
            time.sleep(float(rng.random()) * 0.2)
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        _, errors = process.communicate()
        assert "Error" not in errors, errors
    assert kills == 3
    pd.testing.assert_frame_equal(folder.read_rows("epochs"), finished.read_rows("epochs"))
    for file in ("epoch-00000.pt", "epoch-00003.pt"):
        one, other = (load_tensors(f.path / "snapshots" / file, "") for f in (folder, finished))
        assert torch.equal(one["features"][0], other["features"][0])
    assert not list((folder.path / "checkpoints").glob("*.pt"))


def interrupted(out: Path) -> storage.RunFolder:
    """A run stopped after its second epoch."""
    gained = 0

    def advance(steps: int) -> None:
        nonlocal gained
        gained += steps
        if gained > 2 * CONFIG.epoch_steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, out, device="cpu", advance=advance)
    return run_folder(CONFIG, out)


def test_an_unfinished_run_needs_resume(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(RunFolderError, match=r"unfinished run \(128 of 256 steps\).*--resume"):
        train(CONFIG, tmp_path, device="cpu", resume=False)


def test_a_corrupt_checkpoint_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    checkpoint = folder.path / "checkpoints" / "trainer.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(RunFolderError, match=r"damaged.*delete it to start"):
        train(CONFIG, tmp_path, device="cpu")


def test_checkpoints_run_no_pickled_code(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    torch.save({"trainer": Evil()}, folder.path / "checkpoints" / "trainer.pt")
    with pytest.raises(RunFolderError, match="damaged"):
        train(CONFIG, tmp_path, device="cpu")
    assert not marker.exists()


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted(tmp_path)
    before = (folder.path / "checkpoints" / "trainer.pt").read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"No space left.*free some space"):
        train(CONFIG, tmp_path, device="cpu")
    assert (folder.path / "checkpoints" / "trainer.pt").read_bytes() == before
    assert [path.name for path in folder.path.rglob(".*")] == [".lock"]


def test_a_missing_extra_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    for room in ("atari", "atari_ram"):
        monkeypatch.delitem(sys.modules, f"agents.envs.{room}", raising=False)
    config = replace(CONFIG, env=EnvConfig("Pong", "ram"), snapshot_epochs=())
    with pytest.raises(ImportError, match=r"action-collapse\[atari\]"):
        train(config, tmp_path, device="cpu")


LOGGED = replace(CONFIG, heads=(HeadConfig(),), seeds=(0,), snapshot_epochs=())


def assert_logged(folder: storage.RunFolder) -> None:
    """The run's returns are in its log, every epoch once."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.path / "tensorboard" / "linear-0"))
    events.Reload()
    logged = events.Scalars("eval/eval_return")
    rows = folder.read_rows("epochs")
    assert [event.step for event in logged] == list(rows["steps"])
    np.testing.assert_allclose([event.value for event in logged], rows["eval_return"], rtol=1e-6)


def test_tensorboard_logs_the_same_numbers(tmp_path: Path) -> None:
    assert_logged(train(LOGGED, tmp_path, device="cpu", tensorboard=True))


@pytest.mark.parametrize("moment", ["measured", "saved", "logged"])
def test_tensorboard_has_every_epoch_once_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Stopped after the second epoch was evaluated, after its checkpoint, or after its log."""
    place = {
        "measured": "analysis.training._measure",
        "saved": "analysis.storage.RunFolder.save_checkpoint",
        "logged": "analysis.training.TensorBoard.add",
    }[moment]
    calls = 0

    def stopping(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(*arguments)
        if calls == 2:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        owner, name = place.rsplit(".", 1)
        original = pkgutil.resolve_name(owner).__dict__[name]
        patch.setattr(place, stopping)
        with pytest.raises(KeyboardInterrupt):
            train(LOGGED, tmp_path, device="cpu", tensorboard=True)
    assert_logged(train(LOGGED, tmp_path, device="cpu", tensorboard=True))


def test_what_cannot_go_on_keeps_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun by a machine of another precision, whose log this one may not delete."""
    gained: list[int] = []

    def advance(steps: int) -> None:
        gained.append(steps)
        if sum(gained) > LOGGED.epoch_steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(LOGGED, tmp_path, device="cpu", tensorboard=True, advance=advance)
    (events,) = tmp_path.rglob("events.out.*")
    content = events.read_bytes()
    monkeypatch.setattr("analysis.training.precision", lambda trainer: "bf16")
    with pytest.raises(RunFolderError, match="would go on in bf16"):
        train(LOGGED, tmp_path, device="cpu", tensorboard=True)
    assert events.read_bytes() == content


def test_without_tensorboard_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(ImportError, match=r"action-collapse\[tensorboard\].*or leave out"):
        train(LOGGED, tmp_path, device="cpu", tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.writer.SummaryWriter.flush", full)
    with pytest.raises(RunFolderError, match=r"tensorboard: No space left.*free some space"):
        train(LOGGED, tmp_path, device="cpu", tensorboard=True)


def test_matched_entropies_leave_no_head_its_energy(tmp_path: Path) -> None:
    config = replace(LOGGED, heads=(HeadConfig("etf", energy=2.0),), steps=CONFIG.epoch_steps)
    plain = train(config, tmp_path, device="cpu").read_rows("epochs")
    matched = train(replace(config, match_entropy=0.9), tmp_path, device="cpu").read_rows("epochs")
    assert (plain["head_energy"] == 2.0).all()
    assert matched["head_energy"].isna().all()
