"""What is refused, and that the message names the numbers and the remedy."""

import re

import numpy as np
import pytest

from gridworld import OnPolicy, Sweep, TabularMDP, ideal_cliff_walking

TWO_STATES = {
    "transitions": [[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]],
    "rewards": [[1.0, 2.0], [0.0, 0.0]],
    "terminal": [False, True],
    "start": [1.0, 0.0],
    "discount": 0.9,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": np.zeros((2, 2))}, "transitions has shape (2, 2); give shape (S, K, S)"),
        ({"transitions": np.zeros((2, 1, 3))}, "transitions has shape (2, 1, 3)"),
        (
            {"transitions": [[[0.5, 0.4], [0, 1]], [[0, 1], [0, 1]]]},
            "transitions[0, 0] sums to 0.9; divide by the sum",
        ),
        (
            {"transitions": [[[1.5, -0.5], [0, 1]], [[0, 1], [0, 1]]]},
            "transitions[0, 0, 1] is -0.5; give numbers >= 0",
        ),
        ({"rewards": [[1.0], [0.0]]}, "rewards has shape (2, 1); give shape (2, 2)"),
        ({"rewards": [[1.0, np.nan], [0.0, 0.0]]}, "rewards[0, 1] is nan; give finite numbers"),
        ({"terminal": [0, 1]}, "terminal has shape (2,) and dtype int64; give shape (2,) and dty"),
        ({"start": [0.5, 0.4]}, "start sums to 0.9"),
        ({"start": [0.5, 0.5]}, "start puts probability 0.5 on terminal state 's1'; start episod"),
        ({"discount": 1.1}, "discount is 1.1; give a number in [0, 1]"),
        ({"discount": np.nan}, "discount is nan"),
        ({"rewards": [[1.0, 2.0], [0.0, 3.0]]}, "has rewards [0.0, 3.0]; set transitions[1, :, 1]"),
        (
            {"transitions": [[[0.5, 0.5], [0, 1]], [[1, 0], [0, 1]]]},
            "terminal state 's1' stays put with probability 0",
        ),
        ({"state_names": ("a", "a")}, "state_names holds 2 names, 1 of them distinct; give 2"),
        ({"action_names": ("a",)}, "action_names holds 1 names, 1 of them distinct; give 2"),
    ],
)
def test_bad_tables(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TabularMDP(**(TWO_STATES | change))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([[1.0, 0.0]], "policy has shape (1, 2); give shape (2, 2)"),
        ([[0.7, 0.7], [0.5, 0.5]], "policy[0] sums to 1.4"),
        ([[1.5, -0.5], [0.5, 0.5]], "policy[0, 1] is -0.5"),
        ([[np.nan, 1.0], [0.5, 0.5]], "policy[0, 0] is nan"),
    ],
)
def test_bad_policies(policy, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TabularMDP(**TWO_STATES).policy_value(policy)


def test_random_moves_have_no_successor_table():
    with pytest.raises(ValueError, match=r"'a0' in state 's0' has 2 possible next states .* 0\.5"):
        _ = TabularMDP(**TWO_STATES).successors


def test_negative_tolerance():
    with pytest.raises(ValueError, match="tolerance is -1; give a number >= 0"):
        TabularMDP(**TWO_STATES).optimal_actions(tolerance=-1)


def test_bad_occupancy_discount():
    with pytest.raises(ValueError, match=r"discount is 2; give a number in \[0, 1\]"):
        TabularMDP(**TWO_STATES).occupancy(np.full((2, 2), 0.5), discount=2)


def always(action, mdp):
    return np.tile(np.eye(mdp.num_actions)[action], (mdp.num_states, 1))


def test_episodes_that_never_end_are_named_only_where_they_are_met():
    """Always up: the top row's centre exits, its wings bump into the wall for ever."""
    mdp = ideal_cliff_walking(discount=1.0)
    up = always(2, mdp)
    stuck = re.escape(
        "4 of 12 states from where they never end ('top 0', 'top 3', 'bottom 0', 'bottom 3')"
    )
    for ask in (mdp.policy_value, mdp.policy_action_value, mdp.occupancy, mdp.expected_visits):
        with pytest.raises(ValueError, match=stuck + ".*use a discount below 1, or a policy"):
            ask(up)
    lured = up.copy()
    lured[1] = [0, 0.5, 0.5, 0]  # left into the wing or up to the exit: no trap itself
    with pytest.raises(ValueError, match=r"reach 1 of 12 states .* \('top 0'\)"):
        mdp.occupancy(lured, np.eye(12)[1])
    from_centre = np.eye(12)[5]
    assert mdp.occupancy(up, from_centre)[[5, 1, 8]] == pytest.approx([1 / 3] * 3)
    assert mdp.occupancy(up, discount=0.9).sum() == pytest.approx(1.0)


def test_long_lists_of_states_are_cut():
    mdp = ideal_cliff_walking(width=12, discount=1.0)
    with pytest.raises(ValueError, match=r"reach 20 of 28 states .* \('top 0', .* and 14 more\)"):
        mdp.policy_value(always(2, mdp))


@pytest.mark.parametrize("chance", [1e-14, 1e-17, 1e-300])
def test_episodes_too_long_for_float64(chance):
    """Such a policy ends with probability one, but the linear system is singular in float64."""
    mdp = ideal_cliff_walking(discount=1.0)
    policy = (1 - chance) * always(2, mdp) + chance / 4
    for ask in (mdp.policy_value, mdp.occupancy):
        with pytest.raises(ValueError, match=r"last too long for float64 .*use a smaller discount"):
            ask(policy)


def test_discounts_too_close_to_one_for_float64():
    mdp = ideal_cliff_walking(discount=1 - 1e-15)
    for ask in (mdp.policy_value, mdp.occupancy):
        with pytest.raises(ValueError, match=r"about 1e\+15 steps, at most 1e\+12 are accepted"):
            ask(always(0, mdp))


def test_undiscounted_optimum_needs_a_way_out():
    rows = {"transitions": np.eye(2)[[[0, 0], [1, 1]]], "discount": 1.0}
    with pytest.raises(ValueError, match=r"no policy reaches .* 1 of 2 states \('s0'\).*a way out"):
        TabularMDP(**(TWO_STATES | rows)).optimal_value()


def test_undiscounted_optimum_refuses_a_money_machine():
    rows = {"transitions": np.eye(2)[[[0, 1], [1, 1]]], "discount": 1.0}
    with pytest.raises(ValueError, match=r"unbounded: from 1 of 2 .* \('s0'\) a cycle collects"):
        TabularMDP(**(TWO_STATES | rows)).optimal_value()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(12), "weights sum to 0, of which 0 on terminal states; give a positive weight"),
        (np.ones(12), "weights sum to 12, of which 4 on terminal states"),
        (-np.ones(12), "weights[0] is -1.0; give numbers >= 0"),
        (np.ones(3), "weights has shape (3,); give shape (12,)"),
    ],
)
def test_bad_sweep_weights(weights, message):
    mdp = ideal_cliff_walking()
    with pytest.raises(ValueError, match=re.escape(message)):
        Sweep(weights).distribution(mdp, mdp.optimal_policy())


def test_bad_sample_discount():
    with pytest.raises(ValueError, match=r"discount is -0\.1"):
        OnPolicy(discount=-0.1)
