"""CarRacing-v3 with discrete actions, drawn only when it is looked at."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.envs.base import Environments, Observations, Transition

with warnings.catch_warnings():
    # SWIG's types in Box2D warn once, and the interpreter crashes if warnings are errors then.
    warnings.simplefilter("ignore", DeprecationWarning)
    import pygame
    from gymnasium.envs.box2d import car_racing as stock

FRAME_SKIP = 4
TIME_LIMIT = 1000
"""Frames, as registered with Gymnasium."""
IMAGE = 84
CUT_OFF = stock.WINDOW_H * (stock.STATE_H - IMAGE) // stock.STATE_H
"""Rows of the window: 12 of 96 of the picture."""


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

    Frames that are skipped are not drawn, nor is what lies outside of the picture, nor what is cut
    off: the indicators and the score. What remains is drawn by the stock code, so that a picture is
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
        self.surf = pygame.Surface((stock.WINDOW_W, stock.WINDOW_H))
        # The stock game draws upside down: what is cut off below lies on top. A clip of the surface
        # would round lines that cross it differently.
        self._kept = pygame.Rect(0, CUT_OFF, stock.WINDOW_W, stock.WINDOW_H - CUT_OFF)

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
        """What the stock method returns as ``state_pixels``, without the rows that are cut off."""
        if not self._drawn or "t" not in vars(self):  # the latter: before the first reset
            return None
        angle = -self.car.hull.angle
        zoom = stock.SCALE * (0.1 * max(1 - self.t, 0) + stock.ZOOM * min(self.t, 1))
        x, y = self.car.hull.position
        scroll = pygame.math.Vector2((-x * zoom, -y * zoom)).rotate_rad(angle)
        translation = (stock.WINDOW_W / 2 + scroll[0], stock.WINDOW_H / 4 + scroll[1])
        self._render_road(zoom, translation, angle)
        self.car.draw(self.surf, zoom, translation, angle, False)
        upright = pygame.transform.flip(self.surf.subsurface(self._kept), False, True)
        return self._create_image_array(upright, (stock.STATE_W, IMAGE))

    def _render_road(self, zoom: float, translation: tuple[float, float], angle: float) -> None:
        edge = stock.PLAYFIELD
        if self._reach(zoom, translation, angle) < edge:
            self.surf.fill(self.bg_color)
        else:
            field = [(edge, edge), (edge, -edge), (-edge, -edge), (-edge, edge)]
            self.surf.fill(0)
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

    def _reach(self, zoom: float, translation: tuple[float, float], angle: float) -> float:
        """Largest coordinate, in magnitude, of what the window shows; a pixel's margin."""
        x, y = self.surf.get_size()
        corners = np.array([(-1, -1), (-1, y + 1), (x + 1, -1), (x + 1, y + 1)]) - translation
        return float(np.abs(corners @ _rotation(-angle)).max()) / zoom

    def _in_sight(self, zoom: float, translation: tuple[float, float], angle: float) -> list[int]:
        """Polygons that may touch the window; a pixel's margin makes up for rounding."""
        points = self._corners @ (zoom * _rotation(angle)) + translation
        low, high = self._kept.topleft, self._kept.bottomright
        seen = (points.max(axis=0) >= np.subtract(low, 1)) & (points.min(axis=0) <= np.add(high, 1))
        return np.flatnonzero(seen.all(axis=1)).tolist()


def _rotation(angle: float) -> NDArray[np.float64]:
    """Of row vectors, counter-clockwise; (2, 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def _grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crop (84, 96, 3) to (84, 84) and convert."""
    margin = (stock.STATE_W - IMAGE) // 2
    cropped = picture[:, margin : margin + IMAGE].astype(np.float32)
    luma = cropped @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.rint(luma).astype(np.uint8)
