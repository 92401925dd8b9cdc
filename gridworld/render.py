"""Pictures of the grid with its optimal actions, as pixels or as text (the paper's Figure 1a)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gridworld.checks import BoolArray, FloatArray
from gridworld.cliff import ACTION_MOVES, PICTURE_ROWS, CliffLayout

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

CELL_PIXELS = 72

# Okabe & Ito's palette stays distinct under colour-vision deficiency; shape repeats what colour
# says (arrow direction, ring on exits, disc of the agent), so the picture also prints in grey.
ARROW_COLOURS: tuple[Colour, ...] = ((0, 114, 178), (213, 94, 0), (204, 121, 167), (0, 0, 0))
EXIT_COLOUR: Colour = (0, 158, 115)
CELL_COLOUR: Colour = (255, 255, 255)
LINE_COLOUR: Colour = (90, 90, 90)
GROUND_COLOUR: Colour = (232, 232, 232)
AGENT_COLOUR: Colour = (25, 25, 25)
AGENT_MARK_COLOUR: Colour = (240, 228, 66)

ARROW_LETTERS = ("→", "←", "↑", "↓")
EXIT_LETTER = "E"


@dataclass(frozen=True, eq=False)
class CliffPicture:
    """Draws one grid; the board without the agent is painted once.

    Attributes
    ----------
    layout : CliffLayout
        Where the states lie.
    optimal : ndarray of bool, shape (S, 4)
        The optimal actions, drawn as arrows; several in a cell where there are ties.
    """

    layout: CliffLayout
    optimal: BoolArray

    def rgb(self, agent: int) -> Pixels:
        """Paint the grid.

        Parameters
        ----------
        agent : int
            State of the agent.

        Returns
        -------
        ndarray of uint8, shape (4 * CELL_PIXELS, width * CELL_PIXELS, 3)
        """
        picture = self._board.copy()
        picture[self._square(agent)] = self._tile(agent, has_agent=True)
        return picture

    def text(self, agent: int) -> str:
        """Write the grid, one line a row, with the agent in parentheses and ``E`` for an exit.

        Parameters
        ----------
        agent : int
            State of the agent.

        Returns
        -------
        str
        """
        labels = [self._label(s) for s in range(len(self.optimal))]
        span = max(len(label) for label in labels)
        squares = [[" " * (span + 2)] * self.layout.width for _ in range(PICTURE_ROWS)]
        for s, (row, column) in enumerate(self.layout.coordinates):
            left, right = "()" if s == agent else "  "
            squares[row][column] = f"{left}{labels[s]:^{span}}{right}"
        return "".join("".join(line).rstrip() + "\n" for line in squares)

    @cached_property
    def _board(self) -> Pixels:
        shape = (PICTURE_ROWS * CELL_PIXELS, self.layout.width * CELL_PIXELS, 3)
        board = np.full(shape, GROUND_COLOUR, dtype=np.uint8)
        for s in range(len(self.optimal)):
            board[self._square(s)] = self._tile(s, has_agent=False)
        return board

    def _square(self, state: int) -> tuple[slice, slice]:
        top, left = (int(i) * CELL_PIXELS for i in self.layout.coordinates[state])
        return slice(top, top + CELL_PIXELS), slice(left, left + CELL_PIXELS)

    def _label(self, state: int) -> str:
        if self.layout.exits[state]:
            return EXIT_LETTER
        return "".join(ARROW_LETTERS[a] for a in np.flatnonzero(self.optimal[state]))

    def _tile(self, state: int, has_agent: bool) -> Pixels:
        """One square: frame, ring of an exit, disc of the agent, arrows on top."""
        is_exit = bool(self.layout.exits[state])
        tile = np.full((CELL_PIXELS, CELL_PIXELS, 3), LINE_COLOUR, dtype=np.float64)
        _paint(tile, _box(0.5 - 1.0 / CELL_PIXELS), EXIT_COLOUR if is_exit else CELL_COLOUR)
        if is_exit:
            _paint(tile, np.abs(_disc(0.27)) - 0.035, CELL_COLOUR)
        if has_agent:
            _paint(tile, _disc(0.40), CELL_COLOUR)
            _paint(tile, _disc(0.37), AGENT_COLOUR)
        actions = np.flatnonzero(self.optimal[state])
        for a in actions:
            colour = AGENT_MARK_COLOUR if has_agent else ARROW_COLOURS[a]
            # One arrow sits in the middle; tied ones are short and leave it on all their sides.
            shape = (-0.25, 0.27, 0.20) if len(actions) == 1 else (0.06, 0.34, 0.13)
            _paint(tile, _arrow(ACTION_MOVES[a], *shape), colour)
        return np.rint(tile).astype(np.uint8)


def _axes() -> tuple[FloatArray, FloatArray]:
    """Rows and columns of the pixel centres, as shares of the cell, from its middle."""
    ticks = (np.arange(CELL_PIXELS) + 0.5) / CELL_PIXELS - 0.5
    return ticks[:, None], ticks[None, :]


# The shapes are signed distances to their outline, negative inside, in units of the cell.


def _box(half: float) -> FloatArray:
    rows, columns = _axes()
    return np.asarray(np.maximum(np.abs(rows), np.abs(columns)) - half)


def _disc(radius: float) -> FloatArray:
    rows, columns = _axes()
    return np.asarray(np.hypot(rows, columns) - radius)


def _arrow(move: tuple[int, int], tail: float, tip: float, head_length: float) -> FloatArray:
    rows, columns = _axes()
    along = rows * move[0] + columns * move[1]
    across = np.abs(rows * move[1] - columns * move[0])
    neck = tip - head_length
    shaft = np.maximum(np.maximum(tail - along, along - neck), across - 0.045)
    head = np.maximum(neck - along, (across - 0.8 * (tip - along)) / np.hypot(1.0, 0.8))
    return np.asarray(np.minimum(shaft, head))


def _paint(tile: FloatArray, distance: FloatArray, colour: Colour) -> None:
    """Blend a colour into the inside of a shape, with an outline smooth over one pixel."""
    share = np.clip(0.5 - distance * CELL_PIXELS, 0.0, 1.0)[:, :, None]
    tile += share * (np.array(colour, dtype=np.float64) - tile)
