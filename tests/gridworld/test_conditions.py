"""Conditions 1 to 3: which schemes have them, under which policies, and by how much."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_mdps import SEEDS, mdps, naive_visits, random_policy

from gridworld import (
    OnPolicy,
    Sweep,
    TabularMDP,
    check_conditions,
    cliff_layout,
    ideal_cliff_walking,
    inner_start,
    outer_start,
    uniform_start,
)

WIDTHS = (4, 6, 12)


def uniform_policy(mdp):
    return np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)


@pytest.mark.theory
@given(mdps(discounts=st.just(0.9)), SEEDS)
def test_the_sweep_is_uniform_under_any_policy(mdp, seed):
    report = check_conditions(mdp, random_policy(mdp, seed), Sweep())
    condition = report.condition_3
    live = len(mdp.decision_states)
    np.testing.assert_allclose(condition.distribution[mdp.decision_states], 1 / live, rtol=1e-14)
    assert condition.ratio == 1.0
    assert condition.holds(tolerance=0.0)
    assert not condition.distribution[mdp.terminal].any()
    assert math.isnan(condition.ratio_all_states)
    assert condition.reason == "the sweep never samples an exit"


@pytest.mark.theory
@given(SEEDS, SEEDS)
def test_weights_alone_set_the_samples_of_a_sweep(policy_seed, weight_seed):
    mdp = ideal_cliff_walking()
    weights = np.where(mdp.terminal, 0.0, np.random.default_rng(weight_seed).random(12))
    report = check_conditions(mdp, random_policy(mdp, policy_seed), Sweep(weights))
    shares = report.condition_3.distribution
    np.testing.assert_allclose(shares, weights / weights.sum(), rtol=1e-12)
    live = weights[:8]
    assert report.condition_3.ratio == pytest.approx(live.max() / live.min())


@pytest.mark.theory
def test_uniform_starts_visit_the_centre_twice_as_often_under_the_optimal_policy():
    mdp = ideal_cliff_walking()
    starts = OnPolicy(uniform_start(cliff_layout()))
    condition = check_conditions(mdp, mdp.optimal_policy(), starts).condition_3
    wings, centre = [0, 3, 4, 7], [1, 2, 5, 6]
    assert condition.distribution[wings] == pytest.approx([1 / 12] * 4)
    assert condition.distribution[centre] == pytest.approx([1 / 6] * 4)
    assert condition.ratio == pytest.approx(2.0, abs=1e-12)
    assert not condition.holds()
    assert condition.holds(tolerance=1.0 + 1e-9)


@pytest.mark.theory
@pytest.mark.parametrize("width", WIDTHS)
def test_outer_starts_visit_all_states_alike_under_the_optimal_policy(width):
    mdp = ideal_cliff_walking(width, start="outer")
    everywhere = mdp.occupancy(mdp.optimal_policy(), discount=1.0)
    np.testing.assert_allclose(everywhere, 1 / mdp.num_states, rtol=1e-12)
    condition = check_conditions(mdp, mdp.optimal_policy(), OnPolicy()).condition_3
    assert condition.ratio == pytest.approx(1.0, abs=1e-12)
    assert condition.ratio_all_states == pytest.approx(1.0, abs=1e-12)
    assert condition.holds()


@pytest.mark.theory
@pytest.mark.parametrize("width", WIDTHS)
def test_inner_starts_visit_all_cells_alike_under_the_random_policy(width):
    """Each cell is met once an episode, each exit a quarter of the time: uniform on cells only."""
    mdp = ideal_cliff_walking(width, start=inner_start(cliff_layout(width)))
    visits = mdp.expected_visits(uniform_policy(mdp))
    np.testing.assert_allclose(visits, np.where(mdp.terminal, 0.25, 1.0), rtol=1e-10)
    condition = check_conditions(mdp, uniform_policy(mdp), OnPolicy()).condition_3
    assert condition.ratio == pytest.approx(1.0, abs=1e-10)
    assert condition.ratio_all_states == pytest.approx(4.0, abs=1e-10)


@pytest.mark.theory
def test_condition_3_for_any_policy_is_false_on_policy():
    """Each start that is uniform under one of the two policies fails under the other."""
    mdp, layout = ideal_cliff_walking(), cliff_layout()
    ratios = {
        (start.__name__, name): check_conditions(
            mdp, policy, OnPolicy(start(layout))
        ).condition_3.ratio
        for start in (uniform_start, outer_start, inner_start)
        for name, policy in (("random", uniform_policy(mdp)), ("best", mdp.optimal_policy()))
    }
    assert ratios == pytest.approx(
        {
            ("uniform_start", "random"): 1.5,
            ("uniform_start", "best"): 2.0,
            ("outer_start", "random"): 2.0,
            ("outer_start", "best"): 1.0,
            ("inner_start", "random"): 1.0,
            ("inner_start", "best"): math.inf,
        }
    )


@pytest.mark.theory
@given(mdps(discounts=st.just(0.9), quitting=0.15), SEEDS, st.floats(0.0, 1.0))
def test_on_policy_samples_match_counted_visits(mdp, seed, discount):
    policy = random_policy(mdp, seed)
    visits = naive_visits(mdp, policy, discount)
    shares = OnPolicy(discount=discount).distribution(mdp, policy)
    np.testing.assert_allclose(shares, visits / visits.sum(), rtol=1e-9, atol=1e-11)


@pytest.mark.theory
def test_discounted_samples_tend_to_the_undiscounted_ones():
    mdp = ideal_cliff_walking(start="outer")
    policy = uniform_policy(mdp)
    near = OnPolicy(discount=1 - 1e-8).distribution(mdp, policy)
    np.testing.assert_allclose(near, OnPolicy().distribution(mdp, policy), atol=1e-6)


@pytest.mark.theory
@pytest.mark.parametrize(("width", "ratio"), [(4, 1.0), (6, 2.0), (12, 5.0)])
def test_wider_grids_unbalance_the_classes(width, ratio):
    mdp = ideal_cliff_walking(width)
    condition = check_conditions(mdp, uniform_policy(mdp), Sweep()).condition_2
    assert condition.sizes == (width - 2, width - 2, 2, 2)
    assert (condition.ties, condition.ratio) == (0, ratio)
    assert condition.holds() is (width == 4)
    assert condition.holds(tolerance=ratio - 1)


def test_unvisited_states_are_counted_and_named():
    mdp = ideal_cliff_walking()
    report = check_conditions(mdp, mdp.optimal_policy(), OnPolicy(inner_start(cliff_layout())))
    wings = ("top 0", "top 3", "bottom 0", "bottom 3")
    condition = report.condition_1
    assert (condition.visited, condition.total) == (8, 12)
    assert condition.unvisited == condition.unsampled == wings
    assert not condition.holds()
    assert condition.holds(tolerance=1 / 3 + 1e-12)
    assert report.condition_2.sizes == (0, 0, 2, 2)
    assert report.condition_2.ratio == math.inf
    assert report.condition_3.ratio == math.inf


def test_a_sweep_may_pass_through_states_it_never_trains_on():
    mdp = ideal_cliff_walking()
    weights = np.where(mdp.terminal, 0.0, 1.0)
    weights[1] = 0.0  # top 1, between top 0 and its exit
    report = check_conditions(mdp, mdp.optimal_policy(), Sweep(weights))
    assert report.condition_1.visited == 12
    assert report.condition_1.holds()
    assert report.condition_1.unsampled == ("top 1",)
    assert report.condition_2.sizes == (2, 2, 1, 2)
    assert report.condition_2.ratio == 2.0
    assert report.condition_3.ratio == math.inf


def test_ties_belong_to_no_class():
    """Without discount or step cost every action is optimal as long as an exit is reached."""
    mdp = ideal_cliff_walking(discount=1.0, step_reward=0.0, exit_reward=1.0)
    condition = check_conditions(mdp, uniform_policy(mdp), Sweep()).condition_2
    assert condition.sizes == (0, 0, 0, 0)
    assert condition.ties == 8
    assert math.isnan(condition.ratio)
    assert condition.reason == "no sampled state has a unique optimal action"
    assert not condition.holds(tolerance=100.0)


def test_the_tie_tolerance_is_passed_on():
    mdp = ideal_cliff_walking()
    report = check_conditions(mdp, uniform_policy(mdp), Sweep(), tie_tolerance=10.0)
    assert report.condition_2.ties == 8


def test_a_balanced_grid_with_one_tie_does_not_hold():
    """Six states, two classes of two, and one state that likes both actions."""
    transitions = np.broadcast_to(np.eye(6)[5], (6, 2, 6))
    rewards = [[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [0, 0]]
    mdp = TabularMDP(transitions, rewards, np.arange(6) == 5, np.eye(6)[0], 0.9)
    condition = check_conditions(mdp, uniform_policy(mdp), Sweep()).condition_2
    assert (condition.sizes, condition.ties, condition.ratio) == ((2, 2), 1, 1.0)
    assert not condition.holds()


def test_endless_episodes_need_a_sample_discount():
    mdp = ideal_cliff_walking()
    up = np.tile(np.eye(4)[2], (12, 1))
    with pytest.raises(ValueError, match="4 of 12 states from where they never end"):
        check_conditions(mdp, up, OnPolicy())
    report = check_conditions(mdp, up, OnPolicy(discount=0.9))
    assert report.condition_1.unvisited == ("exit below 1", "exit below 2")


def test_the_report_reads_as_text():
    mdp = ideal_cliff_walking()
    inner = check_conditions(mdp, mdp.optimal_policy(), OnPolicy(inner_start(cliff_layout())))
    wings = "'top 0', 'top 3', 'bottom 0', 'bottom 3'"
    assert str(inner) == (
        f"Condition 1: 8 of 12 states visited; not {wings}; no samples of {wings}\n"
        "Condition 2: class sizes right 0, left 0, up 2, down 2; 0 ties; ratio inf\n"
        "Condition 3: max/min of d inf on decision states, inf on all states"
    )
    assert str(check_conditions(mdp, mdp.optimal_policy(), Sweep()).condition_3) == (
        "max/min of d 1 on decision states, "
        "undefined (the sweep never samples an exit) on all states"
    )
