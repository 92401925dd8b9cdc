"""Run folders: content-addressed, atomic, resumable, never overwritten.

A run folder's name ends in a digest of its configuration, so the same configuration always
means the same folder: finished parts are read instead of computed again, and a different
configuration can never land on top of old results.

::

    OUT/figure1-cliff-1a2b3c4d/
        config.json         what was asked for; together with the code it fixes every row
        environment.json    one entry a session that wrote here: versions, machine class, commit
        rows/NAME.parquet   tidy rows, complete once the file exists
        checkpoints/        of unfinished parts; removed when their rows exist
        figures/
"""

import dataclasses
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import filelock
import pandas as pd
import torch

from analysis.sealed import pack_rows, pack_tensors, unpack_rows, unpack_tensors

T = TypeVar("T")

_PACKAGES = (
    "action-collapse",
    "numpy",
    "scipy",
    "cvxpy",
    "clarabel",
    "torch",
    "gymnasium",
    "pandas",
    "pyarrow",
    "matplotlib",
)


class RunFolderError(RuntimeError):
    """A run folder cannot be used as asked; the message says what to do."""


_FULL = "free some space, or move the folder to another disk and give --out its new parent"
_FORBIDDEN = "make the folder writable for this user or choose another --out"
_NO_FOLDER = "a file is where a folder has to be, choose another --out"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.ENAMETOOLONG: "choose an --out with a shorter path",
}

# Names of unfinished files, `write_atomically`'s and `mkstemp`'s of earlier versions.
_UNFINISHED = re.compile(r"\..+\.\w+\.[a-z0-9_]{8}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see all of it or none, creating parent folders.

    Raises
    ------
    RunFolderError
        The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Unlike mkstemp's files, these are as readable as the umask allows.
            with temporary.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def require_writable(directory: Path) -> None:
    """Refuse a directory that cannot be written or made, before any work for it is done.

    Raises
    ------
    RunFolderError
        The path, or the nearest part of it that exists, is no directory or not this user's.
    """
    nearest = next(place for place in (directory, *directory.parents) if place.exists())
    if not nearest.is_dir():
        raise RunFolderError(f"cannot write {directory}: {nearest} is a file; choose another --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunFolderError(f"cannot write {nearest}: permission denied; choose another --out")


def load_tensors(path: Path, remedy: str) -> dict[str, Any]:
    """Tensors, numbers and strings from a file; runs no pickled code.

    Parameters
    ----------
    remedy
        What to do about a damaged file, for the message.

    Raises
    ------
    RunFolderError
        The file is missing or damaged.
    """
    return _load(path, unpack_tensors, remedy)


def load_rows(path: Path, remedy: str) -> pd.DataFrame:
    """Rows from a Parquet file.

    Parameters
    ----------
    remedy
        What to do about a damaged file, for the message.

    Raises
    ------
    RunFolderError
        The file is missing or damaged.
    """
    return _load(path, unpack_rows, remedy)


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Object in a JSON file.

    Parameters
    ----------
    remedy
        What to do about a damaged file, for the message.

    Raises
    ------
    RunFolderError
        The file is missing, damaged or holds no object.
    """
    found = _load(path, json.loads, remedy)
    if not isinstance(found, dict):
        raise RunFolderError(f"{path} holds no JSON object: {remedy}")
    return found


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """Environments of the sessions that wrote to a run folder, the last one last.

    Raises
    ------
    RunFolderError
        Their record is damaged.
    """
    log = folder / "environment.json"
    if not log.exists():
        return []
    remedy = "move the file away, no row depends on it"
    sessions = read_json(log, remedy).get("sessions")
    if not isinstance(sessions, list) or not all(isinstance(one, dict) for one in sessions):
        raise RunFolderError(f"{log} holds no list of sessions: {remedy}")
    return sessions


def _load(path: Path, decode: Callable[[bytes], T], remedy: str) -> T:
    try:
        return decode(path.read_bytes())
    except PermissionError as error:
        raise RunFolderError(f"cannot read {path}: make it readable for this user") from error
    except Exception as error:  # decoders raise a dozen types for a damaged file
        raise RunFolderError(f"{path} is missing or damaged ({cause(error)}): {remedy}") from error


def cause(error: BaseException) -> str:
    """What an error says, in one line: torch's own messages go on for many."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def cannot_write(path: Path, error: OSError) -> RunFolderError:
    """Say what could not be written, why, and what to do."""
    remedy = _REMEDIES.get(error.errno or 0, "choose another --out")
    return RunFolderError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def as_json(value: object) -> str:
    """Stable, human-readable JSON; dataclasses become objects, NaN becomes null."""

    def plain(x: object) -> object:
        if dataclasses.is_dataclass(x) and not isinstance(x, type):
            return plain({f.name: getattr(x, f.name) for f in dataclasses.fields(x)})
        if isinstance(x, Mapping):
            return {str(k): plain(v) for k, v in x.items()}
        if isinstance(x, list | tuple):
            return [plain(v) for v in x]
        if isinstance(x, float) and x != x:
            return None
        return x

    return json.dumps(plain(value), indent=2, sort_keys=True, ensure_ascii=False)


def environment() -> dict[str, object]:
    """Versions, machine class and commit: what a number may depend on besides its config."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    cuda = torch.cuda.is_available()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {package: installed(package) for package in _PACKAGES},
        "commit": _commit(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "accelerator": torch.cuda.get_device_name() if cuda else None,
            "torch_threads": torch.get_num_threads(),
        },
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def source_digest(*parts: str) -> str:
    """Digest of the project's own source, for runs cheap enough to be redone when it changes.

    Training runs leave it out of their configuration: their rows are kept across edits, and
    ``environment.json`` says which commit made them.

    Parameters
    ----------
    parts
        Rooms and files that the rows depend on, such as ``"lpm"``; all rooms by default.
    """
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for part in parts or ("lpm", "gridworld", "agents", "analysis"):
        place = root / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _commit() -> str | None:
    """Commit of the source tree, with ``-dirty`` where tracked files differ from it.

    None where the package is no part of a tree, though it may lie inside one: installed into an
    environment in somebody's repository.
    """
    source = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        # Stored results are no source: a run that replaces one does not make the tree dirty.
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", ":(top,exclude)results"
        )
        dirty = "-dirty" if changed else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return None


class RunFolder:
    """One configuration's results under ``parent``; on disk from its first session or file on.

    Parameters
    ----------
    parent
        Folder that holds run folders (``--out``).
    name
        Human part of the folder's name.
    config
        JSON-like or dataclasses; its digest is the other part.

    Raises
    ------
    RunFolderError
        The folder exists with another configuration.
    """

    def __init__(self, parent: Path, name: str, config: Mapping[str, Any]) -> None:
        self._config = as_json(config).encode()
        digest = hashlib.sha256(self._config).hexdigest()[:8]
        self.path = Path(parent) / f"{name}-{digest}"
        recorded = self.path / "config.json"
        if recorded.exists() and recorded.read_bytes() != self._config:
            raise RunFolderError(
                f"{recorded} does not hold the configuration its name stands for: it was "
                "edited or damaged; move the folder away or choose another --out"
            )

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold the folder's lock and record the environment of this session.

        Raises
        ------
        RunFolderError
            Another process is writing to the folder, it cannot be written, or the record of its
            sessions is damaged.
        """
        self._record()
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise RunFolderError(
                f"another process is writing to {self.path}: wait for it, or stop it and run "
                "again to resume"
            ) from error
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            self._remove_unfinished()
            sessions = [*read_sessions(self.path), environment()]
            self.write("environment.json", as_json({"sessions": sessions}))
            yield
        finally:
            lock.release()

    def _record(self) -> None:
        recorded = self.path / "config.json"
        if not recorded.exists():
            write_atomically(recorded, self._config)

    def _remove_unfinished(self) -> None:
        """Remove what writers that were killed left; call it with the lock only."""
        for path in self.path.rglob(".*"):
            # config.json is written before the lock is taken, by another process maybe now.
            if _UNFINISHED.fullmatch(path.name) and not path.name.startswith(".config.json."):
                with suppress(OSError):  # it costs space and nothing else
                    path.unlink()

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the folder atomically and return its path."""
        self._record()
        data = content.encode() if isinstance(content, str) else content
        write_atomically(self.path / name, data)
        return self.path / name

    # --- rows ----------------------------------------------------------------------------------

    def has_rows(self, name: str) -> bool:
        """Whether the part ``name`` is complete."""
        return self._rows_path(name).exists()

    def write_rows(self, name: str, rows: pd.DataFrame) -> None:
        """Store a part's rows, once.

        Raises
        ------
        RunFolderError
            The part exists already: results are never overwritten.
        """
        path = self._rows_path(name)
        if path.exists():
            raise RunFolderError(f"{path} exists; results are never overwritten")
        self.write(f"rows/{name}.parquet", pack_rows(rows))

    def read_rows(self, name: str) -> pd.DataFrame:
        """Rows of a complete part.

        Raises
        ------
        RunFolderError
            The file is missing or damaged.
        """
        remedy = "delete it and run the same command again to compute it anew"
        return load_rows(self._rows_path(name), remedy)

    def take_over(self, results: Path) -> None:
        """Copy the rows that a folder anywhere under ``results`` has of this very configuration.

        Raises
        ------
        RunFolderError
            They, or the configuration of any rows there, are damaged.
        """
        remedy = "restore it, or name another directory with --results"
        for recorded in sorted(Path(results).rglob("config.json")):
            rows = recorded.parent / "rows"
            if not rows.is_dir() or recorded.parent == self.path:
                continue
            # Of a damaged one nobody knows whether it is this.
            if read_json(recorded, remedy) != json.loads(self._config):
                continue
            for path in sorted(rows.glob("*.parquet")):
                if not self.has_rows(path.stem):
                    self.write_rows(path.stem, load_rows(path, remedy))

    def _rows_path(self, name: str) -> Path:
        return self.path / "rows" / f"{name}.parquet"

    # --- checkpoints ---------------------------------------------------------------------------

    def save_tensors(self, name: str, state: Mapping[str, Any]) -> None:
        """Store tensors, numbers and strings in the file ``name``, atomically."""
        self.write(name, pack_tensors(state))

    def save_checkpoint(self, name: str, state: Mapping[str, Any]) -> None:
        """Store tensors, numbers and strings; replaces the previous checkpoint atomically."""
        self.save_tensors(f"checkpoints/{name}.pt", state)

    def load_checkpoint(self, name: str) -> dict[str, Any] | None:
        """The last checkpoint of an unfinished part, or None. Runs no pickled code.

        Raises
        ------
        RunFolderError
            The file is damaged.
        """
        path = self._checkpoint_path(name)
        if not path.exists():
            return None
        return load_tensors(path, "delete it to start this part from its beginning")

    def has_checkpoint(self, name: str) -> bool:
        """Whether a part was begun and is unfinished."""
        return self._checkpoint_path(name).exists()

    def drop_checkpoint(self, name: str) -> None:
        """Remove a checkpoint that is no longer needed."""
        self._checkpoint_path(name).unlink(missing_ok=True)

    def _checkpoint_path(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.pt"
