"""Action heads: the last linear layer of a policy, learned or frozen.

A head maps features h (…, n, d) to logits (…, n, K). Every head can carry leading *population*
axes: ``population=(20,)`` is twenty independent heads in one tensor, one for each seed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import lpm
from agents import initialisation


class LinearHead(nn.Module):
    """The usual learned head: logits = W h + b.

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
    gain
        None for PyTorch's default initialisation U(±1/√d); otherwise W is drawn orthogonal with
        this gain and b is zero.
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
        gain: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        _check_shape(dim, num_actions)
        shape = (num_actions, dim)
        if gain is None:
            bound = dim**-0.5
            weight = initialisation.uniform(rngs, shape, bound)
            offset = initialisation.uniform(rngs, shape[:1], bound) if bias else None
        else:
            weight = initialisation.orthogonal(rngs, shape, gain)
            offset = torch.zeros(len(rngs), num_actions) if bias else None
        self.weight = nn.Parameter(weight.to(dtype))
        self.register_parameter("bias", None if offset is None else nn.Parameter(offset.to(dtype)))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (P, n, K) of features (P, n, d)."""
        if self.bias is None:
            return torch.bmm(features, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(-2), features, self.weight.mT)


class FrozenHead(nn.Module, ABC):
    """A head that is drawn once and never trained: logits = W h.

    W is a *buffer*, not a parameter: no optimizer, initialiser, weight decay or gradient clip
    ever sees it, and it is saved, loaded and moved with the module.

    Parameters
    ----------
    dim
        d, the feature dimension.
    num_actions
        K ≥ 2.
    rngs
        One generator for each member of the population; it draws the orientation.
    energy
        E_W, the (mean) squared norm of a row.
    dtype
        Of the buffer.

    Raises
    ------
    ValueError
        K < 2, E_W ≤ 0, or a dimension that is too small for the head.
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
        if not energy > 0:
            raise ValueError(f"energy must be > 0, got {energy}")
        drawn = np.stack([self._draw(num_actions, dim, energy, rng) for rng in rngs])
        self.register_buffer("weight", torch.from_numpy(drawn).to(dtype))

    @staticmethod
    @abstractmethod
    def _draw(
        num_actions: int, dim: int, energy: float, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw one member's (K, d) W."""

    def forward(self, features: Tensor) -> Tensor:
        """Logits (P, n, K) of features (P, n, d)."""
        return torch.bmm(features, self.weight.mT)


class ETFHead(FrozenHead):
    """The paper's ACPG head: a frozen, randomly oriented simplex ETF, without bias (Eq. 10).

    Needs d ≥ K − 1; every row has squared norm E_W.
    """

    @staticmethod
    def _draw(
        num_actions: int, dim: int, energy: float, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        return lpm.simplex_etf(num_actions, dim, energy, rng)


class FrozenOrthogonalHead(FrozenHead):
    """A control for the ETF: frozen orthogonal rows of squared norm E_W, randomly oriented.

    Its rows are as long and as evenly spread as an ETF's, at 90° instead of the maximal angle.
    Needs d ≥ K.
    """

    @staticmethod
    def _draw(
        num_actions: int, dim: int, energy: float, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        if dim < num_actions:
            raise ValueError(
                f"{num_actions} orthogonal rows need dim >= {num_actions}, got {dim}: widen the "
                "feature or use an ETF head, which needs one dimension less"
            )
        rows: NDArray[np.float64] = initialisation.orthogonal(
            [rng], (num_actions, dim), energy**0.5
        )[0].numpy()
        return rows


class FrozenGaussianHead(FrozenHead):
    """A control for the ETF: frozen rows drawn from N(0, E_W/d), of squared norm E_W on average.

    Neither its angles nor its norms are even: what freezing alone does, without the geometry.
    """

    @staticmethod
    def _draw(
        num_actions: int, dim: int, energy: float, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        return rng.normal(scale=np.sqrt(energy / dim), size=(num_actions, dim))


# By the names that configurations and the integrations give them.
FROZEN_HEADS: dict[str, Callable[..., FrozenHead]] = {
    "etf": ETFHead,
    "orthogonal": FrozenOrthogonalHead,
    "gaussian": FrozenGaussianHead,
}


class HeadGroup(nn.Module):
    """Heads of several kinds side by side on the population axis, so that they train as one batch.

    Its parameters span all P members, as every other parameter of a population does, but those of
    frozen members are read by nothing: their W comes from a buffer.

    Parameters
    ----------
    heads
        In the order of the members; their populations add up to P.
    """

    frozen: Tensor
    """(P, K, d) W of the frozen members; what learned ones started from elsewhere."""
    is_learned: Tensor
    """(P,) bool."""
    has_bias: Tensor
    """(P,) bool."""

    def __init__(self, heads: Sequence[LinearHead | FrozenHead]) -> None:
        super().__init__()

        def each(values: Sequence[bool]) -> Tensor:
            return torch.cat(
                [torch.full((len(h.weight),), v) for h, v in zip(heads, values, strict=True)]
            )

        weight = torch.cat([head.weight.detach() for head in heads])
        self.register_buffer("frozen", weight)
        self.register_buffer("is_learned", each([isinstance(head, LinearHead) for head in heads]))
        self.register_buffer("has_bias", each([head.bias is not None for head in heads]))
        self.learned = nn.Parameter(weight.clone())
        self.offset: nn.Parameter | None = None
        if self.has_bias.any():
            offsets = [
                torch.zeros(head.weight.shape[:2]) if head.bias is None else head.bias.detach()
                for head in heads
            ]
            self.offset = nn.Parameter(torch.cat(offsets))

    @property
    def weight(self) -> Tensor:
        """(P, K, d) W of every member."""
        return torch.where(self.is_learned[:, None, None], self.learned, self.frozen)

    @property
    def bias(self) -> Tensor | None:
        """(P, K) b of every member, zero where a head has none; None when none has one."""
        if self.offset is None:
            return None
        return torch.where(self.has_bias[:, None], self.offset, 0.0)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (P, n, K) of features (P, n, d)."""
        bias = self.bias
        if bias is None:
            return torch.bmm(features, self.weight.mT)
        return torch.baddbmm(bias.unsqueeze(-2), features, self.weight.mT)


Head = LinearHead | FrozenHead | HeadGroup


@torch.no_grad()
def rescale(head: Head, factors: Tensor) -> None:
    """Multiply every member's W (and b) by its factor (P,), in place, frozen or not."""
    if isinstance(head, HeadGroup):
        head.frozen.mul_(factors[:, None, None])
        head.learned.mul_(factors[:, None, None])
        if head.offset is not None:
            head.offset.mul_(factors[:, None])
        return
    head.weight.mul_(factors[:, None, None])
    if head.bias is not None:
        head.bias.mul_(factors[:, None])


def _check_shape(dim: int, num_actions: int) -> None:
    if dim < 1 or num_actions < 2:
        raise ValueError(f"a head needs dim >= 1 and num_actions >= 2, got {dim} and {num_actions}")
