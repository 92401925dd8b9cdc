"""What a fixed policy makes of an MDP: a Markov reward process, evaluated by linear solves."""

from dataclasses import dataclass

import numpy as np

from gridworld.checks import BoolArray, FloatArray, listed

LONGEST_EPISODE = 1e12
"""Mean episode length past which a solve with ``I - P`` keeps fewer than four digits."""


@dataclass(frozen=True, eq=False)
class MarkovRewardProcess:
    """A finite Markov chain with rewards and absorbing terminal states.

    `TabularMDP.chain` builds it from checked tables; nothing is checked again here.

    Attributes
    ----------
    transitions : ndarray of float64, shape (S, S)
        ``P[s, t]``, the probability of moving from ``s`` to ``t``; terminal rows are self-loops.
    rewards : ndarray of float64, shape (S,)
        Expected reward of the step that leaves each state; zero on terminal states.
    terminal : ndarray of bool, shape (S,)
        The states that end an episode.
    state_names : tuple of str
        How error messages call the states.
    """

    transitions: FloatArray
    rewards: FloatArray
    terminal: BoolArray
    state_names: tuple[str, ...]

    def reachable(self, origin: BoolArray) -> BoolArray:
        """States met with positive probability from ``origin``, itself included.

        Parameters
        ----------
        origin : ndarray of bool, shape (S,)
            Where the chain may start.

        Returns
        -------
        ndarray of bool, shape (S,)
        """
        return _closure(self.transitions > 0, origin)

    def trapped(self) -> BoolArray:
        """States from which no terminal state can be reached.

        A finite chain ends almost surely iff it cannot reach any of these (Puterman 1994,
        appendix A).

        Returns
        -------
        ndarray of bool, shape (S,)
        """
        return ~_closure((self.transitions > 0).T, self.terminal)

    def value(self, discount: float) -> FloatArray:
        """Sum the expected discounted rewards from each state on.

        Solves the Bellman equation ``V = r + discount P V`` with ``V = 0`` on terminal states
        (Sutton & Barto 2018, eq. 3.14; Puterman 1994, theorem 6.1.1).

        Parameters
        ----------
        discount : float
            In [0, 1].

        Returns
        -------
        ndarray of float64, shape (S,)

        Raises
        ------
        ValueError
            If ``discount`` is 1 and episodes from some state need not end, or last so long that
            float64 cannot resolve them.
        """
        live = ~self.terminal
        if discount == 1.0:
            self._require_end(live)
        # The second column is the discounted episode length: finite and moderate iff the
        # system is well conditioned, because (I - discount P)^-1 is a nonnegative matrix.
        columns = np.stack([self.rewards[live], np.ones(int(live.sum()))], axis=1)
        solution = _solve(
            np.eye(len(columns)) - discount * self.transitions[np.ix_(live, live)], columns
        )
        _require_short(solution[:, 1])
        value = np.zeros(len(live))
        value[live] = solution[:, 0]
        return value

    def expected_visits(self, start: FloatArray) -> FloatArray:
        """Count the expected visits to each state in one undiscounted episode.

        Solves ``eta = start + P^T eta`` on the decision states (Sutton & Barto 2018, section 9.2,
        "the on-policy distribution in episodic tasks"); a terminal state is visited once, when it
        is entered, so its entry is the probability of ending there.

        Parameters
        ----------
        start : ndarray of float64, shape (S,)
            Distribution of the first state.

        Returns
        -------
        ndarray of float64, shape (S,)

        Raises
        ------
        ValueError
            If an episode from ``start`` need not end, or lasts so long on average that float64
            cannot resolve it.
        """
        reached = self.reachable(start > 0)
        self._require_end(reached)
        live = reached & ~self.terminal
        step = self.transitions[live]
        solution = _solve(np.eye(int(live.sum())) - step[:, live].T, start[live])
        _require_short(solution)
        visits = np.where(self.terminal, start, 0.0)
        # True visits are nonnegative; the solve may leave a rounding error below zero.
        visits[live] = np.maximum(solution, 0.0)
        visits[self.terminal] += visits[live] @ step[:, self.terminal]
        return visits

    def discounted_occupancy(self, start: FloatArray, discount: float) -> FloatArray:
        """Normalised discounted occupancy ``(1 - g) sum_t g^t P(S_t = s)`` for ``g < 1``.

        Terminal states keep the chain, so the entries sum to one (Puterman 1994, section 6.9;
        the state weighting of Sutton et al. 1999, theorem 1, up to the factor ``1 - g``).

        Parameters
        ----------
        start : ndarray of float64, shape (S,)
            Distribution of the first state.
        discount : float
            In [0, 1).

        Returns
        -------
        ndarray of float64, shape (S,)

        Raises
        ------
        ValueError
            If ``discount`` is so close to 1 that float64 cannot resolve the sum.
        """
        _require_short(np.array([1.0 / (1.0 - discount)]))
        reached = self.reachable(start > 0)
        matrix = np.eye(int(reached.sum())) - discount * self.transitions[np.ix_(reached, reached)]
        occupancy = np.zeros(len(start))
        solution = _solve(matrix.T, (1.0 - discount) * start[reached])
        occupancy[reached] = np.maximum(solution, 0.0)
        return occupancy

    def _require_end(self, origin: BoolArray) -> None:
        stuck = self.trapped() & self.reachable(origin)
        if stuck.any():
            names = [self.state_names[s] for s in np.flatnonzero(stuck)]
            raise ValueError(
                f"episodes can reach {len(names)} of {len(stuck)} states from where they never "
                f"end ({listed(names)}), so undiscounted sums diverge; use a discount below 1, or "
                f"a policy that can reach a terminal state from every state it visits"
            )


def _closure(edges: BoolArray, origin: BoolArray) -> BoolArray:
    """Nodes that a path of ``edges[from, to]`` leads to from ``origin``, itself included."""
    found = origin.copy()
    while True:
        grown = found | edges[found].any(axis=0)
        if (grown == found).all():
            return found
        found = grown


def _require_short(counts: FloatArray) -> None:
    """Refuse counts of steps or visits whose size, of either sign, betrays a singular system."""
    largest = float(np.abs(counts).max(initial=0.0))
    if not largest <= LONGEST_EPISODE:
        raise ValueError(
            f"episodes last too long for float64 (about {largest:.1g} steps, at most "
            f"{LONGEST_EPISODE:.0e} are accepted); use a smaller discount, or a policy that "
            f"reaches a terminal state with a larger probability"
        )


def _solve(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """``numpy.linalg.solve``, with inf for a singular matrix, which `_require_short` refuses."""
    try:
        return np.asarray(np.linalg.solve(matrix, right))
    except np.linalg.LinAlgError:
        return np.full(right.shape, np.inf)
