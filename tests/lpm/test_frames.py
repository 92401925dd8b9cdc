"""Simplex ETFs: Definition 2, Eq. (3)-(4), (10), Lemma 1, for every d >= K - 1."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from strategies import random_rotation, seeds

import lpm

pytestmark = pytest.mark.theory
shapes = st.integers(2, 40).flatmap(lambda k: st.tuples(st.just(k), st.integers(k - 1, k + 20)))
energies = st.floats(-6, 6).map(lambda e: 10.0**e)


@given(shapes, energies, seeds, st.booleans())
def test_gram_matrix_is_eq_10(shape, energy, seed, oriented) -> None:
    k, d = shape
    head = lpm.simplex_etf(k, d, energy, np.random.default_rng(seed) if oriented else None)
    assert head.shape == (k, d)
    for i in range(k):
        for j in range(k):
            expected = energy if i == j else -energy / (k - 1)
            assert head[i] @ head[j] == pytest.approx(expected, rel=1e-12, abs=1e-13 * energy)


@given(shapes, energies, seeds)
def test_lemma_1_rows_sum_to_zero(shape, energy, seed) -> None:
    k, d = shape
    head = lpm.simplex_etf(k, d, energy, np.random.default_rng(seed))
    assert np.linalg.norm(head.sum(axis=0)) <= 1e-13 * k * np.sqrt(energy)


@given(shapes.filter(lambda s: s[1] >= s[0]), seeds)
def test_eq_3_with_an_orthogonal_u(shape, seed) -> None:
    """The paper's own construction, M = √(K/(K−1)) U (I − 11ᵀ/K) with UᵀU = I, for d >= K."""
    k, d = shape
    u = random_rotation(np.random.default_rng(seed), d)[:, :k]
    m = np.sqrt(k / (k - 1)) * u @ (np.eye(k) - 1 / k)
    assert lpm.etf_defect(m.T) <= 1e-13
    np.testing.assert_allclose(lpm.gram(m.T), lpm.gram(lpm.simplex_etf(k, d)), atol=1e-13)


def test_orientation_comes_from_the_generator_only() -> None:
    first = lpm.simplex_etf(5, 8, rng=np.random.default_rng(3))
    again = lpm.simplex_etf(5, 8, rng=np.random.default_rng(3))
    other = lpm.simplex_etf(5, 8, rng=np.random.default_rng(4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_orientation_is_uniform() -> None:
    """A fixed row of a Haar-oriented frame is uniform on the sphere: mean 0, covariance I/d."""
    rng = np.random.default_rng(0)
    rows = np.array([lpm.simplex_etf(3, 4, rng=rng)[0] for _ in range(4000)])
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(4) / 4, atol=0.03)


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_thousands_of_classes(rng) -> None:
    """K = 2000 by default; K = 10⁴ is test_ten_thousand_classes."""
    head = lpm.simplex_etf(2000, 2100, 3.0, rng)
    assert lpm.etf_defect(head, 3.0) <= 1e-12


@pytest.mark.slow
def test_ten_thousand_classes() -> None:
    assert lpm.etf_defect(lpm.simplex_etf(10_000, 9_999, 2.0), 2.0) <= 1e-12
    oriented = lpm.simplex_etf(10_000, 10_000, 2.0, np.random.default_rng(0))
    assert lpm.etf_defect(oriented, 2.0) <= 1e-12


def test_defect_measures_the_perturbation() -> None:
    head = lpm.simplex_etf(4, 3)
    head[0] *= 1.1
    assert lpm.etf_defect(head, 1.0) == pytest.approx(0.21, rel=1e-12)
    assert np.isnan(lpm.etf_defect(np.zeros((3, 3))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 5), "at least 2 vectors, got num_classes=1"),
        ((5, 3), r"5 vectors .* dim=3: use dim >= 4 or at most 4 classes"),
        ((5, 4, 0.0), "must be > 0, got 0.0"),
        ((5, 4, float("nan")), "must be > 0, got nan"),
        ((5, 4, float("inf")), "must be > 0, got inf"),
    ],
)
def test_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        lpm.simplex_etf(*arguments)


@pytest.mark.parametrize("arguments", [(4.5, 8), (4, 3.5), (float("nan"), 4), ("4", 3)])
def test_sizes_must_be_whole_numbers(arguments) -> None:
    with pytest.raises(TypeError, match="num_classes and dim must be whole numbers, got"):
        lpm.simplex_etf(*arguments)


def test_a_single_vector_has_no_defect() -> None:
    with pytest.raises(ValueError, match="at least 2 vectors, got 1"):
        lpm.etf_defect(np.ones((1, 3)))
