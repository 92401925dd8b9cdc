"""Numerical studies of the layer-peeled model behind ``figure-lpm``: rows only, no drawing.

Four parts, each a table: what imbalance does to a learned head, where its two transitions lie,
where the optimum of the true objective Eq. (1) lies with a fixed ETF, and how near a rectified
feature comes to Theorem 1's optimum.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

import lpm

HEAD_ENERGY = 1.0
MAJORITY, MINORITY = 5, 5
"""K = 10, the setting of Fang et al. (2021)."""
FEATURE_ENERGIES = (0.05, 1.0, 5.0, 20.0)
"""Below E_H = 3.107 minority heads also vanish at a finite R2; above they only coincide."""
_UNIT = 1000
"""Samples of a minority class: imbalance ratios are multiples of 1/1000."""

TRUE_OBJECTIVE = {
    "Q = (1, 0.9, 0)": (1.0, 0.9, 0.0),
    "Q = (1, 0.5, 0.2, 0)": (1.0, 0.5, 0.2, 0.0),
    "Q = (1, 0, 0, 0)": (1.0, 0.0, 0.0, 0.0),
}
RECTIFIED_CLASSES, RECTIFIED_RHO = 4, 5.0
RECTIFIED_DIMS = (3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

Advance = Callable[[int], None]


def _problem(ratio: float, feature_energy: float) -> lpm.FreeHeadProblem:
    counts = np.repeat([np.round(_UNIT * ratio), float(_UNIT)], [MAJORITY, MINORITY])
    return lpm.FreeHeadProblem(counts, feature_energy, HEAD_ENERGY)


def minority_study(advance: Advance, points: int = 121) -> pd.DataFrame:
    """Learned head under STEP imbalance, solved on a logarithmic grid of R from 1 to 1000.

    Columns: feature_energy, ratio, minority_cosine, majority_cosine (between head rows; NaN where
    a norm is zero), minority_norm, majority_norm (of head rows), objective, gap.
    """
    rows = []
    for feature_energy in FEATURE_ENERGIES:
        for ratio in np.geomspace(1, 1000, points):
            problem = _problem(ratio, feature_energy)
            solution = lpm.solve_free_head(problem)
            rows.append(
                {
                    "feature_energy": feature_energy,
                    "ratio": float(problem.counts[0] / problem.counts[-1]),
                    "minority_cosine": float(solution.head_cosines[-1, -2]),
                    "majority_cosine": float(solution.head_cosines[0, 1]),
                    "minority_norm": float(solution.head_norms[-1]),
                    "majority_norm": float(solution.head_norms[0]),
                    "objective": solution.objective,
                    "gap": solution.gap,
                }
            )
            advance(1)
    return pd.DataFrame(rows)


def reference_study(advance: Advance) -> pd.DataFrame:
    """The same quantities from cvxpy's semidefinite program at a few R, E_H = 5."""
    rows = []
    for ratio in (1.0, 2.0, 5.0, 10.0, 30.0, 100.0):
        problem = _problem(ratio, 5.0)
        reference = lpm.free_head_sdp(problem)
        # Head rows from the logits: Z = H Wᵀ, WᵀW-type Gram from the right singular vectors.
        _, singular, right = np.linalg.svd(reference.logits)
        gram = (right.T * singular) @ right
        norms = np.sqrt(np.diag(gram))
        ours = lpm.solve_free_head(problem)
        rows.append(
            {
                "feature_energy": 5.0,
                "ratio": ratio,
                "minority_cosine": float(gram[-1, -2] / norms[-1] / norms[-2]),
                "minority_norm": float(norms[-1] * (HEAD_ENERGY / 5.0) ** 0.25),
                # Against our certified lower bound: what the reference provably leaves.
                "gap": float(abs(reference.objective - ours.lower_bound)),
            }
        )
        advance(1)
    return pd.DataFrame(rows)


def transition_study(advance: Advance, points: int = 80) -> pd.DataFrame:
    """R1 and R2 against E_H, E_W = 1; R2 is infinite from ``vanishing_energy`` on."""
    rows = []
    limit = lpm.vanishing_energy(MAJORITY, MINORITY, HEAD_ENERGY)
    # The energies of the minority study are on the grid: their transitions are marked there. R2
    # diverges at the limit: approach it geometrically.
    near = limit * (1 - np.geomspace(1e-8, 0.1, 12))
    for feature_energy in sorted({*np.geomspace(0.01, 30, points), *near, *FEATURE_ENERGIES}):
        arguments = (MAJORITY, MINORITY, float(feature_energy), HEAD_ENERGY)
        rows.append(
            {
                "feature_energy": float(feature_energy),
                "collapse_ratio": lpm.minority_collapse_ratio(*arguments),
                "vanishing_ratio": lpm.minority_vanishing_ratio(*arguments),
                "vanishing_energy": limit,
            }
        )
    advance(1)
    return pd.DataFrame(rows)


def true_objective_study(
    advance: Advance, rng: np.random.Generator, points: int = 49
) -> pd.DataFrame:
    """Angle between w_k and the optimum of Eq. (1), E_W = 1, against ρ, with its two limits."""
    rows = []
    for name, q in TRUE_OBJECTIVE.items():
        head = lpm.simplex_etf(len(q), len(q) - 1)
        for rho in np.geomspace(1e-2, 1e2, points):
            optimum = lpm.maximise_expected_return(head, q, float(rho) ** 2, rng)
            rows.append(
                {
                    "action_values": name,
                    "rho": float(rho),
                    "angle_degrees": float(np.degrees(optimum.angle)),
                    "small_rho_degrees": float(np.degrees(np.arccos(lpm.small_rho_cosine(q)))),
                    "large_rho_degrees": float(np.degrees(lpm.large_rho_angle(q, rho))),
                    "log_excess": optimum.aligned_log_excess,
                    "optimality": optimum.optimality.name.lower(),
                }
            )
            advance(1)
    return pd.DataFrame(rows)


def rectified_study(advance: Advance, rng: np.random.Generator, frames: int = 20) -> pd.DataFrame:
    """Cosine between w_k and the optimum over the nonnegative part of the ball, random ETFs."""
    rows = []
    for dim in RECTIFIED_DIMS:
        for frame in range(frames):
            head = lpm.simplex_etf(RECTIFIED_CLASSES, dim, 1.0, rng)
            labels = np.arange(RECTIFIED_CLASSES)
            problem = lpm.PeeledProblem(
                head, labels, np.ones(len(labels)), RECTIFIED_RHO**2, "nonnegative"
            )
            features = lpm.solve(problem, "orthant").features
            # In few dimensions a row of the head may have no positive entry to lean on: then
            # h = 0 is optimal, has no direction, and the action is left out of both means.
            norms = np.linalg.norm(features, axis=1)
            some = norms > 0
            cosines = np.einsum("kd,kd->k", features, head)[some] / norms[some]
            rows.append(
                {
                    "dim": dim,
                    "frame": frame,
                    "cosine": float(cosines.mean()) if some.any() else float("nan"),
                    "largest_cosine": float(lpm.largest_orthant_cosine(head[some]).mean())
                    if some.any()
                    else float("nan"),
                    "actions": int(some.sum()),
                    "gap": lpm.certify(problem, features).log_odds_gap,
                }
            )
        advance(1)
    return pd.DataFrame(rows)
