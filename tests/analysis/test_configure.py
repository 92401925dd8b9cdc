"""From flat options to a configuration: presets, spellings, and clear refusals."""

from dataclasses import fields

import pytest

from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.ppo import PPO
from agents.presets import preset
from analysis.commands.training import Train
from analysis.configure import environment_config, parse_assignments, training_config


def test_what_is_not_said_comes_from_the_preset() -> None:
    config = training_config({"algorithm": "ppo", "env": "CartPole-v1"})
    hyper, run = preset("ppo", "CartPole-v1")
    assert config.algorithm == hyper
    assert {name: getattr(config, name) for name in run} == run
    assert config.heads == (HeadConfig(),)


def test_what_is_said_wins() -> None:
    config = training_config(
        {
            "algorithm": "ppo",
            "head": ["etf", "linear"],
            "head_energy": 4,
            "bias": True,
            "learning_rate": 0.5,
            "steps": 77,
            "seeds": [3, 1],
            "hidden": [8, 8],
        }
    )
    assert isinstance(config.algorithm, PPO)
    assert config.algorithm.learning_rate == 0.5
    assert (config.steps, config.seeds, config.hidden) == (77, (3, 1), (8, 8))
    # A bias belongs to the learned head, an energy to the frozen one, whatever trains beside it.
    assert config.heads == (
        HeadConfig("etf", energy=4.0),
        HeadConfig("linear", bias=True),
    )


@pytest.mark.parametrize(
    ("name", "network", "expected"),
    [
        ("Pong", None, EnvConfig("Pong", "image", "NoFrameskip-v4")),
        ("Pong", "mlp", EnvConfig("Pong", "ram", "NoFrameskip-v4")),
        ("PongNoFrameskip-v4", "cnn", EnvConfig("Pong", "image", "NoFrameskip-v4")),
        ("ALE/Breakout-v5", None, EnvConfig("Breakout", "image", "v5")),
        ("Qbert-v5", None, EnvConfig("Qbert", "image", "v5")),
        ("CartPole-v1", "mlp", EnvConfig("CartPole-v1", "state")),
        ("CarRacing-v3", "cnn", EnvConfig("CarRacing-v3", "image")),
    ],
)
def test_environments_in_every_spelling(
    name: str, network: str | None, expected: EnvConfig
) -> None:
    assert environment_config(name, None, None, network) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "unknown algorithm None: choose from a2c, a3c, ppo, reinforce, trpo"),
        ({"algorithm": "dqn"}, "unknown algorithm 'dqn'"),
        ({"algorithm": "ppo", "lerning_rate": 1}, "did you mean 'learning_rate'"),
        ({"algorithm": "reinforce", "clip": 0.1}, "unknown option 'clip' of reinforce"),
        ({"algorithm": "ppo", "env": "Pong-v4"}, "unknown environment 'Pong-v4'; there are"),
        ({"algorithm": "ppo", "env": "ALE/Pong-v5", "convention": "NoFrameskip-v4"}, "means"),
        ({"algorithm": "ppo", "env": "Pong", "observations": "state"}, "offers the observations"),
        ({"algorithm": "ppo", "network": "cnn", "hidden": (512,)}, "cannot read 'state'"),
        ({"algorithm": "ppo", "head": "etff"}, "HeadConfig.kind must be one of linear, etf"),
        ({"algorithm": ["ppo"]}, r"unknown algorithm \['ppo'\]: choose from"),
        ({"algorithm": "ppo", "env": ["Pong"]}, r"EnvConfig.id must be a text, got \['Pong'\]"),
        ({"algorithm": "ppo", "head": 3}, "HeadConfig.kind must be one of linear, .*, got 3"),
        ({"algorithm": "ppo", "head": ()}, "heads must be at least one"),
        ({"algorithm": "ppo", "head_energy": "abc"}, "HeadConfig.energy must be .*, got 'abc'"),
        ({"algorithm": "ppo", "head_energy": 4}, "energy=4 is of a frozen head, a learned one"),
        ({"algorithm": "ppo", "convention": "v5"}, "is of Atari games, and CartPole-v1 has one"),
        ({"algorithm": "ppo", "bias": 1}, "HeadConfig.bias must be True or False, got 1"),
        ({"algorithm": "ppo", "bias": True, "head": "etf"}, "bias=True is of a learned head, and"),
        ({"algorithm": "ppo", "bias": True, "head": ["etf", "gaussian"]}, "leave bias out"),
        ({"algorithm": "ppo", "learning_rate": "abc"}, "PPO.learning_rate must be .*, got 'abc'"),
        ({"algorithm": "ppo", "learning_rate": [1e-3]}, r"learning_rate must be .*, got \[0.001\]"),
        ({"algorithm": "ppo", "hidden": 64}, "TrainConfig.hidden must be a tuple.*, got 64"),
        ({"algorithm": "ppo", "seeds": 3}, "TrainConfig.seeds must be a tuple.*, got 3"),
        ({"algorithm": "ppo", "precision": "bf16"}, "an mlp has none"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        training_config(options)


def test_assignments() -> None:
    assert parse_assignments(("a=1e-3", "b=true", "c=(1, 2)", "d=cnn")) == {
        "a": 1e-3,
        "b": True,
        "c": (1, 2),
        "d": "cnn",
    }
    with pytest.raises(ValueError, match="takes name=value, got 'x'"):
        parse_assignments(("x",))
    with pytest.raises(ValueError, match="gives 'a' twice"):
        parse_assignments(("a=1", "a=2"))


def test_every_option_of_the_command_is_given_by_its_own_name() -> None:
    """``--set env=…`` would win over ``--env`` without a word."""
    flags = {field.name.replace("seed", "seeds"): field.name for field in fields(Train)}
    training = {field.name for field in (*fields(TrainConfig), *fields(EnvConfig))}
    options = {name for name in flags if name in training} | {"head"}
    assert options > {"env", "algorithm", "observations", "network", "seeds", "steps"}
    for name in options:
        flag = flags[name]
        with pytest.raises(ValueError, match=f"--set {name}=1: .* of its own, give --{flag}$"):
            parse_assignments((f"{name}=1",))
