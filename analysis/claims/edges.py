"""What Theorem 1 excludes, and the learned head of Eq. (5)-(7)."""

import numpy as np
from numpy.typing import NDArray

import lpm
from analysis.claims.instances import THEOREM_1, aligned, feasible, imbalanced, rho
from analysis.claims.record import Catalogue, Evidence, Verdict

Float = NDArray[np.float64]

claims = Catalogue()


# --- Eq. (5)-(7): the collapsed policy with a learned head ---------------------------------------


def _defect(cosines: Float) -> float:
    """Largest |cos + 1/(K−1)| between different rows; NaN if some row has vanished."""
    k = len(cosines)
    return float(np.abs(cosines[~np.eye(k, dtype=bool)] + 1 / (k - 1)).max())


def _if_proven(residual: float, proven: bool) -> float:
    """A counterexample counts only when its optimum is certified: NaN, no verdict, otherwise."""
    return residual if proven else float("nan")


def _learned(which: str) -> Evidence:
    """Optimum of the layer-peeled model with a learned head: K = 10, R = 10 and R = 1."""
    balanced, worst, gap = np.full(10, 100.0), 0.0, 0.0
    for energy in (0.5, 5.0, 20.0):
        solution = lpm.solve_free_head(lpm.FreeHeadProblem(balanced, energy, 1.0))
        worst = max(worst, _defect(getattr(solution, f"{which}_cosines")))
        gap = max(gap, solution.gap)
    skewed = lpm.solve_free_head(lpm.FreeHeadProblem(np.repeat([1000.0, 100.0], 5), 5.0, 1.0))
    cosines = getattr(skewed, f"{which}_cosines")
    return Evidence(
        _if_proven(_defect(cosines), skewed.gap <= 1e-10),
        f"max |cos + 1/(K−1)| at R = 10 (gap {skewed.gap:.0e}); corrected: at R = 1, three E_H "
        f"(gap {gap:.0e})",
        corrected=worst,
        counterexample=(
            f"K = 10, R = 10, E_H = 5, E_W = 1: cosine {cosines[-1, -2]:.3f} between minority "
            f"actions, {cosines[0, 1]:.3f} between majority ones, {-1 / 9:.3f} in an ETF"
        ),
    )


for _id, _reference, _statement, _which in (
    ("eq-5", "Eq. (5)", "The collapsed head and features are a simplex ETF M*", "head"),
    ("eq-6", "Eq. (6)", "H* = M*: the features of the optimum form the ETF", "feature"),
    ("eq-7", "Eq. (7)", "W* = M*: the learned head of the optimum forms the ETF", "head"),
):
    claims.add(
        _id,
        _reference,
        _statement,
        hypotheses="learned head, optimum of the layer-peeled model, any class sizes",
        tolerance=1e-6,
        expected=Verdict.UNDER,
        correction="equal class sizes (Condition 2), up to the lengths √E_H and √E_W",
    )(lambda rng, n, which=_which: _learned(which))  # type: ignore[misc]


@claims.add(
    "minority-collapse",
    "Minority collapse (Fang et al. 2021)",
    "From the imbalance R1 on, the learned head cannot tell minority actions apart",
    hypotheses="K = 10, 5 + 5 classes, E_H = 5, E_W = 1; solved on both sides of R1",
    tolerance=1e-6,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    ratio = lpm.minority_collapse_ratio(5, 5, 5.0, 1.0)

    def distance(factor: float) -> float:
        counts = np.repeat([np.round(10_000 * ratio * factor), 10_000.0], 5)
        solution = lpm.solve_free_head(lpm.FreeHeadProblem(counts, 5.0, 1.0))
        return float(solution.head_distances[-1, -2])

    before, after = distance(0.999), distance(1.001)
    return Evidence(
        after + float(before < 1e-3),
        f"distance of minority heads at 1.001·R1, R1 = {ratio:.5f}; at 0.999·R1 {before:.3f}",
    )


# --- hypotheses of Theorem 1, one dropped at a time ----------------------------------------------


@claims.add(
    "theorem-1-rectified",
    "Theorem 1, rectified features",
    "The optimum is h = √(E_H/E_W)·w_k for a network whose last layer is a ReLU",
    hypotheses="h ≥ 0, randomly oriented ETF, K = 4, d = 512, ρ = 5",
    tolerance=1e-9,
    expected=Verdict.UNDER,
    correction="features of either sign",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    head = lpm.simplex_etf(4, 512, 1.0, rng)
    rectified = lpm.PeeledProblem(head, np.arange(4), np.ones(4), 25.0, "nonnegative")
    h = lpm.solve(rectified, "orthant").features
    gap = lpm.certify(rectified, h).log_odds_gap
    cosine = float((np.einsum("kd,kd->k", h, head) / np.linalg.norm(h, axis=1)).mean())
    free = lpm.PeeledProblem(head, np.arange(4), np.ones(4), 25.0)
    error = float(np.abs(lpm.solve(free).features - aligned(free)).max() / 5)
    return Evidence(
        _if_proven(1 - cosine, gap <= 1e-9),
        f"1 − cos(h, w_k) at the optimum with h ≥ 0 (gap {gap:.0e}); corrected: free features",
        corrected=error,
        counterexample=f"K = 4, d = 512: mean over k of cos(h, w_k) = {cosine:.3f}",
    )


@claims.add(
    "theorem-1-zero-weight",
    "Theorem 1, Ψ = 0",
    "States of weight zero have h = √(E_H/E_W)·w_k at every optimum",
    hypotheses="d(s)Ψ(s) = 0 for some s",
    tolerance=1e-9,
    expected=Verdict.UNDER,
    correction="positive weights: with weight 0 any feature is optimal",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    problem = lpm.SignedProblem(lpm.simplex_etf(4, 3), [0, 1], [0.0, 1.0], 4.0)
    h = 2 * problem.head[[0, 1]]
    other = h.copy()
    other[0] = -h[0]
    difference = abs(problem.objective(h) - problem.objective(other))
    # Where J does not see the first state, the distance of two optima is the residual.
    residual = float(np.linalg.norm(h - other)) if difference == 0 else 0.0
    positive = imbalanced(rng)
    return Evidence(
        residual,
        "distance of two optima; corrected: duality gap with positive weights",
        corrected=lpm.certify(positive, aligned(positive)).log_odds_gap / (1 + rho(positive)),
        counterexample=f"weights (0, 1): J = {problem.objective(h):.4f} for h_1 = ±2w_1",
    )


@claims.add(
    "theorem-1-negative-weight",
    "Theorem 1, Ψ < 0",
    "h = √(E_H/E_W)·w_k for states of negative weight (returns of −1 a step)",
    hypotheses="d(s)Ψ(s) < 0, as in cliff walking with raw returns",
    tolerance=1e-6,
    expected=Verdict.UNDER,
    correction="positive weights: with negative ones the maximiser minimises π(a*)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    head = lpm.simplex_etf(4, 3)
    problem = lpm.SignedProblem(head, [0], [-1.0], 4.0)
    solution = lpm.solve_signed(problem, rng)
    cosine = float(solution.features[0] @ head[0] / np.linalg.norm(solution.features[0]))
    critical = lpm.critical_rho_negative_weight(4)
    positive = imbalanced(rng)
    error = np.abs(lpm.solve(positive).features - aligned(positive)).max()
    return Evidence(
        _if_proven(1 - cosine, bool(solution.is_global[0])),
        f"1 − cos(h, w_k), gap {solution.log_odds_gap[0]:.0e}; corrected: weights > 0",
        corrected=float(error / np.sqrt(positive.energies[0])),
        counterexample=f"K = 4, ρ = 2: cos(h, w_k) = {cosine:.3f}; from ρ = {critical:.4f} on "
        "the symmetry breaks",
    )


@claims.add(
    "theorem-1-normalised",
    "Theorem 1, ‖h‖ = √E_H forced",
    "A normalised feature has no stationary minimum of the loss other than w_k",
    hypotheses="ETF head, d = K−1, ρ > K−1",
    tolerance=0.0,
    expected=Verdict.UNDER,
    correction="the ball ‖h‖² ≤ E_H (convex: none), or ρ ≤ K−1, or d ≥ K (−w_k is a saddle)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    spurious, avoided, gap = 0, 0, 0.0
    for classes in range(3, 9):
        for factor, dim in ((1.01, classes - 1), (0.99, classes - 1), (1.01, classes)):
            energy = (factor * (classes - 1)) ** 2
            head = lpm.simplex_etf(classes, dim, 1.0, rng)
            problem = lpm.PeeledProblem(head, [0], [1.0], energy)
            report = lpm.classify_on_sphere(problem, -np.sqrt(energy) * head[:1])
            # In the ball there is one local minimum, and it is global.
            gap = max(gap, lpm.certify(problem, lpm.solve(problem).features).log_odds_gap)
            minimum = report.kinds[0] is lpm.PointKind.LOCAL_MINIMUM
            if factor > 1 and dim == classes - 1:
                spurious += minimum
            else:
                avoided += minimum
    return Evidence(
        _if_proven(float(spurious), spurious == 6),
        "local minima found at −w_k, K = 3…8: ρ = 1.01(K−1), d = K−1; corrected: ρ below, or d = K",
        corrected=float(avoided + (gap > 1e-12)),
        counterexample=f"ρ = 1.01(K−1), d = K−1: −w_k is a local minimum for {spurious} of 6 K",
    )


@claims.add(
    "theorem-1-true-objective",
    "Theorem 1 for Eq. (1)",
    "The optimum of the value objective Eq. (1) is aligned with w_k too",
    hypotheses=f"{THEOREM_1}; finite ρ",
    tolerance=1e-6,
    expected=Verdict.UNDER,
    correction="all suboptimal actions have the same Q (or ρ → ∞)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    q = np.array([1.0, 0.9, 0.0])
    optimum = lpm.maximise_expected_return(lpm.simplex_etf(3, 2), q, 1.0, rng)
    worst = 0.0
    for _ in range(max(1, n // 5)):
        k = int(rng.integers(3, 7))
        equal = np.full(k, rng.uniform(-1, 0.9))
        equal[int(rng.integers(k))] = 1.0
        energy = 10.0 ** rng.uniform(-1, 1.5)
        found = lpm.maximise_expected_return(lpm.simplex_etf(k, k - 1), equal, energy, rng)
        worst = max(worst, found.angle)
    return Evidence(
        optimum.angle,
        "angle to w_k at K = 3, Q = (1, .9, 0), ρ = 1; corrected: Q with equal rest",
        corrected=worst,
        counterexample=f"Q = (1, .9, 0), ρ = 1: {np.degrees(optimum.angle):.1f}° from w_k, aligned "
        f"regret {optimum.aligned_regret:.4f}",
    )


@claims.add(
    "theorem-1-ties",
    "Theorem 1, ties",
    "With two optimal actions h is aligned with one of them",
    hypotheses="Q_1 = Q_2 > Q_a for the others, objective Eq. (1), ρ below the pitchfork",
    tolerance=1e-4,
    expected=Verdict.UNDER,
    correction="a unique optimal action; with two, h lies along w_1 + w_2 up to "
    "ρ = √(2(K−1)/(K−2)), and between w_1 + w_2 and one of them above",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    head, critical = lpm.simplex_etf(4, 3), lpm.tie_pitchfork_rho(4)
    q = np.array([1.0, 1.0, 0.0, 0.0])
    below = lpm.maximise_expected_return(head, q, (0.95 * critical) ** 2, rng).features
    above = lpm.maximise_expected_return(head, q, (1.05 * critical) ** 2, rng).features

    def split(h: Float) -> float:
        return float(abs(h @ (head[0] - head[1])) / np.linalg.norm(h))

    cosine = float(max(head[:2] @ below) / np.linalg.norm(below))
    return Evidence(
        1 - cosine,
        f"1 − max cos(h, w_1 or w_2) at 0.95 of the pitchfork; corrected: |h·(w_1 − w_2)|/‖h‖ "
        f"there (and at 1.05 of it {split(above):.2f}, which must not vanish)",
        corrected=split(below) + float(split(above) < 0.1),
        counterexample=f"K = 4, ρ = {0.95 * critical:.3f}: both cosines = {cosine:.3f}",
    )


@claims.add(
    "theorem-1-bound",
    "Theorem 1, AM-GM bound",
    "F(h) ≥ log(K−1) − (K/(K−1))·h·w_k ≥ log(K−1) − ρK/(K−1) for every feasible h",
    hypotheses="W a simplex ETF",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        problem = imbalanced(rng)
        h, k = feasible(rng, problem), problem.num_classes
        own = np.einsum("nd,nd->n", h, problem.head[problem.labels])
        middle = np.log(k - 1) - k / (k - 1) * own
        norm = np.linalg.norm(problem.head, axis=1).max()
        size = np.sqrt(problem.energies) * norm
        lowest = lpm.optimal_log_odds(k, size)
        worst = max(
            worst,
            float(((middle - problem.log_odds(h)) / (1 + size)).max()),
            float(((lowest - middle) / (1 + size)).max()),
        )
    return Evidence(max(worst, 0.0), f"violation/(1+ρ) at random features, {n} problems")
