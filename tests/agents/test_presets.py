"""Presets are valid configurations, and those of CartPole and the cliff learn."""

import gymnasium
import numpy as np
import pytest
import torch

import gridworld
from agents.config import ALGORITHMS, ATARI, OBSERVATIONS, EnvConfig, HeadConfig, TrainConfig
from agents.presets import TARGETS, preset
from agents.training import Trainer

HEADS = (HeadConfig(), HeadConfig("etf"))
BATCHED = [name for name in ALGORITHMS if name != "a3c"]  # a3c trains one member a run


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("env_id", "observations"),
    [(env_id, kind) for env_id, kinds in OBSERVATIONS.items() for kind in kinds],
)
def test_every_preset_is_a_valid_configuration(algorithm, env_id, observations) -> None:
    chosen, options = preset(algorithm, env_id, observations)
    config = TrainConfig(env=EnvConfig(env_id, observations), algorithm=chosen, **options)
    assert config.algorithm.name == algorithm
    assert config.epochs >= 3
    assert config.target_return == TARGETS.get(env_id)


@pytest.mark.parametrize("env", ["CartPole-v1", "CarRacing-v3"])
def test_targets_are_those_of_gymnasium(env) -> None:
    assert TARGETS[env] == gymnasium.spec(env).reward_threshold


@pytest.mark.parametrize("game", ATARI)
def test_ppo_on_atari_images_is_the_papers(game) -> None:
    """Its value coefficient of 0.25 multiplies the plain MSE; ours multiplies half of it."""
    ppo, options = preset("ppo", game, "image")
    assert (ppo.learning_rate, ppo.discount, ppo.trace, ppo.clip) == (2.5e-4, 0.99, 0.95, 0.1)
    assert (0.5 * ppo.value_coefficient, ppo.entropy_coefficient) == (0.25, 0.01)
    assert (ppo.max_gradient_norm, ppo.passes) == (0.5, 4)
    assert ppo.rollout_steps * options["num_envs"] / ppo.minibatches == 256
    assert (options["hidden"], options["critic"]) == ((512,), "shared")


def test_a_preset_may_be_changed_without_harm() -> None:
    preset("ppo", "CartPole-v1")[1]["steps"] = 1
    assert preset("ppo", "CartPole-v1")[1]["steps"] > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dqn", "CartPole-v1"), "unknown algorithm 'dqn'; there are reinforce, ppo"),
        (("ppo", "CartPole"), "unknown environment 'CartPole'; there are CartPole-v1"),
    ],
)
def test_unknown_names_are_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        preset(*arguments)


# --- learning -------------------------------------------------------------------------------------


def trained(config: TrainConfig) -> Trainer:
    run = Trainer(config, "cpu")
    while not run.done:
        run.train_epoch()
    return run


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", BATCHED)
def test_cartpole_is_learned_with_either_head(algorithm) -> None:
    """In some epoch within the budget the mean return over 5 seeds is 475, for each head."""
    chosen, options = preset(algorithm, "CartPole-v1")
    run = Trainer(
        TrainConfig(algorithm=chosen, heads=HEADS, seeds=tuple(range(5)), **options), "cpu"
    )
    curve = []
    while not run.done:
        run.train_epoch()
        curve.append(run.evaluate().returns.mean(axis=1).reshape(2, 5))
    run.close()
    assert (np.mean(curve, axis=2).max(axis=0) >= 475).all(), curve


def greedy_is_optimal(run: Trainer) -> np.ndarray:
    """(P,) whether the likeliest action is optimal in every cell that can be reached optimally."""
    mdp = gridworld.ideal_cliff_walking(start="outer")
    states = mdp.decision_states.tolist()
    observations = torch.eye(mdp.num_states)[states].expand(run.config.population, -1, -1)
    with torch.no_grad():
        actions = run.policy(observations).logits.argmax(-1).numpy()
    optimal = mdp.optimal_actions()[states]
    return optimal[np.arange(len(states)), actions].all(axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_cliffs_optimal_policy_is_found_with_either_head(algorithm) -> None:
    chosen, options = preset(algorithm, "IdealCliffWalking-v0")
    seeds = tuple(range(5))
    groups = [(HEADS, seeds)]
    if algorithm == "a3c":
        groups = [((head,), (seed,)) for head in HEADS for seed in seeds]
    for heads, own in groups:
        run = trained(
            TrainConfig(
                env=EnvConfig("IdealCliffWalking-v0"),
                algorithm=chosen,
                heads=heads,
                seeds=own,
                **options,
            )
        )
        found = greedy_is_optimal(run)
        run.close()
        assert found.all(), (heads, own, found)
