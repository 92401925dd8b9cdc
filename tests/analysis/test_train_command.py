"""`train` through the command line: what it does, what it refuses, and in which words."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from agents.errors import ConfigurationError, WorkerError
from analysis import __main__ as cli
from analysis.commands import training

# The smallest run with two epochs.
QUICK = ("--device", "cpu", "--steps", "128", "--set", "epoch_steps=64", "num_envs=2")
QUICK += ("rollout_steps=16", "minibatches=2", "passes=1", "eval_episodes=2")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def train(out: Path, *arguments: object) -> int:
    """Train the smallest run; ``name=value`` goes to its --set."""
    settings = [argument for argument in arguments if "=" in str(argument)]
    options = [argument for argument in arguments if "=" not in str(argument)]
    return run("train", "--out", out, *options, *QUICK, *settings)


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "rows" / "epochs.parquet")


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C once a run has gained so many steps."""
    real: Callable[..., Any] = training.train

    def interrupted(*arguments: Any, advance: Callable[[int], None], **options: Any) -> Any:
        gained = 0

        def count(steps: int) -> None:
            nonlocal gained
            gained += steps
            if gained > after:
                raise KeyboardInterrupt
            advance(steps)

        return real(*arguments, advance=count, **options)

    monkeypatch.setattr(training, "train", interrupted)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory, its name like markup, that holds one finished run."""
    out = tmp_path_factory.mktemp("runs") / "[red]runs[/x]"
    assert train(out, "--head", "linear", "etf", "--seed", "0", "3") == 0
    return out


def test_every_head_and_seed_is_trained_into_one_folder(finished: Path) -> None:
    (folder,) = finished.iterdir()
    assert folder.name.startswith("train-ppo-CartPole-v1-linear-etf-")
    rows = rows_of(folder)
    assert list(rows["epoch"].unique()) == [0, 1, 2]
    assert set(zip(rows["head"], rows["seed"], strict=True)) == {
        ("linear", 0),
        ("linear", 3),
        ("etf", 0),
        ("etf", 3),
    }
    sessions = json.loads((folder / "environment.json").read_text())["sessions"]
    assert len(sessions) == 1
    assert list((folder / "checkpoints").iterdir()) == []


def test_a_finished_run_is_shown_again_and_not_trained(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analysis.training.Trainer", None)
    assert train(finished, "--head", "linear", "etf", "--seed", "0", "3") == 0
    printed = capsys.readouterr()
    (folder,) = finished.iterdir()
    assert f"rows: {folder}\n" in printed.out
    assert "ppo on CartPole-v1, 128 steps a member" in printed.out
    last = rows_of(folder).query("head == 'etf' and seed == 3").iloc[-1]
    (line,) = (line for line in printed.out.splitlines() if "etf" in line and " 3 " in line)
    assert f"{last['eval_return']:.1f}" in line
    assert f"{last['policy_entropy']:.3f}" in line


@pytest.mark.parametrize(
    ("argument", "column", "value"),
    [
        (("--env", "IdealCliffWalking-v0"), "env", "IdealCliffWalking-v0"),
        (("--feature", "linear"), "feature", "linear"),
        (("learning_rate=0.01",), "learning_rate", 0.01),
        (("epsilon=0.25",), "epsilon", 0.25),
    ],
)
def test_options_reach_the_rows(
    tmp_path: Path, argument: Sequence[str], column: str, value: object
) -> None:
    assert train(tmp_path, *argument) == 0
    (folder,) = tmp_path.iterdir()
    assert set(rows_of(folder)[column]) == {value}


@pytest.mark.parametrize("algorithm", ["reinforce", "trpo", "a2c"])
def test_every_algorithm_trains(tmp_path: Path, algorithm: str) -> None:
    settings = ("num_envs=1", "eval_episodes=1", "epoch_steps=64")
    options = ("--algorithm", algorithm, "--steps", "64", "--device", "cpu", "--set", *settings)
    rollout = () if algorithm == "reinforce" else ("rollout_steps=16",)
    assert run("train", "--out", tmp_path, *options, *rollout) == 0
    (folder,) = tmp_path.iterdir()
    assert set(rows_of(folder)["algorithm"]) == {algorithm}


def test_ctrl_c_names_resume_and_resume_gives_the_same_rows(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ("--head", "linear", "etf", "--seed", "0", "3")
    with monkeypatch.context() as stopped:
        interrupt(stopped, after=64)
        assert train(tmp_path, *options) == 130
    said = capsys.readouterr().err
    assert "stopped; the same command with --resume continues from the last checkpoint" in said
    assert "Traceback" not in said

    assert train(tmp_path, *options) == 2
    said = capsys.readouterr().err
    (folder,) = tmp_path.iterdir()
    assert "continue it with --resume" in said
    assert str(folder) in said

    assert train(tmp_path, *options, "--resume") == 0
    (uninterrupted,) = finished.iterdir()
    pd.testing.assert_frame_equal(rows_of(folder), rows_of(uninterrupted))


def test_resuming_what_was_not_begun_says_so_and_names_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as stopped:
        interrupt(stopped, after=64)
        assert train(tmp_path, "discount=0.98") == 130
    (begun,) = tmp_path.iterdir()
    capsys.readouterr()
    assert train(tmp_path, "discount=0.9", "--resume") == 0
    said = capsys.readouterr().err
    (other,) = set(tmp_path.iterdir()) - {begun}
    assert f"nothing to resume in {other}: training from the beginning" in said
    assert f"an unfinished run is {begun.name}, with algorithm.discount 0.98 (now 0.9)" in said
    for options in (["discount=0.98"], ["discount=0.9"]):
        assert train(tmp_path, *options, "--resume") == 0
        assert "nothing to resume" not in capsys.readouterr().err


def test_a_corrupt_checkpoint_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as stopped:
        interrupt(stopped, after=64)
        assert train(tmp_path) == 130
    (checkpoint,) = tmp_path.glob("*/checkpoints/trainer.pt")
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    assert train(tmp_path, "--resume") == 2
    said = capsys.readouterr().err
    assert f"error: {checkpoint} is missing or damaged" in said
    assert "delete it to start this part from its beginning" in said
    checkpoint.unlink()
    assert train(tmp_path, "--resume") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--env", "[/x]"), "unknown environment '[/x]'"),
        (("--env", "[red]Mars[/]"), "unknown environment '[red]Mars[/]'"),
        (("--env", "Pong", "--network", "cnn", "--observations", "ram"), "network='cnn'"),
        (("--algorithm", "sarsa"), "--algorithm"),
        (("--head", "round"), "--head"),
        (("--steps", "0"), "steps must be"),
        (("--steps", "many"), "--steps"),
        (("--seed", "1", "1"), "seeds must be"),
        (("--threads", "0"), "--threads must be >= 1, got 0"),
        (("--set", "learning_rate"), "--set takes name=value, got 'learning_rate'"),
        (("--set", "learning_rat=1"), "did you mean 'learning_rate'?"),
        (("--set", "learning_rate=fast"), "learning_rate"),
        (("--set", "learning_rate=-1"), "learning_rate must be"),
        (("--device", "abacus"), "--device: unknown device 'abacus': use auto, cpu or cuda"),
        (("--head", "orthogonal", "--set", "hidden=(8,1)"), "hidden=(8, 1) is too narrow"),
    ],
)
def test_misuse_names_what_is_wrong_and_leaves_nothing_behind(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    said: str,
) -> None:
    assert run("train", "--out", tmp_path / "out", *arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert not list(tmp_path.rglob("rows"))


def test_cuda_without_a_gpu_is_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("train", "--out", tmp_path, "--device", "cuda") == 2
    assert "--device: device 'cuda' was asked for, and PyTorch sees 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    for room in ("atari", "atari_ram"):
        monkeypatch.delitem(sys.modules, f"agents.envs.{room}", raising=False)
    assert run("train", "--out", tmp_path, "--env", "Pong", "--network", "mlp") == 2
    assert "run pip install 'action-collapse[atari]'" in capsys.readouterr().err


def test_a_run_folder_whose_rows_lack_columns_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path) == 0
    (folder,) = tmp_path.iterdir()
    path = folder / "rows" / "epochs.parquet"
    pd.read_parquet(path).drop(columns="policy_entropy").to_parquet(path, index=False)
    capsys.readouterr()
    assert train(tmp_path) == 2
    said = capsys.readouterr().err
    assert f"error: {folder} was made by another version, its rows lack policy_entropy" in said


@pytest.mark.parametrize("content", [b"", b'{"sessions": 3}', b"\xff"])
def test_a_damaged_record_of_sessions_is_no_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    assert train(tmp_path) == 0
    (folder,) = tmp_path.iterdir()
    (folder / "rows" / "epochs.parquet").unlink()
    log = folder / "environment.json"
    log.write_bytes(content)
    assert train(tmp_path) == 2
    said = capsys.readouterr().err
    assert str(log) in said
    assert "move the file away" in said


def test_an_error_inside_training_is_not_taken_for_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ValueError("a defect of this project")

    monkeypatch.setattr(training, "train", broken)
    with pytest.raises(ValueError, match="a defect of this project"):
        cli.main(["train", "--out", str(tmp_path), *QUICK])


@pytest.mark.parametrize(
    "error",
    [
        WorkerError("a worker died (exit code -9): resume [from] the last checkpoint"),
        ConfigurationError("match_entropy=0.1 cannot be reached: choose a larger [one]"),
    ],
)
def test_what_only_training_finds_is_an_error_without_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def stopped(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(training, "train", stopped)
    assert train(tmp_path) == 2
    assert capsys.readouterr().err.endswith(f"error: {error}\n")
