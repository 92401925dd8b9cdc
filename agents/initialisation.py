"""Initial weights, each member of a population from its own generator."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Generators = Sequence[np.random.Generator]


def uniform(rngs: Generators, shape: tuple[int, ...], bound: float) -> Tensor:
    """Draw U(−bound, bound) for every member of a population.

    Returns
    -------
    (len(rngs), *shape) float64 tensor. A member's numbers do not depend on the others'.
    """
    return torch.from_numpy(np.stack([rng.uniform(-bound, bound, shape) for rng in rngs]))


def orthogonal(rngs: Generators, shape: tuple[int, ...], gain: float) -> Tensor:
    """Draw random (semi-)orthogonal matrices times a gain (Saxe et al. 2014).

    Trailing axes of ``shape`` beyond the first are flattened into columns, as for convolutions;
    rows are orthogonal where there are no more of them than columns, else columns are.

    Returns
    -------
    (len(rngs), *shape) float64 tensor, Haar-distributed.
    """
    rows, columns = shape[0], int(np.prod(shape[1:]))
    drawn = []
    for rng in rngs:
        normal = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(normal)
        # The signs of R's diagonal make the distribution of Q uniform (Mezzadri 2007).
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)
        drawn.append((q if rows >= columns else q.T).reshape(shape))
    return torch.from_numpy(gain * np.stack(drawn))


def layer(rngs: Generators, shape: tuple[int, ...], gain: float | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer, ``shape`` = (out, in, …).

    Parameters
    ----------
    gain
        None: PyTorch's default, both U(±1/√fan_in). Otherwise an orthogonal weight of that gain
        and a zero bias.

    Returns
    -------
    (P, *shape) and (P, out) float64 tensors.
    """
    if gain is not None:
        return orthogonal(rngs, shape, gain), torch.zeros(len(rngs), shape[0], dtype=torch.float64)
    bound = float(np.prod(shape[1:])) ** -0.5
    return uniform(rngs, shape, bound), uniform(rngs, shape[:1], bound)
