"""Run folders: content-addressed, atomic, never overwritten, honest about damage."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis import storage
from analysis.storage import RunFolder, RunFolderError, as_json, write_atomically

ROWS = pd.DataFrame({"arm": ["a", "a"], "epoch": [0, 1], "value": [0.1, float("nan")]})


def test_same_configuration_means_same_folder(tmp_path) -> None:
    one = RunFolder(tmp_path, "run", {"b": 1, "a": (1, 2)})
    again = RunFolder(tmp_path, "run", {"a": [1, 2], "b": 1})
    other = RunFolder(tmp_path, "run", {"b": 2, "a": [1, 2]})
    assert one.path == again.path
    assert one.path != other.path
    assert json.loads((one.path / "config.json").read_text()) == {"a": [1, 2], "b": 1}


def test_rows_round_trip_exactly_and_are_never_overwritten(tmp_path) -> None:
    folder = RunFolder(tmp_path, "run", {})
    assert not folder.has_rows("part")
    folder.write_rows("part", ROWS)
    pd.testing.assert_frame_equal(folder.read_rows("part"), ROWS)
    with pytest.raises(RunFolderError, match="never overwritten"):
        folder.write_rows("part", ROWS)


def test_damaged_rows_are_named_with_the_remedy(tmp_path) -> None:
    folder = RunFolder(tmp_path, "run", {})
    folder.write("rows/part.parquet", b"PAR1 not really")
    with pytest.raises(RunFolderError, match="delete it and run the same command again"):
        folder.read_rows("part")


def test_edited_configuration_is_refused(tmp_path) -> None:
    folder = RunFolder(tmp_path, "run", {"seeds": 20})
    (folder.path / "config.json").write_text('{"seeds": 3}')
    with pytest.raises(RunFolderError, match="edited or damaged"):
        RunFolder(tmp_path, "run", {"seeds": 20})


def test_checkpoints_round_trip_without_pickled_code(tmp_path) -> None:
    folder = RunFolder(tmp_path, "run", {})
    assert folder.load_checkpoint("part") is None
    state = {"x": torch.arange(3.0), "epoch": 4, "rows": [{"seed": 0, "value": 0.5}]}
    folder.save_checkpoint("part", state)
    loaded = folder.load_checkpoint("part")
    assert loaded is not None
    assert torch.equal(loaded["x"], state["x"])
    assert loaded["rows"] == state["rows"]
    folder.drop_checkpoint("part")
    folder.drop_checkpoint("part")
    assert folder.load_checkpoint("part") is None


class Payload:
    """Pickled code that would create a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("damage", ["truncated", "code"])
def test_bad_checkpoints_are_refused(tmp_path, damage) -> None:
    folder = RunFolder(tmp_path, "run", {})
    path = folder.path / "checkpoints" / "part.pt"
    if damage == "truncated":
        folder.save_checkpoint("part", {"x": torch.arange(1000.0)})
        path.write_bytes(path.read_bytes()[:200])
    else:
        path.parent.mkdir()
        torch.save({"x": Payload(tmp_path / "executed")}, path)
    with pytest.raises(RunFolderError, match="delete it to start this part"):
        folder.load_checkpoint("part")
    assert not (tmp_path / "executed").exists()


def test_atomic_write_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch) -> None:
    target = tmp_path / "file.bin"
    write_atomically(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"No space left on device; free some space"):
        write_atomically(target, b"new content")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_one_session_at_a_time_and_each_is_recorded(tmp_path) -> None:
    folder = RunFolder(tmp_path, "run", {})
    busy = pytest.raises(RunFolderError, match="another process is writing")
    with folder.session(), busy, RunFolder(tmp_path, "run", {}).session():
        pytest.fail("two sessions at once")
    with folder.session():
        pass
    sessions = json.loads((folder.path / "environment.json").read_text())["sessions"]
    assert len(sessions) == 2
    assert sessions[0]["packages"]["numpy"] == np.__version__
    assert {"processor", "cores", "accelerator"} <= set(sessions[0]["machine"])
    assert "commit" in sessions[0]


def test_json_is_stable_and_has_no_nan() -> None:
    assert json.loads(as_json({"b": float("nan"), "a": (1, 2.5)})) == {"a": [1, 2.5], "b": None}
    assert as_json({"b": 1, "a": 2}) == as_json({"a": 2, "b": 1})
