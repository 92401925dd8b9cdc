"""Snapshots: what is kept, what is refused and in which words."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from analysis.snapshot import FeatureRows, Snapshot, compute_device

FEATURES = np.arange(12.0).reshape(4, 3)
LABELS = np.array([0, 2, 2, 0])
HEAD = np.eye(3)


def snapshot(**changes: Any) -> Snapshot:
    given: dict[str, Any] = {
        "features": FEATURES,
        "labels": LABELS,
        "head": HEAD,
        "bias": np.zeros(3),
        "num_classes": 3,
        "step": 7,
        "tags": {"env": "cliff", "seed": 1, "lr": 1e-3},
    }
    return Snapshot(**(given | changes))


def test_keeps_arrays_without_copying_and_counts_absent_actions() -> None:
    shot = snapshot()
    assert shot.features is FEATURES
    assert shot.labels is LABELS
    assert shot.head is HEAD
    assert (shot.num_samples, shot.dim, shot.step) == (4, 3, 7)
    np.testing.assert_array_equal(shot.counts, [2, 0, 2])
    assert shot.counts.dtype == np.int64


def test_episodes_are_kept_and_checked() -> None:
    assert snapshot().episodes is None
    episodes = np.array([-3, 5, 5, 9])
    assert snapshot(episodes=episodes).episodes is episodes
    assert isinstance(snapshot(episodes=[0, 0, 1, 1]).episodes, np.ndarray)
    with pytest.raises(ValueError, match="4 rows of features but 3 episodes; pass one episode"):
        snapshot(episodes=[0, 0, 1])
    with pytest.raises(
        TypeError, match=r"episodes must be integers, got float64; .*episodes\.long"
    ):
        snapshot(episodes=[0.0, 0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"episodes must have shape \(N,\), got \(2, 2\); flatten"):
        snapshot(episodes=[[0, 0], [1, 1]])
    with pytest.raises(ValueError, match="'episodes' is the name of a snapshot's own field"):
        snapshot(tags={"episodes": 1})


def test_takes_tensors_lists_and_numpy_integers() -> None:
    features = torch.ones(2, 3, requires_grad=True)
    shot = Snapshot(features, [1, 0], num_classes=np.int64(2), step=np.int32(3))
    assert isinstance(shot.features, torch.Tensor)
    assert not shot.features.requires_grad
    assert isinstance(shot.labels, np.ndarray)
    assert type(shot.step) is int
    assert type(shot.num_classes) is int
    assert shot.head is None


def test_tags_are_a_copy_and_the_snapshot_pickles() -> None:
    tags = {"env": "cliff"}
    shot = snapshot(tags=tags)
    tags["env"] = "other"
    again = pickle.loads(pickle.dumps(shot))
    assert again.tags == {"env": "cliff"}
    np.testing.assert_array_equal(again.features, FEATURES)


def test_is_frozen() -> None:
    with pytest.raises(AttributeError):
        snapshot().step = 8  # type: ignore[misc]


NAN_ROW = FEATURES.copy()
NAN_ROW[2, 0], NAN_ROW[2, 2], NAN_ROW[3, 1] = np.nan, np.inf, -np.inf


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"features": FEATURES[0]}, ValueError, r"\(N, d\), got \(3,\).*features\[None, :\]"),
        ({"features": FEATURES[None]}, ValueError, r"\(1, 4, 3\).*reshape"),
        ({"features": np.zeros((4, 0))}, ValueError, r"\(4, 0\)"),
        ({"features": FEATURES.astype(int)}, TypeError, "features must hold float.*int64.*asarray"),
        ({"features": FEATURES.astype(complex)}, TypeError, "complex128"),
        ({"features": FEATURES.astype(np.longdouble)}, TypeError, "longdouble|float128"),
        ({"features": torch.ones(4, 3).to_sparse()}, TypeError, "sparse.*to_dense"),
        ({"features": FEATURES[:0], "labels": LABELS[:0]}, ValueError, "at least one sample"),
        ({"features": NAN_ROW}, ValueError, "3 non-finite values .* in 2 of 4 rows, .* row 2"),
        ({"labels": LABELS[:3]}, ValueError, "4 rows of features but 3 labels"),
        ({"labels": LABELS[:, None]}, ValueError, r"\(4, 1\); flatten"),
        ({"labels": torch.zeros(4, 1).long()}, ValueError, r"\(4, 1\); flatten"),
        ({"labels": np.eye(4)}, ValueError, r"got \(4, 4\)$"),
        ({"labels": LABELS.astype(float)}, TypeError, r"float64.*labels.astype\(int\)"),
        ({"labels": torch.zeros(4)}, TypeError, r"torch.float32.*labels.long\(\)"),
        ({"labels": LABELS > 0}, TypeError, "bool"),
        ({"labels": [0, -1, 1, -2]}, ValueError, "2 of 4 labels are negative, .* -1 at row 1"),
        ({"labels": [0, 1, 5, 3]}, ValueError, r"2 of 4 .* 0\.\.2, .* 5 at row 2.* 6 actions"),
        ({"num_classes": 1}, ValueError, "num_classes is 1.*at least 2"),
        ({"num_classes": 3.0}, TypeError, "num_classes must be an integer, got 3.0"),
        ({"head": np.zeros((3, 4))}, ValueError, r"\(3, 4\), expected \(3, 3\)$"),
        (
            {"num_classes": 4, "head": np.zeros((3, 4)), "bias": None},
            ValueError,
            r"expected \(4, 3\).*head.T",
        ),
        ({"head": np.full((3, 3), np.nan)}, ValueError, "head holds NaN .* 3 of 3 rows.* row 0"),
        ({"head": torch.nn.Linear(3, 3)}, TypeError, "module.weight"),
        ({"head": np.eye(3, dtype=int)}, TypeError, "head must hold float.*int64"),
        ({"bias": np.zeros(2)}, ValueError, r"bias has shape \(2,\), expected \(3,\)"),
        ({"bias": np.array([0, np.inf, 0])}, ValueError, "bias holds NaN or infinity.*row 1"),
        ({"head": None}, ValueError, "a bias without a head"),
        ({"step": -1}, ValueError, "step must not be negative, got -1"),
        ({"step": 1.5}, TypeError, "step must be an integer, got 1.5"),
        ({"tags": {"": 1}}, TypeError, "non-empty"),
        ({"tags": {"step": 1}}, ValueError, "'step' is the name of a snapshot's own field"),
        ({"tags": {"a": None}}, TypeError, "tag 'a' is a NoneType"),
    ],
)
def test_refuses(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        snapshot(**changes)


def test_finite_rows_whose_sum_overflows_pass() -> None:
    """The quick look sums; finite float64 near the limit must not be called infinite."""
    FeatureRows(np.full((3, 2), 1.5e308)).require_finite()


def test_non_finite_rows_are_counted_over_chunks() -> None:
    with pytest.raises(ValueError, match=r"3 non-finite values .* in 2 of 4 rows, .* row 2"):
        FeatureRows(NAN_ROW, chunk_rows=1).require_finite()


def test_opposite_infinities_and_half_precision_are_found() -> None:
    rows = torch.tensor([[0.0, 1.0], [float("inf"), float("-inf")]], dtype=torch.float16)
    with pytest.raises(ValueError, match=r"2 non-finite values .* in 1 of 2 rows, .* row 1"):
        FeatureRows(rows).require_finite()
    with pytest.raises(ValueError, match="row 1"):
        FeatureRows(rows.numpy()).require_finite()


@pytest.mark.parametrize("chunk_rows", [None, 1, 3, 4, 100])
def test_chunks_cover_every_row_once(chunk_rows: int | None) -> None:
    rows = FeatureRows(FEATURES.astype(np.float32), chunk_rows)
    parts = list(rows.chunks())
    np.testing.assert_array_equal(np.concatenate([part.numpy() for _, part in parts]), FEATURES)
    np.testing.assert_array_equal(np.concatenate([LABELS[where] for where, _ in parts]), LABELS)
    assert all(part.dtype == torch.float64 for _, part in parts)
    assert all(len(part) <= (chunk_rows or 4) for _, part in parts)


def test_default_chunk_is_one_mebibyte_of_float64() -> None:
    assert FeatureRows(np.zeros((1, 1024))).chunk_rows == 128
    assert FeatureRows(np.broadcast_to(0.0, (1, 1 << 21))).chunk_rows == 1


def test_chunk_rows_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_rows must be at least 1, got 0"):
        FeatureRows(FEATURES, 0)


def test_mps_computes_on_the_cpu() -> None:
    assert compute_device(torch.device("mps")) == torch.device("cpu")
    assert compute_device(torch.device("cuda:1")) == torch.device("cuda:1")
