"""Stored training runs read back together, and which of their rows are reported."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.epoch_rows import COLUMNS
from analysis.runs import RUN, read_training_rows, reported_rows, rows_digest
from analysis.storage import RunFolder, RunFolderError
from analysis.tables import improvement_table, table1


def rows_of(
    heads: tuple[str, ...] = ("linear", "etf"),
    seeds: tuple[int, ...] = (0, 1),
    epochs: int = 2,
    **changes: Any,
) -> pd.DataFrame:
    """Rows of one run whose returns rise with the epoch, the seed and the learning rate."""
    rows = []
    for head, seed, epoch in itertools.product(heads, seeds, range(epochs + 1)):
        row: dict[str, Any] = dict.fromkeys(COLUMNS, 0.0) | {
            "algorithm": "ppo",
            "env": "Pong",
            "convention": "NoFrameskip-v4",
            "matched_entropy": "",
            "observations": "image",
            "network": "cnn",
            "head": head,
            "feature": "rectified",
            "learning_rate": 1e-3,
            "seed": seed,
            "epoch": epoch,
            "steps": 1000 * epoch,
            "eval_episodes": 10,
            "target_return": float("nan"),
        }
        row |= changes
        row["eval_return"] = epoch + 0.1 * seed + row["learning_rate"]
        rows.append(row)
    return pd.DataFrame(rows)


def store(parent: Path, rows: pd.DataFrame | None, **config: Any) -> Path:
    """A run folder; without rows an unfinished one."""
    folder = RunFolder(parent, "train-ppo-Pong", {"experiment": "train", **config})
    with folder.session():
        if rows is not None:
            folder.write_rows("epochs", rows)
    return folder.path


def test_finished_runs_are_found_at_any_depth_and_nothing_else_is(tmp_path) -> None:
    one, two = rows_of(learning_rate=1e-3), rows_of(learning_rate=1e-4).assign(loss_kl=0.5)
    paths = [store(tmp_path, one, run=1), store(tmp_path / "sweep" / "cells", two, run=2)]
    store(tmp_path, None, run=3)
    other = RunFolder(tmp_path, "figure3", {"experiment": "figure3"})
    other.write_rows("epochs", rows_of())
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text("[]")
    found = read_training_rows(tmp_path)
    assert len(found) == len(one) + len(two)
    for path, own in zip(paths, (one, two), strict=True):
        read = found[found[RUN] == path.name].reset_index(drop=True)
        pd.testing.assert_frame_equal(read[list(own)], own)
    assert found.loc[found[RUN] == paths[0].name, "loss_kl"].isna().all()


def test_only_atari_has_a_convention(tmp_path) -> None:
    store(tmp_path, rows_of(), run=1)
    store(tmp_path, rows_of(env="CartPole-v1"), run=2)
    found = read_training_rows(tmp_path).groupby("env")["convention"].unique()
    assert {env: list(own) for env, own in found.items()} == {
        "Pong": ["NoFrameskip-v4"],
        "CartPole-v1": [""],
    }


def test_the_target_is_that_of_the_configuration(tmp_path) -> None:
    rows = rows_of().drop(columns="target_return")
    paths = {
        target: store(tmp_path, rows, config={"target_return": target}) for target in (None, 15)
    }
    found = read_training_rows(tmp_path).groupby(RUN)["target_return"]
    assert found.unique()[paths[15].name].tolist() == [15.0]
    assert np.isnan(found.unique()[paths[None].name]).all()
    lines = table1(read_training_rows(paths[15]))
    assert set(lines["target"]) == {15.0}


def test_a_run_folder_or_overlapping_directories_may_be_named(tmp_path) -> None:
    path = store(tmp_path, rows_of())
    once = read_training_rows(path)
    pd.testing.assert_frame_equal(read_training_rows([tmp_path, path, tmp_path]), once)


def test_without_a_finished_run_the_command_is_named(tmp_path) -> None:
    with pytest.raises(RunFolderError, match=r"no finished training run .*action-collapse train"):
        read_training_rows(tmp_path)
    store(tmp_path, None)
    with pytest.raises(RunFolderError, match=r"\(1 unfinished\)"):
        read_training_rows(tmp_path)


def test_copies_and_rows_of_other_versions_are_refused(tmp_path) -> None:
    store(tmp_path / "a", rows_of())
    store(tmp_path / "b", rows_of())
    with pytest.raises(RunFolderError, match="hold the same run"):
        read_training_rows(tmp_path)
    old = store(tmp_path / "c", rows_of().drop(columns="epsilon"), run=2)
    with pytest.raises(RunFolderError, match="lack epsilon"):
        read_training_rows(old)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"experiment": "tra', b"\xff"])
def test_a_run_whose_configuration_is_damaged_is_not_passed_over(tmp_path, content) -> None:
    store(tmp_path, rows_of(), run=1)
    (store(tmp_path, rows_of(), run=2) / "config.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"config\.json .*: move the folder away"):
        read_training_rows(tmp_path)


def test_the_folders_name_does_not_enter_statistics_or_digest(tmp_path) -> None:
    store(tmp_path, rows_of())
    read = read_training_rows(tmp_path)
    plain = table1(read.drop(columns=RUN))
    pd.testing.assert_frame_equal(table1(read), plain)
    renamed = read.assign(**{RUN: "another"}).sample(frac=1, random_state=0)
    assert rows_digest(renamed) == rows_digest(read)


def test_the_digest_changes_with_any_value_and_column() -> None:
    rows = rows_of()
    changed = rows.copy()
    changed.loc[3, "eval_return"] += 1e-12
    digests = {
        rows_digest(rows),
        rows_digest(changed),
        rows_digest(rows.assign(loss_kl=0.0)),
        rows_digest(rows.iloc[1:]),
        rows_digest(rows.rename(columns={"eval_length": "length"})),
    }
    assert len(digests) == 5


def test_reported_rows_have_the_chosen_rate_and_other_seeds() -> None:
    rows = pd.concat(
        [rows_of(seeds=(0, 1, 100), learning_rate=rate) for rate in (1e-4, 1e-3)]
        + [rows_of(seeds=(0, 1, 100), epsilon=0.1)],
        ignore_index=True,
    )
    # On the reported seeds the other rate is far better; only the selection seed counts.
    rows.loc[(rows["seed"] != 100) & (rows["learning_rate"] == 1e-4), "eval_return"] += 100
    found = reported_rows(rows, (100,))
    expected = rows_of(seeds=(0, 1), learning_rate=1e-3)
    pd.testing.assert_frame_equal(found, expected, check_like=True)


def test_an_open_learning_rate_is_an_error_with_a_remedy() -> None:
    rows = pd.concat([rows_of(learning_rate=rate) for rate in (1e-4, 1e-3)], ignore_index=True)
    with pytest.raises(ValueError, match=r"ppo, Pong, etf has .* 0.0001, 0.001 .*selection-seeds"):
        reported_rows(rows, (100,))
    assert set(reported_rows(rows_of(), (100,))["seed"]) == {0, 1}


def stored_config(**changes: Any) -> dict[str, Any]:
    algorithm = {"discount": 0.99, "learning_rate": 1e-3, "epsilon": 0.0}
    return {"algorithm": algorithm, "hidden": [64, 64], "seeds": [0], "steps": 100} | changes


def test_runs_of_one_arm_that_were_trained_differently_are_refused(tmp_path) -> None:
    wide = store(tmp_path, rows_of(seeds=(0,)), config=stored_config())
    narrow = store(tmp_path, rows_of(seeds=(1,)), config=stored_config(hidden=[8], seeds=[1]))
    with pytest.raises(RunFolderError) as refused:
        read_training_rows(tmp_path)
    said = str(refused.value)
    assert "trained differently: hidden is " in said
    assert f"[64, 64] in {wide.name}" in said
    assert f"[8] in {narrow.name}" in said
    assert "seeds is" not in said
    assert len(read_training_rows(wide)) == len(rows_of(seeds=(0,)))


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": {"discount": 0.5, "learning_rate": 1e-3, "epsilon": 0.0}},
        {"critic": "shared"},
        {"algorithm": {"discount": 0.99, "learning_rate": 1e-3, "epsilon": 0.0, "clip": 0.1}},
    ],
)
def test_any_hyper_parameter_tells_runs_apart(tmp_path, changes) -> None:
    common = stored_config(critic="separate")
    store(tmp_path, rows_of(seeds=(0,)), config=common)
    store(tmp_path, rows_of(seeds=(1,)), config=common | changes)
    if "clip" in changes.get("algorithm", {}):
        # An option that the other run does not know is of another version: nothing differs.
        read_training_rows(tmp_path)
    else:
        with pytest.raises(RunFolderError, match="trained differently"):
            read_training_rows(tmp_path)


def test_budgets_rates_and_heads_may_differ(tmp_path) -> None:
    other = {"discount": 0.99, "learning_rate": 1e-4, "epsilon": 0.1}
    store(tmp_path, rows_of(seeds=(0,)), config=stored_config())
    store(tmp_path, rows_of(seeds=(1,)), config=stored_config(steps=50, target_return=3))
    store(
        tmp_path,
        rows_of(learning_rate=1e-4),
        config=stored_config(algorithm=other, heads=["linear", "etf"]),
    )
    assert len(read_training_rows(tmp_path)) == 24


def test_runs_with_matched_initial_entropies_are_an_arm_of_their_own(tmp_path) -> None:
    plain = store(tmp_path, rows_of(seeds=(0, 1)), config=stored_config(match_entropy=None))
    matched = store(tmp_path, rows_of(seeds=(0, 1)), config=stored_config(match_entropy=0.99))
    rows = read_training_rows(tmp_path)
    own = rows.groupby(RUN)["matched_entropy"].unique()
    assert own[plain.name].tolist() == [""]
    assert own[matched.name].tolist() == ["0.99"]
    # The same heads and seeds twice, and each head is held against its own kind.
    table = table1(rows)
    assert table.groupby("matched_entropy")["n"].apply(list).to_dict() == {
        "": [2, 2],
        "0.99": [2, 2],
    }
    improvement = improvement_table(rows)
    assert improvement["matched_entropy"].tolist() == ["", "0.99"]
    assert set(improvement["environments"]) == {"Pong"}


@pytest.mark.parametrize(
    ("name", "value"), [("head_energy", 25.0), ("head_bias", 1.0), ("precision", "bf16")]
)
def test_heads_of_one_kind_that_differ_are_refused(tmp_path, name, value) -> None:
    store(tmp_path, rows_of(seeds=(0,)), run=1)
    store(tmp_path, rows_of(seeds=(1,), **{name: value}), run=2)
    with pytest.raises(RunFolderError, match=f"{name} is .*{value} in "):
        read_training_rows(tmp_path)


def test_without_a_run_that_does_not_explore_table_2_is_named() -> None:
    with pytest.raises(ValueError, match=r"every run explores.*0\.1.*Table 2"):
        reported_rows(rows_of(epsilon=0.1))
    with pytest.raises(ValueError, match=r"every run explores"):
        table1(rows_of(epsilon=0.1))


def test_an_arm_whose_rate_has_no_reported_seed_is_not_dropped() -> None:
    rows = pd.concat(
        [
            rows_of(heads=("linear",), seeds=(0, 100)),
            rows_of(heads=("etf",), seeds=(0, 100), learning_rate=1e-4),
            rows_of(heads=("etf",), seeds=(100,), learning_rate=1e-3),
        ]
    )
    with pytest.raises(ValueError, match=r"ppo, Pong, etf has runs .* 0\.001 on the selection"):
        reported_rows(rows, (100,))
    with pytest.raises(ValueError, match="on the selection"):
        reported_rows(rows_of(seeds=(100, 101)), (100, 101))
