"""What a training run is: environment, network, heads and the algorithm's hyper-parameters.

Together with the code a `TrainConfig` fixes every row of a run; nothing here touches a disk or a
device.
"""

from dataclasses import dataclass, field, fields
from typing import Literal

from agents.a2c import A2C
from agents.a3c import A3C
from agents.limits import Count, Natural, Positive, ProperFraction, check_fields
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
"""Every environment, and what a policy can see of it; the first is what presets and the command
line take unless told, while an `EnvConfig` says its own."""
ACTIONS: dict[str, int] = {
    "CartPole-v1": 2,
    "CarRacing-v3": 5,
    "IdealCliffWalking-v0": 4,
    "Pong": 6,
    "Breakout": 4,
    "Enduro": 9,
    "Qbert": 6,
}
"""K of every environment, known without its packages."""


@dataclass(frozen=True)
class EnvConfig:
    """One environment.

    Raises
    ------
    ValueError
        Unknown environment or convention, or observations or a convention that it does not have.
    """

    id: str = "CartPole-v1"
    """A key of `OBSERVATIONS`."""
    observations: Observations = "state"
    """``"image"``: 4 stacked greyscale frames of 84×84; ``"ram"``: the console's 128 bytes."""
    convention: Convention = "NoFrameskip-v4"
    """Atari only. ``"NoFrameskip-v4"``: no sticky actions, a lost life ends the learner's episode
    (not the game). ``"v5"``: actions stick with probability 0.25, only game over ends."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.id not in OBSERVATIONS:
            raise ValueError(
                f"unknown environment {self.id!r}; there are {', '.join(sorted(OBSERVATIONS))}"
            )
        if self.observations not in OBSERVATIONS[self.id]:
            raise ValueError(
                f"{self.id} offers the observations {', '.join(OBSERVATIONS[self.id])}, not "
                f"{self.observations!r}"
            )
        if self.id not in ATARI and self.convention != EnvConfig.convention:
            raise ValueError(
                f"convention={self.convention!r} is of Atari games, and {self.id} has one form "
                "only: leave it out"
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
        A field that does not hold what its annotation says, a bias on a frozen head, or an energy
        given to a learned one.
    """

    kind: HeadKind = "linear"
    bias: bool = False
    """Of a learned head; the paper's theory has none and a frozen head neither."""
    energy: Positive = 1.0
    """E_W, the (mean) squared norm of a frozen head's rows."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.bias and self.kind != "linear":
            raise ValueError(f"a frozen {self.kind} head has no bias: set bias=False")
        if self.kind == "linear" and self.energy != HeadConfig.energy:
            raise ValueError(
                f"energy={self.energy:g} is of a frozen head, a learned one finds its own: leave "
                "it out"
            )

    def least_dim(self, num_actions: int) -> int:
        """Feature dimension that the head needs for K actions."""
        return {"etf": num_actions - 1, "orthogonal": num_actions}.get(self.kind, 1)


@dataclass(frozen=True)
class TrainConfig:
    """One training run of the population ``heads`` × ``seeds``, all trained as one batch.

    A3C, which has processes of its own, takes one head and one seed.

    Raises
    ------
    ValueError
        For a field that does not hold what its annotation says, and for a combination that has no
        meaning, naming the fields and the remedy.
    """

    env: EnvConfig = field(default_factory=EnvConfig)
    algorithm: Algorithm = field(default_factory=PPO)
    heads: tuple[HeadConfig, ...] = (HeadConfig(),)
    seeds: tuple[Natural, ...] = (0,)
    """The same seed under another head starts from the same backbone, critic and episodes."""
    network: NetworkKind = "mlp"
    hidden: tuple[Count, ...] = (64, 64)
    """Layer widths of an MLP; for a CNN the one feature dimension d after its convolutions."""
    critic: CriticKind = "separate"
    """Of actor-critic algorithms: a value layer on the actor's features, or its own network."""
    feature: FeatureKind = "rectified"
    feature_energy: Positive | None = None
    """E_H of the ball that features are projected onto; None for no bound."""
    initialisation: Initialisation = "default"
    """``"default"``: PyTorch's uniform. ``"orthogonal"``: gain √2, learned head 0.01, value 1."""
    match_entropy: ProperFraction | None = None
    """Scale every head at the start until the policy's mean entropy on first observations is this
    fraction of log K, so that heads explore alike; None leaves them alone. A frozen head's E_W is
    then what the scale makes of it, member by member, and no longer its ``energy``."""
    num_envs: Count = 8
    """Environments a member."""
    steps: Count = 100_000
    """Agent steps (decisions) a member; with a frame skip of 4 they are 4 frames each."""
    epoch_steps: Count = 10_000
    """Agent steps an epoch, which are at least those of one iteration. Environments restart at
    every epoch (unfinished episodes are cut and bootstrapped), so that a checkpoint has no
    environment to save."""
    eval_episodes: Count = 10
    eval_greedy: bool = False
    """Whether evaluation takes the likeliest action instead of a sampled one."""
    target_return: float | None = None
    """The first epoch whose evaluation reaches it is the paper's early-stop epoch."""
    precision: Precision = "auto"
    """Of a CNN's convolutions: ``"auto"`` is bf16 where the processor multiplies it natively."""
    snapshot_epochs: tuple[Natural, ...] = ()
    """Epochs (0 is the initialisation) after which features are stored for probing."""
    snapshot_states: Count = 2000
    """Evaluation states whose features are stored."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be at least one and all distinct, got {self.seeds}")
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise ValueError("heads must be at least one and all different")
        if (self.network == "cnn") != (self.env.observations == "image"):
            raise ValueError(
                f"network={self.network!r} cannot read {self.env.observations!r} observations: a "
                "cnn needs 'image', an mlp 'state' or 'ram'"
            )
        if not self.hidden:
            raise ValueError("hidden must have at least one layer, whose output is the feature")
        if self.network == "cnn" and len(self.hidden) != 1:
            raise ValueError(f"a cnn has one feature layer, hidden=(512,), got {self.hidden}")
        if self.network == "mlp" and self.precision == "bf16":
            raise ValueError("precision='bf16' is of convolutions, an mlp has none: leave it out")
        if self.algorithm.name == "trpo" and self.precision == "bf16":
            raise ValueError(
                "precision='bf16' is too coarse for TRPO, which differentiates twice: leave it out"
            )
        self._check_heads()
        self._check_rollout()
        late = [epoch for epoch in self.snapshot_epochs if epoch > self.epochs]
        if late:
            raise ValueError(f"snapshot_epochs {late} are not in 0…{self.epochs}")
        if isinstance(self.algorithm, A3C) and self.population > 1:
            raise ValueError(
                f"a3c trains one member a run, got {self.population}: its workers are processes of "
                "one network; give one head and one seed"
            )

    def _check_heads(self) -> None:
        num_actions, dim = ACTIONS[self.env.id], self.hidden[-1]
        for head in self.heads:
            if dim < head.least_dim(num_actions):
                raise ValueError(
                    f"hidden={self.hidden} is too narrow: {head.kind!r} for the {num_actions} "
                    f"actions of {self.env.id} needs a last layer of {head.least_dim(num_actions)} "
                    "or more"
                )

    def _check_rollout(self) -> None:
        """What one iteration collects against epochs and minibatches."""
        algorithm, length = self.algorithm, self.algorithm.rollout_steps
        if length is None:
            return
        samples = self.num_envs * length
        product = f"num_envs={self.num_envs} × rollout_steps={length} = {samples}"
        if samples > self.epoch_steps:
            raise ValueError(
                f"an iteration takes {product} steps, more than epoch_steps={self.epoch_steps}: "
                f"raise epoch_steps to {samples} or more, or lower num_envs or rollout_steps"
            )
        if samples < algorithm.least_samples:
            raise ValueError(
                f"an iteration collects {product} samples, and {algorithm.name} needs "
                f"{algorithm.least_samples}: raise num_envs or rollout_steps, or lower minibatches"
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
