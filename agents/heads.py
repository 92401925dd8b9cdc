"""Action heads: the last linear layer of a policy, learned or frozen as a simplex ETF.

A head maps features h (…, n, d) to logits (…, n, K). Every head can carry leading *population*
axes: ``population=(20,)`` is twenty independent heads in one tensor, one for each seed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import lpm


def uniform_init(
    rngs: Sequence[np.random.Generator], shape: tuple[int, ...], bound: float
) -> Tensor:
    """Draw U(−bound, bound) for every member of a population from its own generator.

    Returns
    -------
    (len(rngs), *shape) float64 tensor. A member's numbers do not depend on the others'.
    """
    draws = [rng.uniform(-bound, bound, shape) for rng in rngs]
    return torch.from_numpy(np.stack(draws))


class LinearHead(nn.Module):
    """The usual learned head: logits = W h + b, PyTorch's default initialisation.

    Parameters
    ----------
    dim
        d, the feature dimension.
    num_actions
        K.
    rngs
        One generator for each member of the population.
    bias
        Whether there is a b; the theory of the paper has none.
    dtype
        Of the parameters.
    """

    weight: nn.Parameter
    """(P, K, d)"""
    bias: nn.Parameter | None
    """(P, K)"""

    def __init__(
        self,
        dim: int,
        num_actions: int,
        rngs: Sequence[np.random.Generator],
        *,
        bias: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        _check_shape(dim, num_actions)
        bound = dim**-0.5
        self.weight = nn.Parameter(uniform_init(rngs, (num_actions, dim), bound).to(dtype))
        offset = nn.Parameter(uniform_init(rngs, (num_actions,), bound).to(dtype)) if bias else None
        self.register_parameter("bias", offset)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (P, n, K) of features (P, n, d)."""
        if self.bias is None:
            return torch.bmm(features, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(-2), features, self.weight.mT)


class ETFHead(nn.Module):
    """The paper's ACPG head: a frozen, randomly oriented simplex ETF, without bias.

    W is a *buffer*, not a parameter: no optimizer, initialiser, weight decay or gradient clip
    ever sees it, and it is saved, loaded and moved with the module.

    Parameters
    ----------
    dim
        d ≥ K − 1.
    num_actions
        K ≥ 2.
    rngs
        One generator for each member of the population; it draws the orientation.
    energy
        E_W, the squared norm of every row (Eq. 10).
    dtype
        Of the buffer.

    Raises
    ------
    ValueError
        From `lpm.simplex_etf`: d < K − 1, K < 2, energy ≤ 0.
    """

    weight: Tensor
    """(P, K, d)"""
    bias: None = None

    def __init__(
        self,
        dim: int,
        num_actions: int,
        rngs: Sequence[np.random.Generator],
        *,
        energy: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        _check_shape(dim, num_actions)
        frames = [lpm.simplex_etf(num_actions, dim, energy, rng) for rng in rngs]
        self.register_buffer("weight", torch.from_numpy(np.stack(frames)).to(dtype))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (P, n, K) of features (P, n, d)."""
        return torch.bmm(features, self.weight.mT)


Head = LinearHead | ETFHead


def _check_shape(dim: int, num_actions: int) -> None:
    if dim < 1 or num_actions < 2:
        raise ValueError(f"a head needs dim >= 1 and num_actions >= 2, got {dim} and {num_actions}")
