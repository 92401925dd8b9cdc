"""Training runs on disk: from a configuration to stored rows, resumable after any interruption.

`agents.training.Trainer` is the run; this module measures it after every epoch and keeps what it
gives in a run folder::

    OUT/train-ppo-Pong-etf-1a2b3c4d/
        config.json               what was trained
        rows/epochs.parquet       one row a member and epoch (`COLUMNS` and collapse metrics)
        snapshots/epoch-00010.pt  features, logits, head of evaluation states at chosen epochs
        policy.pt                 the weights after the last epoch
        tensorboard/              the same numbers while the run goes on (optional)
        checkpoints/              of an unfinished run
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.config import ALGORITHMS, EnvConfig, HeadConfig, TrainConfig
from agents.envs import make_environments
from agents.losses import entropy
from agents.policy import Policy
from agents.population import build_policy
from agents.training import Epoch, Evaluation, Trainer
from analysis.metrics import CollapseMetrics
from analysis.storage import RunFolder, RunFolderError, load_tensors

COLUMNS: dict[str, str] = {
    "algorithm": "reinforce, ppo, trpo, a2c or a3c",
    "env": "environment id",
    "convention": "of Atari: NoFrameskip-v4 (lost lives end, no sticky actions) or v5",
    "observations": "state, image or ram",
    "network": "mlp or cnn",
    "head": "linear, etf, orthogonal or gaussian",
    "feature": "rectified or linear",
    "learning_rate": "initial learning rate",
    "epsilon": "ε of the ε-greedy admixture while acting",
    "seed": "of the member",
    "epoch": "0 is the initialisation",
    "steps": "agent steps of the member so far",
    "train_return": "mean unclipped return of the full games that ended in the epoch, NaN if none",
    "train_episodes": "how many did",
    "eval_return": "mean unclipped full-game return over the evaluation episodes",
    "eval_return_std": "their population standard deviation",
    "eval_return_min": "the smallest",
    "eval_return_max": "the largest",
    "eval_length": "mean agent steps of an evaluation episode",
    "eval_episodes": "how many episodes were evaluated",
    "policy_entropy": "mean policy entropy over evaluation states, nats",
    "initial_entropy": "the same over a random walk's states before training",
    "reached_target": "whether eval_return has reached target_return by this epoch",
}
"""Every column that is neither a collapse metric nor ``loss_…``, a mean over the epoch's updates of
what the algorithm reports (policy_loss, value_loss, entropy, kl, clip_fraction, gradient_norm)."""

T = TypeVar("T")

_PART, _CHECKPOINT = "epochs", "trainer"
_FLUSH = 4096
"""States of a member that are held before they are measured."""


class StateMeasurer:
    """Streams evaluation states into collapse metrics, and keeps the first few as they are.

    Parameters
    ----------
    population, num_actions, dim
        P, K and d.
    keep
        States of each member to keep for a snapshot.
    """

    def __init__(self, population: int, num_actions: int, dim: int, keep: int) -> None:
        self.collapse = [CollapseMetrics(num_actions, dim) for _ in range(population)]
        self.entropy_sum, self.count = np.zeros(population), np.zeros(population)
        self.keep = keep
        self.kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(population)]
        self._held: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(population)]
        self._held_count = 0

    def __call__(self, features: Tensor, logits: Tensor, counts: NDArray[np.bool_]) -> None:
        """Take one step's states: (P, n, d), (P, n, K) and which of them count."""
        for member, mask in enumerate(torch.from_numpy(counts)):
            if mask.any():
                rows = mask.to(features.device)
                self._held[member].append((features[member][rows], logits[member][rows]))
        self._held_count += features.shape[1]
        if self._held_count >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Measure what is held."""
        for member, held in enumerate(self._held):
            if not held:
                continue
            features = torch.cat([f for f, _ in held])
            logits = torch.cat([z for _, z in held])
            self.collapse[member].update(features, logits.argmax(-1))
            self.entropy_sum[member] += float(entropy(logits.double().log_softmax(-1)).sum())
            self.count[member] += len(features)
            missing = self.keep - sum(len(f) for f, _ in self.kept[member])
            if missing > 0:
                self.kept[member].append((features[:missing].cpu(), logits[:missing].cpu()))
            held.clear()
        self._held_count = 0


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
    with folder.session():
        if folder.has_rows(_PART):
            advance(config.steps)
            return folder
        checkpoint = folder.load_checkpoint(_CHECKPOINT)
        if checkpoint is not None and not resume:
            raise RunFolderError(
                f"{folder.path} holds an unfinished run ({checkpoint['trainer']['steps']} of "
                f"{config.steps} steps): continue it with --resume, or choose another --out"
            )
        trainer = Trainer(config, device)
        log = _TensorBoard(folder, config) if tensorboard else None
        try:
            rows = _train(trainer, folder, checkpoint, log, advance)
        finally:
            trainer.close()
            if log is not None:
                log.close()
        folder.save_tensors("policy.pt", {"policy": trainer.policy.state_dict()})
        folder.write_rows(_PART, pd.DataFrame(rows))
        folder.drop_checkpoint(_CHECKPOINT)
    return folder


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
    checkpoint: Mapping[str, Any] | None,
    log: "_TensorBoard | None",
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    if checkpoint is not None:
        trainer.load_state_dict(checkpoint["trainer"])
        trainer.initial_entropy = checkpoint["initial_entropy"].numpy()
        rows = checkpoint["rows"]
        advance(trainer.steps)
    else:
        rows.extend(_measure(trainer, folder, None, rows))
    while not trainer.done:
        epoch = trainer.train_epoch(advance)
        new = _measure(trainer, folder, epoch, rows)
        rows.extend(new)
        if log is not None:
            log.add(new)
        state = {
            "trainer": trainer.state_dict(),
            "initial_entropy": torch.from_numpy(trainer.initial_entropy),
            "rows": rows,
        }
        folder.save_checkpoint(_CHECKPOINT, state)
    return rows


def _measure(
    trainer: Trainer, folder: RunFolder, epoch: Epoch | None, earlier: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Evaluate; one row a member, and a snapshot if this epoch is to have one."""
    config = trainer.config
    wanted = trainer.epoch in config.snapshot_epochs
    head = trainer.policy.head.weight.detach()
    measurer = StateMeasurer(
        config.population, head.shape[1], head.shape[2], config.snapshot_states if wanted else 0
    )
    evaluation = trainer.evaluate(measurer)
    measurer.flush()
    if wanted:
        bias = trainer.policy.head.bias
        folder.save_tensors(
            f"snapshots/epoch-{trainer.epoch:05d}.pt",
            {
                "epoch": trainer.epoch,
                "seeds": [seed for _, seed in config.members],
                "heads": [own.kind for own, _ in config.members],
                "features": [torch.cat([f for f, _ in own]) for own in measurer.kept],
                "logits": [torch.cat([z for _, z in own]) for own in measurer.kept],
                "head": head.cpu(),
                "bias": None if bias is None else bias.detach().cpu(),
            },
        )
    return [
        _row(trainer, member, epoch, evaluation, measurer, head, earlier)
        for member in range(config.population)
    ]


def _row(
    trainer: Trainer,
    member: int,
    epoch: Epoch | None,
    evaluation: Evaluation,
    measurer: StateMeasurer,
    head: Tensor,
    earlier: list[dict[str, Any]],
) -> dict[str, Any]:
    config = trainer.config
    own_head, seed = config.members[member]
    returns = evaluation.returns[member]
    games = [] if epoch is None else epoch.returns[member]
    target = config.target_return
    reached = target is not None and (
        float(returns.mean()) >= target
        or any(row["reached_target"] for row in earlier[member :: config.population])
    )
    return {
        "algorithm": config.algorithm.name,
        "env": config.env.id,
        "convention": config.env.convention,
        "observations": config.env.observations,
        "network": config.network,
        "head": own_head.kind,
        "feature": config.feature,
        "learning_rate": config.algorithm.learning_rate,
        "epsilon": config.algorithm.epsilon,
        "seed": seed,
        "epoch": trainer.epoch,
        "steps": trainer.steps,
        "train_return": float(np.mean(games)) if games else float("nan"),
        "train_episodes": len(games),
        "eval_return": float(returns.mean()),
        "eval_return_std": float(returns.std()),
        "eval_return_min": float(returns.min()),
        "eval_return_max": float(returns.max()),
        "eval_length": float(evaluation.lengths[member].mean()),
        "eval_episodes": len(returns),
        "policy_entropy": float(measurer.entropy_sum[member] / measurer.count[member]),
        "initial_entropy": float(trainer.initial_entropy[member]),
        "reached_target": bool(reached),
        **(
            {}
            if epoch is None
            else {f"loss_{name}": float(value[member]) for name, value in epoch.metrics.items()}
        ),
        **measurer.collapse[member].compute(head[member]).as_row(),
    }


class _TensorBoard:
    """Scalars of every member under TensorBoard's own names."""

    def __init__(self, folder: RunFolder, config: TrainConfig) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoard logs need the package tensorboard: "
                "pip install 'action-collapse[tensorboard]', or leave out --tensorboard"
            ) from error
        self._writers = {
            (head.kind, seed): SummaryWriter(
                str(folder.path / "tensorboard" / f"{head.kind}-{seed}")
            )
            for head, seed in config.members
        }

    def add(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            writer = self._writers[row["head"], row["seed"]]
            for name, value in row.items():
                if isinstance(value, int | float) and name not in ("seed", "epoch", "steps"):
                    group = name.split("_")[0]
                    writer.add_scalar(f"{group}/{name}", value, row["steps"])
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


# --- reading a run back ---------------------------------------------------------------------------


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
        The folder is no training run, or has trained nothing yet.
    """
    config = read_config(path)
    finished, unfinished = path / "policy.pt", path / "checkpoints" / f"{_CHECKPOINT}.pt"
    if finished.exists():
        weights = load_tensors(finished)["policy"]
    elif unfinished.exists():
        weights = load_tensors(unfinished)["trainer"]["policy"]
    else:
        raise RunFolderError(f"{path} holds no trained policy yet: finish the run first")
    environments = make_environments(config.env, 1, 1)
    policy = build_policy(
        config,
        environments.observation_shape,
        environments.num_actions,
        critic=config.algorithm.has_critic,
    )
    environments.close()
    policy.load_state_dict(weights)
    return config, policy


def _typed(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from JSON values: lists become the tuples that its fields are."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
