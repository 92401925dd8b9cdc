"""`train`: one run of a population of agents."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from rich.table import Table
from rich.text import Text

from agents.config import (
    Convention,
    HeadKind,
    NetworkKind,
    Observations,
)
from agents.errors import ConfigurationError
from agents.networks import FeatureKind
from agents.training import resolve_device
from analysis.commands.console import (
    UsageError,
    at_least_one,
    console,
    progress_bars,
    say,
    stdout,
)
from analysis.configure import parse_assignments, training_config
from analysis.runs import read_training_rows
from analysis.training import nothing_to_resume, train


@dataclass(frozen=True)
class Train:
    """Train agents, into one run folder; every head and seed given trains in one batch.

    A3C takes one head and one seed.
    """

    algorithm: Literal["reinforce", "ppo", "trpo", "a2c", "a3c"] = "ppo"
    env: str = "CartPole-v1"
    """CartPole-v1, CarRacing-v3, IdealCliffWalking-v0, Pong, Breakout, Enduro or Qbert; also
    PongNoFrameskip-v4 or ALE/Pong-v5."""
    observations: Observations | None = None
    """What the policy sees of an Atari game; by default images for a cnn, RAM for an mlp."""
    convention: Convention | None = None
    network: NetworkKind | None = None
    head: tuple[HeadKind, ...] = ("linear",)
    feature: FeatureKind | None = None
    seed: tuple[int, ...] = (0,)
    steps: int | None = None
    """Agent steps of each member."""
    set: tuple[str, ...] = ()
    """Any other field of the run or hyper-parameter as name=value, e.g. learning_rate=1e-3."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 1
    """PyTorch threads; more than one pays for images on idle cores only."""
    resume: bool = False
    """Continue an unfinished run of the same configuration."""
    tensorboard: bool = False
    """Log to tensorboard/ in the run folder."""
    out: Path = Path("runs")
    """Directory of run folders."""

    when_stopped: ClassVar[str] = (
        "the same command with --resume continues from the last checkpoint"
    )

    def run(self) -> int:
        """Run the command and return its exit code."""
        at_least_one("threads", self.threads)
        torch.set_num_threads(self.threads)
        named: dict[str, Any] = {
            "algorithm": self.algorithm,
            "env": self.env,
            "observations": self.observations,
            "convention": self.convention,
            "network": self.network,
            "head": self.head,
            "feature": self.feature,
            "seeds": self.seed,
            "steps": self.steps,
        }
        try:
            given = {name: value for name, value in named.items() if value is not None}
            config = training_config({**given, **parse_assignments(self.set)})
        except ValueError as error:
            raise UsageError(str(error)) from error
        try:
            resolve_device(self.device)
        except ConfigurationError as error:
            raise UsageError(f"--device: {error}") from error
        if self.resume and (notice := nothing_to_resume(config, self.out)) is not None:
            say(console, notice, "yellow")
        with progress_bars() as progress:
            task = progress.add_task(f"{self.algorithm} {self.env} steps", total=config.steps)
            folder = train(
                config,
                self.out,
                device=self.device,
                resume=self.resume,
                tensorboard=self.tensorboard,
                advance=lambda steps: progress.advance(task, steps),
            )
        rows = read_training_rows(folder.path)
        title = f"{self.algorithm} on {config.env.id}, {config.steps} steps a member"
        table = Table(title=Text(title, "table.title"))
        for column in ("head", "seed", "best return", "final return", "final entropy"):
            table.add_column(column)
        for (head, seed), member in rows.groupby(["head", "seed"], sort=False):
            last = member.iloc[-1]
            table.add_row(
                str(head),
                str(seed),
                f"{member['eval_return'].max():.1f}",
                f"{last['eval_return']:.1f}",
                f"{last['policy_entropy']:.3f}",
            )
        stdout.print(table)
        say(stdout, f"rows: {folder.path}")
        return 0
