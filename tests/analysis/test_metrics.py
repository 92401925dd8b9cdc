"""Collapse metrics: against a naive reference, exact values, and the symmetries they must have."""

import itertools
import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import (
    AGREEMENT_FIELDS,
    COSINE_FIELDS,
    FEATURE_FIELDS,
    Data,
    assert_same,
    cloud,
    clouds,
    etf,
    measure,
    reference,
)

from analysis.metrics import (
    METRIC_FIELDS,
    CollapseMetrics,
    collapse_metrics,
)

# --- values ---------------------------------------------------------------------------------------


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


# --- symmetries -----------------------------------------------------------------------------------


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
