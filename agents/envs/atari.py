"""Atari games as images, on the vector environment of ale-py."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from agents.envs.base import Environments, Observations, Transition

ROMS = MappingProxyType(
    {"Pong": "pong", "Breakout": "breakout", "Enduro": "enduro", "Qbert": "qbert"}
)
"""The games by the name of their ROM, which comes with ale-py."""

FRAME_SKIP = 4
MAX_NOOPS = 30
MAX_FRAMES = 108_000
"""Time limit of a game: half an hour of play, 27,000 agent steps."""


@dataclass(frozen=True)
class Convention:
    """How a game is made stochastic and what ends an episode."""

    sticky: float
    """Probability, each frame, that the emulator repeats the previous action."""
    lost_life_ends: bool
    """Whether a lost life ends the learner's episode (never in evaluation)."""


CONVENTIONS = MappingProxyType(
    {"NoFrameskip-v4": Convention(0.0, True), "v5": Convention(0.25, False)}
)
"""Mnih et al. (2015) as in Baselines, and Machado et al. (2018) but with the minimal action set,
which is also the default of Gymnasium's ``ALE/*-v5``. Both skip 4 frames and begin with up to 30
frames of no operation, one of them FIRE if the game has it. FIRE is not pressed after a lost life:
in Breakout the agent must learn to serve."""


class AtariImages(Environments):
    """An Atari game seen as four grayscale 84×84 frames, the oldest first.

    Each frame is the maximum of the last two of the four skipped. After a restart three of the
    four are black. Observations are handed on from ale-py without a copy if P = 1.

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
    threads : int
        Worker threads of ale-py for each member; the numbers do not depend on it.
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
        threads: int,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        self._envs = [
            AtariVectorEnv(
                ROMS[game],
                num_envs,
                num_threads=threads,
                max_num_frames_per_episode=max_frames,
                repeat_action_probability=convention.sticky,
                autoreset_mode="SameStep",
                frameskip=FRAME_SKIP,
                noop_max=MAX_NOOPS,
                # Not episodic_life, which restarts the whole game at a lost life.
                life_loss_info=convention.lost_life_ends and not evaluation,
                reward_clipping=False,
            )
            for _ in range(population)
        ]
        num_actions = int(self._envs[0].single_action_space.n)
        super().__init__(population, num_envs, num_actions, (4, 84, 84), np.uint8)
        self._frames = np.zeros((population, num_envs), dtype=np.int64)

    def _reset(self, seeds: list[int]) -> Observations:
        starts = [
            env.reset(seed=emulator_seeds(seed, self.num_envs))
            for env, seed in zip(self._envs, seeds, strict=True)
        ]
        self._frames = np.stack([info["episode_frame_number"] for _, info in starts])
        return _joined([observations for observations, _ in starts])

    def _step(self, actions: NDArray[np.int64]) -> Transition:
        for env, row in zip(self._envs, np.ascontiguousarray(actions), strict=True):
            env.send(row)
        parts = [env.recv() for env in self._envs]
        frames = np.stack([part[4]["episode_frame_number"] for part in parts])
        truncated = np.stack([part[3] for part in parts])
        # A lost life does not show in the count of frames, a restart does.
        game_over = truncated | (frames != self._frames + FRAME_SKIP)
        self._frames = frames
        return Transition(
            _joined([part[0] for part in parts]),
            np.stack([part[1] for part in parts]).astype(np.float64),
            np.stack([part[2] for part in parts]),
            truncated,
            _joined([part[4]["final_obs"] for part in parts]) if truncated.any() else np.empty(0),
            game_over,
        )

    def close(self) -> None:
        """Free the emulators and their threads."""
        super().close()
        self._envs = []


def emulator_seeds(seed: int, count: int) -> NDArray[np.int64]:
    """Seeds of a member's emulators, (count,), of 31 bits: ALE reads a negative one as none."""
    words = np.random.SeedSequence(seed).generate_state(count)
    return (words >> 1).astype(np.int64)


def _joined(parts: list[Observations]) -> Observations:
    return parts[0][None] if len(parts) == 1 else np.stack(parts)
