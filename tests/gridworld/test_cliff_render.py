"""The picture of the grid, in pixels and in text."""

import numpy as np
import pytest

from gridworld import CliffPicture, IdealCliffWalkingEnv, cliff_layout, ideal_cliff_walking
from gridworld.render import ARROW_COLOURS, CELL_PIXELS, EXIT_COLOUR, GROUND_COLOUR


def picture(width=4, **rewards):
    return CliffPicture(
        cliff_layout(width), ideal_cliff_walking(width, **rewards).optimal_actions()
    )


def changed_squares(before, after):
    rows, columns = np.nonzero((before != after).any(axis=2))
    return set(zip((rows // CELL_PIXELS).tolist(), (columns // CELL_PIXELS).tolist(), strict=True))


@pytest.mark.parametrize("width", [4, 6])
def test_pixels_have_the_shape_of_the_grid(width):
    pixels = picture(width).rgb(0)
    assert pixels.shape == (4 * CELL_PIXELS, width * CELL_PIXELS, 3)
    assert pixels.dtype == np.uint8


def test_a_move_changes_two_squares():
    env = IdealCliffWalkingEnv(start=np.eye(12)[0], render_mode="rgb_array")
    env.reset()
    before = env.render()
    env.step(0)
    after = env.render()
    assert changed_squares(before, after) == {(1, 0), (1, 1)}
    env.step(2)
    assert changed_squares(after, env.render()) == {(1, 1), (0, 1)}


def test_bumping_into_the_wall_changes_nothing():
    env = IdealCliffWalkingEnv(start=np.eye(12)[0], render_mode="rgb_array")
    env.reset()
    before = env.render()
    env.step(1)
    np.testing.assert_array_equal(env.render(), before)


def test_pixels_are_the_callers_to_keep():
    drawing = picture()
    first = drawing.rgb(0)
    copy = first.copy()
    drawing.rgb(1)[:] = 0
    np.testing.assert_array_equal(first, copy)
    np.testing.assert_array_equal(drawing.rgb(0), copy)


def test_exits_and_ground_are_told_apart():
    pixels = picture().rgb(0)
    middles = pixels[CELL_PIXELS // 2 :: CELL_PIXELS, CELL_PIXELS // 2 :: CELL_PIXELS]
    ground, exit_ = list(GROUND_COLOUR), list(EXIT_COLOUR)
    for row in (0, 3):
        assert middles[row].tolist() == [ground, exit_, exit_, ground]
    assert not (middles[1:3] == exit_).all(axis=2).any()


def test_arrows_point_the_optimal_way():
    """The head of an arrow lies ahead of its middle and is broader than its shaft."""
    pixels = picture().rgb(8).astype(int)
    for (row, column), action in {(1, 0): 0, (1, 3): 1, (1, 1): 2, (2, 1): 3}.items():
        tile = pixels[
            row * CELL_PIXELS : (row + 1) * CELL_PIXELS,
            column * CELL_PIXELS : (column + 1) * CELL_PIXELS,
        ]
        inked = (tile == ARROW_COLOURS[action]).all(axis=2)
        ahead = {
            0: inked[:, CELL_PIXELS // 2 :],
            1: inked[:, : CELL_PIXELS // 2],
            2: inked[: CELL_PIXELS // 2],
            3: inked[CELL_PIXELS // 2 :],
        }[action]
        assert ahead.sum() > 0.55 * inked.sum() > 0


def test_text_shows_arrows_exits_and_the_agent():
    assert picture().text(5).splitlines() == [
        "    E  E",
        " →  ↑  ↑  ←",
        " → (↓) ↓  ←",
        "    E  E",
    ]
    assert picture().text(9).splitlines()[0] == "    E (E)"


def test_text_shows_all_tied_actions():
    lines = picture(discount=1.0, step_reward=0.0, exit_reward=1.0).text(0).splitlines()
    assert lines[1] == "(→←↑↓) →←↑↓  →←↑↓  →←↑↓"


def test_the_environment_renders_text():
    env = IdealCliffWalkingEnv(start=np.eye(12)[5], render_mode="ansi")
    env.reset()
    assert env.render() == picture().text(5)
