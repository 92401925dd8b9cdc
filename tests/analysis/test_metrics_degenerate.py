"""Collapse metrics of degenerate data: NaN with a reason."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import (
    AGREEMENT_FIELDS,
    COSINE_FIELDS,
    FEATURE_FIELDS,
    HEAD_FIELDS,
    WITHIN_FIELDS,
    assert_same,
    cloud,
    etf,
    measure,
    reference,
)

from analysis.metrics import (
    METRIC_FIELDS,
    CollapseMetrics,
    CollapseResult,
    collapse_metrics,
)


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
