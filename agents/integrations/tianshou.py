"""Tianshou 2: actors whose action head is frozen, and the features of any discrete actor.

One line puts the paper's head into an actor; Reinforce, PPO, A2C and TRPO take it unchanged::

    net = Net(state_shape=(4,), hidden_sizes=[64, 64])
    actor = DiscreteActor(preprocess_net=net, action_shape=2, softmax_output=False)
    actor = with_etf_head(actor, np.random.default_rng(0))
    policy = DiscreteActorPolicy(actor=actor, action_space=env.action_space)
    …
    batch = capture_features(policy, observations)
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.distributions import Categorical

from agents.integrations.common import BallProjection, FeatureBatch, HeadKind, SingleHead, record

try:
    from tianshou.algorithm.algorithm_base import Algorithm
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
    from tianshou.utils.net.common import MLP
    from tianshou.utils.net.discrete import DiscreteActor
except ImportError as error:
    raise ImportError(
        "this integration needs Tianshou 2: pip install 'action-collapse[tianshou]'"
    ) from error

__all__ = ["FeatureBatch", "capture_features", "with_etf_head"]

# Rounding of float32 probabilities, with room: a double softmax is off by the policy's own
# distance from uniform.
_PROBABILITY_TOLERANCE = 1e-5


def with_etf_head(
    actor: DiscreteActor,
    rng: np.random.Generator,
    *,
    head: HeadKind = "etf",
    energy: float = 1.0,
    feature_energy: float | None = None,
) -> DiscreteActor:
    """Replace an actor's last linear layer by a frozen simplex ETF, or a control, in place.

    Do it before the algorithm is built: its optimizer would keep the parameters of the learned
    head. Whether features are rectified is the actor's own affair: Tianshou's `Net` ends in a
    ReLU, and with an `action_shape` (then the feature dimension) in a linear layer.

    Parameters
    ----------
    actor
        With ``softmax_output=False``.
    rng
        Draws the head's orientation.
    head
        ``"etf"``, the paper's; ``"orthogonal"`` and ``"gaussian"`` are its controls.
    energy
        E_W, the squared norm of the head's rows (Eq. 10).
    feature_energy
        E_H: features are projected onto ‖h‖² ≤ E_H; None for no bound.

    Returns
    -------
    DiscreteActor
        The same actor.

    Raises
    ------
    ValueError
        For an actor with a softmax or a frozen head, an unknown head, a dimension that is too
        small for it, and energies that are not positive.
    """
    if actor.softmax_output:
        raise ValueError(
            "the actor puts out probabilities, of which a DiscreteActorPolicy takes the softmax "
            "again: build it as DiscreteActor(..., softmax_output=False)"
        )
    layers = _last_layers(actor)
    learned = layers[-1]
    if not isinstance(learned, nn.Linear):
        raise ValueError(f"the actor's head is not a linear layer any more: {learned}")
    frozen = SingleHead(
        learned.in_features,
        learned.out_features,
        rng,
        kind=head,
        energy=energy,
        dtype=learned.weight.dtype,
    )
    bound = [] if feature_energy is None else [BallProjection(feature_energy)]
    # Not in an MLP: without parameters that moves its input to the CPU.
    last = nn.Sequential(*layers[:-1], *bound, frozen.to(learned.weight.device))
    actor.register_module("last", last)
    return actor


def capture_features(
    model: Algorithm[Any, Any] | DiscreteActorPolicy,
    observations: NDArray[Any],
    *,
    batch_size: int = 1024,
) -> FeatureBatch:
    """Features, logits and head of a policy with discrete actions, its head learned or frozen.

    The model is left as it was: no gradients, no samples, and evaluation mode only meanwhile.

    Parameters
    ----------
    model
        Reinforce, PPO, A2C, TRPO or any other whose policy is a `DiscreteActorPolicy` with a
        `DiscreteActor`, or the policy itself.
    observations
        (n, *shape) as the actor sees them.
    batch_size
        Observations to run at once.

    Returns
    -------
    FeatureBatch
        With ``logits == features @ head.T + bias``.

    Raises
    ------
    TypeError
        For another kind of policy or actor.
    ValueError
        If the policy is not the softmax of its head's logits, as with Tianshou's default
        ``softmax_output=True``, which applies softmax twice; and if there are no observations.
    """
    policy = model.policy if isinstance(model, Algorithm) else model
    actor = getattr(policy, "actor", None)
    if not isinstance(policy, DiscreteActorPolicy) or not isinstance(actor, DiscreteActor):
        raise TypeError(
            f"features are those of a DiscreteActorPolicy with a DiscreteActor, got a "
            f"{type(policy).__name__} with a {type(actor).__name__}"
        )
    probabilities: list[torch.Tensor] = []

    def forward(batch: NDArray[Any]) -> None:
        output, _ = actor(batch)
        distribution = policy.dist_fn(output)
        if not isinstance(distribution, Categorical):
            raise TypeError(f"the policy's dist_fn must give a Categorical, got a {distribution}")
        probabilities.append(distribution.probs.cpu())

    captured = record(policy, _last_layers(actor)[-1], forward, observations, batch_size)
    expected = torch.from_numpy(captured.logits).softmax(-1)
    difference = (torch.cat(probabilities) - expected).abs().max().item()
    if not difference <= _PROBABILITY_TOLERANCE:
        raise ValueError(
            f"the policy's probabilities differ by {difference:.1e} from the softmax of its "
            "head's logits: build the actor as DiscreteActor(..., softmax_output=False) and leave "
            "dist_fn at its default, which takes logits"
        )
    return captured


def _last_layers(actor: DiscreteActor) -> list[nn.Module]:
    """Everything between the preprocessing network and the logits, as built or as replaced."""
    last = actor.get_submodule("last")
    return list((last.model if isinstance(last, MLP) else last).children())
