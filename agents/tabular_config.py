"""What a tabular run trains, and where its samples come from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from agents.limits import Count, Fraction, NonNegative, Positive, check_fields
from agents.networks import FeatureKind, FeatureNorm
from gridworld import (
    OnPolicy,
    SamplingScheme,
    Sweep,
    TabularMDP,
    cliff_layout,
    ideal_cliff_walking,
)

Objective = Literal["reinforce", "all-action", "surrogate"]
HeadKind = Literal["linear", "etf"]
Baseline = Literal["leave-one-out", "running", "none"]
Scheme = Literal["sweep", "outer", "uniform", "inner"]


@dataclass(frozen=True)
class TabularConfig:
    """One training run on the Ideal Cliff Walking; the defaults are the paper's settings.

    Raises
    ------
    ValueError
        For a field that does not hold what its annotation says, and for a combination that has no
        meaning, naming the fields.
    """

    objective: Objective = "reinforce"
    head: HeadKind = "linear"
    bias: bool = False
    """Of a learned head; the paper's theory has none."""
    head_energy: Positive = 1.0
    """E_W of an ETF head."""
    feature: FeatureKind = "rectified"
    feature_energy: Positive | None = None
    """E_H of the ball that features are projected onto; None for no bound."""
    feature_norm: FeatureNorm = "ball"
    """``"sphere"``: every feature is scaled to ‖h‖² = E_H instead."""
    hidden: tuple[Count, ...] = (64, 64)
    baseline: Baseline = "running"
    """``"running"``: standardise by running moments of earlier batches, as the paper's library
    does. ``"leave-one-out"``: less the mean of the other returns from the state (sweep only)."""
    scheme: Scheme = "sweep"
    """``"sweep"``: ``episodes`` returns from every cell, first action drawn from the policy; the
    only scheme for which Condition 3 holds under any policy. Otherwise on-policy episodes that
    start in the outer, all, or inner cells."""
    state_weights: tuple[NonNegative, ...] | None = None
    """Of the sweep under an exact objective: relative d(s) of each cell, in the order of
    `gridworld.cliff_layout`; 0 for a cell that is never sampled, None for all alike."""
    episodes: Count = 8
    """Episodes a collect: from every cell (sweep), or in all (on-policy)."""
    passes: Count = 2
    """Updates on each collect (the paper's "repeat per collect")."""
    horizon: Count = 128
    """Steps after which an episode is cut; the missing return is at most γ^128/(1−γ) = 0.028."""
    epochs: Count = 100
    updates_per_epoch: Count = 32
    """32 updates are 16 collects of 64 returns: the paper's 1000 steps an epoch."""
    learning_rate: Positive = 1e-3
    cosine: bool = False
    """Anneal the learning rate to zero along a half cosine."""
    weight_decay: NonNegative = 0.0
    """Coupled L2, added to the gradient before Adam (decoupled decay does not give collapse)."""
    width: Count = 4
    discount: Fraction = 0.95
    step_reward: float = -1.0
    exit_reward: float = -1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scheme != "sweep" and self.baseline == "leave-one-out":
            raise ValueError(
                f"baseline='leave-one-out' needs several returns from each state and so "
                f"scheme='sweep', got scheme={self.scheme!r}: use baseline='running'"
            )
        if self.scheme != "sweep" and self.objective == "surrogate":
            raise ValueError(
                "objective='surrogate' takes d as given (state_weights), whatever the policy: "
                f"got scheme={self.scheme!r}, use scheme='sweep'"
            )
        if self.state_weights is not None:
            self._check_state_weights(self.state_weights)
        if self.objective == "reinforce" and self.updates_per_epoch % self.passes:
            raise ValueError(
                f"updates_per_epoch={self.updates_per_epoch} must be a multiple of "
                f"passes={self.passes}"
            )

    def _check_state_weights(self, weights: tuple[float, ...]) -> None:
        if self.scheme != "sweep" or self.objective == "reinforce":
            raise ValueError(
                "state_weights belong to an exact objective, got "
                f"objective={self.objective!r} and scheme={self.scheme!r}: use 'surrogate' or "
                "'all-action' with scheme='sweep'"
            )
        cells = int((~cliff_layout(self.width).exits).sum())
        if len(weights) != cells or sum(weights) == 0:
            raise ValueError(
                f"state_weights must be {cells} numbers, one for each cell at width={self.width}, "
                f"not all 0: got {weights}"
            )

    def mdp(self) -> TabularMDP:
        """The grid world of this configuration."""
        return ideal_cliff_walking(
            width=self.width,
            discount=self.discount,
            step_reward=self.step_reward,
            exit_reward=self.exit_reward,
            start=None if self.scheme == "sweep" else self.scheme,
        )

    def sampling(self, discount: float = 1.0) -> SamplingScheme:
        """Where samples come from: what the Conditions are about.

        Parameters
        ----------
        discount
            Weight γ^t of the on-policy sample at time t; REINFORCE averages with 1.
        """
        if self.scheme != "sweep":
            return OnPolicy(discount=discount)
        if self.state_weights is None:
            return Sweep()
        exits = cliff_layout(self.width).exits
        weights = np.zeros(len(exits))
        weights[~exits] = self.state_weights
        return Sweep(weights)
