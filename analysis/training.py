"""Training runs on disk: from a configuration to stored rows, resumable after any interruption.

`agents.training.Trainer` is the run; this module measures it after every epoch and keeps what it
gives in a run folder::

    OUT/train-ppo-Pong-etf-1a2b3c4d/
        config.json               what was trained
        rows/epochs.parquet       one row a member and epoch (`analysis.epoch_rows`)
        snapshots/epoch-00010.pt  features, logits, episodes, head: states of the evaluation
        policy.pt                 the weights after the last epoch
        tensorboard/              the same numbers while the run goes on (optional)
        checkpoints/              of an unfinished run
"""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from agents.config import TrainConfig
from agents.training import Epoch, Trainer
from analysis.epoch_rows import StateMeasurer, epoch_rows, precision
from analysis.storage import RunFolder, RunFolderError, as_json, cause, read_json
from analysis.tensorboard import TensorBoard, require_tensorboard

_PART, _CHECKPOINT = "epochs", "trainer"
_SAMPLE = 5
"""What the generators of snapshots are for, after the purposes of `agents.training`."""


def train(
    config: TrainConfig,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = True,
    tensorboard: bool = False,
    advance: Callable[[int], None] = lambda steps: None,
) -> RunFolder:
    """Train what is missing of a run and return its folder.

    Parameters
    ----------
    config
        Fixes the folder: the same configuration under the same ``out`` is the same run.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``; not part of the configuration.
    resume
        Whether to continue from a checkpoint; without it an unfinished run is refused.
    tensorboard
        Whether to log to ``tensorboard/`` in the folder while training.
    advance
        Called with the agent steps gained (of one member), for a progress bar.

    Raises
    ------
    RunFolderError
        The folder is in use, damaged, cannot be written, or unfinished and ``resume`` is off.
    ImportError
        An optional package is missing; the message names the extra.
    """
    folder = run_folder(config, out)
    if folder.has_rows(_PART):
        advance(config.steps)
        return folder
    # Before the folder is touched: what cannot be trained here leaves nothing behind.
    if tensorboard:
        require_tensorboard()
    with closing(Trainer(config, device)) as trainer, folder.session():
        if folder.has_rows(_PART):  # another process was faster
            advance(config.steps)
            return folder
        checkpoint = folder.load_checkpoint(_CHECKPOINT)
        if checkpoint is not None and not resume:
            raise RunFolderError(
                f"{folder.path} holds an unfinished run ({checkpoint['trainer']['steps']} of "
                f"{config.steps} steps): continue it with --resume, or choose another --out"
            )
        # Before the log, which is begun anew: a checkpoint that is refused costs nothing.
        rows = [] if checkpoint is None else _continue(trainer, folder, checkpoint)
        log = TensorBoard(folder.path / "tensorboard", config) if tensorboard else None
        try:
            _train(trainer, folder, rows, log, advance)
        finally:
            if log is not None:
                log.close()
        folder.save_tensors("policy.pt", {"policy": trainer.policy.state_dict()})
        folder.write_rows(_PART, pd.DataFrame(rows))
        folder.drop_checkpoint(_CHECKPOINT)
    return folder


def nothing_to_resume(config: TrainConfig, out: Path) -> str | None:
    """What to tell who asks to resume a run that has not begun; None if it has.

    Names the unfinished runs of the same algorithm and environment under ``out``, and in which
    fields each differs: a mistyped option or a changed preset means another run.
    """
    folder = run_folder(config, out)
    if folder.has_rows(_PART) or folder.has_checkpoint(_CHECKPOINT):
        return None
    lines = [f"nothing to resume in {folder.path}: training from the beginning"]
    own = _leaves(json.loads(as_json(config)))
    pattern = f"train-{config.algorithm.name}-{config.env.id}-*/checkpoints/{_CHECKPOINT}.pt"
    for checkpoint in sorted(out.glob(pattern)):
        other = checkpoint.parent.parent
        if (other / "rows" / f"{_PART}.parquet").exists():  # killed between its rows and the end
            continue
        try:
            recorded = read_json(other / "config.json", "")["config"]
        except (RunFolderError, KeyError):  # damaged: not what was asked for anyway
            continue
        theirs = _leaves(recorded)
        fields = [
            f"{name} {theirs.get(name, 'none')} (now {own.get(name, 'none')})"
            for name in sorted(own.keys() | theirs.keys())
            if own.get(name) != theirs.get(name)
        ]
        lines.append(f"an unfinished run is {other.name}, with {', '.join(fields)}")
    return "\n".join(lines)


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Values of nested JSON objects by dotted name."""
    if not isinstance(value, Mapping):
        return {name: value}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _leaves(inner, f"{name}.{key}" if name else key)
    return found


def run_folder(config: TrainConfig, out: Path) -> RunFolder:
    """The folder of a configuration."""
    heads = "-".join(head.kind for head in config.heads)
    name = f"train-{config.algorithm.name}-{config.env.id}-{heads}"
    return RunFolder(
        out,
        name,
        {"experiment": "train", "algorithm": config.algorithm.name, "config": config},
    )


def _train(
    trainer: Trainer,
    folder: RunFolder,
    rows: list[dict[str, Any]],
    log: TensorBoard | None,
    advance: Callable[[int], None],
) -> None:
    """Train to the end; `rows` are those so far, and the new ones are added to them."""
    advance(trainer.steps)
    if not rows:
        rows.extend(_measure(trainer, folder, None, []))
    if log is not None:
        log.add(rows)
    while not trainer.done:
        epoch = trainer.train_epoch(advance)
        new = _measure(trainer, folder, epoch, rows)
        rows.extend(new)
        state = {
            "trainer": trainer.state_dict(),
            "initial_entropy": torch.from_numpy(trainer.initial_entropy),
            "rows": rows,
        }
        folder.save_checkpoint(_CHECKPOINT, state)
        if log is not None:
            log.add(new)


def _continue(
    trainer: Trainer, folder: RunFolder, checkpoint: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Put a trainer where the checkpoint was taken, and return the rows so far."""
    try:
        trainer.load_state_dict(checkpoint["trainer"])
        trainer.initial_entropy = checkpoint["initial_entropy"].numpy()
        rows = list(checkpoint["rows"])
        begun, here = rows[0]["precision"], precision(trainer)
    # Whatever torch and the learners raise at content that is not theirs.
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"the checkpoint in {folder.path} is not one of this run ({cause(error)}): delete "
            f"checkpoints/{_CHECKPOINT}.pt there to start the run from its beginning"
        ) from error
    if begun != here:
        raise RunFolderError(
            f"the run in {folder.path} was begun in {begun} and would go on in {here} on this "
            f"machine: set precision={begun}, or continue it where it was begun"
        )
    return rows


def _measure(
    trainer: Trainer, folder: RunFolder, epoch: Epoch | None, earlier: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Evaluate; one row a member, and a snapshot if this epoch is to have one."""
    config = trainer.config
    wanted = trainer.epoch in config.snapshot_epochs
    head, bias = trainer.policy.head.weight.detach(), trainer.policy.head.bias
    measurer = StateMeasurer(
        head.shape[1],
        head.shape[2],
        [np.random.default_rng([seed, _SAMPLE, trainer.epoch]) for _, seed in config.members],
        config.snapshot_states if wanted else 0,
    )
    evaluation = trainer.evaluate(measurer)
    measurer.flush()
    if wanted:
        samples = [measurer.sample(member) for member in range(config.population)]
        folder.save_tensors(
            f"snapshots/epoch-{trainer.epoch:05d}.pt",
            {
                "epoch": trainer.epoch,
                "seeds": [seed for _, seed in config.members],
                "heads": [own.kind for own, _ in config.members],
                "features": [states.features for states in samples],
                "logits": [states.logits for states in samples],
                "episodes": [states.episodes for states in samples],
                "head": head.cpu(),
                "bias": None if bias is None else bias.detach().cpu(),
            },
        )
    return epoch_rows(trainer, epoch, evaluation, measurer, earlier)
