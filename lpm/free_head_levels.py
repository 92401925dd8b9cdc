"""The cross-entropy of the layer-peeled model, in coordinates that merge equal classes.

The logits ``Z = features @ head.T`` are K x K, row k belonging to the samples of class k, and

    f(Z) = (1/N) sum_k n_k (logsumexp(Z_k) - Z_kk).

f and every norm used here are unchanged when two classes of equal count are swapped, and the
optimum is unique (see :mod:`lpm.free_head_convex`), so it is fixed by those swaps. With m distinct
counts, level a having ``m_a`` classes, such a matrix is

    Z_kj = alpha_a 1{k = j} + beta_ab        for k in level a, j in level b,

that is m + m^2 numbers whatever K is. In the orthonormal basis "indicator of a level / sqrt(m_a)"
plus "level a, summing to zero" it is block diagonal:

* ``core`` (m, m): ``core_ab = alpha_a 1{a = b} + sqrt(m_a m_b) beta_ab``,
* ``alpha_a`` times the identity of size ``m_a - 1``, one block for every level.

Singular values are those of ``core`` together with ``|alpha_a|``, ``m_a - 1`` times each. *Packed
coordinates* stack ``sqrt(m_a - 1) alpha_a`` (row 0) on ``core`` (rows 1..m): an array (m + 1, m)
whose plain dot product is the Frobenius product of the K x K matrices. A level of one class has
no alpha; its entry in row 0 is kept at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Levels:
    """Distinct class counts, and which class has which.

    Parameters
    ----------
    counts : (m,) float array
        Samples per class of each level.
    sizes : (m,) float array
        Classes in each level.
    index : (K,) int array
        Level of each class.
    """

    counts: Array
    sizes: Array
    index: NDArray[np.intp]

    @classmethod
    def merge(cls, counts: Array) -> Levels:
        """Group classes of exactly equal count, largest count first."""
        negated, index, sizes = np.unique(-counts, return_inverse=True, return_counts=True)
        return cls(-negated, sizes.astype(np.float64), index.astype(np.intp))

    @classmethod
    def keep_all(cls, counts: Array) -> Levels:
        """Give every class a level of its own, which allows any K x K matrix."""
        return cls(counts, np.ones(len(counts)), np.arange(len(counts)))

    def coarsen(self, parts: int) -> Levels:
        """Pool neighbouring levels into at most ``parts`` levels of about equal numbers of classes.

        A pooled level has the mean count of its classes; ``index`` maps *levels of self* to it.
        """
        before = np.cumsum(self.sizes) - self.sizes
        part = np.floor(before * parts / self.sizes.sum()).astype(np.intp)
        _, index = np.unique(part, return_inverse=True)
        sizes: Array = np.bincount(index, weights=self.sizes).astype(np.float64)
        counts = np.bincount(index, weights=self.sizes * self.counts) / sizes
        return Levels(counts, sizes, index.astype(np.intp))

    @property
    def weights(self) -> Array:
        """Share ``n_a / N`` of one class of each level."""
        weights: Array = self.counts / (self.sizes @ self.counts)
        return weights

    def pack(self, alpha: Array, beta: Array) -> Array:
        """Packed coordinates of the matrix ``alpha_a 1{k = j} + beta_ab``."""
        root = np.sqrt(self.sizes)
        core = beta * np.outer(root, root) + np.diag(alpha)
        return np.vstack([np.sqrt(self.sizes - 1.0) * alpha, core])

    def unpack(self, packed: Array) -> tuple[Array, Array]:
        """Return ``alpha`` (m,) and ``beta`` (m, m); alpha is 0 for a level of one class."""
        alpha = packed[0] / np.sqrt(np.maximum(self.sizes - 1.0, 1.0))
        root = np.sqrt(self.sizes)
        beta = (packed[1:] - np.diag(alpha)) / np.outer(root, root)
        return alpha, beta

    def centre(self, packed: Array) -> Array:
        """Subtract from every row of the K x K matrix its mean."""
        unit = np.sqrt(self.sizes / self.sizes.sum())
        return np.vstack([packed[0], packed[1:] - np.outer(packed[1:] @ unit, unit)])

    def expand(self, packed: Array) -> Array:
        """Return the K x K matrix, classes in the caller's order."""
        alpha, beta = self.unpack(packed)
        full = beta[np.ix_(self.index, self.index)]
        diagonal = np.arange(len(self.index))
        full[diagonal, diagonal] += alpha[self.index]
        return full


@dataclass(frozen=True)
class LevelLoss:
    """The cross-entropy f as a function of packed coordinates of ``diag(row_scale) Z``.

    Parameters
    ----------
    levels : Levels
        The merged classes.
    row_scale : (m,) float array
        1 for the norm-constrained model; ``sqrt(n_a)`` for weight decay, whose penalty counts
        every sample's feature.
    """

    levels: Levels
    row_scale: Array

    def evaluate(self, packed: Array) -> Evaluation:
        """Return value, gradient and Hessian of f at ``packed``, sharing one softmax."""
        # Differences to the own logit: T_ab = Z_kj - Z_kk for k in a, j in b, j != k. Inside a
        # level the difference is exactly -alpha_a: no subtraction of nearby numbers.
        differences = self._push(packed)
        others = self.others()
        shift = np.maximum(differences.max(axis=1, where=others > 0, initial=0.0), 0.0)[:, None]
        terms = np.where(others > 0, np.exp(differences - shift), 0.0)
        mass = (others * terms).sum(axis=1, keepdims=True)
        # q_ab: probability that a sample of a class in a is given to one *other* class in b.
        q = terms / (np.exp(-shift) + mass)
        with np.errstate(divide="ignore"):
            log_odds = (np.log(mass) + shift)[:, 0]  # F_a = log((1 - p) / p)
        weights = self.levels.sizes * self.levels.weights
        # CE = log(1 + e^F): no 1 - p is ever formed, so f keeps its digits down to 1e-300.
        value = float(weights @ np.logaddexp(0.0, log_odds))
        reach = float(np.abs(differences).max(where=others > 0, initial=0.0))
        return Evaluation(value, self._pull(q), reach, q, self)

    def others(self) -> Array:
        """Entry (a, b): how many classes of level b differ from a given class of level a."""
        m = len(self.levels.sizes)
        return np.tile(self.levels.sizes, (m, 1)) - np.eye(m)

    def _push(self, packed: Array) -> Array:
        """Differences ``T_ab`` of a matrix given in packed coordinates: a linear map."""
        alpha, beta = self.levels.unpack(packed)
        own = alpha + np.diag(beta)
        differences = beta - own[:, None]
        np.fill_diagonal(differences, -alpha)
        scaled: Array = differences / self.row_scale[:, None]
        return scaled

    def _pull(self, q: Array) -> Array:
        """Packed gradient from probabilities: the adjoint of ``_push``, weights included.

        Class by class the gradient is ``(n_k / N)(p_k - e_k)``. With ``1 - p_kk`` written as the
        sum of the other probabilities, its alpha is ``-w_a (sum_{b != a} m_b q_ab + m_a q_aa)``
        and its core has ``w_a sqrt(m_a m_b) q_ab`` off and ``-w_a sum_{b != a} m_b q_ab`` on the
        diagonal: sums of terms of one sign, rows orthogonal to ``sqrt(m_b)``.
        """
        sizes = self.levels.sizes
        scaled = (self.levels.weights / self.row_scale)[:, None] * q
        within = np.diag(scaled).copy()
        np.fill_diagonal(scaled, 0.0)
        outside = scaled @ sizes
        root = np.sqrt(sizes)
        core = scaled * np.outer(root, root) - np.diag(outside)
        return np.vstack([-np.sqrt(sizes - 1.0) * (outside + sizes * within), core])

    def hessian(self, q: Array) -> Callable[[Array], Array]:
        """Map a packed direction to Hessian times direction, at the point with probabilities q."""
        weighted = self.others() * q

        def product(direction: Array) -> Array:
            change = self._push(direction)
            mean = (weighted * change).sum(axis=1, keepdims=True)
            return self._pull(q * (change - mean))  # dq = q (dT - E dT)

        return product


@dataclass(frozen=True)
class Evaluation:
    """The loss at one point.

    Parameters
    ----------
    value : float
        f.
    gradient : (m + 1, m) float array
        In packed coordinates.
    reach : float
        Largest absolute logit difference: what an exponential's relative error scales with.
    probabilities : (m, m) float array
        ``q_ab`` of :meth:`LevelLoss.evaluate`.
    loss : LevelLoss
        Where it came from.
    """

    value: float
    gradient: Array
    reach: float
    probabilities: Array
    loss: LevelLoss

    def hessian_diagonal(self, left: Array, right: Array) -> HessianDiagonal:
        """Curvatures of f along single coordinates, in given orthonormal bases of the core.

        Row k of the Hessian is ``n_k / N`` times the covariance of a class drawn from p_k, so a
        curvature is a variance: of ``y_j = right_j / sqrt(size)`` for the core, of
        ``1{own class} - 1{own level} / size`` for alpha. All are taken about the own class's
        value, so that small probabilities cancel nothing.
        """
        levels = self.loss.levels
        other = self.loss.others() * self.probabilities
        within = np.diag(other)
        outside = (other - np.diag(within)).sum(axis=1)
        miss = outside + within
        scale = levels.weights / self.loss.row_scale**2
        drop = 1.0 - 1.0 / levels.sizes  # of alpha's direction, from own class to another level
        spread = within + outside * drop**2 - (within + outside * drop) ** 2
        alpha = scale * levels.sizes * spread / np.maximum(levels.sizes - 1.0, 1.0)
        own = scale * outside * (1.0 - outside) / levels.sizes
        y = right / np.sqrt(levels.sizes)[:, None]
        first = other @ y
        second = other @ (y * y) - 2.0 * y * first + y * y * miss[:, None]
        variance = np.maximum(second - (first - y * miss[:, None]) ** 2, 0.0)
        core = (left * left * scale[:, None]).T @ variance
        return HessianDiagonal(alpha, core, own)

    def curvature(self) -> float:
        """Bound the largest eigenvalue of the Hessian here.

        A row is a share times ``diag(p) - pp^T``: at most 1/2, and at most its trace, which
        is at most ``2 (1 - p_kk)``.
        """
        miss = (self.loss.others() * self.probabilities).sum(axis=1)
        scale = self.loss.levels.weights / self.loss.row_scale**2
        return float((scale * np.minimum(0.5, 2.0 * miss)).max())

    def hessian_product(self) -> Callable[[Array], Array]:
        """Return the map direction -> Hessian times direction."""
        return self.loss.hessian(self.probabilities)


@dataclass(frozen=True)
class HessianDiagonal:
    """Curvatures of f along single coordinates.

    Parameters
    ----------
    alpha : (m,) float array
        Along each entry of row 0.
    core : (m, m) float array
        Along ``left_i right_j^T``.
    own : (m,) float array
        Along the diagonal of the core: raising the logit of the own level.
    """

    alpha: Array
    core: Array
    own: Array
