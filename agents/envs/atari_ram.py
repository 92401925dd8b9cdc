"""Atari games as the console's 128 bytes of memory, on the emulator itself."""

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from numpy.typing import NDArray

from agents.envs.atari import (
    FRAME_SKIP,
    MAX_FRAMES,
    MAX_NOOPS,
    ROMS,
    Convention,
    emulator_seeds,
)
from agents.envs.base import Environments, Observations, Transition

RAM_BYTES = 128


class AtariRam(Environments):
    """An Atari game seen as its RAM.

    ale-py's vector environment offers images only, so emulators are stepped one after the other,
    under the conventions of `AtariImages`. Emulation is nearly all of the cost: 1.1 to 1.6 times
    the speed of images on one core.

    Parameters
    ----------
    game : str
        A key of `ROMS`.
    population, num_envs : int
        P and E.
    convention : Convention
        Stickiness and lost lives.
    evaluation : bool
        Whether only the end of the game ends an episode.
    max_frames : int, optional
        Time limit, counted from the first observation.
    """

    def __init__(
        self,
        game: str,
        population: int,
        num_envs: int,
        *,
        convention: Convention,
        evaluation: bool,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        ends = convention.lost_life_ends and not evaluation
        self._emulators = [
            [_Emulator(game, convention.sticky, ends, max_frames) for _ in range(num_envs)]
            for _ in range(population)
        ]
        num_actions = self._emulators[0][0].count_actions()
        super().__init__(population, num_envs, num_actions, (RAM_BYTES,), np.uint8)

    def _reset(self, seeds: list[int]) -> Observations:
        observations = np.empty((self.population, self.num_envs, RAM_BYTES), dtype=np.uint8)
        for p, seed in enumerate(seeds):
            own = emulator_seeds(seed, self.num_envs).tolist()
            for e, emulator in enumerate(self._emulators[p]):
                emulator.seed(own[e])
                emulator.restart(observations[p, e])
        return observations

    def _step(self, actions: NDArray[np.int64]) -> Transition:
        shape = actions.shape
        observations = np.empty((*shape, RAM_BYTES), dtype=np.uint8)
        rewards = np.zeros(shape)
        terminated, truncated, game_over = np.zeros((3, *shape), dtype=np.bool_)
        final = observations
        for p, row in enumerate(actions.tolist()):
            for e, action in enumerate(row):
                emulator = self._emulators[p][e]
                rewards[p, e], terminated[p, e], over = emulator.step(action, observations[p, e])
                if over:
                    game_over[p, e] = True
                    truncated[p, e] = not terminated[p, e]
                    if final is observations:
                        final = np.zeros_like(observations)
                    final[p, e] = observations[p, e]
                    emulator.restart(observations[p, e])
        return Transition(observations, rewards, terminated, truncated, final, game_over)

    def close(self) -> None:
        """Free the emulators."""
        super().close()
        self._emulators = []


class _Emulator:
    """One console."""

    def __init__(self, game: str, sticky: float, lost_life_ends: bool, max_frames: int) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self._ale = ALEInterface()
        self._ale.setFloat("repeat_action_probability", sticky)
        rom = roms.get_rom_path(ROMS[game])
        assert rom is not None  # it comes with the wheel
        self._rom = rom
        self._actions: list[Action] = []
        self._lost_life_ends = lost_life_ends
        self._max_frames = max_frames
        self._rng = np.random.default_rng()
        self._frames = 0

    def count_actions(self) -> int:
        """Number of actions of the game."""
        self._load()
        return len(self._actions)

    def seed(self, seed: int) -> None:
        """Seed the noops and the emulator."""
        self._rng = np.random.default_rng(seed)
        self._ale.setInt("random_seed", seed)
        self._load()

    def _load(self) -> None:
        """Load the game: it takes 0.1 s, but it is when the emulator reads its seed."""
        self._ale.loadROM(self._rom)
        self._actions = self._ale.getMinimalActionSet()

    def restart(self, ram: NDArray[np.uint8]) -> None:
        """Begin a game and write its first observation to ``ram``."""
        ale = self._ale
        ale.reset_game()
        noops = int(self._rng.integers(MAX_NOOPS))
        if Action.FIRE in self._actions:
            ale.act(Action.FIRE)
            noops -= 1
        for _ in range(noops):
            ale.act(Action.NOOP)
        self._frames = 0
        ale.getRAM(ram)

    def step(self, action: int, ram: NDArray[np.uint8]) -> tuple[int, bool, bool]:
        """Skip frames and write the observation to ``ram``; reward, terminated, game over."""
        ale = self._ale
        lives = ale.lives()
        reward = 0
        for _ in range(FRAME_SKIP):
            reward += ale.act(self._actions[action])
            self._frames += 1
            won_or_lost = ale.game_over(with_truncation=False)
            if won_or_lost or self._frames >= self._max_frames:
                break
        ale.getRAM(ram)
        terminated = won_or_lost or (self._lost_life_ends and ale.lives() < lives)
        return reward, terminated, won_or_lost or self._frames >= self._max_frames
