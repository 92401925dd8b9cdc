"""Exact values and occupancies against loops, closed forms and the equations they solve."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_mdps import (
    SEEDS,
    mdps,
    naive_lookahead,
    naive_optimal_value,
    naive_state_distributions,
    naive_value,
    naive_visits,
    random_policy,
)

from gridworld import TabularMDP

pytestmark = pytest.mark.theory

CLOSE = {"rtol": 1e-10, "atol": 1e-11}
EPISODIC = mdps(discounts=st.just(1.0), quitting=0.15)


def gambler(discount=1.0, rungs=9):
    """Gambler's ruin: a fair walk on 0..rungs-1, absorbed at both ends, reward -1 a step."""
    transitions = np.zeros((rungs, 1, rungs))
    for s in range(1, rungs - 1):
        transitions[s, 0, [s - 1, s + 1]] = 0.5
    transitions[0, 0, 0] = transitions[-1, 0, -1] = 1.0
    terminal = np.isin(np.arange(rungs), (0, rungs - 1))
    rewards = np.where(terminal, 0.0, -1.0)[:, None]
    return TabularMDP(transitions, rewards, terminal, np.eye(rungs)[3], discount)


@given(mdps(), SEEDS)
def test_policy_values_match_backward_induction(mdp, seed):
    policy = random_policy(mdp, seed)
    value = naive_value(mdp, policy, mdp.discount)
    np.testing.assert_allclose(mdp.policy_value(policy), value, **CLOSE)
    for s, a in itertools.product(mdp.decision_states, range(mdp.num_actions)):
        expected = naive_lookahead(mdp, value, s, a, mdp.discount)
        assert mdp.policy_action_value(policy)[s, a] == pytest.approx(expected, abs=1e-10)


@given(EPISODIC, SEEDS)
def test_undiscounted_policy_values_match_backward_induction(mdp, seed):
    policy = random_policy(mdp, seed)
    np.testing.assert_allclose(mdp.policy_value(policy), naive_value(mdp, policy, 1.0), **CLOSE)


@given(mdps(), SEEDS)
def test_bellman_equations_hold_and_terminal_rows_vanish(mdp, seed):
    policy = random_policy(mdp, seed)
    value, action_value = mdp.policy_value(policy), mdp.policy_action_value(policy)
    live = mdp.decision_states
    np.testing.assert_allclose((policy * action_value).sum(axis=1)[live], value[live], **CLOSE)
    assert not value[mdp.terminal].any()
    assert not action_value[mdp.terminal].any()
    best = mdp.optimal_action_value()
    np.testing.assert_allclose(best, mdp.backup(best.max(axis=1)), **CLOSE)
    assert not best[mdp.terminal].any()


@given(mdps())
def test_optimal_values_match_value_iteration(mdp):
    np.testing.assert_allclose(mdp.optimal_value(), naive_optimal_value(mdp), **CLOSE)


@given(EPISODIC)
def test_undiscounted_optimum_is_the_best_deterministic_policy(mdp):
    live = mdp.decision_states
    best = np.full(mdp.num_states, -np.inf)
    for choice in itertools.product(range(mdp.num_actions), repeat=len(live)):
        policy = np.zeros((mdp.num_states, mdp.num_actions))
        policy[live, choice] = 1.0
        best = np.maximum(best, mdp.policy_value(policy))
    np.testing.assert_allclose(mdp.optimal_value(), best, **CLOSE)


@given(mdps(), SEEDS)
def test_no_policy_beats_the_optimum_and_the_optimal_policy_attains_it(mdp, seed):
    best = mdp.optimal_action_value()
    assert (best >= mdp.policy_action_value(random_policy(mdp, seed)) - 1e-10).all()
    attained = mdp.policy_action_value(mdp.optimal_policy())
    np.testing.assert_allclose(attained, best, atol=1e-7)


@given(mdps(), SEEDS)
def test_discounted_occupancy_matches_its_defining_sum(mdp, seed):
    policy = random_policy(mdp, seed)
    expected = np.zeros(mdp.num_states)
    for t, now in enumerate(naive_state_distributions(mdp, policy)):
        expected += (1 - mdp.discount) * mdp.discount**t * np.array(now)
    np.testing.assert_allclose(mdp.occupancy(policy), expected, **CLOSE)


@given(EPISODIC, SEEDS)
def test_episodic_occupancy_matches_counted_visits(mdp, seed):
    policy = random_policy(mdp, seed)
    visits = naive_visits(mdp, policy)
    np.testing.assert_allclose(mdp.expected_visits(policy), visits, **CLOSE)
    np.testing.assert_allclose(mdp.occupancy(policy), visits / visits.sum(), **CLOSE)


@given(mdps(), SEEDS)
def test_discounted_occupancy_is_a_balanced_flow(mdp, seed):
    policy = random_policy(mdp, seed)
    d, chain = mdp.occupancy(policy), mdp.chain(policy)
    assert d.sum() == pytest.approx(1.0, abs=1e-12)
    assert (d >= 0).all()
    inflow = (1 - mdp.discount) * mdp.start + mdp.discount * d @ chain.transitions
    np.testing.assert_allclose(d, inflow, **CLOSE)


@given(EPISODIC, SEEDS)
def test_every_episode_ends_once(mdp, seed):
    policy = random_policy(mdp, seed)
    visits, chain = mdp.expected_visits(policy), mdp.chain(policy)
    assert visits[mdp.terminal].sum() == pytest.approx(1.0, abs=1e-10)
    live = np.where(mdp.terminal, 0.0, visits)
    np.testing.assert_allclose(visits, mdp.start + live @ chain.transitions, **CLOSE)
    assert mdp.occupancy(policy).sum() == pytest.approx(1.0, abs=1e-12)


@given(mdps(), SEEDS)
def test_performance_identity(mdp, seed):
    """Mean return = rewards weighted by occupancy (Puterman 1994, theorem 6.9.1)."""
    policy = random_policy(mdp, seed)
    earned = mdp.occupancy(policy) @ mdp.chain(policy).rewards / (1 - mdp.discount)
    assert earned == pytest.approx(mdp.start @ mdp.policy_value(policy), abs=1e-9)


@given(EPISODIC, SEEDS)
def test_undiscounted_performance_identity(mdp, seed):
    policy = random_policy(mdp, seed)
    earned = mdp.expected_visits(policy) @ mdp.chain(policy).rewards
    assert earned == pytest.approx(mdp.start @ mdp.policy_value(policy), abs=1e-9)


@given(mdps(), SEEDS, st.randoms(use_true_random=False))
def test_renaming_states_only_renames_the_answers(mdp, seed, shuffler):
    order = list(range(mdp.num_states))
    shuffler.shuffle(order)
    policy = random_policy(mdp, seed)
    renamed = TabularMDP(
        mdp.transitions[order][:, :, order],
        mdp.rewards[order],
        mdp.terminal[order],
        mdp.start[order],
        mdp.discount,
    )
    for answer in ("policy_value", "policy_action_value", "occupancy"):
        np.testing.assert_allclose(
            getattr(renamed, answer)(policy[order]), getattr(mdp, answer)(policy)[order], **CLOSE
        )
    np.testing.assert_allclose(
        renamed.optimal_action_value(), mdp.optimal_action_value()[order], **CLOSE
    )


def test_gamblers_ruin_has_its_textbook_answers():
    """From rung k of n: duration k (n - k), win probability k / n (Feller, chapter XIV)."""
    mdp = gambler()
    policy = np.ones((9, 1))
    np.testing.assert_allclose(mdp.policy_value(policy), [-k * (8 - k) for k in range(9)], **CLOSE)
    visits = mdp.expected_visits(policy)
    assert visits[[0, 8]] == pytest.approx([5 / 8, 3 / 8])
    assert visits[1:8].sum() == pytest.approx(15)
    from_middle = mdp.expected_visits(policy, start=np.eye(9)[4])
    assert from_middle[[0, 8]] == pytest.approx([0.5, 0.5])


def test_occupancy_takes_a_discount_of_its_own():
    mdp = gambler(discount=0.5)
    policy = np.ones((9, 1))
    np.testing.assert_array_equal(mdp.occupancy(policy, discount=0.0), mdp.start)
    episodic = mdp.occupancy(policy, discount=1.0)
    np.testing.assert_allclose(episodic, gambler().occupancy(policy), **CLOSE)
    assert abs(mdp.occupancy(policy) - episodic).max() > 0.1


def test_ties_are_kept_as_sets():
    """Two actions of equal value, one a hair worse: the set depends on the tolerance given."""
    transitions = np.broadcast_to(np.eye(2)[1], (2, 3, 2))
    mdp = TabularMDP(transitions, [[1.0, 1.0, 1.0 - 1e-6], [0.0] * 3], [False, True], [1, 0], 0.9)
    assert mdp.optimal_actions().tolist() == [[True, True, False], [False] * 3]
    assert mdp.optimal_actions(tolerance=1e-5).tolist() == [[True, True, True], [False] * 3]
    assert mdp.optimal_policy().tolist() == [[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]


def test_undiscounted_optimum_is_taken_over_policies_that_end():
    """Waiting is free and leaving costs 1: waiting for ever is no answer to an episodic task."""
    mdp = TabularMDP(
        [[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[0, -1], [0, 0]], [False, True], [1, 0], 1.0
    )
    assert mdp.optimal_value().tolist() == [-1.0, 0.0]


def test_states_out_of_reach_have_exactly_zero_occupancy():
    policy = np.ones((9, 1))
    mdp = gambler(discount=0.9)
    corner = TabularMDP(
        np.eye(9)[[0, 0, 1, 2, 3, 4, 5, 6, 8]][:, None, :],
        mdp.rewards,
        mdp.terminal,
        np.eye(9)[3],
        0.9,
    )
    for discount in (0.9, 1.0):
        assert (corner.occupancy(policy, discount=discount)[4:] == 0.0).all()


def test_float32_policies_are_normalised():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(9, 1)).astype(np.float32)
    policy = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)) * np.float32(1 + 3e-7)
    assert gambler().checked_policy(policy).sum(axis=1) == pytest.approx(1.0, abs=1e-15)


def test_tables_are_private_copies():
    rewards = np.array([[2.0], [0.0]])
    mdp = TabularMDP([[[0, 1]], [[0, 1]]], rewards, [False, True], [1, 0], 0.9)
    rewards[0, 0] = 7.0
    assert mdp.optimal_value()[0] == 2.0
    for table in (mdp.rewards, mdp.transitions, mdp.start, mdp.terminal, mdp.successors):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0
    mdp.optimal_action_value()[0, 0] = 7.0
    assert mdp.optimal_value()[0] == 2.0
    assert mdp.state_names == ("s0", "s1")
    assert mdp.action_names == ("a0",)
    assert mdp.successors.tolist() == [[1], [1]]
