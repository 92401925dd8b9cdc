"""Policy-gradient losses and the advantages they weigh: pure functions.

Leading axes (a population of seeds) pass through; losses are minimised.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Float = NDArray[np.float64]


def reinforce_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """REINFORCE: −mean_i A_i log π(a_i|s_i) over the last axis (Williams 1992).

    Parameters
    ----------
    log_probs
        (…, B) log π(a_i|s_i) of the actions taken, with gradient.
    advantages
        (…, B) returns, normalised or less a baseline; no gradient flows through them.
    """
    return -(advantages.detach() * log_probs).mean(-1)


def all_action_loss(log_policy: Tensor, action_values: Tensor, occupancy: Tensor) -> Tensor:
    """Exact all-action policy gradient, −Σ_s d(s) Σ_a π(a|s) Q(s, a).

    With d and Q of the current policy held fixed its gradient is −∇J of Eq. (1) by the policy
    gradient theorem (Sutton et al. 1999).

    Parameters
    ----------
    log_policy
        (…, S, K) log π(a|s), with gradient.
    action_values
        (…, S, K) Q^π, constants.
    occupancy
        (…, S) d(s), constants.
    """
    expected = (log_policy.exp() * action_values.detach()).sum(-1)
    return -(occupancy.detach() * expected).sum(-1)


def surrogate_loss(log_policy: Tensor, optimal_actions: Tensor, weights: Tensor) -> Tensor:
    """The paper's Eq. (2): −Σ_s d(s)Ψ(s) log π(a*(s)|s).

    Parameters
    ----------
    log_policy
        (…, S, K) log π(a|s), with gradient.
    optimal_actions
        (S,) a*(s).
    weights
        (S,) d(s)·Ψ(s); with Ψ < 0 (−1 a step, as in cliff walking) the loss is unbounded below.
    """
    index = optimal_actions.expand(*log_policy.shape[:-2], -1).unsqueeze(-1)
    return -(weights * log_policy.gather(-1, index).squeeze(-1)).sum(-1)


def discounted_returns(r_t: Float, discount: float) -> Float:
    """Monte-Carlo returns G_t = r_t + γ G_{t+1} along the last axis, G_T = 0 after its end."""
    g = np.empty_like(r_t)
    following = np.zeros(r_t.shape[:-1])
    for t in reversed(range(r_t.shape[-1])):
        following = r_t[..., t] + discount * following
        g[..., t] = following
    return g


def leave_one_out(returns: Float) -> Float:
    """Returns less the mean of the *other* returns from the same state, an unbiased baseline.

    Parameters
    ----------
    returns
        (…, m) m ≥ 2 returns from one state.

    Raises
    ------
    ValueError
        m < 2.
    """
    m = returns.shape[-1]
    if m < 2:
        raise ValueError(f"a leave-one-out baseline needs >= 2 returns a state, got {m}")
    # G_i − (ΣG − G_i)/(m − 1) = m/(m − 1)·(G_i − mean G).
    return np.asarray((returns - returns.mean(axis=-1, keepdims=True)) * (m / (m - 1)))


@dataclass
class RunningMoments:
    """Running mean and variance of returns for each member of a population.

    REINFORCE as in the paper's library standardises a batch with the moments of *earlier*
    batches, then takes the batch in; the first batch meets mean 0 and variance 1.
    """

    mean: Float
    """(P,)"""
    variance: Float
    """(P,) population variance."""
    count: Float
    """(P,)"""

    @classmethod
    def start(cls, population: int) -> "RunningMoments":
        """Moments that have seen nothing."""
        return cls(np.zeros(population), np.ones(population), np.zeros(population))

    def standardise(self, returns: Float, present: NDArray[np.bool_]) -> Float:
        """Standardise (P, B) returns with the moments so far, then absorb the present ones."""
        scaled = (returns - self.mean[:, None]) / np.sqrt(self.variance[:, None] + 1e-8)
        size = present.sum(axis=1)
        total = self.count + size
        batch_mean = np.where(present, returns, 0).sum(axis=1) / size
        deviation = np.where(present, returns - batch_mean[:, None], 0)
        shift = batch_mean - self.mean
        # Chan et al. (1983): sums of squares about two means, and the means' distance.
        squares = (
            self.variance * self.count
            + (deviation**2).sum(axis=1)
            + shift**2 * self.count * size / total
        )
        self.mean = self.mean + shift * size / total
        self.variance = squares / total
        self.count = total
        return np.asarray(scaled)
