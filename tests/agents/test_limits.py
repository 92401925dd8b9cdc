"""What configurations may hold: a table of bad values, and every field against wrong types."""

from dataclasses import Field, fields
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.a2c import A2C
from agents.a3c import A3C
from agents.config import ALGORITHMS, EnvConfig, HeadConfig, TrainConfig
from agents.limits import Count, Fraction, Interval, Natural, NonNegative, Positive, ProperFraction
from agents.ppo import PPO
from agents.reinforce import Reinforce
from agents.trpo import TRPO
from analysis.storage import as_json

CONFIGURATIONS: tuple[Any, ...] = (TrainConfig, EnvConfig, HeadConfig, *ALGORITHMS.values())


def leaves(kind: Any) -> set[Any]:
    """Types at the bottom of an annotation."""
    inner = get_args(kind)
    if get_origin(kind) is Annotated:
        return leaves(inner[0])
    if get_origin(kind) is Literal:
        return {str}
    return set().union(*map(leaves, inner)) if inner else {kind}


def in_its_place(field: Field[Any], value: object) -> object:
    """A value where a field has its numbers: the item of a tuple, or the value itself."""
    return (value,) if get_origin(field.type) is tuple else value


FIELDS = [
    pytest.param(kind, field, id=f"{kind.__name__}.{field.name}")
    for kind in CONFIGURATIONS
    for field in fields(kind)
]
NUMBERS = [case for case in FIELDS if leaves(case.values[1].type) & {int, float}]


def test_numbers_are_found() -> None:
    names = {case.id for case in NUMBERS}
    assert {"TrainConfig.hidden", "TrainConfig.match_entropy", "HeadConfig.energy"} <= names
    assert {"TRPO.damping", "A3C.workers", "A3C.learning_rate", "Reinforce.horizon"} <= names
    assert not {"TrainConfig.network", "PPO.anneal", "EnvConfig.id"} & names


@pytest.mark.parametrize(("kind", "field"), NUMBERS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), "1", True, [1], 1j])
def test_a_number_is_a_finite_number(kind, field, wrong) -> None:
    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.{field.name} must be .*, got "):
        kind(**{field.name: in_its_place(field, wrong)})


@pytest.mark.parametrize(("kind", "field"), NUMBERS)
def test_a_count_is_whole(kind, field) -> None:
    if int in leaves(field.type):
        with pytest.raises(ValueError, match=rf"\.{field.name} must be .*integer.*, got .*2\.0"):
            kind(**{field.name: in_its_place(field, 2.0)})


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_is_checked(kind, field) -> None:
    with pytest.raises(
        ValueError, match=rf"^{kind.__name__}\.{field.name} must be .*, got <object"
    ):
        kind(**{field.name: object()})


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_every_number_has_a_reviewed_range(kind) -> None:
    """A float may be any finite number only where that is meant; an int never."""
    bare = {
        field.name
        for field in fields(kind)
        if leaves(field.type) & {int, float} and "Interval" not in str(field.type)
    }
    assert bare == ({"target_return"} if kind is TrainConfig else set())


def test_a_float_may_be_whole_and_an_optional_one_absent() -> None:
    assert PPO(clip=1, discount=1, trace=0).clip == 1
    assert TrainConfig(feature_energy=4, target_return=None).feature_energy == 4


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (PPO, {"learning_rate": "abc"}, "PPO.learning_rate must be a finite number > 0, got 'abc'"),
        (PPO, {"learning_rate": float("inf")}, "must be a finite number > 0, got inf"),
        (PPO, {"learning_rate": True}, "must be a finite number > 0, got True"),
        (PPO, {"learning_rate": 10**400}, "must be a finite number > 0, got 1000"),
        (PPO, {"discount": 5}, r"PPO.discount must be a finite number in \[0, 1\], got 5"),
        (PPO, {"discount": -1}, r"PPO.discount must be a finite number in \[0, 1\], got -1"),
        (PPO, {"discount": "abc"}, r"PPO.discount must be a finite number in \[0, 1\], got 'abc'"),
        (PPO, {"trace": 7}, r"PPO.trace must be a finite number in \[0, 1\], got 7"),
        (PPO, {"epsilon": 2}, r"PPO.epsilon must be a finite number in \[0, 1\], got 2"),
        (A2C, {"epsilon": -1}, r"A2C.epsilon must be a finite number in \[0, 1\], got -1"),
        (A3C, {"value_coefficient": -1}, "A3C.value_coefficient must be a finite number >= 0, got"),
        (A3C, {"learning_rate": 0}, "A3C.learning_rate must be a finite number > 0, got 0"),
        (PPO, {"entropy_coefficient": -5}, "PPO.entropy_coefficient must be a finite number >= 0"),
        (PPO, {"passes": 2.5}, "PPO.passes must be an integer >= 1, got 2.5"),
        (PPO, {"rollout_steps": 2.5}, "PPO.rollout_steps must be an integer >= 1, got 2.5"),
        (PPO, {"anneal": 1}, "PPO.anneal must be True or False, got 1"),
        (TRPO, {"damping": -0.1}, r"TRPO\.damping must be a finite number >= 0, got -0\.1"),
        (TRPO, {"backtrack_factor": 1.0}, r"must be a finite number in \(0, 1\), got 1\.0"),
        (TRPO, {"backtrack_factor": 0}, r"must be a finite number in \(0, 1\), got 0"),
        (TRPO, {"max_kl": 0.0}, r"TRPO\.max_kl must be a finite number > 0, got 0\.0"),
        (Reinforce, {"baseline": "mean"}, "must be one of running, batch, none, got 'mean'"),
        (A2C, {"optimizer": "sgd"}, "A2C.optimizer must be one of adam, rmsprop, got 'sgd'"),
        (HeadConfig, {"kind": ["etf"]}, r"HeadConfig.kind must be one of .*, got \['etf'\]"),
        (HeadConfig, {"energy": "abc"}, "HeadConfig.energy must be a finite number > 0, got 'abc'"),
        (HeadConfig, {"energy": 0.0}, "HeadConfig.energy must be a finite number > 0, got 0.0"),
        (EnvConfig, {"id": ["Pong"]}, r"EnvConfig.id must be a text, got \['Pong'\]"),
        (
            TrainConfig,
            {"hidden": 64},
            r"hidden must be a tuple, written \(x,\) or .*integer >= 1, got 64",
        ),
        (TrainConfig, {"hidden": [64]}, r"hidden must be a tuple, .*, got \[64\]"),
        (TrainConfig, {"hidden": (0,)}, r"hidden must be a tuple, .* >= 1, got \(0,\)"),
        (TrainConfig, {"hidden": ()}, "hidden must have at least one layer"),
        (TrainConfig, {"seeds": 3}, "seeds must be a tuple, .*, each item an integer >= 0, got 3"),
        (TrainConfig, {"seeds": (0, -1)}, r"seeds must be a tuple, .* >= 0, got \(0, -1\)"),
        (TrainConfig, {"num_envs": 1.5}, "TrainConfig.num_envs must be an integer >= 1, got 1.5"),
        (TrainConfig, {"steps": 1e2}, "TrainConfig.steps must be an integer >= 1, got 100.0"),
        (TrainConfig, {"steps": 0}, "TrainConfig.steps must be an integer >= 1, got 0"),
        (TrainConfig, {"feature_energy": -1.0}, "must be a finite number > 0 or None, got -1.0"),
        (TrainConfig, {"algorithm": "ppo"}, "algorithm must be Reinforce or PPO or .*, got 'ppo'"),
        (
            TrainConfig,
            {"heads": ("etf",)},
            r"heads must be a tuple, .*, each item HeadConfig, got \('e",
        ),
        (TrainConfig, {"critic": "none"}, "critic must be one of shared, separate, got 'none'"),
    ],
)
def test_bad_values(kind, wrong, message) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**wrong)


@given(st.integers() | st.floats())
def test_intervals_by_hand(value) -> None:
    """Against the comparisons written out; NaN is in none of them."""
    for alias, expected in (
        (Count, value >= 1),
        (Natural, value >= 0),
        (Positive, value > 0),
        (NonNegative, value >= 0),
        (Fraction, 0 <= value <= 1),
        (ProperFraction, 0 < value < 1),
    ):
        interval = get_args(alias)[1]
        assert isinstance(interval, Interval)
        if value != float("inf"):
            assert (value in interval) == expected


def test_a_whole_number_in_a_floats_place_is_the_float() -> None:
    for owner, name in ((TrainConfig, "target_return"), (PPO, "learning_rate")):
        given, same = owner(**{name: 1}), owner(**{name: 1.0})
        assert type(getattr(given, name)) is float
        assert as_json(given) == as_json(same)
    assert type(TrainConfig(steps=10**6).steps) is int
