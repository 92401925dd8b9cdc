"""`probe`: collapse metrics of a trained policy on the states that it visits."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch
import tyro
from rich.table import Table
from rich.text import Text

from agents.config import TrainConfig
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
from analysis.storage import RunFolder, RunFolderError, cause
from analysis.trained import (
    DIVERGED,
    Trained,
    load_trained,
    read_config,
    read_snapshots,
    run_of,
    tensors_digest,
)
from analysis.visits import Visits, visited
from gridworld import ideal_cliff_walking

_VISITS = {"states": 10_000, "snapshot": 2000, "seed": 0}
"""What visiting states takes, and how much of it unless said otherwise."""


@dataclass(frozen=True)
class Unmeasured:
    """A member that `probe` refused, beside others that it took."""

    labels: str
    why: str
    snapshot: ClassVar[None] = None


@dataclass(frozen=True)
class Probe:
    """Measure trained policies on the states they visit: every member of a training run."""

    run_or_checkpoint: tyro.conf.Positional[Path]
    """Folder of a training run, or its policy.pt or checkpoints/trainer.pt: that one is loaded."""
    states: int | None = None
    """States to visit with each member, 10000 unless given."""
    epoch: int | None = None
    """Measure what was stored of this epoch's evaluation (snapshot_epochs) and visit nothing."""
    labels: Literal["greedy", "optimal"] = "greedy"
    """greedy: the policy's likeliest action. optimal: exact, on IdealCliffWalking-v0 only."""
    seed: int | None = None
    """Seeds environments and actions, 0 unless given."""
    snapshot: int | None = None
    """States of each member whose features are stored, drawn evenly from all; 2000 unless given."""
    out: Path = Path("runs")
    """Directory of run folders."""

    when_stopped: ClassVar[str] = BEGINS_ANEW

    def run(self) -> int:
        """Run the command and return its exit code."""
        visits = self._visits()
        run = run_of(self.run_or_checkpoint)
        config = read_config(run)
        if self.labels == "optimal" and config.env.id != "IdealCliffWalking-v0":
            raise UsageError(
                f"optimal actions are known on IdealCliffWalking-v0 only, this run is on "
                f"{config.env.id}: use --labels greedy"
            )
        # The digest is of what is measured: a run that went on since has another folder.
        probed: dict[str, Any] = {"experiment": "probe", "run": run.resolve().name}
        if self.epoch is None:
            trained = load_trained(self.run_or_checkpoint)
            probed |= {"steps": trained.steps, "weights": trained.digest, "labels": self.labels}
            folder = RunFolder(self.out, "probe", probed | visits)
            if not folder.has_rows("probe"):
                _store(folder, config, {"steps": trained.steps}, self._probe(trained, **visits))
        else:
            snapshots = read_snapshots(run, self.epoch)
            probed |= {"epoch": self.epoch, "snapshots": _digest(snapshots)}
            folder = RunFolder(self.out, "probe", probed)
            if not folder.has_rows("probe"):
                _store(folder, config, {"epoch": self.epoch}, list(map(_measured, snapshots)))
        # What is stored is what is shown, measured now or before.
        rows = folder.read_rows("probe").to_dict("records")
        stdout.print(_table(config, rows))
        for line in _reasons(rows):
            say(stdout, line)
        say(stdout, f"rows: {folder.path}")
        return 0

    def _visits(self) -> dict[str, int]:
        """The options of visiting states, checked."""
        given = {name: getattr(self, name) for name in _VISITS}
        named = {name: value for name, value in given.items() if value is not None}
        if self.epoch is not None:
            if self.labels == "optimal":
                raise UsageError(
                    "a stored epoch holds no observations to label: use --labels greedy"
                )
            if named:
                options = ", ".join(f"--{name}" for name in named)
                raise UsageError(f"--epoch measures what was stored and takes no {options}")
            if self.run_or_checkpoint.is_file():
                raise UsageError(
                    f"--epoch measures what a run stored and loads no weights: name its folder "
                    f"instead of {self.run_or_checkpoint}"
                )
        visits = _VISITS | named
        at_least_one("states", visits["states"])
        for name in ("snapshot", "seed"):
            if visits[name] < 0:
                raise UsageError(f"--{name} must be >= 0, got {visits[name]}")
        return visits

    def _probe(
        self, trained: Trained, states: int, snapshot: int, seed: int
    ) -> list[ProbeResult | Unmeasured]:
        config, policy = trained.config, trained.policy
        results: list[ProbeResult | Unmeasured] = []
        with progress_bars() as progress:
            task = progress.add_task("states", total=states * config.population)
            for member, (head, own_seed) in enumerate(config.members):

                def observations(member: int = member) -> Iterator[Visits]:
                    rng = np.random.default_rng([seed, member])
                    for batch in visited(policy, config.env, states, rng, member=member):
                        progress.advance(task, len(batch.episodes))
                        yield batch

                tags = {"head_kind": head.kind, "seed": own_seed, "labelled": self.labels}
                optimal = self.labels == "optimal"
                try:
                    result: ProbeResult | Unmeasured = probe(
                        policy,
                        observations(),
                        labels=self.labels,
                        mdp=ideal_cliff_walking(start="outer") if optimal else None,
                        member=member,
                        snapshot_size=snapshot,
                        rng=np.random.default_rng([seed, member, 1]),
                        step=trained.steps,
                        tags=tags,
                    )
                except ValueError as error:  # weights that are not finite, above all
                    result = Unmeasured(self.labels, cause(error))
                results.append(result)
        return results


def _store(
    folder: RunFolder,
    config: TrainConfig,
    when: dict[str, int],
    results: Sequence[ProbeResult | Unmeasured],
) -> None:
    refused = [result for result in results if isinstance(result, Unmeasured)]
    if len(refused) == len(results):
        raise RunFolderError(f"no member of this run can be measured ({refused[0].why})")
    with folder.session():
        if folder.has_rows("probe"):  # another process was faster
            return
        # The rows come last: where they are, everything is.
        for member, result in enumerate(results):
            taken = result.snapshot
            if taken is not None:
                folder.save_tensors(
                    f"snapshots/member-{member}.pt",
                    {
                        "features": torch.as_tensor(taken.features),
                        "labels": torch.as_tensor(taken.labels),
                        "head": torch.as_tensor(taken.head),
                        "bias": None if taken.bias is None else torch.as_tensor(taken.bias),
                        "episodes": torch.as_tensor(taken.episodes),
                        "step": taken.step,
                        "tags": dict(taken.tags),
                    },
                )
        names = next(list(r.as_row()) for r in results if isinstance(r, ProbeResult))
        rows = [
            {"member": member, "head": head.kind, "seed": seed, **when, **_row(result, names)}
            for member, ((head, seed), result) in enumerate(
                zip(config.members, results, strict=True)
            )
        ]
        folder.write_rows("probe", pd.DataFrame(rows))


def _row(result: ProbeResult | Unmeasured, names: list[str]) -> dict[str, float | str]:
    if isinstance(result, ProbeResult):
        reasons = {**result.collapse.reasons, **result.reasons}
        return {**result.as_row(), "reasons": json.dumps(reasons)}
    reasons = {name: result.why for name in names if name != "labels"}
    return {
        **dict.fromkeys(reasons, math.nan),
        "labels": result.labels,
        "reasons": json.dumps(reasons),
    }


def _digest(snapshots: Sequence[Snapshot | None]) -> str:
    return tensors_digest(
        (f"{member}.{name}", torch.as_tensor(getattr(snapshot, name)))
        for member, snapshot in enumerate(snapshots)
        for name in ("features", "labels", "head", "bias")
        if getattr(snapshot, name, None) is not None
    )


def _measured(snapshot: Snapshot | None) -> ProbeResult | Unmeasured:
    """Of the features of a snapshot, which the head takes as a policy takes observations."""
    if snapshot is None:
        return Unmeasured("greedy", DIVERGED)
    head, bias = torch.as_tensor(snapshot.head), snapshot.bias
    shift = torch.zeros(len(head)) if bias is None else torch.as_tensor(bias)

    def policy(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return features, features @ head.mT + shift

    return probe(policy, snapshot.features, head=head, bias=shift)


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


def _table(config: TrainConfig, rows: list[dict[str, Any]]) -> Table:
    title = f"{config.algorithm.name} on {config.env.id}: {rows[0]['labels']} labels"
    table = Table(title=Text(title, "table.title"))
    table.add_column("metric")
    for row in rows:
        table.add_column(_name(row), justify="right")
    for name in _SHOWN:
        table.add_row(name, *(f"{row[name]:.4g}" for row in rows))
    return table


def _reasons(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Why a number in the table is NaN, one line a metric and reason."""
    members: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        reasons = {k: v for k, v in json.loads(row["reasons"]).items() if k in _SHOWN}
        if len(reasons) == len(_SHOWN):
            reasons = {"everything": reasons[_SHOWN[0]]}
        for name, reason in reasons.items():
            members.setdefault((name, reason), []).append(_name(row))
    for (name, reason), of in members.items():
        whose = "" if len(of) == len(rows) else f" of {', '.join(of)}"
        yield f"{name}{whose} is nan: {reason}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['head']} {row['seed']}"
