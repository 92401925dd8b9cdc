"""Theorem 1, Proposition 1, and the chain of equations (8)-(9), (11)-(22), (27)-(35)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import lpm
from analysis.claims.instances import (
    ANY_RHO,
    THEOREM_1,
    aligned,
    feasible,
    head_energy,
    imbalanced,
    rho,
)
from analysis.claims.record import Catalogue, Evidence, Verdict

Float = NDArray[np.float64]

claims = Catalogue()

_SETTING = f"{THEOREM_1}; {ANY_RHO}"


# --- the problem and its rewriting ---------------------------------------------------------------


@claims.add(
    "eq-8",
    "Eq. (8)",
    "The weights d^π(s)Ψ^π may be those of the policy that is optimised",
    hypotheses="two states; the optimal action in the first leads to the second",
    tolerance=1e-9,
    expected=Verdict.UNDER,
    correction="fixed weights d(s)Ψ(s) > 0, not functions of H",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    # d(s_1) = 1 and d(s_2) = π(a*|s_1): J = log π_1 + Ψ·π_1·log π_2 with Ψ = 10. Visiting s_2
    # costs log π_2 < 0, so J rises when s_1 avoids its own optimal action.
    head, psi, energy = lpm.simplex_etf(4, 3), 10.0, 1.0
    log_pi = -lpm.softplus(lpm.optimal_log_odds(4, np.sqrt(energy)))
    aligned_value = float(log_pi + psi * np.exp(log_pi) * log_pi)
    away = lpm.PeeledProblem(head, [0], [1.0], energy)
    opposite = -lpm.softplus(away.log_odds(-head[:1]))[0]
    avoiding = float(opposite + psi * np.exp(opposite) * log_pi)
    # With the weights held fixed the theorem's point is optimal: its duality gap is zero.
    fixed = lpm.certify(away, head[:1]).log_odds_gap
    return Evidence(
        max(0.0, avoiding - aligned_value),
        "J(h_1 = −w_1) − J(h_1 = w_1) with d^π a function of h; corrected: duality gap at w_1",
        corrected=fixed,
        counterexample=(
            f"K = 4, ρ = 1, d(s_2) = π(a*|s_1), Ψ(s_2) = 10: J = {aligned_value:.4f} aligned, "
            f"{avoiding:.4f} with h_1 = −w_1"
        ),
    )


@claims.add(
    "eq-9",
    "Eq. (9)",
    "‖h_s‖² ≤ E_H for all k, k' in [1, K] and s in S",
    hypotheses="none",
    tolerance=0.0,
    expected=Verdict.TYPO,
    correction="‖h_s‖² ≤ E_H for all s: the constraint contains neither k nor k'",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    states, classes = 8, 4
    written = {(s, k, j): s for s in range(states) for k in range(classes) for j in range(classes)}
    redundant = len(written) - len(set(written.values()))
    return Evidence(
        float(redundant),
        "constraints as quantified, less the distinct ones, for N = 8, K = 4",
        corrected=float(len(set(written.values())) - states),
        counterexample=f"N = 8, K = 4: {len(written)} constraints are written, 8 are distinct",
    )


def _rewritings(problem: lpm.PeeledProblem, h: Float) -> tuple[float, float, float]:
    """J by Eq. (8)/(12), by the class-wise sums (13)/(14), and after the division of (15)."""
    logits = h @ problem.head.T
    own = logits[np.arange(len(h)), problem.labels]
    log_pi = own - np.log(np.exp(logits).sum(axis=1))
    by_state = float(problem.weights @ log_pi)
    by_class = 0.0
    for k in range(problem.num_classes):
        for i in np.flatnonzero(problem.labels == k):
            share = np.exp(logits[i, k]) / sum(np.exp(z) for z in logits[i])
            by_class += problem.weights[i] * np.log(share)
    others = np.exp(logits - own[:, None]).sum(axis=1) - 1
    divided = float(problem.weights @ np.log(1 / (1 + others)))
    return by_state, by_class, divided


def _rewriting(first: int, second: int) -> Callable[[np.random.Generator, int], Evidence]:
    def check(rng: np.random.Generator, n: int) -> Evidence:
        worst = 0.0
        for _ in range(n):
            problem = imbalanced(rng, log10_rho=(-2.0, 1.0), log10_weight=2.0, states=20)
            values = _rewritings(problem, feasible(rng, problem))
            worst = max(worst, abs(values[first] / values[second] - 1))
        return Evidence(worst, f"max relative difference of J at random features, {n} problems")

    return check


for _id, _reference, _statement, _pair in (
    ("eq-12", "Eq. (12)", "max_H J(H) is the objective of Eq. (8)", (0, 1)),
    ("eq-13", "Eq. (13)", "J written with the logits of each class", (0, 1)),
    ("eq-14", "Eq. (14)", "J as a double sum over classes and their n_k states", (0, 1)),
    ("eq-15", "Eq. (15)", "J after dividing by e^{h·w_k}", (0, 2)),
):
    claims.add(
        _id,
        _reference,
        _statement,
        hypotheses="any features, weights and class sizes (identities)",
        tolerance=1e-10,
    )(_rewriting(*_pair))


@claims.add(
    "eq-16",
    "Eq. (15)-(16)",
    "Maximising J is minimising Σ_{j≠k} e^{h·(w_j − w_k)} for each state alone",
    hypotheses="a norm constraint of any kind",
    tolerance=1e-9,
    expected=Verdict.UNDER,
    correction="a norm bound for each state; under one bound on the average norm the lengths "
    "depend on the weights",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    # One bound (1/3)Σ‖h_s‖² ≤ E_H = 5 on three states of weights 1, 10, 100.
    average = lpm.average_norm_lengths([1.0, 10.0, 100.0], 4, 5.0, 1.0)
    lengths = average.lengths
    residual = float(np.abs(lengths / np.sqrt(5.0) - 1).max())
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng)
        worst = max(worst, lpm.certify(problem, aligned(problem)).log_odds_gap / (1 + rho(problem)))
    return Evidence(
        residual,
        f"max |‖h‖/√E_H − 1| under the average bound (gap {average.gap:.0e}); corrected: duality "
        "gap/(1+ρ) state by state",
        corrected=worst,
        counterexample="K = 4, E_W = 1, average E_H = 5, weights 1, 10, 100: lengths "
        + ", ".join(f"{t:.3f}" for t in lengths)
        + f" instead of {np.sqrt(5.0):.3f}",
    )


@claims.add(
    "eq-17",
    "Eq. (17)",
    "Minimising Σ_{j≠k} e^{h·(w_j − w_k)} has the optimum of Eq. (8) for one state",
    hypotheses=_SETTING,
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng, log10_rho=(-2.0, 1.0), states=3)
        exponential = np.exp(problem.log_odds(aligned(problem)))
        trial = np.exp(problem.log_odds(feasible(rng, problem)))
        worst = max(worst, float((exponential / trial).max() - 1))
    return Evidence(
        max(worst, 0.0), f"how far random feasible h beat Eq. (27) on (17), {n} problems"
    )


@claims.add(
    "eq-18",
    "Eq. (18)",
    "f(h) = Σ_{j≠k} e^{h·(w_j − w_k)} is convex",
    hypotheses="any head",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        differences = rng.standard_normal((int(rng.integers(1, 9)), 5))
        h = rng.standard_normal(5)
        # The paper's (w_j − w_k)²e^{…} is a matrix: Σ e^{…}(w_j − w_k)(w_j − w_k)ᵀ.
        hessian = (differences * np.exp(differences @ h)[:, None]).T @ differences
        values = np.linalg.eigvalsh(hessian)
        worst = max(worst, float(-values[0] / values[-1]))
    return Evidence(max(worst, 0.0), f"−λ_min/λ_max of the Hessian, {n} random heads")


@claims.add(
    "eq-19",
    "Eq. (19)",
    "g(h) = ‖h‖² − E_H ≤ 0 is convex and has an interior point (so KKT is necessary)",
    hypotheses="E_H > 0",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        a, b, t = rng.standard_normal(5), rng.standard_normal(5), rng.uniform()
        energy = 10.0 ** rng.uniform(-3, 3)
        middle = float(np.sum((t * a + (1 - t) * b) ** 2)) - energy
        chord = t * (float(a @ a) - energy) + (1 - t) * (float(b @ b) - energy)
        # Slater: g(0) = −E_H < 0.
        worst = max(worst, middle - chord, float(np.sum((0 * a) ** 2)) - energy)
    return Evidence(max(worst, 0.0), f"violation of convexity and of Slater at h = 0, {n} draws")


@claims.add(
    "eq-20",
    "Eq. (20)",
    "L(h, λ) = f(h) + λg(h) with the λ of Eq. (32) is minimised over all h by Eq. (27)",
    hypotheses="W a simplex ETF, E_H > 0",
    tolerance=1e-10,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng, log10_rho=(-1.0, 0.7), states=4)
        e_h, e_w = float(problem.energies[0]), head_energy(problem)
        multiplier = float(np.exp(lpm.log_multiplier_exponential(problem.num_classes, e_h, e_w)))

        def lagrangian(
            h: Float,
            problem: lpm.PeeledProblem = problem,
            multiplier: float = multiplier,
            e_h: float = e_h,
        ) -> Float:
            f = np.exp(problem.log_odds(h))
            return np.asarray(f + multiplier * (np.einsum("nd,nd->n", h, h) - e_h))

        best = lagrangian(aligned(problem))
        other = lagrangian(aligned(problem) + rng.standard_normal((4, problem.dim)) * e_h**0.5)
        worst = max(worst, float(((best - other) / best).max()))
    return Evidence(max(worst, 0.0), f"how far random h beat Eq. (27) on L, {n} problems")


def _kkt(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        # ρ ≤ 100: Eq. (21) is taken literally, and its exponentials underflow beyond.
        problem = imbalanced(rng, log10_rho=(-3.0, 2.0), states=1)
        e_h, e_w = float(problem.energies[0]), head_energy(problem)
        k, h = int(problem.labels[0]), aligned(problem)[0]
        differences = np.delete(problem.head, k, axis=0) - problem.head[k]
        terms = differences * np.exp(differences @ h)[:, None]
        multiplier = float(np.exp(lpm.log_multiplier_exponential(problem.num_classes, e_h, e_w)))
        residual = np.linalg.norm(terms.sum(axis=0) + 2 * multiplier * h)
        worst = max(
            worst,
            float(residual / np.linalg.norm(terms, axis=1).sum()),
            abs(float(h @ h) / e_h - 1),
            max(0.0, -multiplier),
        )
    return Evidence(worst, f"relative residual of (21)-(22) at (27), (32); {n} problems, ρ ≤ 100")


for _id, _reference, _statement in (
    ("eq-21", "Eq. (21)", "Stationarity Σ_{j≠k}(w_j − w_k)e^{h·(w_j − w_k)} + 2λh = 0"),
    ("eq-22", "Eq. (22)", "λg(h) = 0, g(h) ≤ 0, λ ≥ 0"),
    ("proposition-1", "Proposition 1", "The KKT conditions hold at h = √(E_H/E_W)·w_k"),
):
    claims.add(
        _id,
        _reference,
        _statement,
        hypotheses="W a simplex ETF, E_H > 0, λ of Eq. (32)",
        tolerance=1e-12,
    )(_kkt)


# --- Proposition 1, line by line -----------------------------------------------------------------


@claims.add(
    "eq-27",
    "Eq. (27)",
    "The optimum is h = √(E_H/E_W)·w_k",
    hypotheses=_SETTING,
    tolerance=1e-11,
)
def _solved(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng)
        error = lpm.solve(problem).features - aligned(problem)
        worst = max(worst, float(np.abs(error).max() / np.sqrt(problem.energies[0])))
    return Evidence(worst, f"max |h − √(E_H/E_W)·w_k|/√E_H, solver 'ball', {n} problems")


@claims.add(
    "eq-28",
    "Eq. (28)",
    "Σ_{j≠k}(w_j − w_k)e^{w·(w_j − w_k)} + 2λh = 0 at (27), (32)",
    hypotheses="W a simplex ETF",
    tolerance=1e-12,
    expected=Verdict.TYPO,
    correction="h in place of w in the exponent, as in Eq. (21)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    e_h, e_w, classes = 4.0, 1.0, 4
    w = lpm.simplex_etf(classes, 3, e_w)
    differences = w[1:] - w[0]
    multiplier = float(np.exp(lpm.log_multiplier_exponential(classes, e_h, e_w)))
    terms = differences * np.exp(differences @ w[0])[:, None]
    residual = np.linalg.norm(terms.sum(axis=0) + 2 * multiplier * np.sqrt(e_h / e_w) * w[0])
    literal = float(residual / np.linalg.norm(terms, axis=1).sum())
    return Evidence(
        literal,
        "relative residual with w_k in the exponent, K = 4, E_H = 4, E_W = 1; corrected: with h",
        corrected=_kkt(rng, n).residual,
        counterexample=f"K = 4, E_H = 4, E_W = 1: relative residual {literal:.3g}",
    )


@claims.add(
    "eq-29",
    "Eq. (29)",
    "A = e^{√(E_H/E_W)·w_k·(w_j − w_k)} does not depend on j ≠ k and equals e^{−ρK/(K−1)}",
    hypotheses="W a simplex ETF",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng, states=1)
        k, h = int(problem.labels[0]), aligned(problem)[0]
        exponents = (np.delete(problem.head, k, axis=0) - problem.head[k]) @ h
        classes = problem.num_classes
        expected = -rho(problem) * classes / (classes - 1)
        worst = max(worst, float(np.abs(exponents / expected - 1).max()))
    return Evidence(worst, f"max relative deviation of log A over j, {n} frames, ρ = 1e-3…1e4")


def _line(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng, log10_rho=(-3.0, 2.0), states=1)
        e_h, e_w = float(problem.energies[0]), head_energy(problem)
        k, classes = int(problem.labels[0]), problem.num_classes
        log_a = -rho(problem) * classes / (classes - 1)
        # Both sides divided by A, which may be e^{−200}.
        two_lambda = 2 * np.exp(lpm.log_multiplier_exponential(classes, e_h, e_w) - log_a)
        total = (np.delete(problem.head, k, axis=0) - problem.head[k]).sum(axis=0)
        w, size = problem.head[k], classes * np.sqrt(e_w)
        worst = max(
            worst,
            float(np.linalg.norm(total + two_lambda * aligned(problem)[0]) / size),  # (30)
            float(np.linalg.norm(two_lambda * np.sqrt(e_h / e_w) * w - classes * w) / size),  # (31)
        )
    return Evidence(worst, f"relative residuals of (30) and (31), divided by A, {n} frames")


for _id, _reference, _statement in (
    ("eq-30", "Eq. (30)", "A·Σ_{j≠k}(w_j − w_k) + 2λh = 0"),
    ("eq-31", "Eq. (31)", "2λ√(E_H/E_W)·w_k = A·K·w_k"),
):
    claims.add(
        _id,
        _reference,
        _statement,
        hypotheses="W a simplex ETF, (27), (32)",
        tolerance=1e-12,
    )(_line)


def multiplier_check(
    formula: Callable[[int, Float, float], Float], name: str
) -> Callable[[np.random.Generator, int], Evidence]:
    """Hold a formula for log λ against the multiplier that the solver's KKT system gives."""

    def check(rng: np.random.Generator, n: int) -> Evidence:
        worst = 0.0
        for _ in range(n):
            problem = imbalanced(rng)
            found = getattr(lpm.solve(problem).multipliers, f"log_{name}")
            expected = formula(problem.num_classes, problem.energies, head_energy(problem))
            # An error of eps·ρ in the logits is one of eps·ρ in log λ.
            worst = max(worst, float(np.abs(found - expected).max() / (1 + rho(problem))))
        return Evidence(worst, f"max |log λ − formula|/(1+ρ), λ from solver 'ball', {n} problems")

    return check


claims.add(
    "eq-32",
    "Eq. (32)",
    "λ = ½√(E_W/E_H)·K·A > 0, A = exp(−ρK/(K−1)), is the multiplier of objective (17)",
    hypotheses=_SETTING,
    tolerance=1e-12,
)(multiplier_check(lpm.log_multiplier_exponential, "exponential"))


@claims.add(
    "eq-32-for-eq-8",
    "Eq. (32) for Eq. (8)",
    "Eq. (32) is the multiplier of objective (8)",
    hypotheses=_SETTING,
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="divided by 1 + (K−1)A and multiplied by the state's weight",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    literal = multiplier_check(lpm.log_multiplier_exponential, "cross_entropy")(rng, n)
    corrected = multiplier_check(lpm.log_multiplier_cross_entropy, "cross_entropy")(rng, n)
    a = float(np.exp(-4 / 3))
    return Evidence(
        literal.residual,
        literal.detail,
        corrected=corrected.residual,
        counterexample=f"K = 4, ρ = 1: the two differ by the factor 1 + 3A = {1 + 3 * a:.4f}",
    )


@claims.add(
    "eq-33",
    "Eq. (33)",
    "g(h) = (E_H/E_W)‖w_k‖² − E_W = 0",
    hypotheses="W a simplex ETF",
    tolerance=1e-12,
    expected=Verdict.TYPO,
    correction="−E_H in place of −E_W",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    literal, corrected = 0.0, 0.0
    shown = 25.0 * float(np.sum(lpm.simplex_etf(4, 3)[0] ** 2)) - 1.0
    for _ in range(n):
        problem = imbalanced(rng, states=1)
        e_h, e_w = float(problem.energies[0]), head_energy(problem)
        square = e_h / e_w * float(np.sum(problem.head[problem.labels[0]] ** 2))
        literal = max(literal, abs(square - e_w) / max(e_h, e_w))
        corrected = max(corrected, abs(square - e_h) / e_h)
    return Evidence(
        literal,
        f"|(E_H/E_W)‖w_k‖² − E_W|/max(E_H, E_W); corrected: − E_H; {n} frames",
        corrected=corrected,
        counterexample=f"K = 4, E_H = 25, E_W = 1: (25/1)‖w_k‖² − 1 = {shown:.6g}, not 0",
    )


claims.add(
    "eq-34",
    "Eq. (34)",
    "h = √(E_H/E_W)·w_k is the optimal solution",
    hypotheses=_SETTING,
    tolerance=1e-11,
)(_solved)


def _inner_products(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng)
        k = problem.num_classes
        inner = lpm.solve(problem).features @ problem.head.T / rho(problem)
        expected = (np.eye(k) * k / (k - 1) - 1 / (k - 1))[problem.labels]
        worst = max(worst, float(np.abs(inner - expected).max()))
    return Evidence(worst, f"max |h·w_k' − formula|/ρ, solver 'ball', {n} problems")


for _id, _reference in (("eq-11", "Eq. (11)"), ("eq-35", "Eq. (35)")):
    claims.add(
        _id,
        _reference,
        "h·w_k' = √(E_H·E_W)(K/(K−1)·δ − 1/(K−1)) at the optimum",
        hypotheses=_SETTING,
        tolerance=1e-11,
    )(_inner_products)


# --- Theorem 1 -----------------------------------------------------------------------------------


@claims.add(
    "theorem-1",
    "Theorem 1",
    "“Any global minimizer of Eq. (8)” has h = √(E_H/E_W)·w_k",
    hypotheses=_SETTING,
    tolerance=1e-12,
    expected=Verdict.TYPO,
    correction="any global maximizer of Eq. (8)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    # J at the theorem's point is the maximum; at −w_k it is lower, so it cannot be the minimum.
    problem = lpm.PeeledProblem(lpm.simplex_etf(4, 3), [0], [1.0], 1.0)
    at, opposite = problem.objective(problem.head[:1]), problem.objective(-problem.head[:1])
    worst = 0.0
    for _ in range(n):
        random = imbalanced(rng)
        worst = max(worst, lpm.certify(random, lpm.solve(random).features).kkt_residual)
    return Evidence(
        max(0.0, at - opposite),
        f"J(w_k) − J(−w_k) at K = 4, ρ = 1; corrected: KKT residual of solver 'ball', {n} problems",
        corrected=worst,
        counterexample=f"K = 4, ρ = 1: J = {at:.4f} at w_k and {opposite:.4f} at −w_k",
    )


@claims.add(
    "theorem-1-gap",
    "Theorem 1, global",
    "The theorem's features have a zero duality gap: no feasible point is better",
    hypotheses=_SETTING,
    tolerance=1e-14,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng)
        certificate = lpm.certify(problem, aligned(problem))
        worst = max(worst, certificate.log_odds_gap / (1 + rho(problem)))
    return Evidence(worst, f"max duality gap of Eq. (27) in nats/(1+ρ), {n} problems, no solver")


@claims.add(
    "theorem-1-conic",
    "Theorem 1, cvxpy",
    "cvxpy's joint optimum over all states agrees, in the log-odds form",
    hypotheses=f"{THEOREM_1}; ρ from 0.1 to 100, weights from 1e-12 to 1e12",
    tolerance=1e-5,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst, count = 0.0, max(1, n // 10)
    for _ in range(count):
        problem = imbalanced(rng, log10_rho=(-1.0, 2.0), states=12)
        theorem = lpm.solve(problem, "closed-form")
        conic = lpm.solve(problem, "conic")
        odds = np.abs(conic.log_odds - theorem.log_odds) / (1 + np.abs(theorem.log_odds))
        worst = max(worst, float(odds.max()))
    return Evidence(worst, f"max relative error of F* by cvxpy (log-odds form), {count} problems")


@claims.add(
    "theorem-1-cross-entropy",
    "Theorem 1, Eq. (8)-(9) by cvxpy",
    "cvxpy's joint optimum of Eq. (8) as written, with its weights, agrees",
    hypotheses=f"{THEOREM_1}; ρ from 0.1 to 3, weights from 0.1 to 10",
    tolerance=1e-5,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst, count = 0.0, max(1, n // 10)
    for _ in range(count):
        problem = imbalanced(rng, log10_rho=(-1.0, 0.5), log10_weight=1.0, states=12)
        theorem = lpm.solve(problem, "closed-form")
        conic = lpm.solve(problem, "conic", formulation="cross-entropy")
        worst = max(worst, abs(conic.objective / theorem.objective - 1))
    return Evidence(worst, f"max relative error of J* of Eq. (8) by cvxpy, {count} problems, ρ ≤ 3")
