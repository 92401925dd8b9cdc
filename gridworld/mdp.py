"""Finite Markov decision processes solved exactly: values, optimal-action sets, occupancies."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gridworld.chain import MarkovRewardProcess
from gridworld.checks import (
    POLICY_TOLERANCE,
    BoolArray,
    FloatArray,
    float_table,
    stochastic,
    unit_interval,
)
from gridworld.policy_iteration import solve_by_policy_iteration


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A finite MDP with S states, K actions and absorbing terminal states.

    All arrays are copied, checked and made read-only. A *policy* is an array of shape (S, K)
    whose rows are distributions over actions; the rows of terminal states are ignored, and
    float32 softmax outputs are accepted (rows are divided by their sum).

    Parameters
    ----------
    transitions : array_like of float, shape (S, K, S)
        ``transitions[s, a, t]``, the probability of moving from ``s`` to ``t`` under ``a``.
        Terminal states must be self-loops.
    rewards : array_like of float, shape (S, K)
        Expected immediate reward of taking ``a`` in ``s``; zero on terminal states.
    terminal : array_like of bool, shape (S,)
        The states that end an episode.
    start : array_like of float, shape (S,)
        Distribution of the first state; zero on terminal states.
    discount : float
        In [0, 1]. With 1 the process is episodic, and values exist only for policies that
        terminate.
    state_names, action_names : tuple of str, optional
        Unique names; ``s0, s1, ...`` and ``a0, a1, ...`` by default.

    Raises
    ------
    ValueError
        If a shape, a probability, the discount or a name is wrong, a terminal state is not an
        absorbing state of zero reward, or an episode may start in a terminal state.

    References
    ----------
    Puterman (1994), *Markov Decision Processes*, chapter 6; Sutton & Barto (2018),
    *Reinforcement Learning*, chapters 3 and 4.
    """

    transitions: FloatArray
    rewards: FloatArray
    terminal: BoolArray
    start: FloatArray
    discount: float
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = np.shape(self.transitions)
        if len(shape) != 3 or shape[0] != shape[2] or 0 in shape:
            raise ValueError(f"transitions has shape {shape}; give shape (S, K, S) with S, K >= 1")
        states, actions, _ = shape
        terminal = np.array(self.terminal)
        if terminal.shape != (states,) or terminal.dtype != np.bool_:
            raise ValueError(
                f"terminal has shape {terminal.shape} and dtype {terminal.dtype}; "
                f"give shape ({states},) and dtype bool"
            )
        terminal.setflags(write=False)
        checked = {
            "transitions": stochastic(
                float_table(self.transitions, shape, "transitions"), "transitions"
            ),
            "rewards": float_table(self.rewards, (states, actions), "rewards"),
            "terminal": terminal,
            "discount": unit_interval(self.discount, "discount"),
            "state_names": _names(self.state_names, states, "s"),
            "action_names": _names(self.action_names, actions, "a"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "start", self.start_distribution(self.start))
        self._check_absorbing()

    def _check_absorbing(self) -> None:
        for s in np.flatnonzero(self.terminal):
            stays = self.transitions[s, :, s].min()
            if stays != 1.0 or self.rewards[s].any():
                raise ValueError(
                    f"terminal state {self.state_names[s]!r} stays put with probability {stays:g} "
                    f"and has rewards {self.rewards[s].tolist()}; set transitions[{s}, :, {s}] = 1 "
                    f"and rewards[{s}] = 0, and pay a reward for ending on the step that enters it"
                )

    @property
    def num_states(self) -> int:
        """Number of states S, terminal ones included."""
        return len(self.terminal)

    @property
    def num_actions(self) -> int:
        """Number of actions K."""
        return int(self.rewards.shape[1])

    @cached_property
    def decision_states(self) -> NDArray[np.int64]:
        """Indices of the non-terminal states, ascending; int64, shape (S - number of terminal,)."""
        states = np.flatnonzero(~self.terminal).astype(np.int64)
        states.setflags(write=False)
        return states

    @cached_property
    def successors(self) -> NDArray[np.int64]:
        """Next-state table ``successors[s, a]`` of a deterministic MDP; int64, shape (S, K).

        Raises
        ------
        ValueError
            If some transition is random; names one.
        """
        certainty = self.transitions.max(axis=2)
        random = (self.transitions > 0).sum(axis=2) > 1
        if random.any():
            s, a = (int(i) for i in np.argwhere(random)[0])
            raise ValueError(
                f"action {self.action_names[a]!r} in state {self.state_names[s]!r} has "
                f"{int((self.transitions[s, a] > 0).sum())} possible next states (the likeliest "
                f"with probability {certainty[s, a]:g}); sample from transitions[s, a] instead"
            )
        table: NDArray[np.int64] = self.transitions.argmax(axis=2).astype(np.int64)
        table.setflags(write=False)
        return table

    def start_distribution(self, start: ArrayLike | None = None) -> FloatArray:
        """Check a distribution of the first state.

        Parameters
        ----------
        start : array_like of float, shape (S,), optional
            The MDP's own ``start`` if omitted.

        Returns
        -------
        ndarray of float64, shape (S,)
            Read-only.

        Raises
        ------
        ValueError
            If it is not a distribution over decision states.
        """
        if start is None:
            return self.start
        checked = stochastic(float_table(start, (self.num_states,), "start"), "start")
        on_terminal = np.flatnonzero((checked > 0) & self.terminal)
        if len(on_terminal):
            s = int(on_terminal[0])
            raise ValueError(
                f"start puts probability {checked[s]:g} on terminal state "
                f"{self.state_names[s]!r}; start episodes in decision states only"
            )
        return checked

    def checked_policy(self, policy: ArrayLike) -> FloatArray:
        """Check a policy on the decision states.

        Parameters
        ----------
        policy : array_like of float, shape (S, K)
            Rows of terminal states may hold anything, NaN included.

        Returns
        -------
        ndarray of float64, shape (S, K)
            Rows sum to one to rounding; those of terminal states are uniform.

        Raises
        ------
        ValueError
            If the shape is wrong, or the row of a decision state has a negative or non-finite
            entry or does not sum to one within 1e-5.
        """
        rows = np.array(policy, dtype=np.float64)
        if rows.shape != self.rewards.shape:
            raise ValueError(f"policy has shape {rows.shape}; give shape {self.rewards.shape}")
        rows[self.terminal] = 1.0 / self.num_actions
        table = stochastic(float_table(rows, rows.shape, "policy"), "policy", POLICY_TOLERANCE)
        normalised: FloatArray = table / table.sum(axis=1, keepdims=True)
        return normalised

    def chain(self, policy: ArrayLike) -> MarkovRewardProcess:
        """Markov reward process that a policy induces.

        Parameters
        ----------
        policy : array_like of float, shape (S, K)
            Action probabilities.

        Returns
        -------
        MarkovRewardProcess
        """
        probabilities = self.checked_policy(policy)
        return MarkovRewardProcess(
            transitions=np.einsum("sk,skt->st", probabilities, self.transitions),
            rewards=(probabilities * self.rewards).sum(axis=1),
            terminal=self.terminal,
            state_names=self.state_names,
        )

    def policy_value(self, policy: ArrayLike) -> FloatArray:
        """State values V of a policy (Sutton & Barto 2018, eq. 3.14), by one linear solve.

        Parameters
        ----------
        policy : array_like of float, shape (S, K)
            Action probabilities.

        Returns
        -------
        ndarray of float64, shape (S,)
            Zero on terminal states.

        Raises
        ------
        ValueError
            If the policy is invalid, or the MDP is undiscounted and some state need not reach a
            terminal state under it.
        """
        return self.chain(policy).value(self.discount)

    def policy_action_value(self, policy: ArrayLike) -> FloatArray:
        """Return the action values ``Q = r + discount P V`` (Sutton & Barto 2018, eq. 3.13).

        Parameters
        ----------
        policy : array_like of float, shape (S, K)
            Action probabilities.

        Returns
        -------
        ndarray of float64, shape (S, K)
            Zero rows on terminal states.

        Raises
        ------
        ValueError
            As `policy_value`.
        """
        return self.backup(self.policy_value(policy))

    def backup(self, value: FloatArray) -> FloatArray:
        """One-step look-ahead ``r + discount P value`` (Sutton & Barto 2018, eq. 4.6).

        Parameters
        ----------
        value : ndarray of float64, shape (S,)
            Value of each next state.

        Returns
        -------
        ndarray of float64, shape (S, K)
        """
        return self.rewards + self.discount * self.transitions @ value

    def optimal_value(self) -> FloatArray:
        """Optimal state values V* (Sutton & Barto 2018, eq. 3.18), by policy iteration.

        Returns
        -------
        ndarray of float64, shape (S,)
            Zero on terminal states. Without discount, optimal among the policies that terminate
            from every state.

        Raises
        ------
        ValueError
            If the MDP is undiscounted and no policy terminates from some state, or a cycle
            collects reward without end.
        """
        value: FloatArray = self._optimal_action_value.max(axis=1)
        return value

    def optimal_action_value(self) -> FloatArray:
        """Optimal action values Q* (Sutton & Barto 2018, eq. 3.20), by policy iteration.

        Returns
        -------
        ndarray of float64, shape (S, K)
            Zero rows on terminal states.

        Raises
        ------
        ValueError
            As `optimal_value`.
        """
        return self._optimal_action_value.copy()

    def optimal_actions(self, tolerance: float = 1e-9) -> BoolArray:
        """Set of optimal actions of each state, ``opt(s)`` of the paper's Definition 1.

        Parameters
        ----------
        tolerance : float, optional
            An action is optimal if ``Q*(s, a) >= max_b Q*(s, b) - tolerance``.

        Returns
        -------
        ndarray of bool, shape (S, K)
            False throughout on terminal states, where nothing is decided.

        Raises
        ------
        ValueError
            If ``tolerance`` is negative; or as `optimal_value`.
        """
        if not tolerance >= 0.0:
            raise ValueError(f"tolerance is {tolerance}; give a number >= 0")
        action_value = self._optimal_action_value
        best = action_value.max(axis=1, keepdims=True)
        chosen: BoolArray = (action_value >= best - tolerance) & ~self.terminal[:, None]
        return chosen

    def optimal_policy(self, tolerance: float = 1e-9) -> FloatArray:
        """Policy that picks uniformly among the optimal actions.

        Parameters
        ----------
        tolerance : float, optional
            As in `optimal_actions`.

        Returns
        -------
        ndarray of float64, shape (S, K)
            Uniform rows on terminal states.

        Raises
        ------
        ValueError
            As `optimal_actions`.
        """
        allowed = self.optimal_actions(tolerance) | self.terminal[:, None]
        policy: FloatArray = allowed / allowed.sum(axis=1, keepdims=True)
        return policy

    def expected_visits(self, policy: ArrayLike, start: ArrayLike | None = None) -> FloatArray:
        """Count the expected visits to each state in one episode, without discount.

        Parameters
        ----------
        policy : array_like of float, shape (S, K)
            Action probabilities.
        start : array_like of float, shape (S,), optional
            Distribution of the first state; the MDP's own if omitted.

        Returns
        -------
        ndarray of float64, shape (S,)
            A terminal state counts once, when it is entered. The sum over decision states is the
            mean episode length in steps.

        Raises
        ------
        ValueError
            If an episode need not end under the policy; names the states.
        """
        return self.chain(policy).expected_visits(self.start_distribution(start))

    def occupancy(
        self, policy: ArrayLike, start: ArrayLike | None = None, discount: float | None = None
    ) -> FloatArray:
        """State distribution d of a policy.

        Below 1, ``d(s) = (1 - discount) sum_t discount^t P(S_t = s)`` with terminal states
        absorbing (Sutton et al. 1999; Puterman 1994, section 6.9). At 1, the share of visits in
        complete episodes, each terminal state visited once (Sutton & Barto 2018, section 9.2).
        The paper's limit of ``P(S_t = s)`` would put all mass on the exits of an episodic task.

        Parameters
        ----------
        policy : array_like of float, shape (S, K)
            Action probabilities.
        start : array_like of float, shape (S,), optional
            Distribution of the first state; the MDP's own if omitted.
        discount : float, optional
            In [0, 1]; the MDP's own if omitted.

        Returns
        -------
        ndarray of float64, shape (S,)
            Sums to one.

        Raises
        ------
        ValueError
            If ``discount`` is 1 and an episode need not end under the policy; names the states.
        """
        rate = unit_interval(self.discount if discount is None else discount, "discount")
        if rate < 1.0:
            return self.chain(policy).discounted_occupancy(self.start_distribution(start), rate)
        visits = self.expected_visits(policy, start)
        share: FloatArray = visits / visits.sum()
        return share

    @cached_property
    def _optimal_action_value(self) -> FloatArray:
        action_value = solve_by_policy_iteration(self)
        action_value.setflags(write=False)
        return action_value


def _names(given: tuple[str, ...], count: int, prefix: str) -> tuple[str, ...]:
    names = tuple(given) or tuple(f"{prefix}{i}" for i in range(count))
    if len(names) != count or len(set(names)) != count:
        kind = {"s": "state_names", "a": "action_names"}[prefix]
        raise ValueError(
            f"{kind} holds {len(names)} names, {len(set(names))} of them distinct; "
            f"give {count} distinct names or none"
        )
    return names
