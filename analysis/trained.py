"""What a training run left on disk, read back."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from agents.config import ALGORITHMS, EnvConfig, HeadConfig, TrainConfig
from agents.envs import make_environments
from agents.policy import Policy
from agents.population import build_policy
from analysis.snapshot import Snapshot
from analysis.storage import RunFolderError, cause, load_rows, load_tensors

T = TypeVar("T")

_TRAIN_AGAIN = "move the run folder away and train again (the same configuration gives the same)"
_PROBE_AGAIN = "move the folder away and probe again"

DIVERGED = "the member has diverged: its features or logits are not finite"

_FINISHED, _UNFINISHED = Path("policy.pt"), Path("checkpoints/trainer.pt")


@dataclass(frozen=True)
class Trained:
    """The policy of a training run at one step of it."""

    config: TrainConfig
    policy: Policy
    """On the CPU and in float32, also where the run's rows are from bfloat16: the same numbers on
    every machine, and other ones than the rows' by that rounding (0.2 % of a feature)."""
    steps: int
    """Agent steps of a member that it was trained for."""
    digest: str
    """Of its weights: the same run at another step has another one."""


def read_config(path: Path) -> TrainConfig:
    """Configuration of a run folder.

    Raises
    ------
    RunFolderError
        The folder is no training run, or of another version of this project.
    """
    try:
        stored = json.loads((path / "config.json").read_text())
        fields_of_config = dict(stored["config"])
        algorithm = ALGORITHMS[stored["algorithm"]]
        fields_of_config["algorithm"] = _typed(algorithm, fields_of_config["algorithm"])
        fields_of_config["env"] = _typed(EnvConfig, fields_of_config["env"])
        fields_of_config["heads"] = tuple(
            _typed(HeadConfig, head) for head in fields_of_config["heads"]
        )
        return _typed(TrainConfig, fields_of_config)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{path} is not a training run that this version can read ({error}): give a folder "
            "made by `action-collapse train`"
        ) from error


def run_of(path: Path) -> Path:
    """Folder of a training run, given by itself or by a file with its weights.

    Parameters
    ----------
    path
        The folder, its ``policy.pt`` or its ``checkpoints/trainer.pt``.

    Raises
    ------
    RunFolderError
        It does not exist, or is another file.
    """
    if not path.exists():
        raise RunFolderError(f"{path} does not exist: name a training run's folder or checkpoint")
    if path.is_dir():
        return path
    for file in (_FINISHED, _UNFINISHED):
        if path.parts[-len(file.parts) :] == file.parts:
            return path.parents[len(file.parts) - 1]
    raise RunFolderError(
        f"{path} is not a policy: name the folder of a training run, its {_FINISHED} or its "
        f"{_UNFINISHED} (`probe RUN --epoch N` measures its snapshots/epoch-N.pt)"
    )


def load_trained(path: Path) -> Trained:
    """Policy of a training run on the CPU, with where in the run it was.

    Parameters
    ----------
    path
        A run folder, for the finished policy or else the last checkpoint; or one of these two
        files, ``policy.pt`` and ``checkpoints/trainer.pt``, which is then the one that is loaded.

    Raises
    ------
    RunFolderError
        The folder is no training run, has trained nothing yet, or what is asked for is lost or
        damaged, or of another kind.
    """
    run = run_of(path)
    config = read_config(run)
    file = path if path.is_file() else _weights_of(run)
    finished = file.name == _FINISHED.name
    remedy = _TRAIN_AGAIN if finished else "delete it and train the run from its beginning"
    state = load_tensors(file, remedy)
    environments = make_environments(config.env, 1, 1)
    policy = build_policy(
        config,
        environments.observation_shape,
        environments.num_actions,
        critic=config.algorithm.has_critic,
    )
    environments.close()
    try:
        trainer = state if finished else state["trainer"]
        policy.load_state_dict(trainer["policy"])
        steps = None if finished else int(trainer["steps"])
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise RunFolderError(
            f"the weights in {file} are not those of its configuration ({cause(error)}): "
            f"{_TRAIN_AGAIN}"
        ) from error
    if steps is None:
        steps = _final_steps(run)
    return Trained(config, policy, steps, tensors_digest(policy.state_dict().items()))


def load_policy(path: Path) -> tuple[TrainConfig, Policy]:
    """Configuration and policy of `load_trained`, which says what `path` may be and raises."""
    trained = load_trained(path)
    return trained.config, trained.policy


def _weights_of(run: Path) -> Path:
    """File with the latest weights of a run folder."""
    for file in (_FINISHED, _UNFINISHED):
        if (run / file).exists():
            return run / file
    if (run / "rows").exists():
        raise RunFolderError(
            f"{run} has its rows, but its weights in policy.pt are gone: {_TRAIN_AGAIN}"
        )
    raise RunFolderError(f"{run} holds no trained policy yet: finish the run first")


def _final_steps(run: Path) -> int:
    """Steps after the last epoch: iterations are whole, so they may exceed those configured."""
    rows = run / "rows" / "epochs.parquet"
    if rows.exists():
        return int(load_rows(rows, _TRAIN_AGAIN)["steps"].max())
    # Killed between the policy and the rows: the checkpoint of the same epoch is still there.
    return int(load_tensors(run / _UNFINISHED, _TRAIN_AGAIN)["trainer"]["steps"])


def tensors_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Digest of named tensors, whatever file they were in."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # By bytes, as NumPy has no bfloat16.
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().tobytes())
    return digest.hexdigest()[:12]


def stored_epochs(path: Path) -> list[int]:
    """Epochs of which a run folder has snapshots, in order."""
    files = (path / "snapshots").glob("epoch-*.pt")
    return sorted(int(file.stem.removeprefix("epoch-")) for file in files)


def read_snapshots(path: Path, epoch: int) -> list[Snapshot | None]:
    """What every member's head saw in an epoch's evaluation: a uniform sample of its states.

    Parameters
    ----------
    path
        Run folder.
    epoch
        One of `stored_epochs`.

    Returns
    -------
    One snapshot a member, labelled by greedy actions, with ``step`` the epoch, the games that the
    states are from as ``episodes`` (runs of earlier versions did not keep them) and the tags
    ``head_kind`` and ``seed``; None for a member that had diverged, whose features or logits are
    not finite.

    Raises
    ------
    RunFolderError
        There is no snapshot of that epoch, or it is damaged.
    """
    file = path / "snapshots" / f"epoch-{epoch:05d}.pt"
    if not file.exists():
        present = ", ".join(map(str, stored_epochs(path))) or "none"
        raise RunFolderError(
            f"{path} has no snapshot of epoch {epoch} (stored: {present}): train with "
            f"--set 'snapshot_epochs=({epoch},)'"
        )
    stored = load_tensors(file, _TRAIN_AGAIN)
    try:
        return [
            Snapshot(
                features,
                logits.argmax(-1),
                head,
                None if stored["bias"] is None else stored["bias"][member],
                num_classes=len(head),
                step=epoch,
                tags={"head_kind": kind, "seed": seed},
                episodes=episodes,
            )
            if features.isfinite().all() and logits.isfinite().all()
            else None
            for member, (features, logits, episodes, head, kind, seed) in enumerate(
                zip(
                    stored["features"],
                    stored["logits"],
                    stored.get("episodes", [None] * len(stored["features"])),
                    stored["head"],
                    stored["heads"],
                    stored["seeds"],
                    strict=True,
                )
            )
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{file} holds no snapshot that can be read ({cause(error)}): {_TRAIN_AGAIN}"
        ) from error


def read_probed(path: Path) -> list[Snapshot]:
    """Snapshots that `action-collapse probe` stored: states that each member visited.

    Parameters
    ----------
    path
        Folder of a probe, as the command prints it.

    Returns
    -------
    One snapshot a member, in their order, with the agent steps of the policy as ``step`` and the
    tags ``head_kind``, ``seed`` and ``labelled`` (where the labels are from).

    Raises
    ------
    RunFolderError
        There are none, or one is damaged.
    """
    files = {
        int(file.stem.removeprefix("member-")): file
        for file in (path / "snapshots").glob("member-*.pt")
    }
    if not files:
        raise RunFolderError(
            f"{path} has no snapshots of members: give a folder that `action-collapse probe` made, "
            "with --snapshot above 0 and without --epoch"
        )
    return [_probed(files[member]) for member in sorted(files)]


def _probed(file: Path) -> Snapshot:
    stored = load_tensors(file, _PROBE_AGAIN)
    try:
        return Snapshot(
            stored["features"],
            stored["labels"],
            stored["head"],
            stored["bias"],
            num_classes=len(stored["head"]),
            step=stored["step"],
            tags=stored["tags"],
            episodes=stored.get("episodes"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{file} holds no snapshot that can be read ({cause(error)}): {_PROBE_AGAIN}"
        ) from error


def _typed(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from JSON values: lists become the tuples that its fields are."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
