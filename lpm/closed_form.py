r"""Theorem 1 in closed form: fixed simplex-ETF head, one norm bound for each state.

Hypotheses: weights > 0; ‖h_s‖² ≤ E_H for every state; W an exact simplex ETF with
d ≥ K − 1 and no bias; a unique optimal action; features of either sign. Then (AM-GM)

    F(h) = log Σ_{j≠k} e^{⟨h, w_j − w_k⟩}
         ≥ log(K−1) + 1/(K−1) Σ_{j≠k} ⟨h, w_j − w_k⟩      (equality iff all terms agree)
         = log(K−1) − K/(K−1) ⟨h, w_k⟩                     (Lemma 1: Σ_j w_j = 0)
         ≥ log(K−1) − ρK/(K−1),  ρ = √(E_H·E_W),           (Cauchy-Schwarz)

with equality throughout iff h = √(E_H/E_W)·w_k (Eq. 27), for every weight and class size.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpm.frames import etf_defect
from lpm.problem import PeeledProblem, softplus
from lpm.solution import Multipliers, Solution, Status

Float = NDArray[np.float64]

_ETF_TOLERANCE = 1e-9


def optimal_log_odds(num_classes: int, rho: ArrayLike) -> Float:
    """F* = log(K−1) − ρK/(K−1), any shape of ρ = √(E_H·E_W) (Theorem 1, Eq. 11)."""
    k = num_classes
    return np.asarray(np.log(k - 1) - np.asarray(rho, dtype=np.float64) * k / (k - 1))


def log_multiplier_exponential(
    num_classes: int, feature_energy: ArrayLike, head_energy: float
) -> Float:
    """log λ of Eq. (32): λ = ½√(E_W/E_H)·K·A, A = exp(−ρK/(K−1)); belongs to objective (17)."""
    e_h = np.asarray(feature_energy, dtype=np.float64)
    k = num_classes
    log_a = -np.sqrt(e_h * head_energy) * k / (k - 1)
    return np.asarray(np.log(0.5 * k * np.sqrt(head_energy / e_h)) + log_a)


def log_multiplier_cross_entropy(
    num_classes: int, feature_energy: ArrayLike, head_energy: float
) -> Float:
    """log λ of objective (8) per unit weight: ½√(E_W/E_H)·K·A / (1 + (K−1)A).

    The paper states only Eq. (32)'s; the two differ by the factor π(a*) = 1/(1 + (K−1)A).
    """
    e_h = np.asarray(feature_energy, dtype=np.float64)
    log_odds = optimal_log_odds(num_classes, np.sqrt(e_h * head_energy))
    return np.asarray(
        log_multiplier_exponential(num_classes, e_h, head_energy) - softplus(log_odds)
    )


def solve_closed_form(problem: PeeledProblem) -> Solution:
    """Evaluate Theorem 1; refuses problems outside its hypotheses.

    Raises
    ------
    ValueError
        The head is not a simplex ETF to 1e-9 or the features are restricted to a cone.
    """
    defect = etf_defect(problem.head)
    if not defect <= _ETF_TOLERANCE:
        raise ValueError(
            f"Theorem 1 needs an exact simplex ETF as head; this one's Gram matrix is off by "
            f"{defect:.3g} of its energy (tolerance {_ETF_TOLERANCE:g}): use solver='ball', or "
            "build the head with lpm.simplex_etf"
        )
    if problem.cone != "free":
        raise ValueError(
            f"Theorem 1 needs features of either sign, the problem has cone={problem.cone!r}: "
            "use solver='orthant'"
        )
    e_w = float(np.mean(np.einsum("kd,kd->k", problem.head, problem.head)))
    e_h = problem.energies
    log_odds = optimal_log_odds(problem.num_classes, np.sqrt(e_h * e_w))
    log_exponential = log_multiplier_exponential(problem.num_classes, e_h, e_w)
    return Solution(
        features=np.sqrt(e_h / e_w)[:, None] * problem.head[problem.labels],
        multipliers=Multipliers(
            log_odds=np.exp(log_exponential - log_odds),
            log_exponential=log_exponential,
            log_cross_entropy=log_multiplier_cross_entropy(problem.num_classes, e_h, e_w),
        ),
        log_odds=log_odds,
        objective=-float(problem.weights @ softplus(log_odds)),
        status=Status.SOLVED,
        stats={"solver": "closed-form", "etf_defect": defect},
    )
