"""The picture of an environment in panel (a) of Figure 1: one frame, stored beside this file.

Stored, because figures are drawn from rows, on machines without the emulator too.
``python -m analysis.figures.frames`` plays the games again (extras ``atari`` and ``box2d``) and
writes the same pictures.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from matplotlib.image import imread, imsave
from numpy.typing import NDArray

_FOLDER = Path(__file__).parent / "environments"


@dataclass(frozen=True)
class _Game:
    """How to come to a frame."""

    name: str
    """As registered with Gymnasium."""
    options: Mapping[str, Any]
    actions: Sequence[int]
    """From the start with seed 0."""


_ATARI = {"frameskip": 4, "repeat_action_probability": 0.0}
FRAMES = MappingProxyType(
    {
        # Full throttle to the first bend.
        "CarRacing-v3": _Game("CarRacing-v3", {"continuous": False}, [3] * 80),
        # Served, and the ball on its way down.
        "Breakout": _Game("ALE/Breakout-v5", _ATARI, [1] + [0] * 6),
        # The ball between the paddles.
        "Pong": _Game("ALE/Pong-v5", _ATARI, [0] * 21),
    }
)
"""Environments that a frame is stored of."""


def frame(env: str) -> NDArray[np.float32]:
    """The stored frame of one of `FRAMES`, (height, width, 3), from 0 to 1."""
    pixels: NDArray[np.float32] = imread(_FOLDER / f"{env}.png")
    return pixels[..., :3]


def play(env: str) -> NDArray[np.uint8]:
    """The frame from the game itself: in colour and whole, not yet grey and 84×84."""
    game = FRAMES[env]
    if game.options is _ATARI:
        gymnasium.register_envs(importlib.import_module("ale_py"))
    environment = gymnasium.make(game.name, **game.options)
    seen, _ = environment.reset(seed=0)
    for action in game.actions:
        seen = environment.step(action)[0]
    environment.close()
    return np.asarray(seen)


if __name__ == "__main__":
    for env in FRAMES:
        imsave(_FOLDER / f"{env}.png", play(env))
