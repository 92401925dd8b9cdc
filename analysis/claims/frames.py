"""Definition 2, Eq. (3)-(7), (10), Lemma 1 and its proof: the simplex ETF."""

import numpy as np

import lpm
from analysis.claims.instances import frame
from analysis.claims.record import Catalogue, Evidence, Verdict

claims = Catalogue()

_ANY_FRAME = "K ≥ 2, d ≥ K−1"


def _as_written(rng: np.random.Generator, n: int) -> Evidence:
    """Eq. (3) with UᵀU = I_K: impossible at d = K−1, an ETF for d ≥ K."""
    impossible, worst = 0.0, 0.0
    for _ in range(n):
        classes = int(rng.integers(2, 20))
        # UᵀU of a (K−1, K) matrix has rank ≤ K−1, so ‖UᵀU − I_K‖₂ ≥ 1 whatever U is. The best
        # U, with orthonormal rows, reaches 1.
        u = np.linalg.qr(rng.standard_normal((classes, classes - 1)))[0].T
        impossible = max(impossible, float(np.linalg.norm(u.T @ u - np.eye(classes), 2)))
        dim = classes + int(rng.integers(0, 10))
        u = np.linalg.qr(rng.standard_normal((dim, classes)))[0]
        m = np.sqrt(classes / (classes - 1)) * u @ (np.eye(classes) - 1 / classes)
        worst = max(worst, lpm.etf_defect(m.T, 1.0))
    return Evidence(
        impossible,
        f"‖UᵀU − I_K‖₂ at d = K−1; corrected: Gram defect for {n} U with d ≥ K",
        corrected=worst,
        counterexample=f"d = K−1: rank UᵀU ≤ K−1, so ‖UᵀU − I_K‖₂ ≥ 1 (best {impossible:.3g})",
    )


claims.add(
    "definition-2",
    "Definition 2",
    "A simplex ETF is M = √(K/(K−1))·U(I − 11ᵀ/K) with UᵀU = I_K, for d ≥ K−1",
    hypotheses=_ANY_FRAME,
    tolerance=1e-13,
    expected=Verdict.UNDER,
    correction="d ≥ K; for d = K−1 replace UᵀU = I_K by UUᵀ = I and U·1 = 0 (claim eq-3)",
)(_as_written)


@claims.add(
    "eq-3",
    "Eq. (3)",
    "M = √(K/(K−1))·U(I − 11ᵀ/K) for d ≥ K−1",
    hypotheses=f"{_ANY_FRAME}, UᵀU = I_K",
    tolerance=1e-13,
    expected=Verdict.UNDER,
    correction="U an isometry on the complement of 1: UUᵀ = I and U·1 = 0 when d = K−1",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    evidence = _as_written(rng, 2)
    worst = 0.0
    for classes in range(2, 2 + n):
        w = lpm.simplex_etf(classes, classes - 1, 1.0, rng)
        u = np.sqrt((classes - 1) / classes) * w.T  # (K−1, K); then Eq. (3) gives wᵀ back
        m = np.sqrt(classes / (classes - 1)) * u @ (np.eye(classes) - 1 / classes)
        worst = max(
            worst,
            float(np.abs(u @ u.T - np.eye(classes - 1)).max()),
            float(np.abs(u.sum(axis=1)).max()),
            float(np.abs(m - w.T).max()),
            lpm.etf_defect(m.T, 1.0),
        )
    return Evidence(
        evidence.residual,
        f"‖UᵀU − I_K‖₂ at d = K−1; corrected: UUᵀ = I, U·1 = 0, Gram defect, K = 2…{1 + n}",
        corrected=worst,
        counterexample=evidence.counterexample,
    )


@claims.add(
    "eq-4",
    "Eq. (4)",
    "Unit norms and pairwise cosines −1/(K−1)",
    hypotheses=_ANY_FRAME,
    tolerance=1e-13,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        w, energy = frame(rng)
        cosines = (w @ w.T) / energy
        off = cosines[~np.eye(len(w), dtype=bool)]
        worst = max(
            worst,
            float(np.abs(np.diag(cosines) - 1).max()),
            float(np.abs(off + 1 / (len(w) - 1)).max()),
        )
    return Evidence(worst, f"max deviation of norms and cosines, {n} frames, K = 2…19")


@claims.add(
    "eq-4-maximal",
    "Eq. (4), maximality",
    "−1/(K−1) is the maximal equiangular separation of K vectors",
    hypotheses="any K unit vectors in any dimension",
    tolerance=1e-13,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        classes, dim = int(rng.integers(2, 20)), int(rng.integers(1, 30))
        unit = rng.standard_normal((classes, dim))
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        # ‖Σ u_k‖² ≥ 0 gives K + K(K−1)·(mean cosine) ≥ 0, so the largest cosine is ≥ −1/(K−1).
        largest = (unit @ unit.T)[~np.eye(classes, dtype=bool)].max()
        worst = max(worst, float(-1 / (classes - 1) - largest))
    return Evidence(max(worst, 0.0), f"how far {n} random sets beat −1/(K−1)")


@claims.add(
    "eq-10",
    "Eq. (10)",
    "w_k·w_k' = E_W(K/(K−1)·δ − 1/(K−1))",
    hypotheses=f"{_ANY_FRAME}, E_W > 0",
    tolerance=1e-13,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = max(lpm.etf_defect(w, energy) for w, energy in (frame(rng) for _ in range(n)))
    return Evidence(worst, f"max Gram defect / E_W over {n} frames, E_W = 1e-2…1e2")


@claims.add(
    "eq-23",
    "Eq. (23)",
    "G_ii = E_W, G_ij = −E_W/(K−1)",
    hypotheses=_ANY_FRAME,
    tolerance=1e-13,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        w, energy = frame(rng)
        g, k = lpm.gram(w), len(w)
        expected = np.where(np.eye(k, dtype=bool), energy, -energy / (k - 1))
        worst = max(worst, float(np.abs(g - expected).max()) / energy)
    return Evidence(worst, f"max entrywise deviation / E_W, {n} frames")


@claims.add(
    "eq-24",
    "Eq. (24)",
    "G·1 = E_W + (K−1)(−E_W/(K−1)) = 0 (printed without vector notation)",
    hypotheses=_ANY_FRAME,
    tolerance=1e-13,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        w, energy = frame(rng)
        worst = max(worst, float(np.abs(lpm.gram(w).sum(axis=1)).max()) / energy / len(w))
    return Evidence(worst, f"max |(G·1)_k|/(K·E_W), {n} frames")


@claims.add(
    "eq-25",
    "Eq. (25)",
    "G·1 = 0 ⇒ WᵀW·1 = 0, W the K×d matrix of Eq. (2)",
    hypotheses=_ANY_FRAME,
    tolerance=1e-13,
    expected=Verdict.TYPO,
    correction="G = WWᵀ for the K×d W of Eq. (2); WᵀW is G for the d×K W of Eq. (3)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    literal, corrected = 0.0, 0.0
    for _ in range(n):
        classes = int(rng.integers(2, 20))
        w = lpm.simplex_etf(classes, classes, 1.0, rng)  # d = K, the one case where shapes fit
        literal = max(literal, float(np.abs(w.T @ w @ np.ones(classes)).max()))
        corrected = max(corrected, float(np.abs(w @ w.T @ np.ones(classes)).max()) / classes)
    return Evidence(
        literal,
        f"max |WᵀW·1| for W (K×K); corrected: |WWᵀ·1|/K, {n} frames",
        corrected=corrected,
        counterexample=(
            f"W is K×d in Eq. (2) and d×K in Eq. (3); as K×d, WᵀW is d×d and at d = K "
            f"|WᵀW·1| reaches {literal:.3g}"
        ),
    )


@claims.add(
    "eq-26",
    "Eq. (26)",
    "WᵀW·1 = 0 ⇒ W·1 = 0 (columns as vectors)",
    hypotheses="any matrix",
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    worst = 0.0
    for _ in range(n):
        # ‖W1‖² = 1ᵀ(WᵀW)1: no rank argument is needed, and the identity holds for every W.
        w = rng.standard_normal((int(rng.integers(1, 12)), int(rng.integers(2, 12))))
        one = np.ones(w.shape[1])
        square = float(np.sum((w @ one) ** 2))
        worst = max(worst, abs(square - float(one @ (w.T @ w) @ one)) / (1 + square))
    return Evidence(worst, f"|‖W1‖² − 1ᵀWᵀW1| over {n} random matrices")


@claims.add(
    "lemma-1",
    "Lemma 1",
    "Σ_k w_k = 0",
    hypotheses="W a simplex ETF",
    tolerance=1e-13,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    frames = (frame(rng) for _ in range(n))
    residual = max(np.linalg.norm(w.sum(axis=0)) / np.sqrt(e) for w, e in frames)
    return Evidence(float(residual), f"max ‖Σ w_k‖/√E_W over {n} frames, K = 2…19")
