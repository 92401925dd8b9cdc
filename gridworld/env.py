"""Ideal Cliff Walking as a Gymnasium environment, on the tables of `ideal_cliff_walking`."""

from typing import Any, ClassVar

import gymnasium
from numpy.typing import ArrayLike

from gridworld.cliff import cliff_layout, ideal_cliff_walking
from gridworld.render import CliffPicture, Pixels


class IdealCliffWalkingEnv(gymnasium.Env[int, int]):  # type: ignore[misc]
    """The paper's 2x4 grid, registered as ``IdealCliffWalking-v0``.

    An observation is the index of a state, an action one of right, left, up, down. Every reward
    and move is read from `mdp`, so exact values of the tables are values of this environment.
    An episode terminates in an exit; ``gymnasium.make`` truncates it after 200 steps.

    Parameters
    ----------
    width : int, optional
        Number of columns, even and at least 4.
    discount : float, optional
        Discount of `mdp`. It changes no reward, only which actions are drawn as optimal.
    step_reward, exit_reward : float, optional
        Reward of a step, and of the step that enters an exit.
    start : str or array_like of float, shape (S,), optional
        ``"uniform"``, ``"outer"``, ``"inner"``, or a distribution over the cells.
    render_mode : str, optional
        ``"ansi"`` or ``"rgb_array"``.

    Attributes
    ----------
    mdp : TabularMDP
        The tables.
    layout : CliffLayout
        Where each state lies.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(
        self,
        width: int = 4,
        discount: float = 0.95,
        step_reward: float = -1.0,
        exit_reward: float = -1.0,
        start: str | ArrayLike = "uniform",
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}; give None, 'ansi' or 'rgb_array'")
        self.mdp = ideal_cliff_walking(width, discount, step_reward, exit_reward, start)
        self.layout = cliff_layout(width)
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Discrete(self.mdp.num_states)
        self.action_space = gymnasium.spaces.Discrete(self.mdp.num_actions)
        self._picture: CliffPicture | None = None
        self._state: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Start an episode.

        Parameters
        ----------
        seed : int, optional
            Seeds the environment's own generator.
        options : dict, optional
            Not used.

        Returns
        -------
        observation : int
            The first state.
        info : dict
            Empty.
        """
        super().reset(seed=seed)
        self._state = int(self.np_random.choice(self.mdp.num_states, p=self.mdp.start))
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Parameters
        ----------
        action : int
            0 right, 1 left, 2 up, 3 down.

        Returns
        -------
        observation : int
            The next state.
        reward : float
            ``mdp.rewards[state, action]``.
        terminated : bool
            Whether the next state is an exit.
        truncated : bool
            Always False; the time limit is a wrapper's.
        info : dict
            Empty.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If no episode is under way.
        gymnasium.error.InvalidAction
            If the action is not one of the four.
        """
        if self._state is None or self.mdp.terminal[self._state]:
            raise gymnasium.error.ResetNeeded(
                "no episode is under way: it has not begun or has ended in an exit; call reset()"
            )
        if not self.action_space.contains(action):
            raise gymnasium.error.InvalidAction(
                f"action is {action!r}; give an integer from 0 to {self.mdp.num_actions - 1}"
            )
        reward = float(self.mdp.rewards[self._state, action])
        self._state = int(self.mdp.successors[self._state, action])
        return self._state, reward, bool(self.mdp.terminal[self._state]), False, {}

    def render(self) -> Pixels | str | None:
        """Draw the grid, its optimal actions and the agent.

        Returns
        -------
        str or ndarray of uint8, shape (4 * CELL_PIXELS, width * CELL_PIXELS, 3), or None
            By ``render_mode``; None, with Gymnasium's warning, if that was not given.

        Raises
        ------
        gymnasium.error.ResetNeeded
            If no episode has begun.
        """
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() draws nothing without a render mode; "
                "make the environment with render_mode='ansi' or 'rgb_array'"
            )
            return None
        if self._state is None:
            raise gymnasium.error.ResetNeeded("there is no agent to draw yet; call reset()")
        if self._picture is None:
            self._picture = CliffPicture(self.layout, self.mdp.optimal_actions())
        if self.render_mode == "ansi":
            return self._picture.text(self._state)
        return self._picture.rgb(self._state)
