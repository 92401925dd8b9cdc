"""A naive reference of the collapse metrics, data to measure, and how results are compared."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from analysis.metrics import (
    DEFAULT_RCOND,
    METRIC_FIELDS,
    CollapseMetrics,
    CollapseResult,
    collapse_metrics,
)

Data = dict[str, Any]


def reference(
    features: np.ndarray,
    labels: np.ndarray,
    head: np.ndarray,
    bias: np.ndarray | None = None,
    rcond: float = DEFAULT_RCOND,
) -> dict[str, float]:
    """Every metric by loops over classes, pairs and samples, with the (d, d) pseudo-inverse.

    Written from the formulae, for regular data only: it knows no NaN.
    """
    h, w = np.asarray(features, float), np.asarray(head, float)
    num_classes, dim = w.shape
    present = [k for k in range(num_classes) if any(y == k for y in labels)]
    means = {
        k: sum(h[i] for i in range(len(h)) if labels[i] == k) / sum(labels == k) for k in present
    }
    class_centre = sum(means[k] for k in present) / len(present)
    sample_centre = sum(h) / len(h)

    def std(values: list[float]) -> float:
        average = sum(values) / len(values)
        return math.sqrt(sum((v - average) ** 2 for v in values) / len(values))

    def avg(values: list[float]) -> float:
        return sum(values) / len(values)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b) / math.sqrt(float(a @ a)) / math.sqrt(float(b @ b))

    def frame(name: str, suffix: str, rows: list[np.ndarray]) -> dict[str, float]:
        cosines = [cosine(a, b) for a, b in itertools.permutations(rows, 2)]
        norms = [float(np.linalg.norm(row)) for row in rows]
        return {
            f"{name}_equinorm{suffix}": std(norms) / avg(norms),
            f"{name}_equiangularity{suffix}": std(cosines),
            f"{name}_max_angle{suffix}": avg([abs(c + 1 / (len(rows) - 1)) for c in cosines]),
        }

    out = frame("head", "", list(w))
    out |= frame("feature", "", [means[k] - class_centre for k in present])
    out |= frame("feature", "_sample_centre", [means[k] - sample_centre for k in present])

    within = np.zeros((dim, dim))
    for i in range(len(h)):
        r = h[i] - means[labels[i]]
        within += np.outer(r, r) / len(h)
    between = np.zeros((dim, dim))
    for k in present:
        m = means[k] - class_centre
        between += np.outer(m, m) / len(present)
    inverse = np.linalg.pinv(between, rcond=rcond, hermitian=True)
    out["within_class_variation"] = float(np.trace(within @ inverse)) / len(present)
    out["variance_ratio"] = float(np.trace(within) / np.trace(between))

    variance = {
        k: avg([float(np.sum((h[i] - means[k]) ** 2)) for i in range(len(h)) if labels[i] == k])
        for k in present
    }
    out["cdnv"] = avg(
        [
            (variance[a] + variance[b]) / (2 * float(np.sum((means[a] - means[b]) ** 2)))
            for a, b in itertools.permutations(present, 2)
        ]
    )

    head_centre = sum(w[k] for k in present) / len(present)
    top = np.array([w[k] - head_centre for k in present])
    bottom = np.array([means[k] - class_centre for k in present])
    gap = top / np.linalg.norm(top) - bottom / np.linalg.norm(bottom)
    out["self_duality"] = float(np.linalg.norm(gap))
    centred = [cosine(means[k] - class_centre, w[k]) for k in present]
    raw = [cosine(means[k], w[k]) for k in present]
    out["head_feature_cosine"], out["head_feature_cosine_min"] = avg(centred), min(centred)
    out["head_feature_cosine_raw"], out["head_feature_cosine_raw_min"] = avg(raw), min(raw)

    b = np.zeros(num_classes) if bias is None else np.asarray(bias, float)
    agree = agree_centred = 0
    for x in h:
        nearest = min(present, key=lambda k: float(np.linalg.norm(x - means[k])))
        agree += nearest == max(present, key=lambda k: float(x @ w[k] + b[k]))
        agree_centred += nearest == max(present, key=lambda k: float((x - class_centre) @ w[k]))
    out["ncc_agreement"] = agree / len(h)
    out["ncc_agreement_centred"] = agree_centred / len(h)
    return out


def etf(k: int, d: int | None = None) -> np.ndarray:
    """Rows of a simplex ETF of unit norm, in the first k coordinates of d."""
    rows = math.sqrt(k / (k - 1)) * (np.eye(k) - 1 / k)
    return np.pad(rows, ((0, 0), (0, (d or k) - k)))


def cloud(seed: int, counts: list[int], dim: int, noise: float = 0.7) -> Data:
    """Noisy clusters in random order, a head that resembles them, a bias."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(len(counts), dim)) + rng.normal(size=dim)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return {
        "features": means[labels] + noise * rng.normal(size=(len(labels), dim)),
        "labels": labels,
        "head": means + 0.5 * rng.normal(size=means.shape),
        "bias": rng.normal(size=len(counts)),
    }


def is_regular(data: Data) -> bool:
    """Whether no length or direction is so short that two roundings of it may differ in 1e-9."""
    h, y = data["features"], data["labels"]
    means = np.array([h[y == k].mean(axis=0) for k in np.unique(y)])
    centred = means - means.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)[: len(means) - 1]
    pairs = [means[a] - means[b] for a, b in itertools.combinations(range(len(means)), 2)]
    lengths = np.linalg.norm(np.vstack([centred, means - h.mean(axis=0), means, *pairs]), axis=1)
    return bool(min(singular.min(), lengths.min()) > 0.01 * max(singular.max(), lengths.max()))


@st.composite
def clouds(draw: st.DrawFn) -> Data:
    """Three classes or more of at least two samples, others perhaps of one or absent."""
    counts = draw(st.lists(st.integers(0, 7), min_size=3, max_size=6))
    for k in draw(st.permutations(range(len(counts))))[:3]:
        counts[k] = max(counts[k], 2)
    if draw(st.booleans()):  # an action that does not occur, with any number
        counts.insert(draw(st.integers(0, len(counts))), 0)
    seed, dim = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 8))
    data = cloud(seed, counts, dim, noise=draw(st.sampled_from([0.05, 0.7, 3.0])))
    assume(is_regular(data))
    return data


def measure(data: Data, **options: Any) -> CollapseResult:
    return collapse_metrics(
        data["features"], data["labels"], data["head"], bias=data["bias"], **options
    )


def stream_of(data: Data, parts: list[np.ndarray] | None = None, **options: Any) -> CollapseMetrics:
    stream = CollapseMetrics(*data["head"].shape, **options)
    for part in parts or [np.arange(len(data["labels"]))]:
        stream.update(data["features"][part], data["labels"][part])
    return stream


def assert_same(
    found: CollapseResult | Mapping[str, float],
    wanted: CollapseResult | Mapping[str, float],
    *,
    skip: tuple[str, ...] = (),
    only: tuple[str, ...] = METRIC_FIELDS,
    rtol: float = 1e-9,
    atol: float = 1e-10,
) -> None:
    """All metrics equal, NaN where NaN; and the same reasons where both have them."""
    left = found.as_row() if isinstance(found, CollapseResult) else found
    right = wanted.as_row() if isinstance(wanted, CollapseResult) else wanted
    for name in only:
        if name not in skip:
            np.testing.assert_allclose(
                left[name], right[name], rtol=rtol, atol=atol, equal_nan=True, err_msg=name
            )
    if isinstance(found, CollapseResult) and isinstance(wanted, CollapseResult):
        assert {k: v for k, v in found.reasons.items() if k in only and k not in skip} == {
            k: v for k, v in wanted.reasons.items() if k in only and k not in skip
        }


FEATURE_FIELDS = tuple(name for name in METRIC_FIELDS if name.startswith("feature_"))
WITHIN_FIELDS = ("within_class_variation", "variance_ratio", "cdnv")
HEAD_FIELDS = ("head_equinorm", "head_equiangularity", "head_max_angle")
COSINE_FIELDS = tuple(name for name in METRIC_FIELDS if name.startswith("head_feature_cosine"))
AGREEMENT_FIELDS = ("ncc_agreement", "ncc_agreement_centred")
