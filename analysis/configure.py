"""From flat options, as a command line or a sweep file has them, to a `TrainConfig`.

What is not said is taken from the preset of the algorithm and environment (`agents.presets`).
"""

import ast
import difflib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from agents.config import (
    ALGORITHMS,
    ATARI,
    OBSERVATIONS,
    EnvConfig,
    HeadConfig,
    TrainConfig,
    hyper_parameters,
)
from agents.presets import preset

_ENV = ("env", "observations", "convention")
_HEAD = ("head", "bias", "head_energy")
_RUN = tuple(f.name for f in fields(TrainConfig) if f.name not in ("env", "algorithm", "heads"))
_NAMED = {
    "algorithm": "--algorithm",
    "env": "--env",
    "observations": "--observations",
    "convention": "--convention",
    "network": "--network",
    "head": "--head",
    "feature": "--feature",
    "seeds": "--seed",
    "steps": "--steps",
}
"""Options that have a name of their own on the command line."""


def training_config(options: Mapping[str, Any]) -> TrainConfig:
    """Build the configuration that a mapping of options describes.

    Parameters
    ----------
    options
        ``algorithm`` (required), ``env`` (an id, or a name such as ``PongNoFrameskip-v4`` or
        ``ALE/Pong-v5``), ``observations``, ``convention``, ``head`` (one kind or several),
        ``bias``, ``head_energy``, and any field of `TrainConfig` or of the algorithm.

    Raises
    ------
    ValueError
        An unknown option, value or environment; the message names what there is.
    """
    options = dict(options)
    algorithm = options.pop("algorithm", None)
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise ValueError(
            f"unknown algorithm {algorithm!r}: choose from {', '.join(sorted(ALGORITHMS))}"
        )
    own = hyper_parameters(algorithm)
    known = (*_ENV, *_HEAD, *_RUN, *own)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            guess = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"unknown option {name!r} of {algorithm}{guess} Its hyper-parameters are "
                f"{', '.join(own)}; every run has {', '.join((*_ENV, *_HEAD, *_RUN))}"
            )
    env = environment_config(
        options.pop("env", "CartPole-v1"),
        options.pop("observations", None),
        options.pop("convention", None),
        options.get("network"),
    )
    hyper, run = preset(algorithm, env.id, env.observations)
    heads = _heads(
        options.pop("head", "linear"), options.get("bias", False), options.get("head_energy", 1.0)
    )
    chosen = {name: options[name] for name in own if name in options}
    values = {**run, **{name: _value(options[name]) for name in _RUN if name in options}}
    return TrainConfig(env=env, algorithm=replace(hyper, **chosen), heads=heads, **values)


def _heads(given: Any, bias: Any, energy: Any) -> tuple[HeadConfig, ...]:
    """Every head of one kind or several, with a bias where there can be one."""
    kinds = given if isinstance(given, list | tuple) else (given,)
    if bias and "linear" not in kinds:
        raise ValueError(
            f"bias={bias!r} is of a learned head, and head={given!r} has none: leave bias out, or "
            "add linear"
        )
    # Beside frozen heads the energy is theirs; alone a learned head is told that it has none.
    own = {} if set(kinds) - {"linear"} else {"energy": energy}
    return tuple(
        HeadConfig(kind, bias, **own) if kind == "linear" else HeadConfig(kind, energy=energy)
        for kind in kinds
    )


def environment_config(
    name: str, observations: str | None, convention: str | None, network: str | None
) -> EnvConfig:
    """Environment of a name in any of the usual spellings.

    ``PongNoFrameskip-v4`` and ``ALE/Pong-v5`` say their convention; a bare ``Pong`` is the
    former, as in the paper's tables. Atari shows RAM to an MLP and images to a CNN unless told.
    """
    for game in ATARI:
        for spelling, meaning in (
            (f"{game}NoFrameskip-v4", "NoFrameskip-v4"),
            (f"ALE/{game}-v5", "v5"),
            (f"{game}-v5", "v5"),
        ):
            if name == spelling:
                if convention not in (None, meaning):
                    raise ValueError(f"{name} means convention {meaning!r}, not {convention!r}")
                name, convention = game, meaning
    if observations is None and isinstance(name, str) and name in OBSERVATIONS:
        offered = OBSERVATIONS[name]
        observations = "ram" if network == "mlp" and "ram" in offered else offered[0]
    values = {"observations": observations, "convention": convention}
    given: Any = {key: value for key, value in values.items() if value is not None}
    return EnvConfig(name, **given)


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Options from ``name=value`` texts; values are Python literals, anything else is text.

    Raises
    ------
    ValueError
        No ``=``, a name twice, or one of an option that the command has anyway.
    """
    options: dict[str, Any] = {}
    for text in assignments:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ValueError(f"--set takes name=value, got {text!r}")
        if name in _NAMED:
            raise ValueError(f"--set {text}: {name} is an option of its own, give {_NAMED[name]}")
        if name in options:
            raise ValueError(f"--set gives {name!r} twice")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = {"true": True, "false": False}.get(value, value)
    return options


def _value(value: Any) -> Any:
    """TOML and JSON have lists where configurations have tuples."""
    return tuple(value) if isinstance(value, list) else value
