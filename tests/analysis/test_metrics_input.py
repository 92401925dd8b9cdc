"""Collapse metrics: types and precision of what is given, and what is refused."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import (
    AGREEMENT_FIELDS,
    Data,
    assert_same,
    cloud,
    clouds,
    measure,
    reference,
    stream_of,
)

from analysis.collapse_first_pass import FirstPass
from analysis.metrics import (
    METRIC_FIELDS,
    CollapseMetrics,
    collapse_metrics,
    snapshot_metrics,
)
from analysis.snapshot import Snapshot

# --- precision, types -----------------------------------------------------------------------------


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


# --- boundary -------------------------------------------------------------------------------------


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
