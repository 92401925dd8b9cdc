"""TRPO on CartPole with 20 seeds against sb3-contrib's, same hyper-parameters, side by side."""

from typing import Any

import torch
from sb3_contrib import TRPO as PeerTRPO
from stable_baselines3.common.env_util import make_vec_env

from agents.config import HeadConfig, TrainConfig
from agents.training import Trainer
from agents.trpo import TRPO
from benchmarks.harness import interleaved

SEEDS, STEPS = 20, 4096
OURS = TRPO(rollout_steps=256, cg_iterations=15, minibatches=16)


def run() -> dict[str, Any]:
    """On one thread and on two."""
    result: dict[str, Any] = {
        "question": "training time of TRPO on CartPole, 20 seeds, environments included",
        "peer": "sb3-contrib, one model a seed, one after another",
        "steps_a_seed": STEPS,
    }
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            result[f"threads_{count}"] = interleaved(_ours, _theirs, rounds=2)
    finally:
        torch.set_num_threads(threads)
    return result


_CONFIG = TrainConfig(
    algorithm=OURS,
    heads=(HeadConfig(bias=True),),
    seeds=tuple(range(SEEDS)),
    initialisation="orthogonal",
    steps=STEPS,
    epoch_steps=STEPS,
)


def _ours() -> None:
    trainer = Trainer(_CONFIG, "cpu")
    trainer.train_epoch()
    trainer.close()


def _theirs() -> None:
    samples = _CONFIG.num_envs * OURS.rollout_steps
    for seed in range(SEEDS):
        PeerTRPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", _CONFIG.num_envs),
            n_steps=OURS.rollout_steps,
            batch_size=samples // OURS.minibatches,
            n_critic_updates=OURS.value_passes,
            learning_rate=OURS.learning_rate,
            gamma=OURS.discount,
            gae_lambda=OURS.trace,
            cg_max_steps=OURS.cg_iterations,
            cg_damping=OURS.damping,
            line_search_shrinking_factor=OURS.backtrack_factor,
            line_search_max_iter=OURS.backtracks,
            target_kl=OURS.max_kl,
            policy_kwargs={"activation_fn": torch.nn.ReLU},
            seed=seed,
            device="cpu",
        ).learn(STEPS)
