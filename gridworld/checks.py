"""Validation of the arrays that cross the room's boundary.

Each function returns a read-only float64 copy: the record that stores it stays what was checked.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

TABLE_TOLERANCE = 1e-9
"""How far the probabilities of a hand-written float64 table may sum from one."""

POLICY_TOLERANCE = 1e-5
"""The same for a policy, which often is the float32 softmax of a network."""


def float_table(values: ArrayLike, shape: tuple[int, ...], name: str) -> FloatArray:
    """Check shape and finiteness.

    Parameters
    ----------
    values : array_like
        Anything ``numpy.array`` turns into float64.
    shape : tuple of int
        The shape it must have.
    name : str
        How the error messages call it.

    Returns
    -------
    ndarray of float64, shape ``shape``
        A read-only copy.

    Raises
    ------
    ValueError
        If the shape differs or an entry is NaN or infinite.
    """
    table = np.array(values, dtype=np.float64)
    if table.shape != shape:
        raise ValueError(f"{name} has shape {table.shape}; give shape {shape}")
    if not np.isfinite(table).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(table))[0])
        raise ValueError(f"{name}{list(where)} is {table[where]}; give finite numbers")
    table.setflags(write=False)
    return table


def nonnegative(table: FloatArray, name: str) -> FloatArray:
    """Refuse negative entries.

    Raises
    ------
    ValueError
        Names the smallest entry and its index.
    """
    if (table < 0).any():
        where = tuple(int(i) for i in np.unravel_index(int(table.argmin()), table.shape))
        raise ValueError(f"{name}{list(where)} is {table[where]}; give numbers >= 0")
    return table


def stochastic(table: FloatArray, name: str, tolerance: float = TABLE_TOLERANCE) -> FloatArray:
    """Check that the last axis holds probability distributions.

    Parameters
    ----------
    table : ndarray of float64, shape (..., n)
        The probabilities.
    name : str
        How the error messages call it.
    tolerance : float, optional
        Largest accepted distance of a sum from one.

    Returns
    -------
    ndarray of float64, shape (..., n)
        ``table`` itself.

    Raises
    ------
    ValueError
        If an entry is negative or a row does not sum to one within ``tolerance``.
    """
    nonnegative(table, name)
    sums = table.sum(axis=-1)
    excess = np.abs(sums - 1.0)
    if (excess > tolerance).any():
        where = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
        row = f"{name}{list(where)}" if where else name
        raise ValueError(f"{row} sums to {sums[where]:.12g}; divide by the sum to make it 1")
    return table


def unit_interval(value: float, name: str) -> float:
    """Check that a number lies in [0, 1].

    Raises
    ------
    ValueError
        If it lies outside or is NaN.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value}; give a number in [0, 1]")
    return float(value)


def listed(names: Sequence[str], limit: int = 6) -> str:
    """Join names for an error message, the first ``limit`` of them and a count of the rest."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
