"""What every solver of the fixed-head problem returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lpm.problem import softplus

Float = NDArray[np.float64]


class Status(Enum):
    """How a solve ended; the value of each member is the advice."""

    SOLVED = "the solver met its tolerance; lpm.certify(problem, solution.features) proves it"
    STALLED = (
        "rounding stopped progress above the tolerance: certify the features to see how far they "
        "are, or rescale so that sqrt(E_H)·max‖w_j − w_k‖ is below 1e4"
    )
    ITERATION_LIMIT = "the iteration limit came first: raise max_iterations"
    INACCURATE = (
        "the conic solver reports reduced accuracy: certify the features, lower N or ρ, or use "
        "solver='ball'"
    )

    @property
    def advice(self) -> str:
        """The sentence for the user."""
        return str(self.value)


@dataclass(frozen=True)
class Multipliers:
    """Multipliers of ‖h_s‖² ≤ E_H in the three equivalent forms of a state's problem.

    The forms are monotone transforms of one another, so they share the solution and their
    multipliers differ by the transform's derivative at it. Of the last two the logarithm is
    kept: λ underflows where the problem itself is harmless (ρ ≳ 700).
    """

    log_odds: Float
    """(N,) λ_F of min F(h)."""
    log_exponential: Float
    """(N,) log λ of min e^F, objective (17): λ = e^F λ_F. For an ETF it is Eq. (32)."""
    log_cross_entropy: Float
    """(N,) log λ of min softplus(F) = −log π, objective (8) per unit weight: λ = σ(F) λ_F."""

    @classmethod
    def from_log_odds(cls, multiplier: Float, log_odds: Float) -> "Multipliers":
        """All three from λ_F and F; λ_F = 0 (inactive constraint) gives log λ = −inf."""
        with np.errstate(divide="ignore"):
            log_multiplier = np.log(multiplier)
        return cls(
            log_odds=multiplier,
            log_exponential=log_multiplier + log_odds,
            log_cross_entropy=log_multiplier - softplus(-log_odds),  # log σ(F)
        )

    @property
    def exponential(self) -> Float:
        """(N,) λ of objective (17), Eq. (32)."""
        return np.asarray(np.exp(self.log_exponential))

    @property
    def cross_entropy(self) -> Float:
        """(N,) λ of objective (8) per unit weight; times the state's weight it is (8)'s own."""
        return np.asarray(np.exp(self.log_cross_entropy))


@dataclass(frozen=True)
class Solution:
    """A candidate optimum of a `PeeledProblem`."""

    features: Float
    """(N, d) h_s."""
    multipliers: Multipliers
    log_odds: Float
    """(N,) F(h_s); −log π = log(1 + e^F)."""
    objective: float
    """J = Σ weights · log π(a*)."""
    status: Status
    stats: Mapping[str, float | int | str] = field(default_factory=dict)
    """What the solver says about its own work (iterations, residual, backend)."""
