"""What a training run is: environment, network, heads and the algorithm's hyper-parameters.

Together with the code a `TrainConfig` fixes every row of a run; nothing here touches a disk or a
device.
"""

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from agents.a2c import A2C
from agents.a3c import A3C
from agents.networks import FeatureKind
from agents.ppo import PPO
from agents.reinforce import Reinforce
from agents.trpo import TRPO

Observations = Literal["state", "image", "ram"]
Convention = Literal["NoFrameskip-v4", "v5"]
HeadKind = Literal["linear", "etf", "orthogonal", "gaussian"]
NetworkKind = Literal["mlp", "cnn"]
CriticKind = Literal["shared", "separate"]
Precision = Literal["auto", "float32", "bf16"]
Initialisation = Literal["default", "orthogonal"]
Algorithm = Reinforce | PPO | TRPO | A2C | A3C
ALGORITHMS: dict[str, type[Algorithm]] = {
    algorithm.name: algorithm for algorithm in (Reinforce, PPO, TRPO, A2C, A3C)
}

ATARI = ("Pong", "Breakout", "Enduro", "Qbert")
OBSERVATIONS: dict[str, tuple[Observations, ...]] = {
    "CartPole-v1": ("state",),
    "CarRacing-v3": ("image",),
    "IdealCliffWalking-v0": ("state",),
    **dict.fromkeys(ATARI, ("image", "ram")),
}
"""Every environment, and what a policy can see of it (the first is the default)."""


def _choice(owner: str, name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{owner}.{name} must be one of {', '.join(map(str, allowed))}: {value!r}")


@dataclass(frozen=True)
class EnvConfig:
    """One environment.

    Raises
    ------
    ValueError
        Unknown environment, or observations that it does not offer.
    """

    id: str = "CartPole-v1"
    """A key of `OBSERVATIONS`."""
    observations: Observations = "state"
    """``"image"``: 4 stacked greyscale frames of 84×84; ``"ram"``: the console's 128 bytes."""
    convention: Convention = "NoFrameskip-v4"
    """Atari only. ``"NoFrameskip-v4"``: no sticky actions, a lost life ends the learner's episode
    (not the game). ``"v5"``: actions stick with probability 0.25, only game over ends."""

    def __post_init__(self) -> None:
        if self.id not in OBSERVATIONS:
            raise ValueError(
                f"unknown environment {self.id!r}; there are {', '.join(sorted(OBSERVATIONS))}"
            )
        _choice("EnvConfig", "convention", self.convention, get_args(Convention))
        if self.observations not in OBSERVATIONS[self.id]:
            raise ValueError(
                f"{self.id} offers the observations {', '.join(OBSERVATIONS[self.id])}, not "
                f"{self.observations!r}"
            )

    @property
    def clips_rewards(self) -> bool:
        """Whether the learner sees rewards clipped to −1, 0, 1 (Atari); reported ones never are."""
        return self.id in ATARI


@dataclass(frozen=True)
class HeadConfig:
    """The action-selection layer.

    Raises
    ------
    ValueError
        Unknown kind, energy that is not positive, or a bias on a frozen head.
    """

    kind: HeadKind = "linear"
    bias: bool = False
    """Of a learned head; the paper's theory has none and a frozen head neither."""
    energy: float = 1.0
    """E_W, the (mean) squared norm of a frozen head's rows."""

    def __post_init__(self) -> None:
        _choice("HeadConfig", "kind", self.kind, get_args(HeadKind))
        if not self.energy > 0:
            raise ValueError(f"HeadConfig.energy must be > 0, got {self.energy}")
        if self.bias and self.kind != "linear":
            raise ValueError(f"a frozen {self.kind} head has no bias: set bias=False")


@dataclass(frozen=True)
class TrainConfig:
    """One training run of the population ``heads`` × ``seeds``, all trained as one batch.

    Raises
    ------
    ValueError
        For a combination that has no meaning, naming the fields and the remedy.
    """

    env: EnvConfig = field(default_factory=EnvConfig)
    algorithm: Algorithm = field(default_factory=PPO)
    heads: tuple[HeadConfig, ...] = (HeadConfig(),)
    seeds: tuple[int, ...] = (0,)
    """The same seed under another head starts from the same backbone, critic and episodes."""
    network: NetworkKind = "mlp"
    hidden: tuple[int, ...] = (64, 64)
    """Layer widths of an MLP; for a CNN the one feature dimension d after its convolutions."""
    critic: CriticKind = "separate"
    """Of actor-critic algorithms: a value layer on the actor's features, or its own network."""
    feature: FeatureKind = "rectified"
    feature_energy: float | None = None
    """E_H of the ball that features are projected onto; None for no bound."""
    initialisation: Initialisation = "default"
    """``"default"``: PyTorch's uniform. ``"orthogonal"``: gain √2, learned head 0.01, value 1."""
    match_entropy: float | None = None
    """Scale every head at the start until the policy's mean entropy on first observations is this
    fraction of log K, so that heads explore alike; None leaves them alone."""
    num_envs: int = 8
    """Environments a member."""
    steps: int = 100_000
    """Agent steps (decisions) a member; with a frame skip of 4 they are 4 frames each."""
    epoch_steps: int = 10_000
    """Agent steps an epoch. Environments restart at every epoch (unfinished episodes are cut and
    bootstrapped), so that a checkpoint has no environment to save."""
    eval_episodes: int = 10
    eval_greedy: bool = False
    """Whether evaluation takes the likeliest action instead of a sampled one."""
    target_return: float | None = None
    """The first epoch whose evaluation reaches it is the paper's early-stop epoch."""
    precision: Precision = "auto"
    """Of convolutions: ``"auto"`` is bf16 where the processor multiplies it natively."""
    snapshot_epochs: tuple[int, ...] = ()
    """Epochs (0 is the initialisation) after which features are stored for probing."""
    snapshot_states: int = 2000
    """Evaluation states whose features are stored."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("network", NetworkKind),
            ("critic", CriticKind),
            ("feature", FeatureKind),
            ("initialisation", Initialisation),
            ("precision", Precision),
        ):
            _choice("TrainConfig", name, getattr(self, name), get_args(kind))
        for name in ("num_envs", "steps", "epoch_steps", "eval_episodes", "snapshot_states"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be distinct non-negative integers, got {self.seeds}")
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise ValueError("heads must be at least one and all different")
        if (self.network == "cnn") != (self.env.observations == "image"):
            raise ValueError(
                f"network={self.network!r} cannot read {self.env.observations!r} observations: a "
                "cnn needs 'image', an mlp 'state' or 'ram'"
            )
        if self.network == "cnn" and len(self.hidden) != 1:
            raise ValueError(f"a cnn has one feature layer, hidden=(512,), got {self.hidden}")
        if self.match_entropy is not None and not 0 < self.match_entropy < 1:
            raise ValueError(f"match_entropy must lie in (0, 1), got {self.match_entropy}")
        late = [epoch for epoch in self.snapshot_epochs if not 0 <= epoch <= self.epochs]
        if late:
            raise ValueError(f"snapshot_epochs {late} are not in 0…{self.epochs}")
        if isinstance(self.algorithm, A3C) and self.population > 1:
            raise ValueError(
                f"a3c trains one member a run, got {self.population}: its workers are processes of "
                "one network; give one head and one seed"
            )

    @property
    def population(self) -> int:
        """P, the number of members."""
        return len(self.heads) * len(self.seeds)

    @property
    def epochs(self) -> int:
        """Epochs of the run; the last may be shorter."""
        return -(-self.steps // self.epoch_steps)

    @property
    def members(self) -> tuple[tuple[HeadConfig, int], ...]:
        """(head, seed) of every member, head-major."""
        return tuple((head, seed) for head in self.heads for seed in self.seeds)


def hyper_parameters(algorithm: str) -> tuple[str, ...]:
    """Names of an algorithm's hyper-parameters."""
    return tuple(f.name for f in fields(ALGORITHMS[algorithm]))
