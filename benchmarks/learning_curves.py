"""PPO's learning curves on CartPole beside Stable-Baselines3's, at the same hyper-parameters.

Not how fast it runs but how fast it learns: what a difference between heads is read from must
learn as the field's reference does.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO as PeerPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from agents.config import HeadConfig, TrainConfig
from agents.ppo import PPO
from agents.training import Trainer

Float = NDArray[np.float64]

SEEDS, ENVS, EPOCHS, EPOCH_STEPS, EPISODES = tuple(range(40)), 8, 6, 5120, 10
OURS = PPO(
    rollout_steps=32,
    passes=10,
    minibatches=4,
    learning_rate=1e-3,
    anneal=False,
    discount=0.98,
    trace=0.8,
    value_coefficient=1.0,
    entropy_coefficient=0.0,
)


def run() -> dict[str, Any]:
    """40 seeds of each; means over seeds with bands, and their difference."""
    ours, theirs = our_curves(), np.stack([their_curve(seed) for seed in SEEDS])
    return {
        "question": "learning curves of PPO on CartPole-v1, MLP with a learned head and bias",
        "peer": "Stable-Baselines3, the same hyper-parameters",
        "band": "95 % bootstrap of the mean over seeds, epoch by epoch",
        "difference_band": "95 % bootstrap for all epochs at once (Bonferroni)",
        "evaluation": f"{EPISODES} episodes, actions sampled",
        "seeds": len(SEEDS),
        "hyper_parameters": OURS,
        "steps": [EPOCH_STEPS * (epoch + 1) for epoch in range(EPOCHS)],
        **{
            name: {
                "returns": curves.tolist(),
                "mean": curves.mean(axis=0).tolist(),
                **_ends(resampled_means(curves, 0), 0.025),
            }
            for name, curves in (("ours", ours), ("theirs", theirs))
        },
        "difference": {
            "mean": (ours.mean(axis=0) - theirs.mean(axis=0)).tolist(),
            **_ends(resampled_means(ours, 0) - resampled_means(theirs, 1), 0.025 / EPOCHS),
        },
    }


def our_curves() -> Float:
    """Mean return of sampled evaluation episodes, (seeds, epochs)."""
    config = TrainConfig(
        algorithm=OURS,
        heads=(HeadConfig(bias=True),),
        seeds=SEEDS,
        initialisation="orthogonal",
        num_envs=ENVS,
        steps=EPOCHS * EPOCH_STEPS,
        epoch_steps=EPOCH_STEPS,
        eval_episodes=EPISODES,
    )
    run, curve = Trainer(config, "cpu"), []
    while not run.done:
        run.train_epoch()
        curve.append(run.evaluate().returns.mean(1))
    run.close()
    return np.stack(curve, axis=1)


def their_curve(seed: int) -> Float:
    """The same from Stable-Baselines3, (epochs,)."""
    model = peer_model(seed)
    curve = []
    judge = make_vec_env("CartPole-v1", EPISODES, seed=1000 + seed)
    for _ in range(EPOCHS):
        model.learn(EPOCH_STEPS, reset_num_timesteps=False)
        returns, _ = evaluate_policy(model, judge, EPISODES, deterministic=False)
        curve.append(returns)
    return np.array(curve, dtype=np.float64)


def peer_model(seed: int) -> PeerPPO:
    """Stable-Baselines3's PPO at the hyper-parameters of `OURS`."""
    return PeerPPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", ENVS, seed=seed),
        n_steps=OURS.rollout_steps,
        batch_size=ENVS * OURS.rollout_steps // OURS.minibatches,
        n_epochs=OURS.passes,
        learning_rate=OURS.learning_rate,
        gamma=OURS.discount,
        gae_lambda=OURS.trace,
        clip_range=OURS.clip,
        ent_coef=OURS.entropy_coefficient,
        # Plain MSE times 0.5: our value_coefficient of 1 on its half.
        vf_coef=OURS.value_coefficient / 2,
        max_grad_norm=OURS.max_gradient_norm,
        policy_kwargs={"activation_fn": torch.nn.ReLU},
        seed=seed,
        device="cpu",
    )


def resampled_means(curves: Float, seed: int, resamples: int = 20_000) -> Float:
    """Means of (seeds, epochs) over seeds drawn anew, (resamples, epochs)."""
    rng = np.random.default_rng(seed)
    drawn = curves[rng.integers(len(curves), size=(resamples, len(curves)))]
    return np.asarray(drawn.mean(axis=1))


def _ends(means: Float, tail: float) -> dict[str, list[float]]:
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return {"low": low.tolist(), "high": high.tolist()}
