"""Environments against stock ones driven naively, and the traps: ends, lives, limits, seeds."""

import sys
from typing import Any

import ale_py.env
import cv2
import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from agents.config import ATARI, OBSERVATIONS, EnvConfig
from agents.envs import Environments, Step, atari, atari_ram, make_environments
from agents.envs import car_racing as racing

EVERY = [EnvConfig(env, seen) for env, kinds in OBSERVATIONS.items() for seen in kinds]
ONE_OF_EACH_KIND = [
    EnvConfig("CartPole-v1"),
    EnvConfig("IdealCliffWalking-v0"),
    EnvConfig("Breakout", "image", "v5"),
    EnvConfig("Breakout", "ram", "v5"),
    EnvConfig("CarRacing-v3", "image"),
]


def name(config: EnvConfig) -> str:
    return f"{config.id} {config.observations} {config.convention}"


def play(envs: Environments, seeds: list[int], actions: NDArray[np.int64]) -> list[NDArray[Any]]:
    """All that is returned, stacked over time; ``actions`` is (T, P, E)."""
    first = envs.reset(seeds)
    steps = [envs.step(now) for now in actions]
    assert all(step.final_observations is None or step.truncated.any() for step in steps)
    series = [
        np.stack([getattr(s, field) for s in steps])
        for field in Step._fields
        if field != "final_observations"
    ]
    return [first, *series]


def random_actions(envs: Environments, steps: int, seed: int = 0) -> NDArray[np.int64]:
    shape = (steps, envs.population, envs.num_envs)
    return np.random.default_rng(seed).integers(0, envs.num_actions, shape)


def assert_same(left: list[NDArray[Any]], right: list[NDArray[Any]]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("config", EVERY, ids=name)
def test_every_configured_environment_has_the_promised_interface(config: EnvConfig) -> None:
    members = (1, 1) if config.id in ATARI else (2, 3)
    envs = make_environments(config, *members)
    shape = {"image": (4, 84, 84), "ram": (128,), "state": envs.observation_shape}
    assert envs.observation_shape == shape[config.observations]
    observations = envs.reset(range(members[0]))
    step = envs.step(np.full(members, envs.num_actions - 1))
    for seen in (observations, step.observations):
        assert seen.shape == (*members, *envs.observation_shape)
        assert seen.dtype == envs.observation_dtype
        assert seen.dtype == (np.float32 if config.observations == "state" else np.uint8)
    assert step.rewards.dtype == step.returns.dtype == np.float64
    assert step.terminated.dtype == step.truncated.dtype == np.bool_
    assert step.lengths.dtype == np.int64
    assert all(part.shape == members for part in (*step[1:4], *step[5:]))
    envs.close()
    with pytest.raises(RuntimeError, match="reset"):
        envs.step(np.zeros(members, dtype=np.int64))


@pytest.mark.parametrize("config", ONE_OF_EACH_KIND, ids=name)
def test_a_member_is_a_function_of_its_own_seed_and_actions(config: EnvConfig) -> None:
    together, alone = make_environments(config, 2, 2), make_environments(config, 1, 2)
    actions = random_actions(together, 4 if config.id == "CarRacing-v3" else 40)
    first, *series = play(together, [7, 8], actions)
    again = play(alone, [8], actions[:, 1:])
    assert_same([first[1:], *(part[:, 1:] for part in series)], again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0, 0], first[0, 1]), "two environments of a member are copies"


@pytest.mark.parametrize("config", EVERY, ids=name)
def test_a_seeded_reset_forgets_what_was_played(config: EnvConfig) -> None:
    """What a resumed run rests on: its environments are new, the others' were used."""
    used, fresh = make_environments(config, 1, 2), make_environments(config, 1, 2)
    steps = 4 if config.id == "CarRacing-v3" else 40
    play(used, [7], random_actions(used, steps))
    actions = random_actions(used, steps, seed=1)
    assert_same(play(used, [8], actions), play(fresh, [8], actions))
    used.close()
    fresh.close()


@pytest.mark.parametrize(
    ("config", "stock", "steps"),
    [
        (EnvConfig("CartPole-v1"), {"id": "CartPole-v1"}, 800),
        (
            EnvConfig("IdealCliffWalking-v0"),
            {"id": "IdealCliffWalking-v0", "start": "outer", "max_episode_steps": 128},
            800,
        ),
    ],
    ids=["CartPole-v1", "IdealCliffWalking-v0"],
)
def test_members_of_one_environment_repeat_the_stock_environment(
    config: EnvConfig, stock: dict[str, Any], steps: int
) -> None:
    """Also across ends: a dead step or a second restart would shift everything after it."""
    seeds = [5, 6, 7]
    envs = make_environments(config, len(seeds), 1)
    actions = random_actions(envs, steps)
    if config.id == "IdealCliffWalking-v0":
        actions[:, 1] = 1  # to the left until the time limit, if the start is on the left
    first, observations, rewards, terminated, truncated, returns, lengths = play(
        envs, seeds, actions
    )

    def seen(observation: Any) -> Any:
        return np.eye(12)[observation] if config.id == "IdealCliffWalking-v0" else observation

    ends = 0
    for p, seed in enumerate(seeds):
        env = gymnasium.make(**stock)
        np.testing.assert_array_equal(first[p, 0], seen(env.reset(seed=seed)[0]))
        total, length = 0.0, 0
        for t in range(steps):
            observation, reward, lost, late, _ = env.step(int(actions[t, p, 0]))
            total, length = total + float(reward), length + 1
            assert rewards[t, p, 0] == reward
            assert terminated[t, p, 0] == lost
            assert truncated[t, p, 0] == (late and not lost)
            over = lost or late
            np.testing.assert_equal(returns[t, p, 0], total if over else np.nan)
            assert lengths[t, p, 0] == (length if over else 0)
            if over:
                ends += 1
                total, length = 0.0, 0
                observation, _ = env.reset()
            np.testing.assert_array_equal(observations[t, p, 0], seen(observation))
    assert ends > 10


def test_a_balanced_pole_is_cut_at_500_with_its_final_observation() -> None:
    envs = make_environments(EnvConfig("CartPole-v1"), 1, 2)
    observations = envs.reset([1])
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset()
    env.state = tuple(envs._env.state[:, 0])  # type: ignore[attr-defined]
    for t in range(1, 501):
        x, speed, angle, turn = np.moveaxis(observations, -1, 0)
        actions = (0.05 * x + 0.2 * speed + 2.0 * angle + turn > 0).astype(np.int64)
        last = env.step(int(actions[0, 0]))[0]
        step = envs.step(actions)
        observations = step.observations
        assert not step.terminated.any()
        assert step.truncated.all() == (t == 500)
        assert (step.final_observations is None) == (t < 500)
    assert step.final_observations is not None
    np.testing.assert_array_equal(step.final_observations[0, 0], last)
    np.testing.assert_array_equal(step.returns, [[500.0, 500.0]])
    np.testing.assert_array_equal(step.lengths, [[500, 500]])
    assert (np.abs(observations) <= 0.05).all(), "not that of a new episode"
    after = envs.step(np.zeros((1, 2), dtype=np.int64))
    np.testing.assert_array_equal(after.rewards, 1.0)
    assert (after.observations != observations).all()


def test_a_walk_that_goes_nowhere_is_cut_at_128_with_its_final_observation() -> None:
    envs = make_environments(EnvConfig("IdealCliffWalking-v0"), 1, 64)
    left = envs.reset([0])[0, :, [0, 4]].sum(axis=0) > 0
    assert 10 < left.sum() < 54
    assert set(envs.reset([0])[0].argmax(axis=-1)) == {0, 3, 4, 7}
    start = envs.reset([0])[0]
    actions = np.where(left, 1, 0)[None]  # out of the grid: nobody moves
    for t in range(1, 129):
        step = envs.step(actions)
        assert step.truncated.all() == (t == 128)
    assert not step.terminated.any()
    assert step.final_observations is not None
    np.testing.assert_array_equal(step.final_observations[0], start)
    np.testing.assert_array_equal(step.returns, -128.0)
    assert (step.observations[0] != start).any()


def newest(observation: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The last frame of a stack of images; all of RAM."""
    return observation[-1] if observation.ndim == 3 else observation


class NaiveConsole:
    """A stock game stepped frame by frame, without any of the wrappers' conventions."""

    def __init__(self, game: str) -> None:
        self.env = ale_py.env.AtariEnv(
            game=game, obs_type="grayscale", frameskip=1, repeat_action_probability=0.0
        )
        self.actions = len(self.env._action_set)

    def start(self, envs: Environments, observation: NDArray[np.uint8]) -> None:
        """Begin with FIRE and as many noops as explain the first observation.

        Images of different numbers of noops can be alike, memories cannot.
        """
        self.env.reset()
        screen = self.env.step(1)[0]  # FIRE, in every game here
        for _ in range(30):
            frames = self.env.ale.getEpisodeFrameNumber()
            alike = np.array_equal(self.look(screen, screen, observation), observation)
            if alike and (observation.ndim == 1 or frames == envs._frames.item()):  # type: ignore[attr-defined]
                return
            screen = self.env.step(0)[0]
        raise AssertionError("no number of noops up to 30 explains the first observation")

    def look(
        self, before: NDArray[Any], last: NDArray[Any], like: NDArray[Any]
    ) -> NDArray[np.uint8]:
        if like.ndim == 1:
            return self.env.ale.getRAM()
        return cv2.resize(np.maximum(before, last), (84, 84), interpolation=cv2.INTER_AREA)

    def act(self, action: int, like: NDArray[Any]) -> tuple[NDArray[np.uint8], float, int, bool]:
        frames, total = [], 0.0
        for _ in range(4):
            screen, reward, over, _, info = self.env.step(action)
            frames.append(screen)
            total += float(reward)
            if over:
                break
        if over:
            return like, total, info["lives"], True
        return self.look(frames[-2], frames[-1], like), total, info["lives"], False


@pytest.mark.parametrize(
    ("game", "seen", "steps"),
    [
        ("Breakout", "image", 320),
        ("Breakout", "ram", 320),
        ("Qbert", "image", 500),
        ("Pong", "ram", 40),
    ],
)
def test_games_equal_a_console_driven_naively(game: str, seen: Any, steps: int) -> None:
    """Observations, raw rewards, lost lives and whole-game returns, across the end of a game."""
    envs = make_environments(EnvConfig(game, seen), 1, 1)
    console = NaiveConsole(game.lower())
    assert envs.num_actions == console.actions
    previous = envs.reset([2])[0, 0]
    console.start(envs, newest(previous))
    lives, total, length, ends, largest = console.env.ale.lives(), 0.0, 0, 0, 0.0
    for action in random_actions(envs, steps).ravel():
        step = envs.step(np.full((1, 1), action))
        observation = step.observations[0, 0]
        screen, reward, left, over = console.act(int(action), newest(observation))
        total, length, largest = total + reward, length + 1, max(largest, reward)
        assert step.rewards.item() == reward
        assert step.terminated.item() == (over or left < lives)
        assert not step.truncated.item()
        np.testing.assert_equal(step.returns.item(), total if over else np.nan)
        assert step.lengths.item() == (length if over else 0)
        lives = left
        if over:
            console.start(envs, newest(observation))
            lives, total, length, ends = console.env.ale.lives(), 0.0, 0, ends + 1
        else:
            np.testing.assert_array_equal(newest(observation), screen)
        if seen == "image":
            np.testing.assert_array_equal(observation[:3], 0 if over else previous[1:])
        previous = observation
    assert ends >= (0 if game == "Pong" else 1)
    assert game != "Qbert" or largest >= 25.0, "rewards are clipped"


@pytest.mark.parametrize("seen", ["image", "ram"])
@pytest.mark.parametrize(
    ("convention", "evaluation", "ends_a_game"),
    [("NoFrameskip-v4", False, 5), ("NoFrameskip-v4", True, 1), ("v5", False, 1), ("v5", True, 1)],
)
def test_a_lost_life_ends_the_episode_but_not_the_game(
    seen: Any, convention: Any, evaluation: bool, ends_a_game: int
) -> None:
    envs = make_environments(EnvConfig("Breakout", seen, convention), 1, 1, evaluation=evaluation)
    envs.reset([0])
    rng = np.random.default_rng(0)
    ends, total, length, games = 0, 0.0, 0, 0
    while games < 2:
        step = envs.step(rng.integers(0, 4, (1, 1)))
        ends += int(step.terminated.item())
        total, length = total + step.rewards.item(), length + 1
        if np.isfinite(step.returns).item():
            assert step.terminated.item()
            assert (step.returns.item(), step.lengths.item()) == (total, length)
            assert ends == ends_a_game
            ends, total, length, games = 0, 0.0, 0, games + 1
        elif seen == "image" and length >= 4:
            assert step.observations[0, 0, 0].any(), "the game was restarted"


@pytest.mark.parametrize(
    ("convention", "stock"), [("NoFrameskip-v4", "PongNoFrameskip-v4"), ("v5", "ALE/Pong-v5")]
)
def test_emulators_are_set_as_the_stock_environments(
    convention: Any, stock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    class Recorded(atari.AtariVectorEnv):
        def __init__(self, *args: Any, **settings: Any) -> None:
            given.update(settings)
            super().__init__(*args, **settings)

    monkeypatch.setattr(atari, "AtariVectorEnv", Recorded)
    make_environments(EnvConfig("Pong", "image", convention), 1, 1, threads=2)
    sticky = {"NoFrameskip-v4": 0.0, "v5": 0.25}[convention]
    theirs = gymnasium.spec(stock).kwargs
    assert given["repeat_action_probability"] == sticky == theirs["repeat_action_probability"]
    assert given.get("full_action_space", False) is theirs["full_action_space"] is False
    assert given["reward_clipping"] is False
    assert given["num_threads"] == 2
    assert given["max_num_frames_per_episode"] == 27_000 * 4
    ram = make_environments(EnvConfig("Pong", "ram", convention), 1, 1)
    ale = ram._emulators[0][0]._ale  # type: ignore[attr-defined]
    assert ale.getFloat("repeat_action_probability") == sticky


@pytest.mark.parametrize("seen", ["image", "ram"])
@pytest.mark.parametrize(("convention", "stick"), [("NoFrameskip-v4", False), ("v5", True)])
def test_actions_stick_in_v5_only(seen: Any, convention: Any, stick: bool) -> None:
    envs = make_environments(EnvConfig("Pong", seen, convention), 1, 1)
    console = NaiveConsole("pong")
    observation = newest(envs.reset([0])[0, 0])
    console.start(envs, observation)
    alike = []
    for action in random_actions(envs, 30)[:, 0, 0]:
        observation = newest(envs.step(np.full((1, 1), action)).observations[0, 0])
        alike.append(np.array_equal(console.act(int(action), observation)[0], observation))
    assert all(alike) is not stick


@pytest.mark.parametrize("kind", [atari.AtariImages, atari_ram.AtariRam])
def test_the_time_limit_of_a_game_truncates_with_the_final_observation(kind: Any) -> None:
    settings: dict[str, Any] = {"convention": atari.CONVENTIONS["v5"], "evaluation": False}
    if kind is atari.AtariImages:
        settings["threads"] = 1
    short, long = kind("Pong", 1, 1, max_frames=40, **settings), kind("Pong", 1, 1, **settings)
    assert np.array_equal(short.reset([0]), long.reset([0]))
    actions = random_actions(short, 10)
    for t in range(10):
        step, further = short.step(actions[t]), long.step(actions[t])
        assert step.truncated.all() == (t == 9)
        assert not further.truncated.any()
    assert not step.terminated.any()
    np.testing.assert_array_equal(step.lengths, 10)
    assert step.final_observations is not None
    # At the limit ale-py leaves the loop before it takes the last frame into the maximum.
    exact = slice(None) if kind is atari_ram.AtariRam else slice(3)
    np.testing.assert_array_equal(
        step.final_observations[:, :, exact], further.observations[:, :, exact]
    )
    assert (step.observations != step.final_observations).any()
    again = [short.step(actions[t]) for t in range(10)][-1]
    assert again.truncated.all()


def stock_race(seed: int) -> Any:
    env = gymnasium.make("CarRacing-v3", continuous=False)
    return env, env.reset(seed=seed)[0]


def grey(picture: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = np.moveaxis(picture[:84, 6:90].astype(np.float64), -1, 0)
    return np.rint(0.299 * red + 0.587 * green + 0.114 * blue).astype(np.int64)


def race_alike(steps: int, actions: NDArray[np.int64]) -> Step:
    envs = make_environments(EnvConfig("CarRacing-v3", "image"), 1, 1)
    first = envs.reset([3])[0, 0]
    env, picture = stock_race(int(np.random.SeedSequence(3).generate_state(1)[0]))
    frames = [grey(picture)] * 4
    np.testing.assert_array_equal(first, frames)
    total = 0.0
    for t in range(steps):
        reward = 0.0
        for _ in range(4):
            picture, now, terminated, truncated, _ = env.step(int(actions[t]))
            reward += float(now)
            if terminated or truncated:
                break
        step = envs.step(actions[t].reshape(1, 1))
        total += reward
        assert step.rewards.item() == pytest.approx(reward, abs=1e-12)
        assert (step.terminated.item(), step.truncated.item()) == (terminated, truncated)
        frames = [*frames[1:], grey(picture)]
        if terminated or truncated:
            assert step.returns.item() == pytest.approx(total, abs=1e-9)
            assert step.lengths.item() == t + 1
            if truncated:
                assert step.final_observations is not None
                np.testing.assert_array_equal(step.final_observations[0, 0], frames)
            total, frames = 0.0, [grey(env.reset()[0])] * 4
        np.testing.assert_array_equal(step.observations[0, 0], frames)
        if terminated or truncated:
            break
    return step


def test_races_equal_the_stock_game_pixel_by_pixel() -> None:
    """Drawn only every fourth frame and only where it is seen; past the zoom of the start."""
    rng = np.random.default_rng(0)
    race_alike(25, np.where(rng.random(25) < 0.6, 3, rng.integers(0, 5, 25)))


@pytest.mark.slow
@pytest.mark.parametrize("throttle", [0.05, 0.6])
def test_whole_races_equal_the_stock_game(throttle: float) -> None:
    """One that leaves the field, one that meets the time limit."""
    rng = np.random.default_rng(1)
    actions = np.where(rng.random(250) < throttle, 3, rng.integers(0, 3, 250))
    end = race_alike(250, actions)
    assert end.terminated.item() or end.truncated.item()


def test_a_race_is_cut_at_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gymnasium.spec("CarRacing-v3").max_episode_steps == racing.TIME_LIMIT
    envs = make_environments(EnvConfig("CarRacing-v3", "image"), 1, 1)
    gas = np.full((1, 1), 3)
    envs.reset([0])
    further = [envs.step(gas) for _ in range(3)][-1]
    assert not further.truncated.item()
    monkeypatch.setattr(racing, "TIME_LIMIT", 12)
    envs.reset([0])
    for t in (1, 2, 3):
        step = envs.step(gas)
        assert step.truncated.item() == (t == 3)
        assert not step.terminated.item()
    np.testing.assert_array_equal(step.final_observations, further.observations)
    assert (step.observations[0, 0] == step.observations[0, 0, 0]).all(), "no new race"
    assert step.lengths.item() == 3


def test_leaving_the_field_ends_a_race_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = make_environments(EnvConfig("CarRacing-v3", "image"), 1, 1)
    envs.reset([0])
    monkeypatch.setattr(racing.stock, "PLAYFIELD", 100.0)  # the start lies at 225
    step = envs.step(np.zeros((1, 1), dtype=np.int64))
    assert step.terminated.item()
    assert not step.truncated.item()
    assert step.returns.item() == step.rewards.item() == -100.0
    assert (step.observations[0, 0] == step.observations[0, 0, 0]).all(), "no new race"


@pytest.mark.parametrize(
    ("config", "package", "forget", "group"),
    [
        (EnvConfig("Pong", "image"), "ale_py", "agents.envs.atari", "atari"),
        (EnvConfig("Pong", "ram"), "ale_py", "agents.envs.atari", "atari"),
        (EnvConfig("CarRacing-v3", "image"), "Box2D", "agents.envs.car_racing", "box2d"),
    ],
    ids=["image", "ram", "race"],
)
def test_a_missing_package_is_named_with_its_group(
    config: EnvConfig, package: str, forget: str, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [m for m in sys.modules if m.startswith((forget, "gymnasium.envs.box2d"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'action-collapse\[{group}\]'"):
        make_environments(config, 1, 1)


def test_wrong_numbers_are_refused() -> None:
    config = EnvConfig("CartPole-v1")
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match="at least 1 of each"):
            make_environments(config, wrong[0], wrong[1], threads=wrong[2])
    envs = make_environments(config, 2, 3)
    with pytest.raises(RuntimeError, match="reset"):
        envs.step(np.zeros((2, 3), dtype=np.int64))
    for seeds in ([0], [0, 1, 2], [0, -1]):
        with pytest.raises(ValueError, match="one for each member"):
            envs.reset(seeds)
    envs.reset([0, 1])
    with pytest.raises(ValueError, match=r"\(3, 2\); give \(2, 3\)"):
        envs.step(np.zeros((3, 2), dtype=np.int64))
    for action in (-1, 2):
        with pytest.raises(ValueError, match="from 0 to 1"):
            envs.step(np.full((2, 3), action))
