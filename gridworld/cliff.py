"""Ideal Cliff Walking: the paper's 2x4 grid with two exits above and two below its centre."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gridworld.checks import BoolArray, FloatArray
from gridworld.mdp import TabularMDP

ACTION_NAMES = ("right", "left", "up", "down")
ACTION_MOVES = ((0, 1), (0, -1), (-1, 0), (1, 0))
"""Change of (row, column) under each action; rows count downwards."""

PICTURE_ROWS = 4
"""Upper exits, two rows of cells, lower exits."""


@dataclass(frozen=True, eq=False)
class CliffLayout:
    """Where each state lies, for the tables, the start distributions and the picture.

    Attributes
    ----------
    width : int
        Number of columns.
    coordinates : ndarray of int64, shape (S, 2)
        Row and column of each state in the picture of ``PICTURE_ROWS`` by ``width`` squares:
        the ``2 * width`` cells first (top row, then bottom row), then the two upper and the two
        lower exits. Read-only.
    exits : ndarray of bool, shape (S,)
        The terminal states. Read-only.
    state_names : tuple of str
        ``"top 0"``, ..., ``"bottom 0"``, ..., ``"exit above 1"``, ..., ``"exit below 2"``.
    """

    width: int
    coordinates: NDArray[np.int64]
    exits: BoolArray
    state_names: tuple[str, ...]

    @property
    def centre(self) -> tuple[int, int]:
        """The two columns that have exits above and below."""
        return self.width // 2 - 1, self.width // 2


def cliff_layout(width: int = 4) -> CliffLayout:
    """Lay out the grid.

    Parameters
    ----------
    width : int, optional
        Number of columns: 4 in the paper; 6 makes the left and right classes twice as large as
        the up and down classes, 12 five times.

    Returns
    -------
    CliffLayout

    Raises
    ------
    ValueError
        If ``width`` is odd or below 4: the wings would differ, or left and right would be optimal
        nowhere.
    """
    if width < 4 or width % 2:
        raise ValueError(f"width is {width}; give an even width >= 4 (the paper's grid has 4)")
    middle = range(width // 2 - 1, width // 2 + 1)
    squares = [(row, column) for row in (1, 2) for column in range(width)]
    squares += [(row, column) for row in (0, 3) for column in middle]
    prefix = ("exit above", "top", "bottom", "exit below")
    coordinates = np.array(squares, dtype=np.int64)
    exits = np.isin(coordinates[:, 0], (0, 3))
    coordinates.setflags(write=False)
    exits.setflags(write=False)
    names = tuple(f"{prefix[row]} {column}" for row, column in squares)
    return CliffLayout(width, coordinates, exits, names)


def uniform_start(layout: CliffLayout) -> FloatArray:
    """Start in any of the cells. Under the optimal policy the centre is then met more often.

    Parameters
    ----------
    layout : CliffLayout
        The grid.

    Returns
    -------
    ndarray of float64, shape (S,)
    """
    return _uniform(~layout.exits)


def outer_start(layout: CliffLayout) -> FloatArray:
    """Start in the outermost columns: uniform visits to all states under the optimal policy.

    Parameters
    ----------
    layout : CliffLayout
        The grid.

    Returns
    -------
    ndarray of float64, shape (S,)
    """
    return _uniform(~layout.exits & np.isin(layout.coordinates[:, 1], (0, layout.width - 1)))


def inner_start(layout: CliffLayout) -> FloatArray:
    """Start in the central 2x2: uniform visits to all cells under the uniform-random policy.

    Parameters
    ----------
    layout : CliffLayout
        The grid.

    Returns
    -------
    ndarray of float64, shape (S,)
    """
    return _uniform(~layout.exits & np.isin(layout.coordinates[:, 1], layout.centre))


START_DISTRIBUTIONS: Mapping[str, Callable[[CliffLayout], FloatArray]] = MappingProxyType(
    {"uniform": uniform_start, "outer": outer_start, "inner": inner_start}
)
"""The start distributions by the name that `ideal_cliff_walking` and the environment accept."""


def ideal_cliff_walking(
    width: int = 4,
    discount: float = 0.95,
    step_reward: float = -1.0,
    exit_reward: float = -1.0,
    start: str | ArrayLike | None = None,
) -> TabularMDP:
    """Ideal Cliff Walking of the paper's section 3 as exact tables.

    Moves are deterministic; a move off the grid stays put and costs a step. With the default
    rewards the optimal action of every cell is unique: right in the left wing, left in the right
    wing, up in the centre of the top row, down in the centre of the bottom row.

    Parameters
    ----------
    width : int, optional
        Number of columns, even and at least 4. Wider grids break Condition 2.
    discount : float, optional
        In [0, 1].
    step_reward : float, optional
        Reward of every step that does not enter an exit.
    exit_reward : float, optional
        Reward of the step that enters an exit.
    start : str or array_like of float, shape (S,), optional
        A key of `START_DISTRIBUTIONS`, or a distribution over the cells. Uniform over the cells
        by default.

    Returns
    -------
    TabularMDP
        ``2 * width`` cells and 4 exits (12 states at width 4), and 4 actions in the order of
        `ACTION_NAMES`. `cliff_layout` says where each state lies.

    Raises
    ------
    ValueError
        If ``width``, ``discount``, a reward or ``start`` is out of range, or the name of the
        start distribution is unknown.
    """
    layout = cliff_layout(width)
    successors = _successors(layout)
    rewards = np.where(layout.exits[successors], exit_reward, step_reward)
    rewards[layout.exits] = 0.0
    return TabularMDP(
        transitions=np.eye(len(successors))[successors],
        rewards=rewards,
        terminal=layout.exits,
        start=_start(layout, start),
        discount=discount,
        state_names=layout.state_names,
        action_names=ACTION_NAMES,
    )


def _successors(layout: CliffLayout) -> NDArray[np.int64]:
    """Next state of each state and action, (S, 4)."""
    states = {(int(row), int(column)): s for s, (row, column) in enumerate(layout.coordinates)}
    table = np.empty((len(states), len(ACTION_MOVES)), dtype=np.int64)
    for (row, column), s in states.items():
        for a, (down, right) in enumerate(ACTION_MOVES):
            blocked = layout.exits[s]  # exits absorb
            table[s, a] = s if blocked else states.get((row + down, column + right), s)
    return table


def _start(layout: CliffLayout, start: str | ArrayLike | None) -> FloatArray:
    if start is None:
        return uniform_start(layout)
    if not isinstance(start, str):
        return np.asarray(start, dtype=np.float64)
    if start not in START_DISTRIBUTIONS:
        known = ", ".join(repr(name) for name in START_DISTRIBUTIONS)
        raise ValueError(f"start is {start!r}; give one of {known}, or an array of probabilities")
    return START_DISTRIBUTIONS[start](layout)


def _uniform(states: BoolArray) -> FloatArray:
    share: FloatArray = states / states.sum()
    return share
