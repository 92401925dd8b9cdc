"""The trainer: a pure function of its configuration, whoever keeps it company or interrupts it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.ppo import PPO
from agents.training import Trainer, resolve_device

CONFIG = TrainConfig(
    algorithm=PPO(rollout_steps=16, passes=2, minibatches=2, learning_rate=1e-3),
    heads=(HeadConfig(), HeadConfig("etf")),
    seeds=(0, 1),
    num_envs=2,
    steps=192,
    epoch_steps=64,
    eval_episodes=2,
)


def trainer(config: TrainConfig = CONFIG) -> Trainer:
    return Trainer(config, "cpu")


def history(run: Trainer) -> list[np.ndarray]:
    """Everything that a run reports, epoch by epoch, as arrays over members."""
    seen = []
    while not run.done:
        epoch = run.train_epoch()
        evaluation = run.evaluate()
        seen.extend([*epoch.metrics.values(), evaluation.returns, evaluation.lengths])
    run.close()
    return seen


def test_the_same_configuration_gives_the_same_run() -> None:
    for one, other in zip(history(trainer()), history(trainer()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_member_trains_the_same_in_any_company() -> None:
    together = history(trainer())
    alone = history(trainer(replace(CONFIG, heads=(HeadConfig("etf"),), seeds=(1,))))
    for all_members, own in zip(together, alone, strict=True):
        np.testing.assert_allclose(all_members[3], own[0], rtol=1e-4, atol=1e-5)


def test_evaluation_changes_nothing() -> None:
    watched, unwatched = trainer(), trainer()
    for _ in range(2):
        watched.train_epoch()
        watched.evaluate()
        watched.evaluate()
        unwatched.train_epoch()
    for one, other in zip(watched.policy.parameters(), unwatched.policy.parameters(), strict=True):
        assert torch.equal(one, other)


def test_resuming_continues_exactly() -> None:
    whole, first = trainer(), trainer()
    whole.train_epoch()
    first.train_epoch()
    state = first.state_dict()
    rest = trainer()
    rest.load_state_dict(state)
    assert (rest.epoch, rest.steps) == (1, 64)
    for one, other in zip(history(whole), history(rest), strict=True):
        np.testing.assert_array_equal(one, other)


def test_steps_and_epochs_are_counted() -> None:
    run, gained = trainer(replace(CONFIG, steps=150)), []
    while not run.done:
        run.train_epoch(gained.append)
    assert run.epoch == run.config.epochs == 3
    assert run.steps == sum(gained) == 160
    assert set(gained) == {32}


def test_evaluation_plays_one_whole_game_in_every_environment() -> None:
    run = trainer()
    evaluation = run.evaluate()
    assert evaluation.returns.shape == evaluation.lengths.shape == (4, 2)
    # CartPole pays 1 a step.
    np.testing.assert_array_equal(evaluation.returns, evaluation.lengths)
    assert evaluation.returns.min() >= 8


def test_evaluated_states_are_those_of_games_still_running() -> None:
    run, counted = trainer(), np.zeros(4)

    def on_states(features: torch.Tensor, logits: torch.Tensor, playing: np.ndarray) -> None:
        nonlocal counted
        assert features.shape == (4, 2, 64)
        assert logits.shape == (4, 2, 2)
        counted = counted + playing.sum(1)

    evaluation = run.evaluate(on_states)
    np.testing.assert_array_equal(counted, evaluation.lengths.sum(1))


def test_greedy_evaluation_draws_nothing() -> None:
    config = replace(CONFIG, heads=(HeadConfig("etf", energy=1e12),), seeds=(0,))
    sampled, greedy = trainer(config), trainer(replace(config, eval_greedy=True))
    np.testing.assert_array_equal(sampled.evaluate().returns, greedy.evaluate().returns)
    random, greedy = trainer(), trainer(replace(CONFIG, eval_greedy=True))
    assert (random.evaluate().returns != greedy.evaluate().returns).any()


def test_rewards_are_clipped_for_the_learner_only() -> None:
    pong = replace(
        CONFIG, env=EnvConfig("Breakout", "ram"), seeds=(0,), heads=(HeadConfig(),), steps=64
    )
    run = trainer(pong)
    run._collector.restart([0])
    rollout = run._collector.collect(300)
    assert set(np.unique(rollout.rewards)) <= {-1.0, 0.0, 1.0}
    assert not trainer()._collector.clip_rewards
    run.close()


def test_entropy_is_reported_and_matched_between_heads() -> None:
    plain = trainer()
    assert np.ptp(plain.initial_entropy) > 1e-3
    matched = trainer(replace(CONFIG, match_entropy=0.95))
    np.testing.assert_allclose(matched.initial_entropy, 0.95 * np.log(2), atol=1e-4)


def test_unknown_device_is_refused() -> None:
    with pytest.raises(ValueError, match="use auto, cpu or cuda"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            resolve_device("cuda")
        assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"env": EnvConfig("Pong", "image")}, "needs 'image', an mlp"),
        ({"network": "cnn"}, "cannot read 'state'"),
        ({"seeds": (1, 1)}, "distinct"),
        ({"seeds": ()}, "distinct"),
        ({"heads": (HeadConfig(), HeadConfig())}, "all different"),
        ({"steps": 0}, "steps must be >= 1"),
        ({"match_entropy": 1.5}, r"\(0, 1\)"),
        ({"snapshot_epochs": (9,)}, r"snapshot_epochs \[9\] are not in 0…3"),
        ({"critic": "none"}, "critic must be one of shared, separate"),
    ],
)
def test_meaningless_configurations_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **wrong)


def test_unknown_environments_and_heads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown environment 'Cartpole'; there are Breakout"):
        EnvConfig("Cartpole")
    with pytest.raises(ValueError, match=r"offers the observations image, ram, not 'state'"):
        EnvConfig("Pong")
    with pytest.raises(ValueError, match="frozen etf head has no bias"):
        HeadConfig("etf", bias=True)
    with pytest.raises(ValueError, match="energy must be > 0"):
        HeadConfig("etf", energy=0.0)
