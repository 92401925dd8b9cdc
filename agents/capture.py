"""Gradient steps as CUDA graphs of compiled kernels: launched once, replayed without the host.

Small networks on a fast GPU spend their time launching kernels. The compiler makes fewer of them
(`compiled`), and a graph records those of one minibatch update and replays them in one launch
(`captured`). Nothing random is recorded: minibatches are drawn on the host and copied into the
graph's inputs, and the learning rate is read from memory.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn

from agents.optimisation import clip_gradients
from agents.samples import Samples

Update = Callable[[Samples], dict[str, Tensor]]
Loss = Callable[[Samples], tuple[Tensor, dict[str, Tensor]]]
_WARM_UP = 3


def descent(
    loss: Loss,
    parameters: Sequence[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    max_gradient_norm: float,
    *,
    plain: bool = False,
) -> Update:
    """A gradient step on a loss, as fast as the parameters' device allows.

    Parameters
    ----------
    loss
        Of a minibatch: the members' losses, summed, and (P,) measurements without gradient.
    parameters, optimizer
        What the step changes. On CUDA the optimizer must be ``capturable``.
    max_gradient_norm
        Each member's gradient is clipped to it.
    plain
        Neither compile nor capture, to compare with.

    Returns
    -------
    Function of a minibatch that takes the step and returns the measurements with
    ``gradient_norm``, all left on the device.
    """
    loss_of = loss if plain else compiled(loss, parameters)

    def update(batch: Samples) -> dict[str, Tensor]:
        total, measured = loss_of(batch)
        optimizer.zero_grad()
        torch.autograd.backward(total)
        norm = clip_gradients(parameters, max_gradient_norm)
        optimizer.step()
        return {**measured, "gradient_norm": norm}

    return update if plain else captured(update, parameters, optimizer)


def compiled(loss: Loss, parameters: Sequence[nn.Parameter]) -> Loss:
    """The loss, its gradient included, as fused kernels where its parameters are on a GPU.

    On a CPU it is left as it is: there compiling gives some per cent for half a minute of waiting.
    So it is on a machine without Triton or the C compiler that Triton calls.
    """
    compilers = (os.environ.get("CC"), "cc", "gcc", "clang")
    possible = importlib.util.find_spec("triton") and any(
        map(shutil.which, filter(None, compilers))
    )
    if not (parameters[0].is_cuda and possible):
        return loss
    fused: Loss = torch.compile(loss, dynamic=False)
    return fused


def captured(
    update: Update, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
) -> Update:
    """The update as a CUDA graph where its parameters are on such a device, else as it is."""
    on_device = parameters[0].is_cuda
    return CapturedUpdate(update, parameters, optimizer) if on_device else update


class CapturedUpdate:
    """An update of fixed shape, captured at its first call and replayed afterwards.

    Minibatches of another shape (the last one of an uneven split) run the plain update.

    Parameters
    ----------
    update
        Takes a minibatch, steps the optimizer, returns measurements; all on the CUDA device and
        without a host sync.
    parameters, optimizer
        What the update changes. The optimizer must be ``capturable``.
    """

    def __init__(
        self, update: Update, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        self._update, self._parameters, self._optimizer = update, parameters, optimizer
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: Samples | None = None
        self._outputs: dict[str, Tensor] = {}

    def __call__(self, batch: Samples) -> dict[str, Tensor]:
        """Update on a minibatch."""
        if self._graph is None or self._inputs is None:
            self._graph, self._inputs = self._capture(batch)
        elif batch.actions.shape != self._inputs.actions.shape:
            return self._update(batch)
        for field in fields(Samples):
            getattr(self._inputs, field.name).copy_(getattr(batch, field.name))
        self._graph.replay()
        return {name: value.clone() for name, value in self._outputs.items()}

    def _capture(self, batch: Samples) -> tuple[torch.cuda.CUDAGraph, Samples]:
        inputs = Samples(*(getattr(batch, field.name).clone() for field in fields(Samples)))
        before = [parameter.detach().clone() for parameter in self._parameters]
        states = self._states()
        # Warm-up steps allocate what libraries need (and the optimizer its moments) outside the
        # graph; what they changed is put back, so that capturing is no training.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._update(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad()
        with torch.cuda.graph(graph):
            self._outputs = self._update(inputs)
        with torch.no_grad():
            for parameter, value in zip(self._parameters, before, strict=True):
                parameter.copy_(value)
            for updated, state in self._optimizer.state.items():
                for name, value in state.items():
                    saved = states.get(updated, {}).get(name)
                    value.copy_(torch.zeros_like(value) if saved is None else saved)
        return graph, inputs

    def _states(self) -> dict[Tensor, dict[str, Tensor]]:
        return {
            parameter: {name: value.clone() for name, value in state.items()}
            for parameter, state in self._optimizer.state.items()
        }
