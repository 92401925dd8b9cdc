"""Policy-gradient losses and the advantages they weigh: pure functions.

Leading axes (a population of seeds) pass through; losses are minimised.
"""

from dataclasses import dataclass

import numpy as np
import torch
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


def clipped_surrogate_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float
) -> Tensor:
    """PPO's clipped surrogate, −mean_i min(ρ_i A_i, clip(ρ_i, 1±ε) A_i) (Schulman et al. 2017).

    Parameters
    ----------
    log_probs
        (…, B) log π(a_i|s_i), with gradient; ρ_i = π(a_i|s_i)/π_old(a_i|s_i).
    old_log_probs
        (…, B) of the policy that acted, constants.
    advantages
        (…, B), constants.
    clip
        ε.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean(-1)


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """½·mean squared error over the last axis.

    The ½ is part of the convention that a value coefficient multiplies: CleanRL's 0.5 is 0.5
    here, Tianshou's 0.25 (on the plain mean) is 0.5, Stable-Baselines3's 0.5 (plain mean) is 1.
    """
    return 0.5 * (returns - values).square().mean(-1)


def entropy(log_policy: Tensor) -> Tensor:
    """−Σ_a π(a|s) log π(a|s) in nats, (…, B) of log-probabilities (…, B, K)."""
    return -(log_policy.exp() * log_policy).sum(-1)


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) = Σ_a p(a) log p(a)/q(a) in nats, (…, B) of log-probabilities (…, B, K)."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def sampled_kl(log_probs: Tensor, old_log_probs: Tensor) -> Tensor:
    """KL(π_old‖π) estimated from π_old's own actions: mean of (ρ − 1) − log ρ, never negative.

    Unbiased, with a smaller variance than the mean of −log ρ (Schulman 2020, "k3").
    """
    log_ratio = log_probs - old_log_probs
    return (log_ratio.exp() - 1 - log_ratio).mean(-1)


def standardise(advantages: Tensor) -> Tensor:
    """Zero mean and unit (sample) standard deviation over the last axis; one value becomes 0."""
    if advantages.shape[-1] < 2:
        return torch.zeros_like(advantages)
    centred = advantages - advantages.mean(-1, keepdim=True)
    return centred / (advantages.std(-1, keepdim=True) + 1e-8)


def generalised_advantages(
    r_t: Float,
    v_t: Float,
    v_next: Float,
    terminated: NDArray[np.bool_],
    truncated: NDArray[np.bool_],
    discount: float,
    trace: float,
) -> Float:
    """Generalised advantage estimation (Schulman et al. 2016), backwards along axis 1.

    ::

        δ_t = r_t + γ·(1 − terminated_t)·V(s_{t+1}) − V(s_t)
        A_t = δ_t + γλ·(1 − ended_t)·A_{t+1}

    Parameters
    ----------
    r_t, v_t
        (P, T, E) rewards and V(s_t).
    v_next
        (P, T, E) V of the state that followed: of the *final* observation where the episode was
        truncated (a time limit says nothing about the value there), not of the next episode's
        first one.
    terminated, truncated
        (P, T, E); the trace is cut at either, the bootstrap only at the first.
    discount, trace
        γ and λ. λ = 1 gives n-step returns less V, λ = 0 one-step errors.

    Returns
    -------
    (P, T, E) advantages; adding V(s_t) gives the λ-returns that V is fitted to.
    """
    delta = r_t + discount * np.where(terminated, 0.0, v_next) - v_t
    going_on = discount * trace * ~(terminated | truncated)
    advantages = np.empty_like(delta)
    following = np.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        following = delta[:, t] + going_on[:, t] * following
        advantages[:, t] = following
    return advantages


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
