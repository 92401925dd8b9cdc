"""Our agents against Stable-Baselines3, same hyper-parameters and environments, side by side."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3 import PPO as PeerPPO
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from agents.config import EnvConfig, HeadConfig, Precision, TrainConfig
from agents.ppo import PPO
from agents.training import Trainer
from benchmarks.harness import interleaved

CARTPOLE_SEEDS, CARTPOLE_STEPS = 20, 4096
CARTPOLE = PPO(
    rollout_steps=256,
    passes=10,
    minibatches=32,
    learning_rate=3e-4,
    anneal=False,
    value_coefficient=1.0,
    entropy_coefficient=0.0,
)
PONG_STEPS = 4096
PONG = PPO(clip=0.1, anneal=False)


def run() -> dict[str, Any]:
    """CartPole with 20 seeds, on one thread and on two; Pong from images in both precisions."""
    result: dict[str, Any] = {
        "question": "training time of PPO, environments included",
        "peer": "Stable-Baselines3, one model a seed, one after another",
    }
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            result[f"cartpole_20_seeds_{count}_threads"] = _cartpole()
        for precision in ("bf16", "float32"):
            result[f"pong_{precision}_2_threads"] = pong(precision)
        result["pong_split"] = _split()
    finally:
        torch.set_num_threads(threads)
    return result


def _cartpole() -> dict[str, Any]:
    """20 seeds × 4096 steps, 8 environments, minibatches of 64, 10 passes."""
    config = TrainConfig(
        algorithm=CARTPOLE,
        heads=(HeadConfig(bias=True),),
        seeds=tuple(range(CARTPOLE_SEEDS)),
        initialisation="orthogonal",
        steps=CARTPOLE_STEPS,
        epoch_steps=CARTPOLE_STEPS,
    )

    def ours() -> None:
        trainer = Trainer(config, "cpu")
        trainer.train_epoch()
        trainer.close()

    def theirs() -> None:
        for seed in range(CARTPOLE_SEEDS):
            PeerPPO(
                "MlpPolicy",
                make_vec_env("CartPole-v1", config.num_envs),
                n_steps=CARTPOLE.rollout_steps,
                batch_size=config.num_envs * CARTPOLE.rollout_steps // CARTPOLE.minibatches,
                n_epochs=CARTPOLE.passes,
                learning_rate=CARTPOLE.learning_rate,
                policy_kwargs={"activation_fn": torch.nn.ReLU},
                seed=seed,
                device="cpu",
            ).learn(CARTPOLE_STEPS)

    return {"steps_a_seed": CARTPOLE_STEPS, **interleaved(ours, theirs, rounds=5)}


def _pong_trainer(precision: Precision, device: str = "cpu", num_envs: int = 8) -> Trainer:
    config = TrainConfig(
        env=EnvConfig("Pong", "image"),
        algorithm=PONG,
        heads=(HeadConfig(bias=True),),
        network="cnn",
        hidden=(512,),
        critic="shared",
        initialisation="orthogonal",
        precision=precision,
        num_envs=num_envs,
        steps=10**9,
        epoch_steps=10**6,
    )
    trainer = Trainer(config, device)
    trainer._collector.restart([0])
    return trainer


def _iterate(trainer: Trainer, steps: int = PONG_STEPS) -> None:
    """Collect and learn within an epoch, as nearly all of training does."""
    for _ in range(steps // (PONG.rollout_steps * trainer.config.num_envs)):
        trainer._learner.iterate(trainer._collector, 0.0)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()


def pong(
    precision: Precision, device: str = "cpu", num_envs: int = 8, steps: int = PONG_STEPS
) -> dict[str, Any]:
    """PongNoFrameskip-v4, Nature CNN, 128 steps an environment, 4 passes of 4 minibatches."""
    trainer = _pong_trainer(precision, device, num_envs)
    peer = PeerPPO(
        "CnnPolicy",
        VecFrameStack(make_atari_env("PongNoFrameskip-v4", num_envs, seed=0), 4),
        n_steps=PONG.rollout_steps,
        batch_size=num_envs * PONG.rollout_steps // PONG.minibatches,
        n_epochs=PONG.passes,
        learning_rate=PONG.learning_rate,
        clip_range=PONG.clip,
        ent_coef=PONG.entropy_coefficient,
        vf_coef=PONG.value_coefficient / 2,
        seed=0,
        device=device,
    )
    timed = interleaved(
        lambda: _iterate(trainer, steps),
        lambda: peer.learn(steps, reset_num_timesteps=False),
        rounds=5,
    )
    trainer.close()
    return {
        "steps": steps,
        "environments": num_envs,
        **timed,
        "ours_steps_per_s": steps / timed["ours_median_s"],
        "peer_steps_per_s": steps / timed["peer_median_s"],
    }


def _split() -> dict[str, float]:
    """Shares of our Pong time: environments, acting, learning, and the rest."""
    trainer = _pong_trainer("bf16")
    _iterate(trainer)
    spent: dict[str, float] = {}

    def watch(owner: Any, method: str, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*arguments, **options)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

        setattr(owner, method, timed)

    collector, learner = trainer._collector, trainer._learner
    watch(collector.environments, "step", "environments")
    watch(collector, "_act", "acting")
    watch(learner, "_step", "learning")
    totals = []
    for _ in range(3):
        start = time.perf_counter()
        _iterate(trainer)
        totals.append(time.perf_counter() - start)
    trainer.close()
    shares = {name: seconds / sum(totals) for name, seconds in spent.items()}
    return {
        **shares,
        "rest": 1 - sum(shares.values()),
        "steps_per_s": PONG_STEPS / statistics.median(totals),
    }
