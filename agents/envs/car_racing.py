"""CarRacing-v3 with discrete actions, drawn only when it is looked at."""

import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.envs.base import Environments, Observations, Transition

if not ({"DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"} & set(os.environ)):
    os.environ["SDL_VIDEODRIVER"] = "dummy"
with warnings.catch_warnings():
    # SWIG's types in Box2D warn once, and the interpreter crashes if warnings are errors then.
    warnings.simplefilter("ignore", DeprecationWarning)
    from gymnasium.envs.box2d import car_racing as stock

FRAME_SKIP = 4
TIME_LIMIT = 1000
"""Frames, as registered with Gymnasium."""
IMAGE = 84


class CarRacing(Environments):
    """CarRacing-v3 with 5 actions, seen as four grayscale 84×84 frames, the oldest first.

    Each action lasts 4 frames, whose rewards are summed. A finished lap and leaving the field
    terminate, 1,000 frames truncate. Of the stock 96×96 picture the 12 rows of indicators at the
    bottom and 6 columns at either side are cut off; grey is the luma of ITU-R BT.601. The first
    frame is repeated four times. Environments are stepped one after the other.

    Parameters
    ----------
    population, num_envs : int
        P and E.
    """

    def __init__(self, population: int, num_envs: int) -> None:
        super().__init__(population, num_envs, 5, (4, IMAGE, IMAGE), np.uint8)
        self._games = [[_Game() for _ in range(num_envs)] for _ in range(population)]
        self._stack: Observations = np.empty(0, dtype=np.uint8)

    def _reset(self, seeds: list[int]) -> Observations:
        stack = np.empty((self.population, self.num_envs, *self.observation_shape), dtype=np.uint8)
        for p, seed in enumerate(seeds):
            own = np.random.SeedSequence(seed).generate_state(self.num_envs).tolist()
            for e, game in enumerate(self._games[p]):
                stack[p, e] = game.restart(own[e])
        self._stack = stack
        return stack

    def _step(self, actions: NDArray[np.int64]) -> Transition:
        shape = actions.shape
        stack = np.empty_like(self._stack)
        stack[:, :, :-1] = self._stack[:, :, 1:]
        rewards = np.zeros(shape)
        terminated, truncated = np.zeros((2, *shape), dtype=np.bool_)
        final = stack
        for p, row in enumerate(actions.tolist()):
            for e, action in enumerate(row):
                game = self._games[p][e]
                rewards[p, e], terminated[p, e], truncated[p, e], frame = game.advance(action)
                if truncated[p, e]:
                    if final is stack:
                        final = np.zeros_like(stack)
                    final[p, e, :-1] = stack[p, e, :-1]
                    final[p, e, -1] = frame
                if terminated[p, e] or truncated[p, e]:
                    stack[p, e] = game.restart()
                else:
                    stack[p, e, -1] = frame
        self._stack = stack
        return Transition(stack, rewards, terminated, truncated, final, terminated | truncated)

    def close(self) -> None:
        """Free the games."""
        super().close()
        for game in (game for row in self._games for game in row):
            game.close()
        self._games = []


class _Game(stock.CarRacing):  # type: ignore[misc]
    """The stock game, which spends nearly all of its time on drawing.

    Frames that are skipped are not drawn, nor is what lies outside of the picture, nor the
    indicators, which are cut off. What remains is drawn by the stock code, so that a picture is
    that of the stock game pixel by pixel.
    """

    def __init__(self) -> None:
        super().__init__(continuous=False)
        self._drawn = True
        self._frames = 0
        self._corners: NDArray[np.float64] = np.empty((4, 0, 2))
        size, tiles = stock.GRASS_DIM, range(-20, 20, 2)
        self._grass = [
            [(size * (x + i), size * (y + j)) for i, j in ((1, 0), (0, 0), (0, 1), (1, 1))]
            for x in tiles
            for y in tiles
        ]

    def restart(self, seed: int | None = None) -> NDArray[np.uint8]:
        """Begin a race; its first picture, (84, 84)."""
        self._frames = 0
        self._drawn = True
        picture, _ = self.reset(seed=seed)
        return _grey(picture)

    def advance(self, action: int) -> tuple[float, bool, bool, NDArray[np.uint8] | None]:
        """Skip frames; reward, terminated, truncated, and the last picture unless terminated."""
        total = 0.0
        for _ in range(FRAME_SKIP):
            self._frames += 1
            self._drawn = self._frames % FRAME_SKIP == 0
            picture, reward, terminated, _, _ = self.step(action)
            total += reward
            if terminated:
                return total, True, False, None
        return total, False, self._frames >= TIME_LIMIT, _grey(picture)

    def _create_track(self) -> bool:
        made: bool = super()._create_track()
        if made:
            polygons = self._grass + [corners for corners, _ in self.road_poly]
            self._corners = np.array(polygons).swapaxes(0, 1).copy()
        return made

    def _render(self, mode: str) -> Any:
        return super()._render(mode) if self._drawn else None

    def _render_indicators(self, width: int, height: int) -> None:
        pass

    def _render_road(self, zoom: float, translation: tuple[float, float], angle: float) -> None:
        edge = stock.PLAYFIELD
        field = [(edge, edge), (edge, -edge), (-edge, -edge), (-edge, edge)]
        self._draw_colored_polygon(
            self.surf, field, self.bg_color, zoom, translation, angle, clip=False
        )
        for i in self._in_sight(zoom, translation, angle):
            if i < len(self._grass):
                polygon, colour = self._grass[i], self.grass_color
            else:
                polygon, colour = self.road_poly[i - len(self._grass)]
                colour = [int(c) for c in colour]
            self._draw_colored_polygon(self.surf, polygon, colour, zoom, translation, angle)

    def _in_sight(self, zoom: float, translation: tuple[float, float], angle: float) -> list[int]:
        """Polygons that may touch the window; a pixel's margin makes up for rounding."""
        cos, sin = np.cos(angle), np.sin(angle)
        points = self._corners @ (zoom * np.array([[cos, sin], [-sin, cos]])) + translation
        window = np.array([stock.WINDOW_W, stock.WINDOW_H])
        seen = (points.max(axis=0) >= -1.0) & (points.min(axis=0) <= window + 1.0)
        return np.flatnonzero(seen.all(axis=1)).tolist()


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crop (96, 96, 3) to (84, 84) and convert."""
    margin = (stock.STATE_W - IMAGE) // 2
    cropped = picture[:IMAGE, margin : margin + IMAGE].astype(np.float32)
    luma = cropped @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.rint(luma).astype(np.uint8)
