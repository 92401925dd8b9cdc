"""Last-layer features and logits of any policy, one batch of observations at a time.

:func:`as_source` turns whatever counts as a policy into one function, from observations to
:class:`Activations`. Networks are run in evaluation mode, without gradients, and left as they were.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from agents.integrations.common import evaluating
from agents.policy import Policy
from analysis.snapshot import Array

__all__ = ["Activations", "HookedPolicy", "Source", "as_source"]

_INTEGRATIONS = {
    "stable_baselines3": "agents.integrations.stable_baselines3",
    "sb3_contrib": "agents.integrations.stable_baselines3",
    "tianshou": "agents.integrations.tianshou",
}


class Activations(NamedTuple):
    """What a policy computed for n observations; arrays or tensors, on any device."""

    features: Array
    """(n, d) last-layer features h(s)."""
    logits: Array
    """(n, K)"""
    head: Array | None = None
    """(K, d) W, rows being actions; None where it is not known."""
    bias: Array | None = None
    """(K,) b, or None."""


Source: TypeAlias = Callable[[Array], Activations]


class HookedPolicy:
    """Any network, probed through a forward hook on its last linear layer.

    The layer's input are the features, its output the logits, whatever the network does with them
    afterwards. The hook lives for the length of a call only.

    Parameters
    ----------
    module : torch.nn.Module
        Called as ``module(observations)``.
    head : str
        Name of the layer as ``module.named_modules()`` gives it, for example ``"actor.last"``.
        Any layer with a (K, d) `weight` will do.

    Raises
    ------
    ValueError
        If there is no layer of that name, or it has no (K, d) weight; the message lists the
        linear layers there are.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2), nn.Softmax(-1))
    >>> seen = HookedPolicy(network, head="2")(torch.zeros(5, 3))
    >>> tuple(seen.features.shape), tuple(seen.logits.shape)
    ((5, 8), (5, 2))
    """

    def __init__(self, module: nn.Module, head: str) -> None:
        layers = dict(module.named_modules())
        linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
        weight = getattr(layers.get(head), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            found = "no layer" if head not in layers else type(layers[head]).__name__
            raise ValueError(
                f"head={head!r} names {found}, expected a layer with a (K, d) weight; the linear "
                f"layers of this {type(module).__name__} are {linear}"
            )
        self.module = module
        self.head = head
        self._layer = layers[head]

    def __call__(self, observations: Array) -> Activations:
        """Run the network on observations (n, …).

        Raises
        ------
        RuntimeError
            If the layer did not run exactly once.
        """
        seen: list[tuple[Tensor, Tensor]] = []

        def keep(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.append((inputs[0].detach(), output.detach()))

        handle = self._layer.register_forward_hook(keep)
        try:
            with evaluating(self.module):
                self.module(_input_of(self.module, observations))
        finally:
            handle.remove()
        if len(seen) != 1:
            raise RuntimeError(
                f"layer {self.head!r} ran {len(seen)} times in one forward pass, expected once: "
                f"name the last linear layer of the action branch"
            )
        (features, logits), layer = seen[0], self._layer
        bias = getattr(layer, "bias", None)
        return Activations(
            features,
            logits,
            layer.weight.detach(),
            bias.detach() if isinstance(bias, Tensor) else None,
        )


class _Member:
    """One member of a population, computed alone."""

    def __init__(self, policy: Policy, member: int | None) -> None:
        population = len(policy.head.weight)
        if member is None and population == 1:
            member = 0
        if member is None or not 0 <= member < population:
            raise ValueError(
                f"the policy is a population of {population}: choose one with "
                f"member=0…{population - 1}, got {member}"
            )
        self._policy, self._member = policy, member

    def __call__(self, observations: Array) -> Activations:
        backbone, member = self._policy.backbone, self._member
        # Every tensor of a population has the member axis first; heads of several kinds side by
        # side are no exception in `weight` and `bias`, only in what they are made of.
        own = {
            name: tensor[member : member + 1]
            for name, tensor in (*backbone.named_parameters(), *backbone.named_buffers())
        }
        with evaluating(backbone):
            x = _input_of(backbone, observations)
            features = functional_call(backbone, own, (x[None],))[0]
            head = self._policy.head.weight[member].detach()
            bias = self._policy.head.bias
            own_bias = None if bias is None else bias[member].detach()
            logits = nn.functional.linear(features, head, own_bias)
        return Activations(features, logits, head, own_bias)


def as_source(policy: object, member: int | None = None) -> Source:
    """Turn a policy into a function from observations (n, …) to :class:`Activations`.

    Parameters
    ----------
    policy
        A `agents.policy.Policy`; a model, algorithm or policy of Stable-Baselines3 or Tianshou; a
        :class:`HookedPolicy`; or a function of a batch of observations that returns
        ``(features, logits)``, or anything with attributes `features` and `logits` (and `head`
        and `bias`, if it knows them).
    member
        Which member of a population of `agents`; may be left out when there is one.

    Raises
    ------
    ImportError
        If the policy's library lacks its extra.
    TypeError
        If it is none of these; for another network the message names :class:`HookedPolicy`.
    ValueError
        If the population has no such member, or `member` is given for another kind of policy.
    """
    if isinstance(policy, Policy):
        return _Member(policy, member)
    if member is not None:
        raise ValueError(
            f"member={member} chooses from a population of agents.policy.Policy, but the policy "
            f"is a {type(policy).__name__}"
        )
    for base in type(policy).__mro__:
        if (library := base.__module__.split(".")[0]) in _INTEGRATIONS:
            capture = importlib.import_module(_INTEGRATIONS[library]).capture_features
            return lambda observations: _activations(capture(policy, _as_numpy(observations)))
    if isinstance(policy, nn.Module):
        raise TypeError(
            f"a {type(policy).__name__} does not say which of its layers is the head: pass "
            f'HookedPolicy(module, head="name.of.its.last.linear.layer")'
        )
    if not callable(policy):
        raise TypeError(
            f"a policy is an agents.policy.Policy, a model of Stable-Baselines3 or Tianshou, a "
            f"HookedPolicy or a function returning (features, logits); got {type(policy).__name__}"
        )
    function = policy
    return lambda observations: _activations(function(observations))


def _activations(found: Any) -> Activations:
    """Whatever a function returned, by name where it has names."""
    if hasattr(found, "features") and hasattr(found, "logits"):
        head, bias = getattr(found, "head", None), getattr(found, "bias", None)
        return Activations(found.features, found.logits, head, bias)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"the policy returned a {type(found).__name__}, expected (features, logits) or an "
            f"object with these attributes"
        )
    return Activations(*found)


def _input_of(module: nn.Module, observations: Array) -> Tensor:
    """Observations on the module's device, real numbers in its precision."""
    x = observations if isinstance(observations, Tensor) else torch.tensor(observations)
    like = next((p for p in module.parameters() if p.is_floating_point()), None)
    if like is None:
        return x
    return x.to(device=like.device, dtype=like.dtype if x.is_floating_point() else x.dtype)


def _as_numpy(observations: Array) -> Array:
    return observations.cpu().numpy() if isinstance(observations, Tensor) else observations
