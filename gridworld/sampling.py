"""Where training samples come from: the two sampling schemes whose state distribution is known.

A *sample* is a state whose return enters the policy-gradient loss. An *episode* is what is rolled
out to obtain it. On-policy training turns every visited decision state into a sample; the sweep
uses only the first state of each episode, which is why its distribution does not depend on the
policy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gridworld.checks import BoolArray, FloatArray, float_table, nonnegative, unit_interval
from gridworld.mdp import TabularMDP


@dataclass(frozen=True, eq=False)
class OnPolicy:
    """Complete episodes under the current policy; every decision state met is a sample.

    Parameters
    ----------
    start : array_like of float, shape (S,), optional
        Distribution of the first state; the MDP's own if omitted.
    discount : float, optional
        Weight ``discount ** t`` of the sample at time ``t``: 1, the default, weighs all samples
        alike, as REINFORCE implementations do; the MDP's discount gives the weights of the
        policy-gradient theorem (Sutton et al. 1999).

    Raises
    ------
    ValueError
        If ``discount`` lies outside [0, 1].
    """

    start: ArrayLike | None = None
    discount: float = 1.0

    def __post_init__(self) -> None:
        unit_interval(self.discount, "discount")

    def visited(self, mdp: TabularMDP, policy: ArrayLike) -> BoolArray:
        """States that an episode meets with positive probability.

        Parameters
        ----------
        mdp : TabularMDP
            The decision process.
        policy : array_like of float, shape (S, K)
            Action probabilities.

        Returns
        -------
        ndarray of bool, shape (S,)

        Raises
        ------
        ValueError
            If the policy or ``start`` is invalid.
        """
        return mdp.chain(policy).reachable(mdp.start_distribution(self.start) > 0)

    def distribution(self, mdp: TabularMDP, policy: ArrayLike) -> FloatArray:
        """State distribution of the episodes, the exit that ends each of them counted once.

        Parameters
        ----------
        mdp : TabularMDP
            The decision process.
        policy : array_like of float, shape (S, K)
            Action probabilities.

        Returns
        -------
        ndarray of float64, shape (S,)
            Sums to one. Continuous in ``discount`` up to 1.

        Raises
        ------
        ValueError
            If ``discount`` is 1 and an episode need not end under the policy; names the states.
        """
        occupancy = mdp.occupancy(policy, self.start, self.discount)
        if self.discount < 1.0:
            # The discounted occupancy lets an exit absorb the chain for ever; entered at time t it
            # holds (1 - g)(g^t + g^(t+1) + ...) = g^t where one visit is worth (1 - g) g^t.
            occupancy = np.where(mdp.terminal, (1.0 - self.discount) * occupancy, occupancy)
        share: FloatArray = occupancy / occupancy.sum()
        return share


@dataclass(frozen=True, eq=False)
class Sweep:
    """Exploring starts: a Monte-Carlo return from every decision state, and nothing but the start.

    Parameters
    ----------
    weights : array_like of float, shape (S,), optional
        Relative number of samples of each state, zero on terminal states; all decision states
        alike if omitted.
    """

    weights: ArrayLike | None = None

    def visited(self, mdp: TabularMDP, policy: ArrayLike) -> BoolArray:
        """States that a roll-out meets with positive probability, exits included.

        Parameters
        ----------
        mdp : TabularMDP
            The decision process.
        policy : array_like of float, shape (S, K)
            Action probabilities.

        Returns
        -------
        ndarray of bool, shape (S,)

        Raises
        ------
        ValueError
            If the policy or the weights are invalid.
        """
        return mdp.chain(policy).reachable(self.distribution(mdp, policy) > 0)

    def distribution(self, mdp: TabularMDP, policy: ArrayLike) -> FloatArray:
        """State distribution of the samples; the same for every policy.

        Parameters
        ----------
        mdp : TabularMDP
            The decision process.
        policy : array_like of float, shape (S, K)
            Not used.

        Returns
        -------
        ndarray of float64, shape (S,)
            Sums to one; zero on terminal states.

        Raises
        ------
        ValueError
            If the weights are negative, all zero, or positive on a terminal state.
        """
        given = ~mdp.terminal if self.weights is None else self.weights
        weights = nonnegative(float_table(given, (mdp.num_states,), "weights"), "weights")
        total = weights.sum()
        if not total > 0 or weights[mdp.terminal].any():
            raise ValueError(
                f"weights sum to {total:g}, of which {weights[mdp.terminal].sum():g} on terminal "
                f"states; give a positive weight to some decision state and 0 to terminal states"
            )
        share: FloatArray = weights / total
        return share


SamplingScheme = OnPolicy | Sweep
