"""PPO here and in Stable-Baselines3, at the same hyper-parameters, learn alike."""

import numpy as np
import pytest
import torch

from agents.config import HeadConfig, TrainConfig
from agents.ppo import PPO
from agents.training import Trainer

SEEDS, ENVS, EPOCHS, EPOCH_STEPS, EPISODES = tuple(range(20)), 8, 6, 5120, 10
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


def our_curves() -> np.ndarray:
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


def their_curve(seed: int) -> np.ndarray:
    """The same from Stable-Baselines3, (epochs,)."""
    from stable_baselines3 import PPO as Peer
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    model = Peer(
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
    curve = []
    judge = make_vec_env("CartPole-v1", EPISODES, seed=1000 + seed)
    for _ in range(EPOCHS):
        model.learn(EPOCH_STEPS, reset_num_timesteps=False)
        returns, _ = evaluate_policy(model, judge, EPISODES, deterministic=False)
        curve.append(returns)
    return np.array(curve)


def band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap of the mean over seeds, epoch by epoch."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(curves), size=(2000, len(curves)))
    low, high = np.quantile(curves[chosen].mean(axis=1), [0.025, 0.975], axis=0)
    return low, high


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:stable_baselines3")
def test_learning_curves_overlap_those_of_stable_baselines3() -> None:
    torch.set_num_threads(1)
    ours, theirs = our_curves(), np.stack([their_curve(seed) for seed in SEEDS])
    (our_low, our_high), (their_low, their_high) = band(ours), band(theirs)
    table = np.round(np.stack([our_low, our_high, their_low, their_high], axis=1), 1)
    print(f"epoch by epoch [ours low, high, theirs low, high]:\n{table}")
    assert (our_low <= their_high).all(), table
    assert (their_low <= our_high).all(), table
    assert min(ours[:, -1].mean(), theirs[:, -1].mean()) > 400, table
