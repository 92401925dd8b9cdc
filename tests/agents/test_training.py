"""The trainer: a pure function of its configuration, whoever keeps it company or interrupts it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.a2c import A2C
from agents.a3c import A3C
from agents.config import (
    ACTIONS,
    OBSERVATIONS,
    Algorithm,
    EnvConfig,
    HeadConfig,
    Observations,
    TrainConfig,
)
from agents.envs import make_environments
from agents.ppo import PPO
from agents.reinforce import Reinforce
from agents.training import Trainer, resolve_device
from agents.trpo import TRPO

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


def test_a_trainer_goes_back_to_where_it_was() -> None:
    """What a state holds is not what trains on; moments stay where a captured graph reads them."""
    run = trainer()
    beginning = run.state_dict()
    run.train_epoch()
    state = run.state_dict()
    moments = [m for own in run._learner._optimizer.state.values() for m in own.values()]
    first = history(run)
    run.load_state_dict(state)
    assert (run.epoch, run.steps) == (1, 64)
    for one, other in zip(first, history(run), strict=True):
        np.testing.assert_array_equal(one, other)
    run.load_state_dict(beginning)
    whole = trainer()
    for one, other in zip(history(whole), history(run), strict=True):
        np.testing.assert_array_equal(one, other)
    now = [m for own in run._learner._optimizer.state.values() for m in own.values()]
    assert [m.data_ptr() for m in moments] == [m.data_ptr() for m in now]


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
    """Qbert pays 25 a cube: the same play with and without the clip, to the end of a game."""
    qbert = replace(
        CONFIG, env=EnvConfig("Qbert", "ram"), seeds=(0,), heads=(HeadConfig(),), num_envs=1
    )
    seen = []
    for clipped in (True, False):
        run = trainer(qbert)
        assert run._collector.clip_rewards
        run._collector.clip_rewards = clipped
        run._collector.restart([0])
        rewards = np.concatenate([run._collector.collect(250).rewards for _ in range(4)], axis=1)
        seen.append((rewards, run._collector.finished.returns))
        run.close()
    (signs, returns), (raw, same_returns) = seen
    assert 25 in raw
    np.testing.assert_array_equal(signs, np.sign(raw))
    assert returns == same_returns
    assert len(returns[0]) >= 1
    assert sum(returns[0]) > np.abs(signs).sum()
    assert not trainer()._collector.clip_rewards


def test_entropy_is_reported_and_matched_between_heads() -> None:
    plain = trainer()
    assert np.ptp(plain.initial_entropy) > 1e-3
    matched = trainer(replace(CONFIG, match_entropy=0.95))
    np.testing.assert_allclose(matched.initial_entropy, 0.95 * np.log(2), atol=1e-4)


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "cpu:x"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="use auto, cpu or cuda"):
        resolve_device(name)


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"'cuda' was asked for, and PyTorch sees 0 CUDA.*auto"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="sees 2 CUDA devices"):
        resolve_device("cuda:2")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert resolve_device("auto") == torch.device("cuda")


def test_a3c_is_on_the_host_wherever_others_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.training.resolve_device", torch.device)
    algorithm = A3C(workers=1, rollout_steps=4)
    run = Trainer(replace(CONFIG, algorithm=algorithm, heads=(HeadConfig(),), seeds=(0,)), "auto")
    assert run.device == torch.device("cpu")
    run.close()


@pytest.mark.parametrize(("algorithm", "expected"), [(PPO(), True), (TRPO(), False)])
def test_bf16_is_automatic_where_it_is_native_and_sound(
    monkeypatch: pytest.MonkeyPatch, algorithm: PPO | TRPO, expected: bool
) -> None:
    monkeypatch.setattr("agents.training.has_native_bf16", lambda device: True)
    images = replace(
        CONFIG,
        env=EnvConfig("Pong", "image"),
        algorithm=algorithm,
        network="cnn",
        hidden=(8,),
        epoch_steps=1024,
        seeds=(0,),
        heads=(HeadConfig(),),
    )
    run = Trainer(images, "cpu")
    assert run.bf16 is expected
    run.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"env": EnvConfig("Pong", "image")}, "needs 'image', an mlp"),
        ({"network": "cnn"}, "cannot read 'state'"),
        ({"seeds": (1, 1)}, "distinct"),
        ({"seeds": ()}, "distinct"),
        ({"heads": (HeadConfig(), HeadConfig())}, "all different"),
        ({"hidden": ()}, "hidden must have at least one layer"),
        ({"precision": "bf16"}, "precision='bf16' is of convolutions, an mlp has none"),
        ({"snapshot_epochs": (9,)}, r"snapshot_epochs \[9\] are not in 0…3"),
        (
            {"env": EnvConfig("Enduro", "ram"), "hidden": (64, 7), "heads": (HeadConfig("etf"),)},
            r"hidden=\(64, 7\) is too narrow: 'etf' for the 9 actions of Enduro needs .* of 8 or",
        ),
        (
            {
                "env": EnvConfig("Enduro", "ram"),
                "hidden": (8,),
                "heads": (HeadConfig("orthogonal"),),
            },
            "'orthogonal' for the 9 actions of Enduro needs a last layer of 9 or more",
        ),
        (
            {"epoch_steps": 31},
            "takes num_envs=2 × rollout_steps=16 = 32 steps, more than epoch_steps=31: raise "
            "epoch_steps to 32 or more, or lower num_envs or rollout_steps",
        ),
        (
            {"algorithm": PPO(rollout_steps=16, minibatches=17)},
            "collects num_envs=2 × rollout_steps=16 = 32 samples, and ppo needs 34: raise num_envs "
            "or rollout_steps, or lower minibatches",
        ),
        ({"algorithm": PPO(rollout_steps=16, minibatches=33, standardise=False)}, "ppo needs 33"),
        ({"algorithm": TRPO(rollout_steps=16, minibatches=33)}, "trpo needs 33"),
        ({"algorithm": TRPO(rollout_steps=1, minibatches=1), "num_envs": 1}, "trpo needs 2"),
        ({"algorithm": A2C(rollout_steps=33)}, "= 66 steps, more than epoch_steps=64"),
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
    with pytest.raises(ValueError, match="convention='v5' is of Atari games, and CartPole-v1 has"):
        EnvConfig(convention="v5")
    with pytest.raises(ValueError, match="frozen etf head has no bias"):
        HeadConfig("etf", bias=True)
    with pytest.raises(ValueError, match="energy=2 is of a frozen head, a learned one finds its"):
        HeadConfig(energy=2.0)


@pytest.mark.parametrize(
    "fitting",
    [
        {"epoch_steps": 32},
        {"algorithm": PPO(rollout_steps=16, minibatches=16)},
        {"algorithm": PPO(rollout_steps=16, minibatches=32, standardise=False)},
        {"algorithm": TRPO(rollout_steps=16, minibatches=32)},
        {"algorithm": A2C(rollout_steps=1), "num_envs": 1},
        {"algorithm": Reinforce(), "epoch_steps": 1, "steps": 3},
        {"env": EnvConfig("Enduro", "ram"), "hidden": (8,), "heads": (HeadConfig("etf"),)},
        {"env": EnvConfig("Enduro", "ram"), "hidden": (9,), "heads": (HeadConfig("orthogonal"),)},
        {"env": EnvConfig("Enduro", "ram"), "hidden": (1,), "heads": (HeadConfig("gaussian"),)},
    ],
)
def test_what_just_fits_is_accepted(fitting: dict[str, object]) -> None:
    replace(CONFIG, **fitting)


@pytest.mark.parametrize(
    ("env", "observations"), [(env, kinds[-1]) for env, kinds in OBSERVATIONS.items()]
)
def test_the_number_of_actions_is_the_environments(env: str, observations: Observations) -> None:
    environments = make_environments(EnvConfig(env, observations), 1, 1)
    assert environments.num_actions == ACTIONS[env]
    environments.close()


@pytest.mark.parametrize(
    ("algorithm", "epoch_steps"),
    [
        (PPO(rollout_steps=16, passes=1, minibatches=1), 32),
        (PPO(rollout_steps=16, passes=1, minibatches=1), 33),
        (PPO(rollout_steps=16, passes=1, minibatches=1), 63),
        (A2C(rollout_steps=5), 11),
        (TRPO(rollout_steps=2, value_passes=1, minibatches=1), 5),
        (Reinforce(), 1),
        (Reinforce(), 7),
    ],
)
def test_an_epoch_has_an_iteration_however_often_steps_were_played_too_much(
    algorithm: Algorithm, epoch_steps: int
) -> None:
    """An epoch ends at the first iteration past its end, so the next one begins late."""
    config = replace(
        CONFIG,
        algorithm=algorithm,
        heads=(HeadConfig(),),
        seeds=(0,),
        hidden=(4,),
        epoch_steps=epoch_steps,
        steps=40 * epoch_steps,
    )
    run = trainer(config)
    while not run.done:
        assert np.isfinite(run.train_epoch().metrics["policy_loss"]).all()
        assert 0 <= run.steps - run.epoch * epoch_steps < 32
    assert run.epoch == config.epochs == 40
    run.close()


@pytest.mark.parametrize(
    "algorithm",
    [
        PPO(rollout_steps=16, passes=1, minibatches=1),
        Reinforce(),
        A3C(rollout_steps=16, workers=1),
    ],
    ids=lambda algorithm: algorithm.name,
)
def test_a_last_epoch_whose_steps_were_played_before_it_still_has_an_iteration(
    algorithm: Algorithm,
) -> None:
    first = 1500 if isinstance(algorithm, Reinforce) else 40
    config = replace(
        CONFIG,
        algorithm=algorithm,
        heads=(HeadConfig(),),
        seeds=(0,),
        hidden=(4,),
        epoch_steps=first,
        steps=first + 1,
    )
    run = trainer(config)
    run.train_epoch()
    assert run.steps > config.steps
    assert not run.done
    assert np.isfinite(run.train_epoch().metrics["policy_loss"]).all()
    assert run.done
    run.close()
