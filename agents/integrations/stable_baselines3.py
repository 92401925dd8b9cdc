"""Stable-Baselines3: policies whose action head is frozen, and the features of any policy.

One line puts the paper's head into PPO, A2C or the TRPO of sb3-contrib::

    model = PPO(ETFActorCriticPolicy, "CartPole-v1", policy_kwargs=dict(head_seed=0))
    batch = capture_features(model.learn(100_000), observations)
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import nn

from agents.integrations.common import BallProjection, FeatureBatch, HeadKind, SingleHead, record
from agents.networks import FeatureKind

try:
    from stable_baselines3.common.distributions import CategoricalDistribution
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.policies import ActorCriticCnnPolicy, ActorCriticPolicy
    from stable_baselines3.common.type_aliases import Schedule
except ImportError as error:
    raise ImportError(
        "this integration needs Stable-Baselines3: pip install 'action-collapse[sb3]'"
    ) from error

__all__ = ["ETFActorCriticCnnPolicy", "ETFActorCriticPolicy", "FeatureBatch", "capture_features"]


class ETFActorCriticPolicy(ActorCriticPolicy):
    """SB3's ``"MlpPolicy"`` with a frozen simplex ETF, or a control, as its action head.

    The rest of the policy and its initialisation stay SB3's. The head is not an `nn.Linear`, so
    the orthogonal initialisation leaves it alone, nor are its weights parameters, so they are in
    no optimizer; `model.save` and `load` keep them.

    Parameters
    ----------
    observation_space, action_space, lr_schedule
        As SB3 gives them. The actions must be `Discrete`.
    head
        ``"etf"``, the paper's; ``"orthogonal"`` and ``"gaussian"`` are its controls.
    head_energy
        E_W, the squared norm of the head's rows (Eq. 10). It sets the initial entropy, which the
        gain 0.01 of SB3's learned head keeps near log K.
    head_seed
        Of the head's orientation. It is separate from the algorithm's `seed`: give both to make
        runs independent.
    feature
        What ends the actor's hidden layers: ``"rectified"`` a ReLU as in the paper, ``"linear"``
        nothing, None what SB3 put there (tanh by default; a ReLU after its CNN).
    feature_energy
        E_H: the actor's features are projected onto ‖h‖² ≤ E_H; None for no bound.
    policy_kwargs
        Everything else that SB3's policy takes.

    Raises
    ------
    ValueError
        For actions that are not `Discrete`, an unknown head or feature, a dimension that is too
        small for the head, energies that are not positive, and linear features without a layer
        of the actor's own.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        head: HeadKind = "etf",
        head_energy: float = 1.0,
        head_seed: int = 0,
        feature: FeatureKind | None = None,
        feature_energy: float | None = None,
        **policy_kwargs: Any,
    ) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise ValueError(f"a frozen head needs a Discrete action space, got {action_space}")
        if feature not in ("rectified", "linear", None):
            raise ValueError(f"feature must be 'rectified', 'linear' or None, got {feature!r}")
        self._head_kind: HeadKind = head
        self._head_energy = head_energy
        self._head_seed = head_seed
        self._feature = feature
        self._feature_energy = feature_energy
        super().__init__(observation_space, action_space, lr_schedule, **policy_kwargs)

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        layers = self.mlp_extractor.policy_net
        if self._feature == "linear" and len(layers) == 0:
            raise ValueError(
                "linear features need a hidden layer of the actor's own after the features "
                "extractor: pass for example net_arch=dict(pi=[512], vf=[])"
            )
        if self._feature is not None and len(layers) > 0:
            layers.pop(-1)
        if self._feature == "rectified":
            layers.append(nn.ReLU())
        if self._feature_energy is not None:
            layers.append(BallProjection(self._feature_energy))

    def _build(self, lr_schedule: Schedule) -> None:
        # SB3 asks the distribution for the head before it collects the optimizer's parameters;
        # replacing `action_net` afterwards would leave those of a learned head in Adam.
        self.action_dist = _FrozenCategorical(
            int(self.action_space.n), self._head_kind, self._head_energy, self._head_seed
        )
        super()._build(lr_schedule)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | {
            "head": self._head_kind,
            "head_energy": self._head_energy,
            "head_seed": self._head_seed,
            "feature": self._feature,
            "feature_energy": self._feature_energy,
        }


class ETFActorCriticCnnPolicy(ETFActorCriticPolicy, ActorCriticCnnPolicy):
    """SB3's ``"CnnPolicy"`` with a frozen head; its parameters are `ETFActorCriticPolicy`'s."""


class _FrozenCategorical(CategoricalDistribution):
    """SB3's distribution over K actions, whose network is a frozen head."""

    def __init__(self, action_dim: int, kind: HeadKind, energy: float, seed: int) -> None:
        super().__init__(action_dim)
        self._kind = kind
        self._energy = energy
        self._seed = seed

    def proba_distribution_net(self, latent_dim: int) -> nn.Module:
        rng = np.random.default_rng(self._seed)
        return SingleHead(latent_dim, self.action_dim, rng, kind=self._kind, energy=self._energy)


def capture_features(
    model: OnPolicyAlgorithm | ActorCriticPolicy,
    observations: NDArray[Any],
    *,
    batch_size: int = 1024,
) -> FeatureBatch:
    """Features, logits and head of a policy with discrete actions, its head learned or frozen.

    The model is left as it was: no gradients, no samples, and evaluation mode only meanwhile.

    Parameters
    ----------
    model
        PPO, A2C, TRPO or any other with an `ActorCriticPolicy`, masked or not, or the policy
        itself.
    observations
        (n, *shape) as the policy sees them: after `VecNormalize` where there is one; images
        channel first or last.
    batch_size
        Observations to run at once.

    Returns
    -------
    FeatureBatch
        With ``logits == features @ head.T + bias``; the policy is their softmax.

    Raises
    ------
    TypeError
        For what has no head over actions where an actor-critic policy has it, such as a DQN; the
        message names `analysis.capture.HookedPolicy`. For a recurrent policy, whose features are
        no function of an observation.
    ValueError
        For actions that are not `Discrete`, a single observation or none, and wrong shapes.
    """
    policy = model.policy if isinstance(model, OnPolicyAlgorithm) else model
    # Not by class: the masked policies of sb3-contrib are like an ActorCriticPolicy and none.
    if not isinstance(getattr(policy, "action_net", None), nn.Module):
        raise TypeError(
            f"a {type(model).__name__} is no actor-critic with discrete actions, whose features "
            'can be found: pass HookedPolicy(module, head="name.of.its.last.linear.layer") of '
            "analysis.capture, for a DQN with model.q_net as the module"
        )
    if hasattr(policy, "lstm_actor"):
        raise TypeError(
            f"the features of a {type(model).__name__} depend on its memory, not on an observation "
            "alone: record them while it plays and give them, labelled, to CollapseMetrics"
        )
    if not isinstance(policy.action_space, spaces.Discrete):
        raise ValueError(f"logits need a Discrete action space, got {policy.action_space}")

    def forward(batch: NDArray[Any]) -> None:
        tensor, vectorised = policy.obs_to_tensor(batch)
        if not vectorised:
            raise ValueError(
                f"observations must be a batch (n, *shape) with shape "
                f"{policy.observation_space.shape}, got one of shape {batch.shape}"
            )
        policy.get_distribution(tensor)

    return record(policy, policy.action_net, forward, observations, batch_size)
