"""From a configuration to environments."""

from collections.abc import Iterator
from contextlib import contextmanager

from gymnasium.error import DependencyNotInstalled

from agents.config import ATARI, EnvConfig
from agents.envs.base import Environments
from agents.envs.cartpole import CartPole
from agents.envs.cliff import IdealCliffWalking


def make_environments(
    config: EnvConfig,
    population: int,
    num_envs: int,
    *,
    evaluation: bool = False,
    threads: int = 1,
) -> Environments:
    """Make E environments for each of P members.

    Parameters
    ----------
    config : EnvConfig
        Which environment, and what is observed of it.
    population, num_envs : int
        P and E, both at least 1.
    evaluation : bool, optional
        Whether only the end of a whole game ends an episode (Atari).
    threads : int, optional
        Worker threads for each member (Atari images only).

    Returns
    -------
    Environments

    Raises
    ------
    ImportError
        If the packages of an optional group are missing; names the group.
    ValueError
        If ``population``, ``num_envs`` or ``threads`` is below 1.
    """
    if min(population, num_envs, threads) < 1:
        raise ValueError(
            f"population is {population}, num_envs {num_envs} and threads {threads}; "
            f"give at least 1 of each"
        )
    if config.id in ATARI:
        with _optional_group(config.id, "atari"):
            from agents.envs.atari import CONVENTIONS, AtariImages
            from agents.envs.atari_ram import AtariRam
        convention = CONVENTIONS[config.convention]
        if config.observations == "ram":
            return AtariRam(
                config.id, population, num_envs, convention=convention, evaluation=evaluation
            )
        return AtariImages(
            config.id,
            population,
            num_envs,
            convention=convention,
            evaluation=evaluation,
            threads=threads,
        )
    if config.id == "CarRacing-v3":
        with _optional_group(config.id, "box2d"):
            from agents.envs.car_racing import CarRacing
        return CarRacing(population, num_envs)
    if config.id == "IdealCliffWalking-v0":
        return IdealCliffWalking(population, num_envs)
    if config.id == "CartPole-v1":
        return CartPole(population, num_envs)
    raise NotImplementedError(f"{config.id} is configured but not implemented")


@contextmanager
def _optional_group(env: str, group: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, DependencyNotInstalled) as error:
        raise ImportError(
            f"{env} needs more packages ({error}); run pip install 'action-collapse[{group}]'"
        ) from error
