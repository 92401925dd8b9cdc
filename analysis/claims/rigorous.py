"""Optima enclosed in outward-rounded ball arithmetic: what no rounding error can take back."""

import numpy as np

import lpm
from analysis.claims.instances import THEOREM_1, imbalanced, rho
from analysis.claims.record import Catalogue, Evidence

claims = Catalogue()


@claims.add(
    "rigorous-theorem-1",
    "Theorem 1, rigorous",
    "The optimal log-odds lie in an interval of width ≤ 1e-12 that contains log(K−1) − ρK/(K−1)",
    hypotheses=f"{THEOREM_1}; the head as stored in float64, ρ from 1e-2 to 600",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    widest, outside, count = 0.0, 0.0, max(1, n // 10)
    for _ in range(count):
        problem = imbalanced(rng, log10_rho=(-2.0, np.log10(600)), log10_weight=2.0, states=4)
        for enclosure in lpm.enclose_fixed_head(problem).log_odds:
            widest = max(widest, enclosure.width)
            # The stored head is an ETF to rounding only: allow the formula eps·ρ.
            formula = float(lpm.optimal_log_odds(problem.num_classes, rho(problem)))
            slack = 1e-14 * (1 + rho(problem))
            miss = max(enclosure.lower - slack - formula, formula - enclosure.upper - slack, 0.0)
            outside = max(outside, miss)
    return Evidence(
        widest + outside,
        f"widest {widest:.1e}, formula outside by {outside:.1e}, {count} problems",
    )


@claims.add(
    "rigorous-learned-head",
    "Learned head, rigorous",
    "The learned-head optimum lies in an interval of width ≤ 1e-12 around the solver's objective",
    hypotheses="K = 4…8, log-normal counts, E_H from 0.3 to 10, E_W = 1",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    widest, outside, count = 0.0, 0.0, max(1, n // 10)
    for _ in range(count):
        counts = np.ceil(np.exp(rng.normal(3.0, 1.5, int(rng.integers(4, 9)))))
        energy = 10.0 ** rng.uniform(-0.5, 1)
        solution = lpm.solve_free_head(lpm.FreeHeadProblem(counts, energy, 1.0))
        enclosure = lpm.enclose_free_head(counts, energy, 1.0, solution.logits)
        widest = max(widest, enclosure.width)
        # The solver's own certificate must bracket the enclosure too.
        outside = max(
            outside,
            solution.lower_bound - enclosure.upper,
            enclosure.lower - solution.objective - 1e-15,
        )
    return Evidence(
        widest + max(outside, 0.0),
        f"widest {widest:.1e}, solver off by {max(outside, 0.0):.1e}, {count} models",
    )


@claims.add(
    "rigorous-balanced",
    "Balanced optimum, rigorous",
    "The balanced learned head has CE = log(1 + (K−1)e^{−ρK/(K−1)})",
    hypotheses="equal counts, K = 4, ρ = √5",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    enclosure = lpm.enclose_free_head(np.full(4, 10.0), 5.0, 1.0)
    formula = float(np.logaddexp(0.0, lpm.optimal_log_odds(4, np.sqrt(5.0))))
    miss = max(enclosure.lower - formula, formula - enclosure.upper, 0.0)
    return Evidence(
        enclosure.width + max(0.0, miss - 4e-16),
        f"[{enclosure.lower:.17g}, {enclosure.upper:.17g}] against {formula:.17g}",
    )
