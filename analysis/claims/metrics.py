"""The metrics of Figure 1 (c)-(f) and NC1-NC4 of Appendix A, at exact collapse."""

import numpy as np
from numpy.typing import NDArray

import lpm
from analysis.claims.record import Catalogue, Evidence, Verdict
from analysis.metrics import CollapseResult, collapse_metrics

Float = NDArray[np.float64]

claims = Catalogue()

_COLLAPSE = "exact collapse: features of action k are w_k, W a simplex ETF"


def _collapsed(
    rng: np.random.Generator, counts: tuple[int, ...], offset: Float | float = 0.0
) -> tuple[Float, NDArray[np.int64], Float]:
    """Features (N, d), labels (N,), head (K, d) of an exactly collapsed policy."""
    head = lpm.simplex_etf(len(counts), 8, 1.0, rng)
    labels = np.repeat(np.arange(len(counts)), counts)
    return head[labels] + offset, labels, head


def _measure(rng: np.random.Generator, counts: tuple[int, ...]) -> CollapseResult:
    return collapse_metrics(*_collapsed(rng, counts))


def _worst(rng: np.random.Generator, n: int, field: str) -> float:
    """Largest value of a metric over exactly collapsed policies of random class sizes."""
    values = []
    for _ in range(n):
        counts = tuple(int(c) for c in rng.integers(2, 50, int(rng.integers(3, 8))))
        values.append(abs(getattr(_measure(rng, counts), field)))
    return float(max(values))


@claims.add(
    "figure-1c",
    "Figure 1 (c)",
    "Std_k‖w_k‖/Avg_k‖w_k‖ is 0 at collapse",
    hypotheses=_COLLAPSE,
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    return Evidence(_worst(rng, n, "head_equinorm"), f"worst of {n} collapsed policies")


@claims.add(
    "figure-1d",
    "Figure 1 (d)",
    "Std_{k,k'≠k} cos_h(k, k') is 0 at collapse, h_G the mean over states",
    hypotheses=f"{_COLLAPSE}; any class sizes",
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="h_G the mean of the class means (or equal class sizes)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    skewed = _measure(rng, (97, 1, 1, 1)).feature_equiangularity_sample_centre
    return Evidence(
        skewed,
        f"the metric with the mean over states; corrected: class-mean centre, {n} policies",
        corrected=_worst(rng, n, "feature_equiangularity"),
        counterexample=f"n_k = 97, 1, 1, 1 at exact collapse: {skewed:.3f}",
    )


@claims.add(
    "figure-1e",
    "Figure 1 (e)",
    "Avg_{k,k'}|cos(k, k') + 1/(K−1)| is 0 at collapse",
    hypotheses=_COLLAPSE,
    tolerance=1e-12,
    expected=Verdict.TYPO,
    correction="the average runs over k' ≠ k",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    head = lpm.simplex_etf(4, 8, 1.0, rng)
    literal = float(np.abs(head @ head.T + 1 / 3).mean())
    return Evidence(
        literal,
        f"the average with k = k' included, K = 4; corrected: without, {n} collapsed policies",
        corrected=_worst(rng, n, "head_max_angle"),
        counterexample=f"K = 4, an exact ETF scores {literal:.4f} with k = k' included",
    )


@claims.add(
    "figure-1f",
    "Figure 1 (f)",
    "Tr(Σ_W Σ_B†)/K with Σ_W “the covariance of h_k” is 0 at collapse",
    hypotheses=_COLLAPSE,
    tolerance=1e-12,
    expected=Verdict.TYPO,
    correction="Σ_W the covariance of the features about their class means",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    # Covariance of the class means h_k is Σ_B itself: Tr(Σ_B Σ_B†)/K = rank/K = (K−1)/K.
    head = lpm.simplex_etf(4, 8, 1.0, rng)
    between = head.T @ head / 4
    literal = float(np.trace(between @ np.linalg.pinv(between)) / 4)
    return Evidence(
        literal,
        f"with Σ_W = Cov(h_k), K = 4; corrected: within-class covariance, {n} collapsed policies",
        corrected=_worst(rng, n, "within_class_variation"),
        counterexample=f"K = 4: (K−1)/K = {literal:.4f} for any features",
    )


@claims.add(
    "figure-1f-span",
    "Figure 1 (f), completeness",
    "Tr(Σ_W Σ_B†)/K = 0 only if the features of each action coincide",
    hypotheses="any features",
    tolerance=1e-9,
    expected=Verdict.UNDER,
    correction="tr Σ_W/tr Σ_B = 0; the pseudo-inverse is blind outside the span of the means",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    features, labels, head = _collapsed(rng, (4, 4, 4, 4))
    # Spread of the features along a direction orthogonal to every class mean.
    normal = np.linalg.svd(head)[2][-1]
    spread = features + np.tile([1.0, -1.0], 8)[:, None] * normal
    result = collapse_metrics(spread, labels, head)
    hidden = result.variance_ratio if result.within_class_variation < 1e-12 else 0.0
    return Evidence(
        hidden,
        "tr Σ_W/tr Σ_B where (f) reads 0; corrected: tr Σ_W/tr Σ_B at exact collapse",
        corrected=_worst(rng, n, "variance_ratio"),
        counterexample=(
            f"spread ±1 orthogonal to the means: (f) = {result.within_class_variation:.1e}, "
            f"tr Σ_W/tr Σ_B = {result.variance_ratio:.3g}"
        ),
    )


@claims.add(
    "nc-1",
    "NC1",
    "Σ_W → 0 at collapse",
    hypotheses=_COLLAPSE,
    tolerance=1e-12,
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    return Evidence(_worst(rng, n, "variance_ratio"), f"tr Σ_W/tr Σ_B, {n} collapsed policies")


@claims.add(
    "nc-2",
    "NC2",
    "(h_k − h_G)/‖h_k − h_G‖ satisfies Eq. (4), h_G = Avg over samples",
    hypotheses=f"{_COLLAPSE}; any class sizes",
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="h_G the mean of the class means (or equal class sizes)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    skewed = _measure(rng, (97, 1, 1, 1)).feature_max_angle_sample_centre
    return Evidence(
        skewed,
        f"Avg|cos + 1/(K−1)| with the sample mean; corrected: class-mean centre, {n} policies",
        corrected=_worst(rng, n, "feature_max_angle"),
        counterexample=f"n_k = 97, 1, 1, 1 at exact collapse: {skewed:.3f}",
    )


@claims.add(
    "nc-3",
    "NC3",
    "h̃_k = w_k/‖w_k‖ for a policy that has collapsed up to what softmax sees",
    hypotheses="features w_k + c, head w_k + v: the same policy as at collapse for v = 0",
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="w centred: softmax does not see a vector added to every row of the head",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    features, labels, head = _collapsed(rng, (3, 5, 2, 7))
    shifted = head + rng.standard_normal(8)
    result = collapse_metrics(features, labels, shifted)
    worst = 0.0
    for _ in range(n):
        moved = head + rng.standard_normal(8)
        worst = max(worst, collapse_metrics(features, labels, moved).self_duality)
    return Evidence(
        1 - result.head_feature_cosine,
        f"1 − cos(h̃_k, w_k) with a shifted head; corrected: self-duality, w centred, {n} shifts",
        corrected=worst,
        counterexample=f"v ~ N(0, I): mean cosine {result.head_feature_cosine:.3f} instead of 1",
    )


@claims.add(
    "nc-4",
    "NC4",
    "argmax_k⟨h, w_k⟩ = argmin_k‖h − h_k‖",
    hypotheses="collapsed class means w_k + c with a common offset c",
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="⟨h − h_G, w_k⟩ in place of ⟨h, w_k⟩ (or no common offset)",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    lowest, centred = 1.0, 1.0
    for _ in range(n):
        features, labels, head = _collapsed(rng, (4, 4, 4, 4), 3 * rng.standard_normal(8))
        result = collapse_metrics(features, labels, head)
        lowest = min(lowest, result.ncc_agreement)
        centred = min(centred, result.ncc_agreement_centred)
    return Evidence(
        1 - lowest,
        f"disagreement over {n} offsets c ~ N(0, 9I); corrected: features centred",
        corrected=1 - centred,
        counterexample=f"4 actions, one random offset c: agreement {lowest:.2f}",
    )


@claims.add(
    "two-actions",
    "Figure 1 (d)-(e) at K = 2",
    "Equiangularity and maximal angle of the centred means say whether CartPole's policy collapsed",
    hypotheses="K = 2, any features",
    tolerance=1e-12,
    expected=Verdict.FAILS,
    correction="two centred means are opposite whatever the features are: report NaN",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    spread = 0.0
    for _ in range(n):
        means = rng.standard_normal((2, 5))
        centred = means - means.mean(axis=0)
        cosine = centred[0] @ centred[1] / np.linalg.norm(centred[0]) / np.linalg.norm(centred[1])
        spread = max(spread, abs(float(cosine) + 1))
    # The residual is 1 when the metric cannot separate random features from collapsed ones.
    return Evidence(
        float(spread < 1e-9),
        f"1 if cos_h = −1 for all of {n} random pairs of means (largest deviation {spread:.0e})",
        counterexample=f"random features: |cos_h + 1| ≤ {spread:.0e}, “perfect” collapse",
    )


@claims.add(
    "absent-actions",
    "Figure 1 (e), actions that never occur",
    "Avg|cos_h + 1/(K−1)| is 0 at collapse when some actions are optimal nowhere",
    hypotheses="3 of 6 actions occur, exact collapse",
    tolerance=1e-12,
    expected=Verdict.UNDER,
    correction="1/(K'−1) with K' the number of actions that occur",
)
def _(rng: np.random.Generator, n: int) -> Evidence:
    head = lpm.simplex_etf(6, 8, 1.0, rng)
    means = head[:3] - head[:3].mean(axis=0)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = (means @ means.T)[~np.eye(3, dtype=bool)]
    literal = float(np.abs(cosines + 1 / 5).mean())
    labels = np.repeat([0, 1, 2], 4)
    result = collapse_metrics(head[labels], labels, head)
    return Evidence(
        literal,
        "with K = 6; corrected: collapse_metrics, which counts the absent actions",
        corrected=result.feature_max_angle,
        counterexample=f"3 of 6 actions at exact collapse score {literal:.2f}",
    )
