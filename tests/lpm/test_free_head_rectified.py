"""Learned head, rectified features: the closed form against local search, and its own proof."""

import numpy as np
import pytest
from scipy.optimize import minimize

import lpm
from lpm.free_head_rectified import solve_free_head_rectified

CASES = (
    ((1.0, 1.0, 1.0, 1.0), 5.0, 1.0),
    ((5.0, 2.0, 1.0), 4.0, 2.0),
    ((10.0, 10.0, 1.0, 1.0, 1.0), 1.0, 1.0),
    ((100.0, 1.0, 1.0), 0.3, 1.0),
)


def cross_entropy(logits: np.ndarray, shares: np.ndarray) -> float:
    top = logits.max(axis=1, keepdims=True)
    log_policy = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return float(-(shares / shares.sum()) @ np.diag(log_policy))


def local_search(shares, feature_energy, head_energy, dim, rng) -> float:
    """Best of several descents over H = A² and W, scaled onto the norm bounds."""
    k = len(shares)

    def parts(x):
        h, w = x[: k * dim].reshape(k, dim) ** 2, x[k * dim :].reshape(k, dim)
        h = h * np.sqrt(k * feature_energy) / np.linalg.norm(h)
        return h, w * np.sqrt(k * head_energy) / np.linalg.norm(w)

    def loss(x):
        h, w = parts(x)
        return cross_entropy(h @ w.T, shares)

    runs = [minimize(loss, rng.standard_normal(2 * k * dim), method="L-BFGS-B") for _ in range(4)]
    return min(run.fun for run in runs)


@pytest.mark.parametrize(("shares", "feature_energy", "head_energy"), CASES)
def test_is_feasible_and_has_the_stated_loss(shares, feature_energy, head_energy) -> None:
    found = solve_free_head_rectified(shares, feature_energy, head_energy)
    assert (found.features >= 0).all()
    assert (found.features**2).sum(axis=1).mean() == pytest.approx(feature_energy, rel=1e-12)
    assert (found.head**2).sum(axis=1).mean() == pytest.approx(head_energy, rel=1e-12)
    logits = found.features @ found.head.T
    np.testing.assert_allclose(np.linalg.norm(logits, axis=1), found.lengths, atol=1e-12)
    assert found.objective == pytest.approx(cross_entropy(logits, np.array(shares)), rel=1e-12)
    assert 0 <= found.gap < 1e-12


@pytest.mark.parametrize(("shares", "feature_energy", "head_energy"), CASES[:3])
def test_local_search_finds_nothing_better(shares, feature_energy, head_energy) -> None:
    found = solve_free_head_rectified(shares, feature_energy, head_energy)
    best = local_search(
        np.array(shares), feature_energy, head_energy, len(shares) + 1, np.random.default_rng(0)
    )
    assert found.objective <= best + 1e-9
    assert best == pytest.approx(found.objective, rel=2e-3)


@pytest.mark.parametrize(("shares", "feature_energy", "head_energy"), CASES)
def test_gradient_certifies_it(shares, feature_energy, head_energy) -> None:
    found = solve_free_head_rectified(shares, feature_energy, head_energy)
    p = np.array(shares) / np.sum(shares)
    logits = found.features @ found.head.T
    policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = p[:, None] * (policy - np.eye(len(p)))
    inner = gradient @ gradient.T
    assert (inner[~np.eye(len(p), dtype=bool)] <= 1e-15).all()
    steepest = np.sqrt(np.diag(inner)).max()
    assert steepest == pytest.approx(found.multiplier, rel=1e-9)
    tau = len(p) * np.sqrt(feature_energy * head_energy)
    # f* >= f + <G, Z' - Z> and <-G, Z'> <= tau max_u ||G^T u||: the gap closes.
    assert tau * steepest + (gradient * logits).sum() == pytest.approx(0.0, abs=1e-12)


def test_balanced_is_orthogonal_with_an_etf_head() -> None:
    found = solve_free_head_rectified(np.ones(4), 5.0, 2.0)
    np.testing.assert_allclose(found.features, np.sqrt(5.0) * np.eye(4), atol=1e-12)
    assert lpm.etf_defect(found.head) < 1e-12
    cosine = (found.features[0] @ found.head[0]) / np.sqrt(10.0)
    assert cosine == pytest.approx(np.sqrt(3) / 2)


def test_rare_classes_vanish() -> None:
    found = solve_free_head_rectified((100.0, 1.0, 1.0), 0.3, 1.0)
    np.testing.assert_array_equal(found.lengths[1:], 0.0)
    assert found.lengths[0] > 0


def test_bad_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="shares must be at least two positive numbers"):
        solve_free_head_rectified((1.0, 0.0), 1.0, 1.0)
    with pytest.raises(ValueError, match="head_energy"):
        solve_free_head_rectified((1.0, 1.0), 1.0, -1.0)
