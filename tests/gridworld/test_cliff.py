"""Ideal Cliff Walking as the paper describes it."""

import numpy as np
import pytest

from gridworld import (
    ACTION_NAMES,
    START_DISTRIBUTIONS,
    cliff_layout,
    ideal_cliff_walking,
)

RIGHT, LEFT, UP, DOWN = range(4)


def test_the_papers_grid():
    mdp = ideal_cliff_walking()
    assert ACTION_NAMES == mdp.action_names == ("right", "left", "up", "down")
    assert (mdp.num_states, mdp.num_actions) == (12, 4)
    assert mdp.decision_states.tolist() == list(range(8))
    assert mdp.discount == 0.95
    assert (mdp.rewards[:8] == -1.0).all()
    # Drawn by hand: top row 0-3, bottom row 4-7, exits 8, 9 above and 10, 11 below the centre.
    assert mdp.successors.tolist() == [
        [1, 0, 0, 4],
        [2, 0, 8, 5],
        [3, 1, 9, 6],
        [3, 2, 3, 7],
        [5, 4, 0, 4],
        [6, 4, 1, 10],
        [7, 5, 2, 11],
        [7, 6, 3, 7],
        *[[s] * 4 for s in (8, 9, 10, 11)],
    ]


@pytest.mark.theory
@pytest.mark.parametrize("width", [4, 6, 8, 12])
@pytest.mark.parametrize(("step", "exit_", "discount"), [(-1, -1, 0.95), (0, 1, 0.95), (-1, -1, 1)])
def test_the_optimal_action_is_unique_everywhere(width, step, exit_, discount):
    mdp = ideal_cliff_walking(width, discount, step, exit_)
    layout = cliff_layout(width)
    optimal = mdp.optimal_actions()
    for s in mdp.decision_states:
        row, column = layout.coordinates[s]
        left, right = layout.centre
        centre = UP if row == 1 else DOWN
        expected = RIGHT if column < left else LEFT if column > right else centre
        assert np.flatnonzero(optimal[s]).tolist() == [expected], mdp.state_names[s]
    wing = width - 2
    assert optimal.sum(axis=0).tolist() == [wing, wing, 2, 2]


@pytest.mark.theory
def test_optimal_values_count_the_steps_to_the_exit():
    mdp = ideal_cliff_walking(width=8)
    steps = [4, 3, 2, 1, 1, 2, 3, 4]
    expected = [-(1 - 0.95**n) / 0.05 for n in steps * 2] + [0.0] * 4
    np.testing.assert_allclose(mdp.optimal_value(), expected, rtol=1e-12)


def test_the_exit_reward_is_paid_on_entry_only():
    mdp = ideal_cliff_walking(step_reward=-0.5, exit_reward=3.0)
    entering = np.isin(mdp.successors, [8, 9, 10, 11])
    assert (mdp.rewards[:8][entering[:8]] == 3.0).all()
    assert (mdp.rewards[:8][~entering[:8]] == -0.5).all()
    assert entering[:8].sum() == 4
    assert not mdp.rewards[8:].any()


@pytest.mark.parametrize(
    ("name", "cells"),
    [("uniform", range(8)), ("outer", [0, 3, 4, 7]), ("inner", [1, 2, 5, 6])],
)
def test_start_distributions(name, cells):
    expected = np.zeros(12)
    expected[list(cells)] = 1 / len(cells)
    np.testing.assert_array_equal(START_DISTRIBUTIONS[name](cliff_layout()), expected)
    np.testing.assert_array_equal(ideal_cliff_walking(start=name).start, expected)
    np.testing.assert_array_equal(ideal_cliff_walking(start=expected).start, expected)


def test_the_start_is_uniform_over_the_cells_by_default():
    assert ideal_cliff_walking().start.tolist() == [1 / 8] * 8 + [0.0] * 4


def test_the_layout_says_where_states_lie():
    layout = cliff_layout(6)
    assert layout.centre == (2, 3)
    assert dict(zip(layout.state_names, layout.coordinates.tolist(), strict=True)) == {
        **{f"top {c}": [1, c] for c in range(6)},
        **{f"bottom {c}": [2, c] for c in range(6)},
        **{f"exit above {c}": [0, c] for c in (2, 3)},
        **{f"exit below {c}": [3, c] for c in (2, 3)},
    }
    exits = [n for n, e in zip(layout.state_names, layout.exits, strict=True) if e]
    assert exits == ["exit above 2", "exit above 3", "exit below 2", "exit below 3"]


@pytest.mark.parametrize("width", [2, 5, 0, -4])
def test_widths_without_equal_wings_are_refused(width):
    with pytest.raises(ValueError, match=rf"width is {width}; give an even width >= 4"):
        ideal_cliff_walking(width)


def test_unknown_start_is_refused():
    with pytest.raises(ValueError, match=r"start is 'left'; give one of 'uniform', 'outer', 'inn"):
        ideal_cliff_walking(start="left")
    with pytest.raises(ValueError, match=r"start has shape \(3,\); give shape \(12,\)"):
        ideal_cliff_walking(start=[1, 0, 0])
    with pytest.raises(ValueError, match=r"probability 1 on terminal state 'exit above 1'"):
        ideal_cliff_walking(start=np.eye(12)[8])
