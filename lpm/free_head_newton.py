"""Newton's method along matrices of one rank, for the convex layer-peeled problem.

Near the optimum the nuclear norm is smooth along the matrices that share the optimum's rank
(Lewis, 2002), and there a Newton step squares the error. Let the core be ``U diag(s) V^T``, mu the
multiplier, G the gradient of f, and complete U and V by the singular vectors P, Q of the part of
G normal to the manifold, ``P diag(g) Q^T``. In this basis a tangent is

    [U P] [[A, R^T], [L, 0]] [V Q]^T      plus a change of each nonzero alpha,

and everything but the Hessian of f is diagonal or couples two entries (Absil, Mahony & Trumpf,
2013, for the curvature of the manifold):

* ``A_ij, A_ji``:  the norm contributes ``mu (A_ij - A_ji) / (s_i + s_j)``, the turn of UV^T;
* ``L_ji, R_ji``:  ``(mu L_ji + g_j R_ji) / s_i`` and ``(mu R_ji + g_j L_ji) / s_i``, positive
  definite as soon as ``g_j < mu``.

On symmetric and skew parts of the rotated core the curvature of the norm is therefore diagonal: 0
and ``2 mu / (s_i + s_j)`` in A, ``(mu + g_j) / s_i`` and ``(mu - g_j) / s_i`` in L and R. The last
is what makes the system ill-conditioned, g_j being close to mu for classes about to leave the
collapsed ones, together with one direction a class, ``e_k e_k^T``: raising a class's own logit has
curvature ``theta_k = w_k p_kk (1 - p_kk)``, about K times that of any other. The preconditioner
takes in both: ``D + sum_k theta_k (e_k e_k^T)(e_k e_k^T)^T`` on the tangent space, D diagonal on
symmetric and on skew parts, each block of 1 / D rounded to a row times a column factor. Woodbury's
identity then needs one m x m system, a sum of Hadamard products. About ten conjugate-gradient
steps are left, for m = 1000 as for m = 100.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from lpm.free_head_levels import Array, Evaluation
from lpm.nuclear import SpectralPoint

# Bound on conjugate-gradient steps of one Newton system; relative accuracy asked of it.
_MAX_PRODUCTS = 150
_ACCURACY = 1e-4
_TINY = float(np.finfo(np.float64).tiny)


def newton_direction(
    point: SpectralPoint, evaluation: Evaluation, multiplicity: Array, penalty: float | None
) -> Array:
    """Return the packed Newton direction at a point.

    Parameters
    ----------
    point : SpectralPoint
        The point, whose rank is kept.
    evaluation : Evaluation
        f there.
    multiplicity : (m,) float array
        Multiplicities of row 0.
    penalty : float or None
        Weight of the nuclear norm; None if the norm is held fixed instead, and the multiplier
        estimated.
    """
    model = _TangentModel(point, evaluation, multiplicity, penalty)
    return model.to_packed(_conjugate_gradients(model))


class _TangentModel:
    """The quadratic model on the tangent space, in the rotated basis of the module docstring."""

    def __init__(
        self,
        point: SpectralPoint,
        evaluation: Evaluation,
        multiplicity: Array,
        penalty: float | None,
    ) -> None:
        m, r = point.left.shape
        gradient = evaluation.gradient[1:]
        self.rank = r
        self.values = point.values
        self.hessian = evaluation.hessian_product()
        self.held = penalty is None

        # Gradient of the nuclear norm along the manifold: U V^T and the signs of alpha.
        self.norm_slope = np.zeros((m + 1, m))
        active = (point.alpha != 0.0) & (multiplicity > 0)
        self.norm_slope[0] = np.where(active, np.sqrt(multiplicity) * np.sign(point.alpha), 0.0)
        self.norm_slope[1 + np.arange(r), np.arange(r)] = 1.0

        # Normal part of G, (I - UU^T) G (I - VV^T) = P diag(g) Q^T.
        left_rest = np.linalg.qr(point.left, mode="complete")[0][:, r:]
        right_rest = np.linalg.qr(point.right, mode="complete")[0][:, r:]
        p, self.normal, qt = np.linalg.svd(left_rest.T @ gradient @ right_rest)
        self.left = np.hstack([point.left, left_rest @ p])
        self.right = np.hstack([point.right, right_rest @ qt.T])

        # Coordinates outside the tangent space stay zero.
        self.mask = np.ones((m + 1, m))
        self.mask[0] = active
        self.mask[1 + r :, r:] = 0.0

        slope = self.from_packed(evaluation.gradient)
        if penalty is None:
            # Least-squares multiplier of the constraint ||Z||_* = const.
            square = float((self.norm_slope * self.norm_slope).sum())
            self.mu = -float((slope * self.norm_slope).sum()) / square
        else:
            self.mu = penalty
        self.slope = slope + self.mu * self.norm_slope
        self._build_preconditioner(evaluation)

    def to_packed(self, tangent: Array) -> Array:
        """Turn rotated coordinates into packed ones."""
        r = self.rank
        u, p, v, q = self.left[:, :r], self.left[:, r:], self.right[:, :r], self.right[:, r:]
        core = tangent[1:]
        top = core[:r, :r] @ v.T + core[:r, r:] @ q.T
        return np.vstack([tangent[0], u @ top + (p @ core[r:, :r]) @ v.T])

    def from_packed(self, packed: Array) -> Array:
        """Orthogonal projection onto the tangent space, in rotated coordinates."""
        r = self.rank
        tangent = np.zeros_like(packed)
        tangent[0] = packed[0]
        forward = packed[1:] @ self.right[:, :r]
        tangent[1:, :r] = self.left.T @ forward
        tangent[1 : 1 + r, r:] = (self.left[:, :r].T @ packed[1:]) @ self.right[:, r:]
        masked: Array = tangent * self.mask
        return masked

    def product(self, tangent: Array) -> Array:
        """Apply the Hessian of the Lagrangian."""
        r = self.rank
        image = self.from_packed(self.hessian(self.to_packed(tangent)))
        a, right, left = tangent[1 : 1 + r, :r], tangent[1 : 1 + r, r:].T, tangent[1 + r :, :r]
        g, s = self.normal[:, None], self.values
        image[1 : 1 + r, :r] += self.mu * (a - a.T) / np.add.outer(s, s)
        image[1 + r :, :r] += (self.mu * left + g * right) / s
        image[1 : 1 + r, r:] += ((self.mu * right + g * left) / s).T
        return image

    def _build_preconditioner(self, evaluation: Evaluation) -> None:
        """Factor ``D + sum_k theta_k (e_k e_k^T)(e_k e_k^T)^T`` of the module docstring."""
        m, r, s, g = len(self.mask) - 1, self.rank, self.values, self.normal[:, None]
        diagonal = evaluation.hessian_diagonal(self.left, self.right)
        theta = diagonal.own
        rest = diagonal.core - (self.left**2 * theta[:, None]).T @ self.right**2
        # The subtraction is exact only in part: keep a share of what it started from.
        rest = np.maximum(rest, 0.05 * diagonal.core)
        rest = 0.5 * (rest + rest.T)
        # Flat directions (adding a constant to a row) get a curvature far below all others.
        floor = 1e-6 * float(np.max(rest)) + _TINY
        own = np.zeros((m, m))
        self.inverses = []
        for sign in (1.0, -1.0):
            curvature = rest.copy()
            if sign < 0.0:
                curvature[:r, :r] += 2.0 * self.mu / np.add.outer(s, s)
            # A normal singular value above mu would make this indefinite; the floor is rest.
            curvature[r:, :r] += np.maximum(self.mu + sign * g, 0.0) / s
            curvature[:r, r:] = curvature[r:, :r].T
            inverse = np.zeros((m, m))
            for rows, columns in (
                (slice(0, r), slice(0, r)),
                (slice(r, m), slice(0, r)),
                (slice(0, r), slice(r, m)),
            ):
                if curvature[rows, columns].size:
                    x, y = _product_form(1.0 / np.maximum(curvature[rows, columns], floor))
                    inverse[rows, columns] = np.outer(x, y)
                    left = self.left[:, rows] * x
                    straight = (left @ self.left[:, rows].T) * (
                        (self.right[:, columns] * y) @ self.right[:, columns].T
                    )
                    crossed = (left @ self.right[:, rows].T) * (
                        (self.right[:, columns] * y) @ self.left[:, columns].T
                    )
                    own += 0.5 * (straight + sign * crossed)
            self.inverses.append(inverse)
        # Woodbury: (D + E T E^T)^-1 = D^-1 - D^-1 E T^1/2 (I + T^1/2 E^T D^-1 E T^1/2)^-1 ..., with
        # `own` = E^T D^-1 E. The matrix to factor has no eigenvalue below 1.
        self.root = np.sqrt(theta)
        self.own_factor = cho_factor(np.eye(m) + np.outer(self.root, self.root) * own)
        self.inverse_alpha = 1.0 / np.maximum(diagonal.alpha, _TINY)
        self.correction = self._solve(self.norm_slope)

    def _solve_rest(self, core: Array) -> Array:
        """Apply the inverse of D: symmetric and skew part have a diagonal each."""
        symmetric, skew = 0.5 * (core + core.T), 0.5 * (core - core.T)
        solved: Array = self.inverses[0] * symmetric + self.inverses[1] * skew
        return solved

    def _solve(self, tangent: Array) -> Array:
        """Apply the inverse of the preconditioner by Woodbury's identity."""
        core = self._solve_rest(tangent[1:])
        own = ((self.left @ core) * self.right).sum(axis=1)
        weight = self.root * cho_solve(self.own_factor, self.root * own)
        raised = self.left.T @ (weight[:, None] * self.right)
        core = core - self._solve_rest(raised * self.mask[1:])
        stacked: Array = np.vstack([self.inverse_alpha * tangent[0], core]) * self.mask
        return stacked

    def precondition(self, tangent: Array) -> Array:
        """Apply it, staying orthogonal to ``norm_slope`` if it is held."""
        solved = self._solve(tangent)
        if self.held:
            excess = float((self.norm_slope * solved).sum())
            solved -= excess / float((self.norm_slope * self.correction).sum()) * self.correction
        return solved


def _product_form(block: Array) -> tuple[Array, Array]:
    """Row and column factors whose product is closest to a positive block, on a log scale."""
    logs = np.log(block)
    rows, columns = logs.mean(axis=1), logs.mean(axis=0)
    return np.exp(rows - 0.5 * logs.mean()), np.exp(columns - 0.5 * logs.mean())


def _conjugate_gradients(model: _TangentModel) -> Array:
    """Minimise the quadratic model; stop at enough accuracy or where it is not convex."""
    solution = np.zeros_like(model.slope)
    residual = -model.slope
    preconditioned = model.precondition(residual)
    direction = preconditioned
    square = float((residual * preconditioned).sum())
    goal = _ACCURACY**2 * square
    for _ in range(_MAX_PRODUCTS):
        if square <= goal:
            break
        image = model.product(direction)
        bend = float((direction * image).sum())
        if bend <= 0.0:
            break
        solution = solution + (square / bend) * direction
        residual = residual - (square / bend) * image
        preconditioned = model.precondition(residual)
        new = float((residual * preconditioned).sum())
        direction = preconditioned + (new / square) * direction
        square = new

    return solution
