"""Hypothesis strategies for fixed-head problems, shared by the tests of `lpm`.

Problems are drawn from a seed and a few scalars: a failing example prints those, and shrinks
to a small K, d, N rather than to a forest of floats.
"""

import hypothesis.strategies as st
import numpy as np

import lpm

seeds = st.integers(0, 2**32 - 1)
log10_rho = st.floats(-3.0, 4.0)
log10_weight_range = st.floats(0.0, 12.0)


@st.composite
def etf_problems(draw: st.DrawFn, max_classes: int = 9, max_log10_rho: float = 4.0):
    """A simplex-ETF head, any class sizes (empty ones too), weights from 1e-12 to 1e12."""
    rng = np.random.default_rng(draw(seeds))
    classes = draw(st.integers(2, max_classes))
    dim = draw(st.integers(classes - 1, classes + 6))
    rho = 10.0 ** draw(st.floats(-3.0, max_log10_rho))
    head_energy = 10.0 ** draw(st.floats(-2.0, 2.0))
    span = draw(log10_weight_range)
    states = draw(st.integers(1, 12))
    return lpm.PeeledProblem(
        head=lpm.simplex_etf(classes, dim, head_energy, rng),
        labels=rng.integers(0, classes, states),
        weights=10.0 ** rng.uniform(-span, span, states),
        feature_energy=rho**2 / head_energy,
    )


@st.composite
def general_problems(draw: st.DrawFn, max_classes: int = 8, max_log10_rho: float = 4.0):
    """A Gaussian head of any shape (d below K − 1 too), one energy or one per state.

    ρ here is √E_H · max‖w_k‖.
    """
    rng = np.random.default_rng(draw(seeds))
    classes = draw(st.integers(2, max_classes))
    dim = draw(st.integers(1, 10))
    rho = 10.0 ** draw(st.floats(-3.0, max_log10_rho))
    head = rng.standard_normal((classes, dim))
    head /= np.linalg.norm(head, axis=1).max()
    states = draw(st.integers(1, 8))
    per_state = draw(st.booleans())
    energy = rho**2 * (rng.uniform(0.01, 1.0, states) if per_state else 1.0)
    span = draw(log10_weight_range)
    return lpm.PeeledProblem(
        head=head,
        labels=rng.integers(0, classes, states),
        weights=10.0 ** rng.uniform(-span, span, states),
        feature_energy=energy,
    )


def random_rotation(rng: np.random.Generator, dim: int) -> np.ndarray:
    """A Haar-distributed orthogonal matrix."""
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    return q * np.sign(np.diag(r))


def random_feasible(rng: np.random.Generator, problem: lpm.PeeledProblem) -> np.ndarray:
    """Features uniform in direction, with norms anywhere in the ball (often on the sphere)."""
    h = rng.standard_normal((problem.num_states, problem.dim))
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    radius = np.sqrt(problem.energies) * np.minimum(1, rng.uniform(0, 2, problem.num_states))
    return h * radius[:, None]
