"""Collapse metrics against a naive reference, exact values, and the symmetries they must have."""

import dataclasses
import functools
import io
import itertools
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from analysis.collapse_first_pass import FirstPass
from analysis.metrics import (
    DEFAULT_RCOND,
    METRIC_FIELDS,
    CollapseMetrics,
    CollapseResult,
    collapse_metrics,
    snapshot_metrics,
)
from analysis.snapshot import Snapshot

Data = dict[str, Any]

# --------------------------------------------------------------------------- reference


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


# --------------------------------------------------------------------------- data and comparison


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

# --------------------------------------------------------------------------- values


@pytest.mark.theory
@given(clouds())
def test_equals_the_naive_reference(data: Data) -> None:
    result = measure(data)
    assert_same(result, reference(**data), rtol=1e-9, atol=1e-11)
    assert result.reasons == {}
    assert result.num_samples == len(data["labels"])
    counts = [int(np.sum(data["labels"] == k)) for k in range(len(data["head"]))]
    assert result.counts.tolist() == counts
    assert result.absent_classes == counts.count(0)


@pytest.mark.theory
@given(clouds())
def test_reference_covers_every_field(data: Data) -> None:
    assert set(reference(**data)) == set(METRIC_FIELDS)


@pytest.mark.theory
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_against_fifty_digits(offset: float) -> None:
    """The same sums in exact arithmetic on the very float64 numbers that were passed."""
    data = cloud(3, [3, 5, 2, 4], 3)
    features = data["features"] + offset
    with mpmath.workdps(50):
        h = [[mpmath.mpf(float(v)) for v in row] for row in features]
        groups = [[h[i] for i in np.flatnonzero(data["labels"] == k)] for k in range(4)]

        def mean(rows: list[list[Any]]) -> list[Any]:
            return [mpmath.fsum(column) / len(rows) for column in zip(*rows, strict=True)]

        def minus(a: list[Any], b: list[Any]) -> list[Any]:
            return [x - y for x, y in zip(a, b, strict=True)]

        means = [mean(group) for group in groups]
        m = [minus(row, mean(means)) for row in means]
        norms = [mpmath.norm(row) for row in m]
        pairs = list(itertools.permutations(range(4), 2))
        cosines = [mpmath.fdot(m[a], m[b]) / (norms[a] * norms[b]) for a, b in pairs]

        def std(values: list[Any]) -> Any:
            average = mpmath.fsum(values) / len(values)
            return mpmath.sqrt(mpmath.fsum((v - average) ** 2 for v in values) / len(values))

        within = mpmath.matrix(3, 3)
        spread = []
        for group, centre in zip(groups, means, strict=True):
            residuals = [minus(row, centre) for row in group]
            spread.append(mpmath.fsum(mpmath.fdot(r, r) for r in residuals) / len(group))
            for r in residuals:
                within += mpmath.matrix(r) * mpmath.matrix(r).T / len(h)
        between = mpmath.matrix(3, 3)
        for row in m:
            between += mpmath.matrix(row) * mpmath.matrix(row).T / 4
        product = within * between**-1  # four means in general position span all three dimensions
        gaps = {(a, b): minus(means[a], means[b]) for a, b in pairs}
        exact = {
            "feature_equinorm": std(norms) / (mpmath.fsum(norms) / 4),
            "feature_equiangularity": std(cosines),
            "feature_max_angle": mpmath.fsum(abs(c + mpmath.mpf(1) / 3) for c in cosines) / 12,
            "within_class_variation": sum(product[i, i] for i in range(3)) / 4,
            "variance_ratio": sum(within[i, i] for i in range(3))
            / sum(between[i, i] for i in range(3)),
            "cdnv": mpmath.fsum(
                (spread[a] + spread[b]) / (2 * mpmath.fdot(gaps[a, b], gaps[a, b]))
                for a, b in pairs
            )
            / 12,
        }
    wanted = {name: float(value) for name, value in exact.items()}
    only = tuple(wanted)
    found = collapse_metrics(features, data["labels"])
    assert_same(found, wanted, only=only, rtol=1e-13, atol=0)
    streamed = CollapseMetrics(4, 3)
    for i in range(len(features)):
        streamed.update(features[i : i + 1], data["labels"][i : i + 1])
    assert_same(streamed.compute(), wanted, only=only, rtol=1e-12, atol=0)


@pytest.mark.theory
@pytest.mark.parametrize("classes", [3, 4, 10])
@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_exact_collapse_scores_zero(classes: int, offset: float) -> None:
    labels = np.repeat(np.arange(classes), 3)
    head = etf(classes, classes + 2)
    features = 2.5 * head[labels] + offset
    row = collapse_metrics(features, labels, head).as_row()
    ones = set(COSINE_FIELDS + AGREEMENT_FIELDS)
    if offset:  # the raw cosine and the decision of the network do see an offset
        ones -= {"head_feature_cosine_raw", "head_feature_cosine_raw_min"}
    for name in METRIC_FIELDS:
        if name.startswith("head_feature_cosine_raw") and offset:
            assert row[name] < 0.5
        else:
            assert row[name] == pytest.approx(float(name in ones), abs=1e-7), name


@pytest.mark.theory
def test_unequal_counts_at_exact_collapse() -> None:
    """n = 97, 1, 1, 1: about the class centre 0, about the sample mean two values, worked out."""
    counts = [97, 1, 1, 1]
    labels = np.repeat(np.arange(4), counts)
    result = collapse_metrics(etf(4)[labels], labels, etf(4))
    for name in FEATURE_FIELDS[::2]:
        assert result.as_row()[name] == pytest.approx(0, abs=1e-14), name

    # With e_k the vertices, ⟨e_j, e_k⟩ = −1/3 and h_G = .96 e_0: rational Gram matrix.
    g = Fraction(96, 100)
    third = Fraction(1, 3)
    far = 1 + g * g + 2 * g * third  # ‖e_k − g e_0‖², k > 0
    one = -float(third + g) / math.sqrt(far)  # cosine of the frequent action and another
    two = float((-third + 2 * g * third + g * g) / far)  # of two others
    for name in ("feature_equiangularity_sample_centre", "feature_max_angle_sample_centre"):
        # Half the pairs have either value, on either side of −1/3: both metrics are half the gap.
        assert result.as_row()[name] == pytest.approx((two - one) / 2, abs=1e-14)
        assert result.as_row()[name] == pytest.approx(0.644, abs=5e-4)
    norms = [float(1 - g)] + 3 * [math.sqrt(far)]
    assert result.feature_equinorm_sample_centre == pytest.approx(
        np.std(norms) / np.mean(norms), abs=1e-14
    )


def test_the_field_names_alternate_with_their_sample_centre_versions() -> None:
    """What the slice in the test above relies on."""
    assert FEATURE_FIELDS[1::2] == tuple(f"{name}_sample_centre" for name in FEATURE_FIELDS[::2])
    assert len(METRIC_FIELDS) == 19


@pytest.mark.theory
def test_actions_that_do_not_occur_are_left_out() -> None:
    """Three of six at exact collapse: target −1/2, not −1/5; the head is judged on all six."""
    labels = np.repeat([0, 2, 5], 4)
    head = etf(6)
    result = collapse_metrics(head[labels], labels, head)
    assert result.absent_classes == 3
    assert result.counts.tolist() == [4, 0, 4, 0, 0, 4]
    assert result.feature_max_angle == pytest.approx(0, abs=1e-14)
    assert result.feature_equiangularity == pytest.approx(0, abs=1e-14)
    assert result.head_max_angle == pytest.approx(0, abs=1e-14)
    assert result.self_duality == pytest.approx(0, abs=1e-14)
    assert result.ncc_agreement == 1.0
    # Centred anew the three means are an ETF of their own; cos(e_k − c, e_k) = √(1 − |c|²) < 1.
    assert result.head_feature_cosine == pytest.approx(math.sqrt(1 - 1 / 5), abs=1e-12)
    assert result.head_feature_cosine_raw == pytest.approx(1, abs=1e-12)
    # With the target of six actions the same features would score .30.
    assert abs(-1 / 2 + 1 / 5) == pytest.approx(0.30)


@pytest.mark.theory
def test_a_head_of_an_absent_action_does_not_decide() -> None:
    labels = np.array([0, 0, 1, 1])
    features = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]])
    head = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 100.0]])
    assert collapse_metrics(features, labels, head).ncc_agreement == 1.0


@pytest.mark.theory
def test_rectified_features_reach_half_root_three_raw_and_one_centred() -> None:
    labels = np.repeat(np.arange(4), 2)
    result = collapse_metrics(np.eye(4)[labels], labels, etf(4))
    assert result.head_feature_cosine == pytest.approx(1, abs=1e-14)
    assert result.head_feature_cosine_raw_min == pytest.approx(math.sqrt(3) / 2, abs=1e-14)


@pytest.mark.theory
def test_variation_outside_the_span_of_the_means() -> None:
    """Within-class variation is blind to it, the variance ratio is not: ¼ / 1."""
    labels = np.repeat(np.arange(4), 2)
    features = etf(4, 5)[labels]
    features[::2, 4], features[1::2, 4] = 0.5, -0.5
    result = collapse_metrics(features, labels)
    assert result.within_class_variation == pytest.approx(0, abs=1e-15)
    assert result.variance_ratio == pytest.approx(0.25, rel=1e-14)
    assert result.cdnv == pytest.approx(0.25 / (8 / 3), rel=1e-14)  # ‖e_j − e_k‖² = 8/3


@pytest.mark.theory
@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_rank_deficient_means_need_the_cut_off(noise: float) -> None:
    """Four means on a line, but for float32-like rounding: one direction counts, exactly."""
    rng = np.random.default_rng(0)
    dim = 64
    means = np.zeros((4, dim))
    means[:, 0] = [-3, -1, 1, 3]
    means += noise * rng.normal(size=means.shape)
    labels = np.repeat(np.arange(4), 2 * dim)
    shifts = np.tile(np.vstack([np.eye(dim), -np.eye(dim)]), (4, 1))  # Σ_W = I/64
    features = means[labels] + shifts
    result = collapse_metrics(features, labels)
    assert result.within_class_variation == pytest.approx(1 / dim / 5 / 4, rel=1e-6)
    if noise:
        loose = collapse_metrics(features, labels, rcond=1e-20)
        assert loose.within_class_variation > 1e8


@pytest.mark.theory
def test_self_duality_ignores_what_softmax_ignores() -> None:
    data = cloud(5, [3, 4, 5], 4)
    shifted = data | {"head": data["head"] + 10.0}
    assert measure(data).self_duality == pytest.approx(measure(shifted).self_duality, rel=1e-12)
    opposed = collapse_metrics(etf(3)[[0, 0, 1, 2]], [0, 0, 1, 2], -etf(3))
    assert opposed.self_duality == pytest.approx(2, rel=1e-14)
    assert opposed.head_feature_cosine_min == pytest.approx(-1, rel=1e-14)
    assert opposed.ncc_agreement == 0.0


@pytest.mark.theory
def test_agreement_is_the_networks_decision_and_centred_the_geometry() -> None:
    """Exact collapse with a bias: the network decides otherwise, the geometry does not."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    head = etf(3)
    biased = collapse_metrics(head[labels], labels, head, bias=np.array([0.0, 0.0, 10.0]))
    assert biased.ncc_agreement == pytest.approx(1 / 3)
    assert biased.ncc_agreement_centred == 1.0
    # An offset of the features acts as the bias ⟨offset, w_k⟩.
    moved = collapse_metrics(head[labels] + 10.0 * head[2], labels, head)
    assert moved.ncc_agreement == pytest.approx(1 / 3)
    assert moved.ncc_agreement_centred == 1.0


@pytest.mark.theory
def test_ties_count_the_chance_that_fair_draws_agree() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    features = etf(3)[labels]
    head = etf(3)
    head[1] = head[0]  # the rows of actions 0 and 1 coincide
    tied = collapse_metrics(features, labels, head)
    # Action 0 draws from {0, 1}, action 1 from {0, 1, 2} (all scores are −1/2), action 2 is sure.
    assert tied.ncc_agreement == pytest.approx((2 / 2 + 2 / 3 + 2) / 6, rel=1e-14)
    # Three samples at equal distance from all means, and one decision: one chance in three each.
    features = np.vstack([etf(3)] * 3 + [np.zeros((3, 3))])
    labels = np.tile(np.arange(3), 4)
    biased = collapse_metrics(features, labels, etf(3), bias=np.array([0.1, 0.0, 0.0]))
    assert biased.ncc_agreement == pytest.approx((9 + 3 / 3) / 12, rel=1e-14)
    # Without the bias both sides tie three ways: nine draws, three of them agree.
    unbiased = collapse_metrics(features, labels, etf(3))
    assert unbiased.ncc_agreement == pytest.approx((9 + 3 * 3 / 9) / 12, rel=1e-14)


# --------------------------------------------------------------------------- symmetries


def rotation(seed: int, dim: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))
    return q


@pytest.mark.theory
@given(clouds(), st.integers(0, 1000))
def test_rotation_changes_nothing(data: Data, seed: int) -> None:
    q = rotation(seed, data["features"].shape[1])
    turned = data | {"features": data["features"] @ q, "head": data["head"] @ q}
    assert_same(measure(turned), measure(data))


@pytest.mark.theory
@given(clouds(), st.floats(1e-60, 1e60), st.floats(1e-60, 1e60))
def test_scaling_changes_nothing(data: Data, a: float, b: float) -> None:
    scaled = data | {
        "features": data["features"] * a,
        "head": data["head"] * b,
        "bias": data["bias"] * a * b,
    }
    assert_same(measure(scaled), measure(data))


@pytest.mark.theory
@given(clouds(), st.floats(-100, 100))
def test_translation_changes_only_what_reads_the_raw_feature(data: Data, size: float) -> None:
    shift = size * np.random.default_rng(1).normal(size=data["features"].shape[1])
    moved = data | {
        "features": data["features"] + shift,
        "bias": data["bias"] - data["head"] @ shift,  # the network that decides as before
    }
    raw = ("head_feature_cosine_raw", "head_feature_cosine_raw_min")
    assert_same(measure(moved), measure(data), skip=raw)


@pytest.mark.theory
@given(clouds(), st.integers(0, 1000))
def test_order_of_samples_changes_nothing(data: Data, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(data["labels"]))
    shuffled = data | {"features": data["features"][order], "labels": data["labels"][order]}
    assert_same(measure(shuffled), measure(data))


@pytest.mark.theory
@given(clouds(), st.integers(0, 1000))
def test_numbering_of_actions_changes_nothing(data: Data, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(data["head"]))
    renamed = data | {
        "labels": np.argsort(order)[data["labels"]],
        "head": data["head"][order],
        "bias": data["bias"][order],
    }
    found, wanted = measure(renamed), measure(data)
    assert_same(found, wanted)
    assert found.counts.tolist() == wanted.counts[order].tolist()


@pytest.mark.theory
@given(clouds())
def test_numbering_changes_nothing_when_decisions_tie(data: Data) -> None:
    data["head"][1] = data["head"][0]
    data["bias"][1] = data["bias"][0]
    data["features"][::2] = data["features"][0]
    backwards = data | {
        "labels": len(data["head"]) - 1 - data["labels"],
        "head": data["head"][::-1],
        "bias": data["bias"][::-1],
    }
    assert_same(measure(backwards), measure(data), only=AGREEMENT_FIELDS, rtol=1e-12)


@pytest.mark.theory
@given(clouds())
def test_repeating_all_data_changes_nothing(data: Data) -> None:
    twice = data | {
        "features": np.vstack([data["features"]] * 2),
        "labels": np.concatenate([data["labels"]] * 2),
    }
    # Classes with one sample are no exception: the standard deviation is the population's.
    assert_same(measure(twice), measure(data))


# --------------------------------------------------------------------------- precision, types


@pytest.mark.theory
@given(clouds(), st.sampled_from([0.0, 1e3, 1e6]))
def test_float32_gives_what_its_float64_copy_gives(data: Data, offset: float) -> None:
    features = (data["features"] + offset).astype(np.float32)
    small = data | {"features": features}
    wide = data | {"features": features.astype(np.float64)}
    assert_same(measure(small), measure(wide), rtol=1e-12, atol=0)
    if offset < 1e6:  # there the float32 grid makes classes coincide
        assert_same(measure(small), reference(**wide), rtol=1e-8, atol=1e-9, skip=AGREEMENT_FIELDS)


def as_read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda x: torch.from_numpy(x.copy()), id="tensor"),
        pytest.param(lambda x: torch.from_numpy(x.copy()).requires_grad_(), id="with-grad"),
        pytest.param(lambda x: torch.from_numpy(x.T.copy()).T, id="transposed-tensor"),
        pytest.param(np.asfortranarray, id="fortran"),
        pytest.param(lambda x: x[::-1].copy()[::-1], id="negative-strides"),
        pytest.param(lambda x: x.astype(">f8"), id="big-endian"),
        pytest.param(as_read_only, id="read-only"),
        pytest.param(lambda x: x.tolist(), id="lists"),
    ],
)
def test_containers_of_the_same_numbers_agree(convert: Callable[[np.ndarray], Any]) -> None:
    data = cloud(11, [4, 0, 6, 5], 3)
    given_data = {k: convert(v) if k != "labels" else v for k, v in data.items() if k != "bias"}
    found = collapse_metrics(**given_data, bias=data["bias"])
    assert_same(found, measure(data), rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_read_exactly(dtype: torch.dtype) -> None:
    data = cloud(12, [40, 60, 50], 3)
    features = torch.from_numpy(data["features"]).to(dtype)
    found = measure(data | {"features": features})
    wanted = measure(data | {"features": features.to(torch.float64)})
    assert_same(found, wanted, rtol=1e-14)
    if dtype == torch.float16:
        assert_same(measure(data | {"features": features.numpy()}), wanted, rtol=1e-14)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.int32, np.uint64, torch.uint8, torch.int32, torch.int64]
)
def test_labels_of_any_integer_type(dtype: Any) -> None:
    data = cloud(13, [4, 6, 5], 3)
    labels = (
        torch.from_numpy(data["labels"]).to(dtype)
        if isinstance(dtype, torch.dtype)
        else data["labels"].astype(dtype)
    )
    assert_same(measure(data | {"labels": labels}), measure(data), rtol=1e-14)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_inputs_are_not_changed(as_tensor: bool) -> None:
    data = cloud(14, [4, 6, 5], 3)
    given_data = {k: torch.from_numpy(v.copy()) if as_tensor else v.copy() for k, v in data.items()}
    measure(given_data)
    stream = CollapseMetrics(3, 3)
    stream.update(given_data["features"], given_data["labels"])
    stream.update_agreement(given_data["features"], given_data["head"])
    for name, value in data.items():
        np.testing.assert_array_equal(np.asarray(given_data[name]), value, err_msg=name)


@pytest.mark.theory
@given(clouds(), st.integers(1, 9))
def test_chunks_change_nothing(data: Data, chunk_rows: int) -> None:
    assert_same(measure(data, chunk_rows=chunk_rows), measure(data), rtol=1e-11, atol=1e-12)
    stream = stream_of(data, chunk_rows=chunk_rows)
    assert_same(stream.compute(data["head"]), measure(data), skip=AGREEMENT_FIELDS)


def test_float64_exists_in_chunks_only() -> None:
    features = np.zeros((4096, 64), dtype=np.float32)
    features += np.random.default_rng(0).normal(size=features.shape).astype(np.float32)
    labels = np.arange(4096) % 4
    live: list[int] = []
    original = FirstPass._fold

    def spying(self: FirstPass, chunk: torch.Tensor, y: torch.Tensor) -> None:
        live.append(chunk.numel())
        original(self, chunk, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FirstPass, "_fold", spying)
        collapse_metrics(features, labels, chunk_rows=256)
    assert live == [256 * 64] * 16


@pytest.mark.theory
def test_first_row_far_from_the_rest() -> None:
    """The shift is the first datum; a bad one costs digits of the offset, not the result."""
    data = cloud(15, [40, 50, 60], 3)
    data["features"] += 1e6
    far = data | {"features": data["features"].copy()}
    far["features"][0] = 0.0
    assert_same(measure(far), reference(**far), rtol=1e-6)


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives() -> None:
    data = cloud(16, [400, 0, 600, 500], 32)
    moved = {k: torch.from_numpy(v).cuda() for k, v in data.items()}
    assert_same(measure(moved), measure(data), rtol=1e-11)
    stream = CollapseMetrics(4, 32)
    stream.update(moved["features"], moved["labels"])
    assert stream._first.means.is_cuda
    host = CollapseMetrics(4, 32)
    host.merge(stream)
    host.load_state_dict(stream.state_dict())
    for one in (stream, host):
        one.update_agreement(moved["features"], moved["head"], moved["bias"])
        assert_same(one.compute(), measure(data), rtol=1e-11)


# --------------------------------------------------------------------------- streams


@st.composite
def splits(draw: st.DrawFn) -> tuple[Data, list[np.ndarray]]:
    data = draw(clouds())
    n = len(data["labels"])
    owner = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    order = draw(st.permutations(range(5)))
    return data, [np.flatnonzero(owner == part) for part in order]  # some of them empty


@pytest.mark.theory
@given(splits())
def test_stream_equals_memory(case: tuple[Data, list[np.ndarray]]) -> None:
    data, parts = case
    stream = stream_of(data, parts)
    for part in reversed(parts):
        stream.update_agreement(data["features"][part], data["head"], data["bias"])
    found, wanted = stream.compute(data["head"], data["bias"]), measure(data)
    assert_same(found, wanted)
    assert found.counts.tolist() == wanted.counts.tolist()
    assert_same(stream.compute(), wanted)  # the head of the second pass is the default


@pytest.mark.theory
@given(splits(), st.sampled_from([0.0, 1e6]))
def test_merge_equals_one_pass_in_any_order(
    case: tuple[Data, list[np.ndarray]], offset: float
) -> None:
    data, parts = case
    data = data | {"features": data["features"] + offset}
    workers = [stream_of(data, [part]) for part in parts]
    left = functools.reduce(CollapseMetrics.merge, workers, CollapseMetrics(*data["head"].shape))
    tree = [stream_of(data, [part]) for part in parts]
    right = tree[4].merge(tree[3].merge(tree[2])).merge(tree[0].merge(tree[1]))
    wanted = measure(data)
    for merged in (left, right):
        assert merged.num_samples == len(data["labels"])
        assert_same(merged.compute(data["head"]), wanted, skip=AGREEMENT_FIELDS)
    for worker, part in zip(workers, parts, strict=True):  # merging leaves the others alone
        assert worker.num_samples == len(part)


STREAM = """
import resource, torch
from analysis.metrics import CollapseMetrics
torch.set_num_threads(1)
metrics = CollapseMetrics(4, 256)
for batch in range(1, 151):
    metrics.update(torch.randn(8192, 256), torch.randint(4, (8192,)))
    if batch in (30, 150):
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_stream() -> None:
    """120 more batches of 8 MiB each; a view a batch, kept, costs 960 MiB by fragmentation."""
    command = [sys.executable, "-c", STREAM]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    early, late = map(int, shown.split())
    assert late - early < 200


@pytest.mark.theory
def test_many_merges_at_a_large_offset_keep_the_digits() -> None:
    data = cloud(17, [300, 200, 250, 250], 5)
    data["features"] += 1e6
    singles = [np.array([i]) for i in range(1000)]
    batches = stream_of(data, singles)
    workers = [stream_of(data, [single]) for single in singles]
    merged = functools.reduce(CollapseMetrics.merge, workers, CollapseMetrics(4, 5))
    for stream in (batches, merged):
        found = stream.compute(data["head"])
        assert_same(found, measure(data), skip=AGREEMENT_FIELDS, rtol=1e-12, atol=0)


@pytest.mark.theory
def test_close_means_keep_their_distance() -> None:
    """Two means 1e-5 apart: a squared distance from a Gram matrix would be off in digit 7."""
    gap = 1e-5
    means = np.array([[0.0, 1.0], [gap, 1.0], [-0.7, -0.3]])
    labels = np.repeat(np.arange(3), 2)
    features = means[labels]
    features[::2, 1] += 1e-6
    features[1::2, 1] -= 1e-6
    far = [0.7**2 + 1.3**2, (0.7 + gap) ** 2 + 1.3**2]
    wanted = 1e-12 * (1 / gap**2 + 1 / far[0] + 1 / far[1]) / 3
    assert collapse_metrics(features, labels).cdnv == pytest.approx(wanted, rel=1e-9)


def test_counts_whose_product_overflows_int64_merge() -> None:
    """n_a n_b overflows int64 from 3·10⁹ samples on; the formula must not form it."""
    data = cloud(18, [2, 3, 4], 3)
    a, b = stream_of(data), stream_of(data)
    for one in (a, b):
        one._first.counts *= 10**10
        one._first.variation *= 1e10
    result = a.merge(b).compute()
    assert_same(result, measure(data), only=("variance_ratio", "cdnv", *FEATURE_FIELDS))


@pytest.mark.parametrize("road", ["pickle", "torch.save", "object"])
def test_state_travels_between_processes(road: str) -> None:
    data = cloud(19, [4, 0, 6, 5], 3)
    half = np.arange(8)
    rest = np.arange(8, 15)
    sender, receiver = stream_of(data, [half]), CollapseMetrics(4, 3)
    if road == "object":
        receiver = pickle.loads(pickle.dumps(sender))
    elif road == "pickle":
        receiver.load_state_dict(pickle.loads(pickle.dumps(sender.state_dict())))
    else:
        buffer = io.BytesIO()
        torch.save(sender.state_dict(), buffer)
        buffer.seek(0)
        receiver.load_state_dict(torch.load(buffer, weights_only=True))
    receiver.update(data["features"][rest], data["labels"][rest])
    assert sender.num_samples == 8  # nothing is shared
    assert_same(receiver.compute(data["head"]), measure(data), skip=AGREEMENT_FIELDS, rtol=1e-12)


def test_states_share_no_memory() -> None:
    data = cloud(27, [4, 5, 6], 3)
    first, rest = np.arange(5), np.arange(5, 15)
    stream = stream_of(data, [first])
    state = stream.state_dict()
    before = {name: pickle.dumps(value) for name, value in state.items()}
    other = CollapseMetrics(3, 3)
    other.load_state_dict(state)
    for one in (stream, other):
        one.update(data["features"][rest], data["labels"][rest])
    assert {name: pickle.dumps(value) for name, value in state.items()} == before
    assert_same(stream.compute(data["head"]), other.compute(data["head"]), rtol=0, atol=0)


def test_second_pass_over_processes() -> None:
    data = cloud(20, [4, 0, 6, 5], 3)
    parts = [np.arange(0, 5), np.arange(5, 15)]
    whole = stream_of(data, [parts[0]]).merge(stream_of(data, [parts[1]]))
    workers = []
    for part in parts:
        worker = CollapseMetrics(4, 3)
        worker.load_state_dict(whole.state_dict())
        worker.update_agreement(data["features"][part], data["head"], data["bias"])
        # A second pass in progress is part of the state.
        again = CollapseMetrics(4, 3)
        again.load_state_dict(worker.state_dict())
        workers.append(again)
    assert "num_samples=15, second pass 5" in repr(workers[0])
    whole.merge_agreement(workers[0]).merge_agreement(workers[1])
    assert_same(whole.compute(), measure(data), rtol=1e-12)


def test_second_pass_of_another_first_pass_is_refused() -> None:
    a, b = cloud(21, [4, 5, 6], 3), cloud(22, [4, 5, 6], 3)
    one, other = stream_of(a), stream_of(b)
    other.update_agreement(b["features"], b["head"])
    with pytest.raises(ValueError, match=r"different first passes.*largest distance"):
        one.merge_agreement(other)
    with pytest.raises(ValueError, match=r"counts \[4, 5, 6\] and \[2, 2, 1\]"):
        one.merge_agreement(
            stream_of(
                a,
                [
                    np.array(
                        [
                            *np.flatnonzero(a["labels"] == 0)[:2],
                            *np.flatnonzero(a["labels"] == 1)[:2],
                            *np.flatnonzero(a["labels"] == 2)[:1],
                        ]
                    )
                ],
            )
        )


def test_agreement_without_or_with_half_a_second_pass_is_nan() -> None:
    data = cloud(23, [4, 5, 6], 3)
    stream = stream_of(data)
    first = stream.compute(data["head"])
    for name in AGREEMENT_FIELDS:
        assert "needs a second pass" in first.reasons[name]
    stream.update_agreement(data["features"][:7], data["head"])
    half = stream.compute(data["head"])
    assert "second pass saw 7 samples, the first 15" in half.reasons["ncc_agreement"]
    stream.update_agreement(data["features"][7:], data["head"])
    assert stream.compute().ncc_agreement == reference(**data | {"bias": None})["ncc_agreement"]
    stream.update_agreement(data["features"][7:], data["head"])
    assert "saw 23 samples" in stream.compute().reasons["ncc_agreement"]


def test_means_are_fixed_by_the_second_pass_until_reset() -> None:
    data = cloud(24, [4, 5, 6], 3)
    stream, other = stream_of(data), stream_of(data)
    stream.update_agreement(data["features"], data["head"])
    with pytest.raises(RuntimeError, match=r"cannot update.*15 of 15.*reset_agreement"):
        stream.update(data["features"], data["labels"])
    with pytest.raises(RuntimeError, match="cannot merge"):
        stream.merge(other)
    with pytest.raises(RuntimeError, match="cannot merge"):
        other.merge(stream)
    for changes in ({"head": data["head"] + 1}, {"bias": data["bias"]}):
        with pytest.raises(ValueError, match="another head or bias"):
            stream.update_agreement(
                **{"features": data["features"], "head": data["head"]} | changes
            )
    with pytest.raises(ValueError, match="another head or bias"):
        stream.compute(data["head"] + 1)
    stream.reset_agreement()
    stream.update(data["features"], data["labels"])
    assert stream.num_samples == 30


def test_stream_without_scatter_says_what_it_lacks() -> None:
    data = cloud(25, [4, 5, 6], 3)
    found = stream_of(data, scatter=False).compute(data["head"])
    assert "scatter=True" in found.reasons["within_class_variation"]
    wanted = measure(data)
    assert_same(found, wanted, skip=("within_class_variation", *AGREEMENT_FIELDS))


def test_a_refused_batch_leaves_no_trace() -> None:
    data = cloud(26, [4, 5, 6], 3)
    stream = stream_of(data)
    before = stream.compute(data["head"])
    bad = data["features"].copy()
    bad[9, 1] = np.nan
    with pytest.raises(ValueError, match="row 9"):
        stream.update(bad, data["labels"])
    with pytest.raises(ValueError, match="outside"):
        stream.update(data["features"], data["labels"] + 1)
    assert_same(stream.compute(data["head"]), before, rtol=0, atol=0)


def test_empty_batches_add_nothing_and_an_empty_stream_has_no_result() -> None:
    stream = CollapseMetrics(3, 2)
    stream.update(np.zeros((0, 2)), [])
    stream.merge(CollapseMetrics(3, 2))
    with pytest.raises(ValueError, match="no samples"):
        stream.compute()
    with pytest.raises(RuntimeError, match="no class means yet"):
        stream.update_agreement(np.zeros((1, 2)), np.eye(3)[:, :2])


# --------------------------------------------------------------------------- degenerate data


def undefined(result: CollapseResult) -> set[str]:
    names = {name for name, value in result.as_row().items() if math.isnan(value)}
    assert names == set(result.reasons)
    return names


@pytest.mark.theory
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 5), st.integers(1, 4))
def test_two_actions_carry_no_angles(seed: int, a: int, b: int, dim: int) -> None:
    data = cloud(seed, [a, b], dim)
    result = measure(data)
    assert undefined(result) == {*FEATURE_FIELDS, "head_equiangularity"}
    for name in FEATURE_FIELDS:
        assert "no information" in result.reasons[name]
    assert "K = 2" in result.reasons["head_equiangularity"]
    wanted = reference(**data)
    assert_same(result, wanted, skip=(*FEATURE_FIELDS, "head_equiangularity"), rtol=1e-8)


def test_two_of_four_actions_present() -> None:
    data = cloud(30, [5, 0, 4, 0], 3)
    result = measure(data)
    assert undefined(result) == set(FEATURE_FIELDS)
    assert "only two classes are present" in result.reasons["feature_max_angle"]


def test_one_action_present() -> None:
    data = cloud(31, [0, 5, 0], 3)
    result = measure(data)
    left = {*HEAD_FIELDS, "head_feature_cosine_raw", "head_feature_cosine_raw_min"}
    assert undefined(result) == set(METRIC_FIELDS) - left
    assert {result.reasons[name] for name in undefined(result)} == {
        "only one class is present: there is no second mean to compare with"
    }


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_identical_features_are_zero_over_zero(value: float) -> None:
    labels = np.repeat(np.arange(3), [3, 4, 5])
    features = np.full((12, 4), value)
    result = collapse_metrics(features, labels, etf(3, 4))
    kept = set(HEAD_FIELDS) | ({*COSINE_FIELDS[2:]} if value else set())
    assert undefined(result) == set(METRIC_FIELDS) - kept
    assert all("coincide" in result.reasons[n] for n in (*FEATURE_FIELDS, *WITHIN_FIELDS))
    assert "no mean is nearest" in result.reasons["ncc_agreement"]
    parts = [CollapseMetrics(3, 4), CollapseMetrics(3, 4)]
    parts[0].update(features[:5], labels[:5])
    parts[1].update(features[5:], labels[5:])
    merged = parts[0].merge(parts[1]).compute(etf(3, 4))
    assert undefined(merged) == undefined(result)


def test_coinciding_means_of_noisy_classes_are_rounding_not_angles() -> None:
    """The same samples in other orders: the means differ in the last bit, and no cosine shows."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(50, 4)) * 0.1 + 0.3
    features = np.vstack([base, base[rng.permutation(50)], base[rng.permutation(50)]])
    result = collapse_metrics(features, np.repeat(np.arange(3), 50), etf(3, 4))
    assert {*FEATURE_FIELDS, *WITHIN_FIELDS, "self_duality"} < undefined(result)


def test_a_mean_at_the_centre_has_a_norm_but_no_direction() -> None:
    labels = np.repeat(np.arange(4), 2)
    features = np.array([[1.0, 0], [-0.5, 1], [-0.5, -1], [0, 0]])[labels]
    features[::2] += 1e-3
    features[1::2] -= 1e-3
    result = collapse_metrics(features, labels, etf(4)[:, :2])
    angles = {name for name in FEATURE_FIELDS if "equinorm" not in name}
    assert undefined(result) == angles | {
        "head_feature_cosine",
        "head_feature_cosine_min",
        "head_feature_cosine_raw",
        "head_feature_cosine_raw_min",
    }
    assert "class 3 is the mean of class means" in result.reasons["feature_max_angle"]
    assert "class 3 is the sample mean" in result.reasons["feature_max_angle_sample_centre"]
    assert result.feature_equinorm > 0.5


def test_two_coinciding_means_leave_cdnv_undefined_only() -> None:
    """Minority collapse: two classes share a mean."""
    labels = np.repeat(np.arange(4), 2)
    features = etf(4)[[0, 1, 2, 2]][labels]
    features[::2] += 1e-3
    features[1::2] -= 1e-3
    result = collapse_metrics(features, labels, etf(4))
    assert undefined(result) == {"cdnv"}
    assert "1 pairs of classes coincide (first 2 and 3)" in result.reasons["cdnv"]


def test_single_samples_have_no_within_class_variation() -> None:
    result = collapse_metrics(etf(4), np.arange(4), etf(4))
    assert undefined(result) == set(WITHIN_FIELDS)
    assert "single sample" in result.reasons["cdnv"]
    one_pair = collapse_metrics(np.vstack([etf(4), etf(4)[:1]]), [0, 1, 2, 3, 0], etf(4))
    assert undefined(one_pair) == set()
    assert one_pair.within_class_variation == pytest.approx(0, abs=1e-30)


def test_zero_rows_of_the_head() -> None:
    data = cloud(32, [4, 5, 6, 0], 3)
    data["head"][1] = 0
    result = measure(data)
    assert undefined(result) == {"head_equiangularity", "head_max_angle", *COSINE_FIELDS}
    assert "row 1 of the head is 0" in result.reasons["head_max_angle"]
    assert "row 1 of the head is 0" in result.reasons["head_feature_cosine"]
    data["head"][1] = 1
    data["head"][3] = 0  # an action that does not occur
    assert undefined(measure(data)) == {"head_equiangularity", "head_max_angle"}


def test_a_head_without_preference() -> None:
    data = cloud(33, [4, 5, 6], 3)
    data["bias"][:] = 0.1
    data["head"][:] = 0
    nothing = measure(data)
    wanted = {*HEAD_FIELDS, *COSINE_FIELDS, *AGREEMENT_FIELDS, "self_duality"}
    assert undefined(nothing) == wanted
    data["head"][:] = 0.3
    equal = measure(data)
    assert undefined(equal) == {*AGREEMENT_FIELDS, "self_duality"}
    assert "prefers no action" in equal.reasons["ncc_agreement"]
    data["bias"][0] = 1
    biased = measure(data)
    assert undefined(biased) == {"ncc_agreement_centred", "self_duality"}
    means = np.array([data["features"][data["labels"] == k].mean(axis=0) for k in range(3)])
    gaps = np.linalg.norm(data["features"][:, None] - means, axis=2)
    assert biased.ncc_agreement == pytest.approx(np.mean(gaps.argmin(axis=1) == 0))


def test_no_head_given() -> None:
    data = cloud(34, [4, 5, 6], 3)
    result = collapse_metrics(data["features"], data["labels"])
    assert undefined(result) == {*HEAD_FIELDS, *COSINE_FIELDS, *AGREEMENT_FIELDS, "self_duality"}
    assert set(result.reasons.values()) == {"no head was given"}
    assert_same(result, measure(data), only=(*FEATURE_FIELDS, *WITHIN_FIELDS), rtol=0, atol=0)


def test_overflow_is_named_not_returned() -> None:
    data = cloud(35, [4, 5, 6], 3)
    data["features"] *= 1e200
    with pytest.raises(OverflowError, match=r"overflow float64.*divide the features"):
        measure(data)


# --------------------------------------------------------------------------- boundary


OK = cloud(40, [4, 5, 6], 3)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"features": OK["features"][:0], "labels": []}, ValueError, r"\(0, 3\).*at least one"),
        ({"features": OK["features"][0]}, ValueError, r"\(N, d\), got \(3,\)"),
        ({"features": OK["features"].astype(int)}, TypeError, "features must hold"),
        ({"features": OK["features"] * np.inf}, ValueError, "45 non-finite .* 15 of 15 rows"),
        ({"labels": OK["labels"][:-1]}, ValueError, "15 rows of features but 14 labels"),
        ({"labels": OK["labels"] - 1}, ValueError, "4 of 15 labels are negative"),
        ({"labels": OK["labels"] + 1}, ValueError, r"6 of 15 labels are outside 0\.\.2"),
        ({"labels": OK["labels"] * 1.0}, TypeError, "labels must be integers"),
        ({"num_classes": 4}, ValueError, r"head has shape \(3, 3\), expected \(4, 3\)"),
        ({"num_classes": 1}, ValueError, "num_classes is 1"),
        ({"num_classes": "3"}, TypeError, "num_classes must be an integer"),
        ({"head": OK["head"][:, :2]}, ValueError, r"\(3, 2\), expected \(K, 3\)"),
        ({"head": OK["head"][:1], "labels": OK["labels"] * 0}, ValueError, "num_classes is 1"),
        ({"head": None, "labels": OK["labels"] * 0}, ValueError, "num_classes is 1.*pass num_cl"),
        ({"head": OK["head"] * np.nan}, ValueError, "head holds NaN"),
        ({"bias": np.zeros(4)}, ValueError, r"bias has shape \(4,\)"),
        ({"head": None, "bias": np.zeros(3)}, ValueError, "a bias without a head"),
        ({"rcond": 0.0}, ValueError, r"rcond is 0.0, expected a number in \(0, 1\)"),
        ({"rcond": math.nan}, ValueError, "rcond is nan"),
        ({"chunk_rows": 0}, ValueError, "chunk_rows must be at least 1"),
    ],
)
def test_collapse_metrics_refuses(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    good = {name: OK[name] for name in ("features", "labels", "head")}
    with pytest.raises(error, match=message):
        collapse_metrics(**good | changes)


def test_number_of_actions_is_inferred_from_the_head_then_the_labels() -> None:
    labels = np.minimum(OK["labels"], 1)
    assert collapse_metrics(OK["features"], labels, OK["head"]).counts.tolist() == [4, 11, 0]
    assert collapse_metrics(OK["features"], labels).counts.tolist() == [4, 11]
    assert collapse_metrics(OK["features"], labels, None, 5).counts.tolist() == [4, 11, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_classes": 1}, ValueError, "num_classes is 1"),
        ({"dim": 0}, ValueError, "dim must be at least 1, got 0"),
        ({"dim": 2.0}, TypeError, "dim must be an integer, got 2.0"),
        ({"rcond": 1.0}, ValueError, "rcond is 1.0"),
    ],
)
def test_stream_refuses_to_be_built(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        CollapseMetrics(**{"num_classes": 3, "dim": 3} | arguments)


def test_stream_refuses_what_does_not_fit() -> None:
    stream = stream_of(OK)
    with pytest.raises(ValueError, match=r"features have 2 columns.*dim=3"):
        stream.update(OK["features"][:, :2], OK["labels"])
    with pytest.raises(ValueError, match=r"features have 2 columns.*dim=3"):
        stream.update_agreement(OK["features"][:, :2], OK["head"])
    with pytest.raises(ValueError, match=r"cannot merge .*\(4, 3, True\) into \(3, 3, True\)"):
        stream.merge(CollapseMetrics(4, 3))
    with pytest.raises(ValueError, match=r"\(3, 3, False\) into \(3, 3, True\)"):
        stream.merge(CollapseMetrics(3, 3, scatter=False))
    with pytest.raises(ValueError, match="itself"):
        stream.merge(stream)
    with pytest.raises(TypeError, match=r"got dict.*load_state_dict"):
        stream.merge({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a bias without a head"):
        stream.compute(bias=OK["bias"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 0}, "version 0, this code reads 1"),
        ({"num_classes": 4}, r"\(4, 3, True\), this object \(3, 3, True\)"),
        ({"scatter": None}, r"\(3, 3, False\)"),
        ({"means": torch.zeros(3, 2)}, r"means is torch.Size\(\[3, 2\]\), expected .* \(3, 3\)"),
        ({"counts": None}, "counts is NoneType"),
        ({"agreeing": torch.zeros(3)}, "agreeing is torch.Size"),
        ({"agreeing": None}, "agreeing is NoneType"),
    ],
)
def test_foreign_states_are_refused_and_change_nothing(
    changes: dict[str, Any], message: str
) -> None:
    source = stream_of(OK)
    source.update_agreement(OK["features"], OK["head"])
    target = stream_of(OK, [np.arange(5)])
    with pytest.raises(ValueError, match=message):
        target.load_state_dict(source.state_dict() | changes)
    with pytest.raises(ValueError, match="lacks"):
        target.load_state_dict({"version": 1})
    assert target.num_samples == 5
    target.load_state_dict(source.state_dict())
    assert target.num_samples == 15


def test_row_is_flat_floats() -> None:
    result = measure(OK)
    row = result.as_row()
    assert tuple(row) == (*METRIC_FIELDS, "num_samples", "absent_classes")
    assert all(type(value) is float for value in row.values())
    counted = result.as_row(counts=True)
    assert [counted[f"counts_{k}"] for k in range(3)] == [4.0, 5.0, 6.0]


def test_result_is_frozen_and_insists_on_reasons() -> None:
    result = measure(OK)
    with pytest.raises(AttributeError):
        result.cdnv = 0.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        result.counts[0] = 1
    with pytest.raises(ValueError, match=r"without reason \['cdnv'\]"):
        dataclasses.replace(result, cdnv=math.nan)
    with pytest.raises(ValueError, match=r"without NaN \['cdnv'\]"):
        dataclasses.replace(result, reasons={"cdnv": "none"})


def test_snapshot_is_measured_with_its_head_and_bias() -> None:
    shot = Snapshot(**OK, num_classes=3, step=0)
    assert_same(snapshot_metrics(shot), measure(OK), rtol=0, atol=0)
