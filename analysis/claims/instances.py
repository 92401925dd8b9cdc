"""Random instances that the checks share."""

import numpy as np
from numpy.typing import NDArray

import gridworld
import lpm

Float = NDArray[np.float64]

ANY_RHO = "ρ from 1e-3 to 1e4, weights from 1e-12 to 1e12, classes of any size, some empty"
THEOREM_1 = (
    "fixed positive weights, a norm bound for each state, an exact ETF head without bias, a "
    "unique optimal action, features of either sign"
)


def frame(rng: np.random.Generator) -> tuple[Float, float]:
    """A randomly oriented simplex ETF, K = 2…19, and its energy E_W in [1e-2, 1e2]."""
    classes = int(rng.integers(2, 20))
    energy = 10.0 ** rng.uniform(-2, 2)
    dim = classes - 1 + int(rng.integers(0, 10))
    return lpm.simplex_etf(classes, dim, energy, rng), energy


def imbalanced(
    rng: np.random.Generator,
    *,
    log10_rho: tuple[float, float] = (-3.0, 4.0),
    log10_weight: float = 12.0,
    states: int = 60,
) -> lpm.PeeledProblem:
    """Theorem 1's setting: class sizes over decades, some empty, weights over many decades."""
    head, energy = frame(rng)
    classes = len(head)
    frequency = 10.0 ** rng.uniform(-3, 0, classes) * (rng.random(classes) > 0.2)
    frequency[rng.integers(classes)] = 1.0
    rho = 10.0 ** rng.uniform(*log10_rho)
    return lpm.PeeledProblem(
        head=head,
        labels=rng.choice(classes, size=states, p=frequency / frequency.sum()),
        weights=10.0 ** rng.uniform(-log10_weight, log10_weight, states),
        feature_energy=rho**2 / energy,
    )


def head_energy(problem: lpm.PeeledProblem) -> float:
    """E_W, the mean squared norm of the head's rows."""
    return float(np.mean(np.einsum("kd,kd->k", problem.head, problem.head)))


def rho(problem: lpm.PeeledProblem) -> float:
    """ρ = √(E_H·E_W) of a problem with one energy."""
    return float(np.sqrt(problem.energies[0] * head_energy(problem)))


def aligned(problem: lpm.PeeledProblem) -> Float:
    """√(E_H/E_W)·w_k for every state, Eq. (27); (N, d)."""
    scale = np.sqrt(problem.energies / head_energy(problem))
    return np.asarray(scale[:, None] * problem.head[problem.labels])


def feasible(rng: np.random.Generator, problem: lpm.PeeledProblem) -> Float:
    """Random features in the ball, half of them on its surface; (N, d)."""
    h = rng.standard_normal((problem.num_states, problem.dim))
    radius = np.sqrt(problem.energies) * np.minimum(1, rng.uniform(0, 2, problem.num_states))
    return np.asarray(h * (radius / np.linalg.norm(h, axis=1))[:, None])


def policy(rng: np.random.Generator, mdp: gridworld.TabularMDP) -> Float:
    """A random policy with full support, (S, K)."""
    return rng.dirichlet(np.ones(mdp.num_actions), size=mdp.num_states)
