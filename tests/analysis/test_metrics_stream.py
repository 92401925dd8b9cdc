"""Collapse metrics of streams: in batches, merged, over processes, in two passes."""

import functools
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import (
    AGREEMENT_FIELDS,
    FEATURE_FIELDS,
    Data,
    assert_same,
    cloud,
    clouds,
    measure,
    reference,
    stream_of,
)

from analysis.metrics import (
    CollapseMetrics,
    collapse_metrics,
)


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
