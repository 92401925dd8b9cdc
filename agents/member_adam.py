"""Adam for a population whose members do not all move in every step."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)


class MemberAdam:
    """Adam (Kingma & Ba 2015) with a step count for each member.

    A member that sits a step out keeps its parameters, moments and count bit for bit, so that it
    ends where it would alone. `torch.optim.Adam` cannot do this: its count is one number, and its
    moments decay with every step.

    Parameters
    ----------
    parameters
        Each (P, …), with the same P.
    eps
        Added to the root of the second moment.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], eps: float) -> None:
        self._parameters, self._eps = list(parameters), eps
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]
        population, device = len(self._parameters[0]), self._parameters[0].device
        self._count = torch.zeros(population, device=device)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float, moving: Tensor) -> None:
        """Step along the gradients with learning rate ``rate``, where ``moving`` (P,) bool."""
        beta1, beta2 = BETAS
        self._count += moving
        # A member that has never moved has count 0; its 0/0 is not selected below.
        bias1, bias2 = 1 - beta1**self._count, 1 - beta2**self._count
        for parameter, first, second in zip(
            self._parameters, self._first, self._second, strict=True
        ):
            gradient = parameter.grad
            if gradient is None:
                continue
            shape = (-1, *[1] * (parameter.ndim - 1))
            chosen = moving.view(shape)
            first.copy_(torch.where(chosen, first.lerp(gradient, 1 - beta1), first))
            squares = beta2 * second + (1 - beta2) * gradient.square()
            second.copy_(torch.where(chosen, squares, second))
            root = (second / bias2.view(shape)).sqrt() + self._eps
            moved = parameter - rate * (first / bias1.view(shape)) / root
            parameter.copy_(torch.where(chosen, moved, parameter))

    def state_dict(self) -> dict[str, Any]:
        """Moments and counts."""
        return {"first": self._first, "second": self._second, "count": self._count}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for own, saved in zip(
            [*self._first, *self._second, self._count],
            [*state["first"], *state["second"], state["count"]],
            strict=True,
        ):
            own.copy_(saved)
