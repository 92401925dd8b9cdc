"""The paper's statements as checks that compute: hypothesis, residual, tolerance, verdict.

A claim's check draws its own random instances from the generator it is given and returns the worst
residual it saw. No verdict is stored anywhere.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import gridworld
import lpm

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What a check found."""

    residual: float
    detail: str
    """The instances that the residual is the worst of."""


@dataclass(frozen=True)
class Claim:
    """One statement of the paper, or a correction of one, with the check that decides it."""

    id: str
    reference: str
    statement: str
    hypotheses: str
    tolerance: float
    check: Callable[[np.random.Generator, int], Evidence]
    """Takes a generator and the number of random instances."""


@dataclass(frozen=True)
class Result:
    """A claim after its check."""

    claim: Claim
    evidence: Evidence

    @property
    def holds(self) -> bool:
        """Whether the residual is within the tolerance (a NaN residual is not)."""
        return bool(self.evidence.residual <= self.claim.tolerance)

    def as_row(self) -> dict[str, str | float]:
        """Flat row for tables and storage."""
        return {
            "claim": self.claim.id,
            "reference": self.claim.reference,
            "statement": self.claim.statement,
            "hypotheses": self.claim.hypotheses,
            "detail": self.evidence.detail,
            "residual": self.evidence.residual,
            "tolerance": self.claim.tolerance,
            "verdict": "holds" if self.holds else "fails",
        }


def verify(seed: int, instances: int) -> Iterator[Result]:
    """Check every claim on ``instances`` random instances; each has a generator of its own.

    A claim's generator depends on the seed and the claim's id only, so adding a claim changes no
    other claim's numbers.
    """
    for claim in CLAIMS:
        rng = np.random.default_rng([seed, *claim.id.encode()])
        yield Result(claim, claim.check(rng, instances))


# --- random instances ----------------------------------------------------------------------------


def _frame(rng: np.random.Generator) -> tuple[Float, float]:
    """A randomly oriented simplex ETF of random shape, and its energy E_W."""
    classes = int(rng.integers(2, 20))
    energy = 10.0 ** rng.uniform(-2, 2)
    dim = classes - 1 + int(rng.integers(0, 10))
    return lpm.simplex_etf(classes, dim, energy, rng), energy


def _imbalanced(
    rng: np.random.Generator,
    *,
    log10_rho: tuple[float, float] = (-3.0, 4.0),
    log10_weight: float = 12.0,
    states: int = 60,
) -> lpm.PeeledProblem:
    """Theorem 1's setting: geometric class sizes, some classes empty, weights over many decades."""
    head, energy = _frame(rng)
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


def _head_energy(problem: lpm.PeeledProblem) -> float:
    return float(np.mean(np.einsum("kd,kd->k", problem.head, problem.head)))


def _rho(problem: lpm.PeeledProblem) -> float:
    return float(np.sqrt(problem.energies[0] * _head_energy(problem)))


_ANY_RHO = "ρ from 1e-3 to 1e4, weights from 1e-12 to 1e12, classes of any size, some empty"


# --- the frame -----------------------------------------------------------------------------------


def _lemma_1(rng: np.random.Generator, n: int) -> Evidence:
    frames = (_frame(rng) for _ in range(n))
    residual = max(np.linalg.norm(w.sum(axis=0)) / np.sqrt(e) for w, e in frames)
    return Evidence(float(residual), f"max ‖Σ w_k‖/√E_W over {n} frames, K = 2…19")


def _eq_3(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        classes = int(rng.integers(2, 20))
        dim = classes + int(rng.integers(0, 10))
        u = np.linalg.qr(rng.standard_normal((dim, classes)))[0]
        m = np.sqrt(classes / (classes - 1)) * u @ (np.eye(classes) - 1 / classes)
        worst = max(worst, lpm.etf_defect(m.T, 1.0))
    return Evidence(worst, f"max Gram defect of Eq. (3) as written over {n} U with UᵀU = I")


def _eq_3_smallest(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for classes in range(2, 2 + n):
        w = lpm.simplex_etf(classes, classes - 1, 1.0, rng)
        # The U of the corrected Eq. (3): (K−1, K), M = √(K/(K−1)) U (I − 11ᵀ/K) = wᵀ.
        u = np.sqrt((classes - 1) / classes) * w.T
        worst = max(
            worst,
            float(np.abs(u @ u.T - np.eye(classes - 1)).max()),
            float(np.abs(u.sum(axis=1)).max()),
            lpm.etf_defect(w, 1.0),
        )
    return Evidence(worst, f"UUᵀ = I, U·1 = 0 and Gram defect, K = 2…{1 + n}")


def _eq_4(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        w, energy = _frame(rng)
        unit = w / np.sqrt(energy)
        cosines = unit @ unit.T
        off = cosines[~np.eye(len(w), dtype=bool)]
        worst = max(
            worst,
            float(np.abs(np.diag(cosines) - 1).max()),
            float(np.abs(off + 1 / (len(w) - 1)).max()),
        )
    return Evidence(worst, f"norms 1, cosines −1/(K−1), {n} frames")


def _eq_10(rng: np.random.Generator, n: int) -> Evidence:
    worst = max(lpm.etf_defect(w, energy) for w, energy in (_frame(rng) for _ in range(n)))
    return Evidence(worst, f"max Gram defect / E_W over {n} frames, E_W = 1e-2…1e2")


# --- the KKT system, term by term ---------------------------------------------------------------


def _eq_21_22(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        # ρ ≤ 100: Eq. (21) is taken literally, and its exponentials underflow beyond.
        problem = _imbalanced(rng, log10_rho=(-3.0, 2.0))
        e_h, e_w = float(problem.energies[0]), _head_energy(problem)
        k = int(problem.labels[0])
        h = np.sqrt(e_h / e_w) * problem.head[k]
        differences = np.delete(problem.head, k, axis=0) - problem.head[k]
        exponentials = np.exp(differences @ h)
        log_lambda = lpm.log_multiplier_exponential(problem.num_classes, e_h, e_w)
        multiplier = float(np.exp(log_lambda))
        terms = differences * exponentials[:, None]
        stationarity = np.linalg.norm(terms.sum(axis=0) + 2 * multiplier * h)
        worst = max(
            worst,
            float(stationarity / np.linalg.norm(terms, axis=1).sum()),
            abs(float(h @ h) / e_h - 1),
            max(0.0, -multiplier),
        )
    return Evidence(
        worst, f"relative residual of (21) and (22) at (27), (32); {n} problems, ρ ≤ 100"
    )


def _eq_27(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = _imbalanced(rng)
        scale = np.sqrt(problem.energies[0] / _head_energy(problem))
        error = lpm.solve(problem).features - scale * problem.head[problem.labels]
        worst = max(worst, float(np.abs(error).max() / np.sqrt(problem.energies[0])))
    return Evidence(worst, f"max |h − √(E_H/E_W)·w_k|/√E_H, solver 'ball', {n} problems")


def _eq_11(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = _imbalanced(rng)
        k = problem.num_classes
        inner = lpm.solve(problem).features @ problem.head.T / _rho(problem)
        expected = (np.eye(k) * k / (k - 1) - 1 / (k - 1))[problem.labels]
        worst = max(worst, float(np.abs(inner - expected).max()))
    return Evidence(worst, f"max |h·w_k' − (11)|/ρ, solver 'ball', {n} problems")


def _multiplier(
    formula: Callable[[int, Float, float], Float], name: str
) -> Callable[[np.random.Generator, int], Evidence]:
    def check(rng: np.random.Generator, n: int) -> Evidence:
        worst = 0.0
        for _ in range(n):
            problem = _imbalanced(rng)
            found = getattr(lpm.solve(problem).multipliers, f"log_{name}")
            expected = formula(problem.num_classes, problem.energies, _head_energy(problem))
            # An error of eps·ρ in the logits is one of eps·ρ in log λ.
            worst = max(worst, float(np.abs(found - expected).max() / (1 + _rho(problem))))
        return Evidence(worst, f"max |log λ − formula|/(1+ρ), λ from solver 'ball', {n} problems")

    return check


# --- Theorem 1 -----------------------------------------------------------------------------------


def _theorem_1_certified(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = _imbalanced(rng)
        certificate = lpm.certify(problem, lpm.solve(problem).features)
        worst = max(worst, certificate.kkt_residual)
    return Evidence(worst, f"max relative KKT residual of solver 'ball', {n} problems of 60 states")


def _theorem_1_gap(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = _imbalanced(rng)
        theorem = lpm.solve(problem, "closed-form").features
        certificate = lpm.certify(problem, theorem)
        worst = max(worst, certificate.log_odds_gap / (1 + _rho(problem)))
    return Evidence(worst, f"max duality gap of Eq. (27) in nats/(1+ρ), {n} problems, no solver")


def _theorem_1_conic(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    count = max(1, n // 10)
    for _ in range(count):
        problem = _imbalanced(rng, log10_rho=(-1.0, 2.0), states=12)
        theorem = lpm.solve(problem, "closed-form")
        conic = lpm.solve(problem, "conic")
        odds = np.abs(conic.log_odds - theorem.log_odds) / (1 + np.abs(theorem.log_odds))
        worst = max(worst, float(odds.max()))
    return Evidence(worst, f"max relative error of F* by cvxpy (log-odds form), {count} problems")


def _theorem_1_cross_entropy(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    count = max(1, n // 10)
    for _ in range(count):
        problem = _imbalanced(rng, log10_rho=(-1.0, 0.5), log10_weight=1.0, states=12)
        theorem = lpm.solve(problem, "closed-form")
        conic = lpm.solve(problem, "conic", formulation="cross-entropy")
        worst = max(worst, abs(conic.objective / theorem.objective - 1))
    return Evidence(worst, f"max relative error of J* of Eq. (8) by cvxpy, {count} problems, ρ ≤ 3")


# --- the grid world -----------------------------------------------------------------------------


def _random_policy(rng: np.random.Generator, mdp: gridworld.TabularMDP) -> Float:
    return rng.dirichlet(np.ones(mdp.num_actions), size=mdp.num_states)


def _condition_1(rng: np.random.Generator, n: int) -> Evidence:
    mdp = gridworld.ideal_cliff_walking()
    missing = 0
    for _ in range(n):
        report = gridworld.check_conditions(mdp, _random_policy(rng, mdp), gridworld.Sweep())
        missing = max(missing, report.condition_1.total - report.condition_1.visited)
    return Evidence(float(missing), f"most of the 12 states unvisited by the sweep, {n} policies")


def _condition_2(rng: np.random.Generator, n: int) -> Evidence:
    mdp = gridworld.ideal_cliff_walking()
    report = gridworld.check_conditions(mdp, mdp.optimal_policy(), gridworld.Sweep())
    return Evidence(
        report.condition_2.ratio - 1, f"max/min − 1 of |S_k| = {report.condition_2.sizes}"
    )


def _condition_3_sweep(rng: np.random.Generator, n: int) -> Evidence:
    mdp = gridworld.ideal_cliff_walking()
    ratios = [
        gridworld.check_conditions(
            mdp, _random_policy(rng, mdp), gridworld.Sweep()
        ).condition_3.ratio
        for _ in range(n)
    ]
    return Evidence(max(ratios) - 1, f"max/min − 1 of d(s) over the cells, {n} random policies")


def _on_policy_ratio(start: Float) -> float:
    mdp = gridworld.ideal_cliff_walking()
    report = gridworld.check_conditions(mdp, mdp.optimal_policy(), gridworld.OnPolicy(start))
    return report.condition_3.ratio


def _condition_3_on_policy(rng: np.random.Generator, n: int) -> Evidence:
    ratio = _on_policy_ratio(gridworld.uniform_start(gridworld.cliff_layout()))
    return Evidence(abs(ratio - 2), f"max/min of d(s) under the optimal policy is {ratio:.12g}")


def _condition_3_outer(rng: np.random.Generator, n: int) -> Evidence:
    ratio = _on_policy_ratio(gridworld.outer_start(gridworld.cliff_layout()))
    return Evidence(abs(ratio - 1), f"max/min of d(s) under the optimal policy is {ratio:.12g}")


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "eq-3",
        "Eq. (3)",
        "M = √(K/(K−1))·U(I − 11ᵀ/K) is a simplex ETF",
        "d ≥ K, UᵀU = I",
        1e-13,
        _eq_3,
    ),
    Claim(
        "eq-3-smallest",
        "Eq. (3), d = K−1",
        "With UUᵀ = I and U·1 = 0 in place of UᵀU = I, Eq. (3) holds for d = K−1 too",
        "d = K−1, where UᵀU = I_K is impossible",
        1e-13,
        _eq_3_smallest,
    ),
    Claim(
        "eq-4",
        "Eq. (4)",
        "Unit norms and pairwise cosines −1/(K−1)",
        "d ≥ K−1",
        1e-13,
        _eq_4,
    ),
    Claim(
        "eq-10",
        "Eq. (10)",
        "w_k·w_k' = E_W(K/(K−1)·δ − 1/(K−1))",
        "d ≥ K−1, E_W > 0",
        1e-13,
        _eq_10,
    ),
    Claim("lemma-1", "Lemma 1", "Σ_k w_k = 0", "W a simplex ETF", 1e-13, _lemma_1),
    Claim(
        "eq-21-22",
        "Eq. (21)-(22)",
        "The KKT system of (17) holds at h = √(E_H/E_W)·w_k with the λ of Eq. (32)",
        "W a simplex ETF, E_H > 0",
        1e-12,
        _eq_21_22,
    ),
    Claim(
        "eq-27",
        "Eq. (27), (34)",
        "The optimum is h = √(E_H/E_W)·w_k",
        f"Theorem 1's; {_ANY_RHO}",
        1e-11,
        _eq_27,
    ),
    Claim(
        "eq-11",
        "Eq. (11), (35)",
        "h·w_k' = √(E_H·E_W)(K/(K−1)·δ − 1/(K−1))",
        f"Theorem 1's; {_ANY_RHO}",
        1e-11,
        _eq_11,
    ),
    Claim(
        "eq-32",
        "Eq. (32)",
        "λ = ½√(E_W/E_H)·K·A, A = exp(−ρK/(K−1)), is the multiplier of objective (17)",
        f"Theorem 1's; {_ANY_RHO}",
        1e-12,
        _multiplier(lpm.log_multiplier_exponential, "exponential"),
    ),
    Claim(
        "eq-8-multiplier",
        "Eq. (8)",
        "Objective (8)'s own multiplier is Eq. (32)'s divided by 1 + (K−1)A, per unit weight",
        f"Theorem 1's; {_ANY_RHO}",
        1e-12,
        _multiplier(lpm.log_multiplier_cross_entropy, "cross_entropy"),
    ),
    Claim(
        "theorem-1-kkt",
        "Theorem 1",
        "On imbalanced problems a solver that knows no closed form reaches a KKT point",
        f"positive weights, a norm bound a state, W an ETF; {_ANY_RHO}",
        1e-12,
        _theorem_1_certified,
    ),
    Claim(
        "theorem-1-gap",
        "Theorem 1",
        "The theorem's features have a zero duality gap: no feasible point is better",
        f"positive weights, a norm bound a state, W an ETF; {_ANY_RHO}",
        1e-14,
        _theorem_1_gap,
    ),
    Claim(
        "theorem-1-conic",
        "Theorem 1",
        "cvxpy's joint optimum over all states agrees, in the log-odds form",
        "as above, ρ from 0.1 to 100, weights from 1e-12 to 1e12",
        1e-5,
        _theorem_1_conic,
    ),
    Claim(
        "theorem-1-cross-entropy",
        "Theorem 1, Eq. (8)-(9)",
        "cvxpy's joint optimum of Eq. (8) as written, with its weights, agrees",
        "as above, ρ from 0.1 to 3, weights from 0.1 to 10",
        1e-5,
        _theorem_1_cross_entropy,
    ),
    Claim(
        "condition-1",
        "Condition 1",
        "All 12 states are visited",
        "Ideal Cliff Walking, sampling by sweep, any policy with full support",
        0.0,
        _condition_1,
    ),
    Claim(
        "condition-2",
        "Condition 2",
        "The classes S_k have equal size (the paper writes the sets for their sizes)",
        "Ideal Cliff Walking, the 8 cells with a decision",
        0.0,
        _condition_2,
    ),
    Claim(
        "condition-3-sweep",
        "Condition 3",
        "d(s) is uniform for any policy",
        "sampling by sweep: every cell equally, a Monte-Carlo return from it",
        1e-12,
        _condition_3_sweep,
    ),
    Claim(
        "condition-3-on-policy",
        "Condition 3 (correction)",
        "“Any policy” is false on-policy: the centre is visited twice as often as the wings",
        "on-policy, uniform starts, optimal policy",
        1e-12,
        _condition_3_on_policy,
    ),
    Claim(
        "condition-3-outer",
        "Condition 3 (correction)",
        "On-policy visits are uniform when episodes start in the outer cells",
        "on-policy, outer starts, optimal policy only",
        1e-12,
        _condition_3_outer,
    ),
)
