"""Run folders: content-addressed, atomic, never overwritten, honest about damage."""

import errno
import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analysis import storage
from analysis.storage import (
    RunFolder,
    RunFolderError,
    as_json,
    load_rows,
    load_tensors,
    source_digest,
    write_atomically,
)

ROWS = pd.DataFrame({"arm": ["a", "a"], "epoch": [0, 1], "value": [0.1, float("nan")]})


def test_same_configuration_means_same_folder(tmp_path) -> None:
    one = RunFolder(tmp_path, "run", {"b": 1, "a": (1, 2)})
    again = RunFolder(tmp_path, "run", {"a": [1, 2], "b": 1})
    other = RunFolder(tmp_path, "run", {"b": 2, "a": [1, 2]})
    assert one.path == again.path
    assert one.path != other.path
    assert not list(tmp_path.iterdir())
    with one.session():
        pass
    assert json.loads((one.path / "config.json").read_text()) == {"a": [1, 2], "b": 1}


def test_rows_of_the_same_configuration_are_taken_over(tmp_path) -> None:
    results = tmp_path / "results" / "deep"
    for number in (1, 2):
        made = RunFolder(results, "run", {"a": number})
        made.write_rows("part", ROWS.assign(number=number))
        made.path.rename(results / f"run-{number}")
    (tmp_path / "results" / "config.json").write_bytes(b"\xff")  # of no rows
    folder = RunFolder(tmp_path / "out", "run", {"a": 2})
    folder.take_over(tmp_path / "results")
    folder.take_over(tmp_path / "results")
    pd.testing.assert_frame_equal(folder.read_rows("part"), ROWS.assign(number=2))
    other = RunFolder(tmp_path / "out", "run", {"a": 3})
    other.take_over(tmp_path / "results")
    assert not other.path.exists()


@pytest.mark.parametrize("name", ["rows/part.parquet", "config.json"])
def test_damaged_rows_are_not_taken_over(tmp_path, name) -> None:
    made = RunFolder(tmp_path / "results", "run", {})
    made.write_rows("part", ROWS)
    (made.path / name).write_bytes(b"PAR1 not really")
    with pytest.raises(RunFolderError, match=rf"{name} is .*damaged.*: restore it, or name"):
        RunFolder(tmp_path / "out", "run", {}).take_over(tmp_path / "results")


def test_a_source_digest_is_of_the_parts_that_are_named() -> None:
    digests = {source_digest(), source_digest("lpm"), source_digest("lpm", "analysis/peeled.py")}
    assert len(digests) == 3
    assert source_digest("lpm") in digests


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


@pytest.mark.parametrize("content", [b'{"seeds": 3}', b"", b'{"seeds\xff": 20}'])
def test_edited_configuration_is_refused(tmp_path, content) -> None:
    folder = RunFolder(tmp_path, "run", {"seeds": 20})
    folder.write("notes", "")
    (folder.path / "config.json").write_bytes(content)
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
        path.parent.mkdir(parents=True)
        torch.save({"x": Payload(tmp_path / "executed")}, path)
    with pytest.raises(RunFolderError, match="delete it to start this part"):
        folder.load_checkpoint("part")
    assert not (tmp_path / "executed").exists()


def flipped(content: bytes, byte: int) -> bytes:
    damaged = bytearray(content)
    damaged[byte] ^= 1 << byte % 8
    return bytes(damaged)


@pytest.mark.parametrize("place", [0.05, 0.3, 0.6, 0.9])
def test_a_flipped_bit_is_named_with_its_file_and_the_remedy(tmp_path, place) -> None:
    folder = RunFolder(tmp_path, "run", {})
    folder.save_checkpoint("part", {"x": torch.arange(1000.0)})
    folder.write_rows("part", ROWS)
    for name, load in (
        ("checkpoints/part.pt", folder.load_checkpoint),
        ("rows/part.parquet", folder.read_rows),
    ):
        path = folder.path / name
        content = path.read_bytes()
        path.write_bytes(flipped(content, int(place * len(content))))
        with pytest.raises(RunFolderError, match=r"digest.*delete it") as refused:
            load("part")
        assert str(path) in str(refused.value)


def test_files_of_earlier_versions_have_no_digest_and_load(tmp_path) -> None:
    torch.save({"x": torch.arange(3.0)}, tmp_path / "old.pt")
    assert torch.equal(load_tensors(tmp_path / "old.pt", "")["x"], torch.arange(3.0))
    ROWS.to_parquet(tmp_path / "old.parquet", index=False)
    pd.testing.assert_frame_equal(load_rows(tmp_path / "old.parquet", ""), ROWS)


@pytest.mark.parametrize("kind", [OSError, ValueError, KeyError, TypeError, AttributeError])
def test_whatever_decoders_raise_names_the_file_and_the_remedy(tmp_path, monkeypatch, kind) -> None:
    """All of these come from flipped bits in rows without a digest."""
    path = tmp_path / "old.parquet"
    path.write_bytes(b"")

    def damaged(*arguments: object) -> None:
        raise kind("something deep inside")

    monkeypatch.setattr(pd, "read_parquet", damaged)
    with pytest.raises(RunFolderError) as refused:
        load_rows(path, "make it again")
    assert str(refused.value).startswith(f"{path} is missing or damaged ({kind.__name__}: ")
    assert str(refused.value).endswith("): make it again")


def test_unreadable_files_are_not_to_be_deleted(tmp_path, monkeypatch) -> None:
    def forbidden(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    for load in (load_tensors, load_rows):
        with pytest.raises(RunFolderError, match="make it readable for this user") as refused:
            load(tmp_path / "file", "delete it")
        assert "delete" not in str(refused.value)


FULL = "free some space, or move the folder to another disk and give --out its new parent"


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (
            errno.ENOSPC,
            "free some space, or move the folder to another disk and give --out its new parent",
        ),
        (
            errno.EDQUOT,
            "free some space, or move the folder to another disk and give --out its new parent",
        ),
        (errno.EACCES, "make the folder writable for this user or choose another --out"),
        (errno.EROFS, "make the folder writable for this user or choose another --out"),
        (errno.ENAMETOOLONG, "choose an --out with a shorter path"),
        (errno.EIO, "choose another --out"),
    ],
)
def test_atomic_write_leaves_nothing_behind_when_it_fails(
    tmp_path, monkeypatch, code, remedy
) -> None:
    target = tmp_path / "file.bin"
    write_atomically(target, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(RunFolderError) as failed:
        write_atomically(target, b"new content")
    assert str(failed.value) == f"cannot write {target}: {os.strerror(code)}; {remedy}"
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_place_of_a_folder_is_named_as_such(tmp_path, below) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunFolderError, match="a file is where a folder has to be") as failed:
        write_atomically(tmp_path / "file" / below / "x.json", b"")
    assert "free some space" not in str(failed.value)


def test_a_folder_that_cannot_be_locked_is_an_error_with_a_remedy(tmp_path, monkeypatch) -> None:
    folder = RunFolder(tmp_path, "run", {})

    def forbidden(lock: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(storage.filelock.FileLock, "acquire", forbidden)
    with pytest.raises(RunFolderError, match="make the folder writable"), folder.session():
        pytest.fail("a session without its lock")


@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o077, 0o600)])
def test_files_are_as_readable_as_the_umask_allows(tmp_path, umask, mode) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file.bin", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == mode


def test_a_session_removes_what_killed_writers_left(tmp_path, monkeypatch) -> None:
    folder = RunFolder(tmp_path, "run", {})
    left: list[Path] = []
    sync = os.fsync

    def listed(descriptor: int) -> None:
        left.extend(folder.path.rglob(".part.*"))
        sync(descriptor)

    monkeypatch.setattr(storage.os, "fsync", listed)
    folder.save_checkpoint("part", {"epoch": 1})
    folder.write_rows("part", ROWS)
    # As mkstemp named them in earlier versions.
    left += [folder.path / ".policy.pt.ab12_x9z", folder.path / "figures" / ".f.png.abcdefgh"]
    kept = [folder.path / name for name in (".notes.markdown", ".config.json.0123abcd")]
    for path in (*left, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half of it")
    assert len(left) == 4
    with folder.session():
        assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)
    assert folder.load_checkpoint("part") == {"epoch": 1}
    assert folder.has_rows("part")


def test_another_process_s_unfinished_files_are_left_alone(tmp_path) -> None:
    folder = RunFolder(tmp_path, "run", {})
    busy = pytest.raises(RunFolderError, match="another process is writing")
    with folder.session():
        unfinished = folder.path / ".policy.pt.0123abcd"
        unfinished.write_bytes(b"half of it")
        with busy, RunFolder(tmp_path, "run", {}).session():
            pytest.fail("two sessions at once")
        assert unfinished.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"sessions": [3]}', b"\xff"])
def test_a_damaged_record_of_sessions_is_named_with_the_remedy(tmp_path, content) -> None:
    folder = RunFolder(tmp_path, "run", {})
    log = folder.write("environment.json", content)
    with pytest.raises(RunFolderError, match="move the file away") as refused, folder.session():
        pytest.fail("the record was overwritten")
    assert str(log) in str(refused.value)
    assert log.read_bytes() == content
    log.unlink()
    with folder.session():  # and the lock was released
        pass


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


def test_a_package_inside_somebodys_repository_has_no_commit(tmp_path: Path) -> None:
    """Installed into an environment there: its HEAD says nothing about this code."""
    package = tmp_path / "env" / "analysis"
    package.mkdir(parents=True)
    shutil.copy(storage.__file__, package)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    spec = importlib.util.spec_from_file_location("elsewhere", package / "storage.py")
    assert spec is not None
    assert spec.loader is not None
    elsewhere = importlib.util.module_from_spec(spec)
    sys.modules["elsewhere"] = elsewhere
    try:
        spec.loader.exec_module(elsewhere)
        assert elsewhere._commit() is None
        subprocess.run([*git, "add", "-A"], check=True)
        assert elsewhere._commit().endswith("-dirty")
    finally:
        del sys.modules["elsewhere"]


def test_json_is_stable_and_has_no_nan() -> None:
    assert json.loads(as_json({"b": float("nan"), "a": (1, 2.5)})) == {"a": [1, 2.5], "b": None}
    assert as_json({"b": 1, "a": 2}) == as_json({"a": 2, "b": 1})
