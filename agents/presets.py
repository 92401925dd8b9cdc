"""Hyper-parameters that are known to learn each environment, or that the literature uses."""

from collections.abc import Mapping
from typing import Any

from agents.a2c import A2C
from agents.a3c import A3C
from agents.config import ALGORITHMS, ATARI, OBSERVATIONS, Algorithm, Observations
from agents.ppo import PPO
from agents.reinforce import Reinforce
from agents.trpo import TRPO

Overrides = dict[str, Any]

TARGETS: Mapping[str, float] = {"CartPole-v1": 475.0, "CarRacing-v3": 900.0, "Pong": 20.0}
"""Evaluation return at which a run may stop. The paper has a "predefined performance target" for
its Stop column and does not print it. The first two are Gymnasium's ``reward_threshold``; 20 of at
most 21 in Pong is ours. The other environments have none."""

_CARTPOLE: dict[str, tuple[Algorithm, Overrides]] = {
    "reinforce": (
        # The library's settings forget what they have learned. These were found together, among
        # some twenty on seeds 0-9; which of them matter was not separated. Meant against: returns
        # that the limit of 500 steps cuts short (cut_tolerance), and long steps of Adam when
        # gradients return after a stretch of perfect games (adam_eps).
        Reinforce(
            batch_size=256,
            anneal=True,
            discount=0.98,
            cut_tolerance=0.1,
            adam_eps=1e-3,
        ),
        {"num_envs": 4, "steps": 400_000, "epoch_steps": 40_000},
    ),
    "ppo": (
        PPO(rollout_steps=32, passes=10, learning_rate=1e-3),
        {"steps": 50_000, "epoch_steps": 5_000},
    ),
    "trpo": (TRPO(), {"steps": 50_000, "epoch_steps": 5_000}),
    "a2c": (
        A2C(
            rollout_steps=5,
            learning_rate=3e-3,
            anneal=True,
            value_coefficient=0.5,
            max_gradient_norm=10.0,
            optimizer="adam",
        ),
        {"num_envs": 16, "steps": 500_000, "epoch_steps": 50_000},
    ),
    "a3c": (
        A3C(
            learning_rate=2e-3,
            trace=0.95,
            max_gradient_norm=10.0,
            optimizer="adam",
        ),
        {"num_envs": 4, "steps": 250_000, "epoch_steps": 25_000},
    ),
}

_CLIFF: dict[str, tuple[Algorithm, Overrides]] = {
    # Without an entropy bonus REINFORCE and A2C settle in some seeds before every cell is known.
    "reinforce": (
        Reinforce(batch_size=1024, passes=1, entropy_coefficient=0.1),
        {"num_envs": 32, "steps": 100_000, "epoch_steps": 10_000},
    ),
    "ppo": (
        PPO(rollout_steps=16, learning_rate=1e-3, discount=0.95),
        {"steps": 40_000, "epoch_steps": 4_000},
    ),
    "trpo": (
        TRPO(rollout_steps=64, discount=0.95),
        {"steps": 40_000, "epoch_steps": 4_000},
    ),
    "a2c": (
        A2C(
            rollout_steps=8,
            learning_rate=1e-3,
            discount=0.95,
            entropy_coefficient=0.1,
            optimizer="adam",
        ),
        {"steps": 40_000, "epoch_steps": 4_000},
    ),
    "a3c": (
        A3C(
            rollout_steps=8,
            learning_rate=1e-3,
            anneal=False,
            discount=0.95,
            entropy_coefficient=0.1,
            optimizer="adam",
        ),
        {"num_envs": 8, "steps": 60_000, "epoch_steps": 15_000},
    ),
}

# Of Car Racing and Atari, whether the policy sees images or RAM.
_GAMES: dict[str, Algorithm] = {
    # The paper lists 1e-3, 1e-4 and 1e-5 for REINFORCE; the middle one.
    "reinforce": Reinforce(learning_rate=1e-4),
    # Tianshou's value coefficient of 0.25 on the plain MSE is 0.5 on its half. The paper anneals
    # over 10M steps, of which the budgets here are the beginning: annealed within them, Pong stays
    # at -14 where a rate that hardly falls wins.
    "ppo": PPO(rollout_steps=128, learning_rate=2.5e-4, clip=0.1, anneal=False),
    "trpo": TRPO(rollout_steps=128, minibatches=4, entropy_coefficient=0.01),
    # Stable-Baselines3's zoo, whose value coefficient of 0.25 on the plain MSE is 0.5 here.
    "a2c": A2C(value_coefficient=0.5, entropy_coefficient=0.01),
    "a3c": A3C(),
}


def preset(
    algorithm: str, env_id: str, observations: Observations | None = None
) -> tuple[Algorithm, Overrides]:
    """Hyper-parameters for an algorithm on an environment.

    Those of CartPole-v1 and IdealCliffWalking-v0 are tested to learn. Those of Car Racing and of
    Atari images are the paper's and its library's where they give any, else the usual ones; PPO's
    from RAM were tuned on Pong. Budgets are what a CPU can do. Where they leave the paper,
    docs/deviations.md says so.

    Parameters
    ----------
    algorithm
        A key of `agents.config.ALGORITHMS`.
    env_id
        A key of `agents.config.OBSERVATIONS`.
    observations
        What is seen of an Atari game; None for the environment's default.

    Returns
    -------
    The algorithm's hyper-parameters, and what else to give to `TrainConfig` (except the
    environment itself, heads and seeds).

    Raises
    ------
    ValueError
        Unknown algorithm or environment.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}")
    if env_id not in OBSERVATIONS:
        raise ValueError(f"unknown environment {env_id!r}; there are {', '.join(OBSERVATIONS)}")
    target: Overrides = {"target_return": TARGETS[env_id]} if env_id in TARGETS else {}
    known = {"CartPole-v1": _CARTPOLE, "IdealCliffWalking-v0": _CLIFF}.get(env_id)
    if known is not None:
        chosen, overrides = known[algorithm]
        return chosen, overrides | target
    chosen = _GAMES[algorithm]
    overrides = target | {
        "num_envs": 1 if algorithm == "a3c" else 8,
        "epoch_steps": 100_000,
        "initialisation": "orthogonal",
    }
    if (observations or OBSERVATIONS[env_id][0]) == "ram":
        overrides |= {"network": "mlp", "hidden": (256, 256), "critic": "separate"}
        if algorithm == "ppo":
            # Found on Pong: 4 passes at 5e-4 with the clip of images learn several times slower,
            # and a rate that is not annealed loses again what it has learned. The entropy
            # coefficient matters less: three seeds end at a mean of 14.7 with 0.003 and of 15.5
            # with 0.01.
            chosen = PPO(passes=6, minibatches=8, learning_rate=1e-3, entropy_coefficient=0.01)
            overrides |= {"num_envs": 16, "steps": 1_500_000}
    else:
        overrides |= {"network": "cnn", "hidden": (512,), "critic": "shared"}
    if env_id in ATARI:
        return chosen, {"steps": 1_000_000} | overrides
    if algorithm == "reinforce":
        # Returns of Car Racing are large: at 1e-4 the policy is deterministic after the first
        # 2,000 to 5,000 samples, also with one pass, and with a first collect that is standardised.
        chosen = Reinforce(learning_rate=1e-5)
    return chosen, overrides | {"steps": 300_000, "epoch_steps": 20_000}
