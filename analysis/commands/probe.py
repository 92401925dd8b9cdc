"""`probe`: collapse metrics of a trained policy on the states that it visits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from agents.config import TrainConfig
from agents.policy import Policy
from analysis.commands.console import (
    BEGINS_ANEW,
    UsageError,
    at_least_one,
    progress_bars,
    say,
    stdout,
)
from analysis.probe import ProbeResult, probe
from analysis.snapshot import Snapshot
from analysis.storage import RunFolder, RunFolderError
from analysis.trained import load_policy, read_config, read_snapshots
from analysis.visits import visited
from gridworld import ideal_cliff_walking


@dataclass(frozen=True)
class Probe:
    """Measure trained policies on the states they visit: every member of a training run."""

    run_or_checkpoint: tyro.conf.Positional[Path]
    """Folder of a training run, or a checkpoint or policy file in it."""
    states: int = 10_000
    """States to visit with each member."""
    epoch: int | None = None
    """Measure what was stored of this epoch's evaluation (snapshot_epochs) and visit nothing."""
    labels: Literal["greedy", "optimal"] = "greedy"
    """greedy: the policy's likeliest action. optimal: exact, on IdealCliffWalking-v0 only."""
    seed: int = 0
    """Seeds environments and actions."""
    snapshot: int = 2000
    """States of each member whose features are stored, drawn evenly from all."""
    out: Path = Path("runs")
    """Directory of run folders."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        at_least_one("states", self.states)
        path = _run_of(self.run_or_checkpoint)
        if self.epoch is not None and self.labels == "optimal":
            raise UsageError("a stored epoch holds no observations to label: use --labels greedy")
        config = read_config(path)
        if self.labels == "optimal" and config.env.id != "IdealCliffWalking-v0":
            raise UsageError(
                f"optimal actions are known on IdealCliffWalking-v0 only, this run is on "
                f"{config.env.id}: use --labels greedy"
            )
        if self.epoch is None:
            results = self._probe(*load_policy(path))
        else:
            results = [_measured(snapshot) for snapshot in read_snapshots(path, self.epoch)]
        folder = self._store(path, config, results)
        stdout.print(_table(config, results))
        say(stdout, f"rows: {folder.path}")
        return 0

    def _probe(self, config: TrainConfig, policy: Policy) -> list[ProbeResult]:
        results = []
        with progress_bars() as progress:
            task = progress.add_task("states", total=self.states * config.population)
            for member, (head, seed) in enumerate(config.members):

                def observations(member: int = member) -> Iterator[NDArray[np.generic]]:
                    rng = np.random.default_rng([self.seed, member])
                    for batch in visited(policy, config.env, self.states, rng, member=member):
                        progress.advance(task, len(batch))
                        yield batch

                results.append(
                    probe(
                        policy,
                        observations(),
                        labels=self.labels,
                        mdp=ideal_cliff_walking(start="outer")
                        if self.labels == "optimal"
                        else None,
                        member=member,
                        snapshot_size=self.snapshot,
                        rng=np.random.default_rng([self.seed, member, 1]),
                        step=config.steps,
                        tags={"head_kind": head.kind, "seed": seed},
                    )
                )
        return results

    def _store(self, path: Path, config: TrainConfig, results: list[ProbeResult]) -> RunFolder:
        folder = RunFolder(
            self.out,
            "probe",
            {
                "experiment": "probe",
                "run": path.name,
                **(
                    {
                        "states": self.states,
                        "labels": self.labels,
                        "seed": self.seed,
                        "snapshot": self.snapshot,
                    }
                    if self.epoch is None
                    else {"epoch": self.epoch}
                ),
            },
        )
        with folder.session():
            if not folder.has_rows("probe"):
                rows = [
                    {"member": member, "head": head.kind, "seed": seed, **result.as_row()}
                    for member, ((head, seed), result) in enumerate(
                        zip(config.members, results, strict=True)
                    )
                ]
                folder.write_rows("probe", pd.DataFrame(rows))
                for member, result in enumerate(results):
                    taken = result.snapshot
                    if taken is not None:
                        folder.save_tensors(
                            f"snapshots/member-{member}.pt",
                            {
                                "features": torch.as_tensor(taken.features),
                                "labels": torch.as_tensor(taken.labels),
                                "head": torch.as_tensor(taken.head),
                                "step": taken.step,
                            },
                        )
        return folder


def _measured(snapshot: Snapshot) -> ProbeResult:
    """Of the features of a snapshot, which the head takes as a policy takes observations."""
    head, bias = torch.as_tensor(snapshot.head), snapshot.bias
    shift = torch.zeros(len(head)) if bias is None else torch.as_tensor(bias)

    def policy(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return features, features @ head.mT + shift

    return probe(policy, snapshot.features, head=head, bias=shift)


def _run_of(path: Path) -> Path:
    """Run folder of a path that may be a file in it."""
    if not path.exists():
        raise RunFolderError(f"{path} does not exist: name a training run's folder or checkpoint")
    for folder in (path, *path.parents[:2]):
        if (folder / "config.json").exists():
            read_config(folder)
            return folder
    raise RunFolderError(f"{path} is no training run: no config.json in it or above it")


_SHOWN = (
    "greedy_share",
    "entropy",
    "effective_rank",
    "dead_features",
    "feature_norm",
    "head_norm",
    "head_equinorm",
    "head_max_angle",
    "feature_max_angle",
    "within_class_variation",
    "head_feature_cosine",
    "absent_classes",
)


def _table(config: TrainConfig, results: list[ProbeResult]) -> Table:
    title = f"{config.algorithm.name} on {config.env.id}: {results[0].labels} labels"
    table = Table(title=Text(title, "table.title"))
    table.add_column("metric")
    rows = [result.as_row() for result in results]
    for head, seed in config.members:
        table.add_column(f"{head.kind} {seed}", justify="right")
    for name in _SHOWN:
        table.add_row(name, *(f"{float(row[name]):.4g}" for row in rows))
    return table
