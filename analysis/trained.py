"""What a training run left on disk, read back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from agents.config import ALGORITHMS, EnvConfig, HeadConfig, TrainConfig
from agents.envs import make_environments
from agents.policy import Policy
from agents.population import build_policy
from analysis.snapshot import Snapshot
from analysis.storage import RunFolderError, cause, load_tensors

T = TypeVar("T")

_TRAIN_AGAIN = "move the run folder away and train again (the same configuration gives the same)"


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


def load_policy(path: Path) -> tuple[TrainConfig, Policy]:
    """Trained policy of a run folder, or of the last checkpoint of an unfinished run, on the CPU.

    Raises
    ------
    RunFolderError
        The folder is no training run, has trained nothing yet, or its weights are lost or damaged.
    """
    config = read_config(path)
    finished, unfinished = path / "policy.pt", path / "checkpoints" / "trainer.pt"
    if not finished.exists() and not unfinished.exists():
        if (path / "rows").exists():
            raise RunFolderError(
                f"{path} has its rows, but its weights in policy.pt are gone: {_TRAIN_AGAIN}"
            )
        raise RunFolderError(f"{path} holds no trained policy yet: finish the run first")
    if finished.exists():
        state = load_tensors(finished, _TRAIN_AGAIN)
    else:
        state = load_tensors(unfinished, "delete it and train the run from its beginning")
    environments = make_environments(config.env, 1, 1)
    policy = build_policy(
        config,
        environments.observation_shape,
        environments.num_actions,
        critic=config.algorithm.has_critic,
    )
    environments.close()
    try:
        policy.load_state_dict((state if finished.exists() else state["trainer"])["policy"])
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        raise RunFolderError(
            f"the weights in {path} are not those of its configuration ({cause(error)}): "
            f"{_TRAIN_AGAIN}"
        ) from error
    return config, policy


def stored_epochs(path: Path) -> list[int]:
    """Epochs of which a run folder has snapshots, in order."""
    files = (path / "snapshots").glob("epoch-*.pt")
    return sorted(int(file.stem.removeprefix("epoch-")) for file in files)


def read_snapshots(path: Path, epoch: int) -> list[Snapshot]:
    """What every member's head saw in an epoch's evaluation: a uniform sample of its states.

    Parameters
    ----------
    path
        Run folder.
    epoch
        One of `stored_epochs`.

    Returns
    -------
    One snapshot a member, labelled by greedy actions, with ``step`` the epoch and the tags
    ``head_kind`` and ``seed``.

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
            f"--set snapshot_epochs=({epoch},)"
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
            )
            for member, (features, logits, head, kind, seed) in enumerate(
                zip(
                    stored["features"],
                    stored["logits"],
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


def _typed(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from JSON values: lists become the tuples that its fields are."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
