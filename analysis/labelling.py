"""The action each state is labelled with: the policy's own, the optimal one, or a given one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from analysis.snapshot import Array
from gridworld import TabularMDP

__all__ = ["Labeller", "Labels", "as_array", "labeller"]

Labels: TypeAlias = (
    Literal["greedy", "optimal"]
    | Callable[[Array], ArrayLike | torch.Tensor]
    | ArrayLike
    | torch.Tensor
)
"""What a user may give: a name, a function of a batch of observations, or (N,) integers."""

Labeller: TypeAlias = Callable[[Array, Array, int], ArrayLike | torch.Tensor]
"""From observations, logits and the position of the first of them to labels."""


def labeller(labels: Labels, mdp: TabularMDP | None) -> tuple[str, Labeller]:
    """Where labels are from, and a function that gives them.

    Parameters
    ----------
    labels
        As in :func:`analysis.probe.probe`.
    mdp
        The tables behind ``"optimal"``; given for it alone.

    Returns
    -------
    kind : str
        ``"greedy"``, ``"optimal"``, ``"function"`` or ``"given"``.
    label : Labeller

    Raises
    ------
    ValueError
        For another name, or if the tables are missing or not asked for. The function raises it for
        observations that are no states of the MDP, or states without a unique optimal action.
    """
    if (mdp is not None) != (isinstance(labels, str) and labels == "optimal"):
        raise ValueError(
            'labels="optimal" needs the tables of an MDP, and they are for nothing else: pass '
            "both labels='optimal' and mdp=, or a function of the observations as labels"
        )
    if isinstance(labels, str):
        if labels == "greedy":
            return labels, lambda _observations, logits, _start: logits.argmax(-1)
        if labels == "optimal" and mdp is not None:
            table = _optimal_actions(mdp)
            return labels, lambda observations, _logits, _start: table[_states(observations, table)]
        raise ValueError(
            f"labels={labels!r}: expected 'greedy', 'optimal', a function of observations, or one "
            f"integer a state"
        )
    if callable(labels):
        function = labels
        return "function", lambda observations, _logits, _start: function(observations)
    given = as_array(labels)
    return "given", lambda _observations, logits, start: given[start : start + len(logits)]


def _optimal_actions(mdp: TabularMDP) -> NDArray[np.int64]:
    """(S,) the optimal action of every state, −1 where it is not unique or nothing is decided."""
    optimal = mdp.optimal_actions()
    table = np.where(optimal.sum(axis=1) == 1, optimal.argmax(axis=1), -1)
    undecided = np.setdiff1d(np.arange(mdp.num_states), mdp.decision_states)
    table[undecided] = -1
    return table


def _states(observations: Array, table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the states that observations stand for, each with a unique optimal action."""
    x = as_array(observations)
    if x.ndim == 1 and x.dtype.kind in "iu":
        states = x.astype(np.int64)
    elif x.ndim == 2 and x.shape[1] == len(table) and ((x != 0).sum(axis=1) == 1).all():
        states = x.argmax(axis=1)
    else:
        raise ValueError(
            f"labels='optimal' needs states of the MDP, indices (n,) or one-hot (n, {len(table)}), "
            f"got shape {x.shape}; pass a function of the observations as labels"
        )
    ambiguous = np.unique(states[table[states] < 0])
    if len(ambiguous):
        raise ValueError(
            f"states {ambiguous[:5].tolist()} have no unique optimal action: leave these "
            f"observations out"
        )
    return states


def as_array(values: object) -> NDArray[Any]:
    """NumPy array of anything array-like, tensors of any device included."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
