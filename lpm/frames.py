"""Simplex equiangular tight frames and how far a matrix is from one.

Rows are vectors throughout: a head is ``(K, d)``, row k being the action k's vector w_k.
"""

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def simplex_etf(
    num_classes: int,
    dim: int,
    energy: float = 1.0,
    rng: np.random.Generator | None = None,
) -> Float:
    r"""Build a simplex equiangular tight frame (Definition 2 of the paper), rows as vectors.

    The rows satisfy ⟨w_k, w_k'⟩ = energy · (K/(K−1)·δ_{kk'} − 1/(K−1)) (Eq. 10). Eq. (3) asks
    for UᵀU = I_K, which needs d ≥ K although Definition 2 allows d ≥ K − 1. This
    construction covers every d ≥ K − 1: it uses an isometry of the (K−1)-dimensional
    subspace orthogonal to the all-ones vector, which is all that Eq. (3) ever sees of U.

    Parameters
    ----------
    num_classes
        K ≥ 2, the number of vectors.
    dim
        d ≥ K − 1, the dimension they live in.
    energy
        E_W > 0, the squared norm of every row.
    rng
        Draws the orientation uniformly (Haar) among all isometries; costs a QR factorisation
        of a (d, K−1) matrix. Without it the frame has a fixed orientation: the transposed
        Helmert matrix padded with zero columns.

    Returns
    -------
    (K, d) float64 array.

    Raises
    ------
    TypeError
        ``num_classes`` or ``dim`` is not a whole number.
    ValueError
        K < 2, d < K − 1, or an energy that is not finite and positive.
    """
    try:
        num_classes, dim = operator.index(num_classes), operator.index(dim)
    except TypeError as error:
        raise TypeError(
            f"num_classes and dim must be whole numbers, got {num_classes!r} and {dim!r}"
        ) from error
    if num_classes < 2:
        raise ValueError(f"a simplex ETF has at least 2 vectors, got num_classes={num_classes}")
    if dim < num_classes - 1:
        raise ValueError(
            f"{num_classes} vectors of a simplex ETF span {num_classes - 1} dimensions and do "
            f"not fit into dim={dim}: use dim >= {num_classes - 1} or at most {dim + 1} classes"
        )
    if not (np.isfinite(energy) and energy > 0):
        raise ValueError(f"the energy (squared norm of each vector) must be > 0, got {energy}")

    rank = num_classes - 1
    # Helmert: row i of the (K−1, K) matrix is (1, …, 1, −i, 0, …)/√(i(i+1)), i ones first.
    # Its rows are orthonormal and orthogonal to 1, so Helmertᵀ·Helmert = I − 11ᵀ/K.
    i = np.arange(1, num_classes, dtype=np.float64)
    normaliser = np.sqrt(energy * num_classes / rank) / np.sqrt(i * (i + 1))
    tight = np.triu(np.broadcast_to(normaliser, (num_classes, rank)))
    tight[np.arange(1, num_classes), np.arange(rank)] = -i * normaliser

    if rng is not None:
        # QR of a Gaussian matrix with the signs of R's diagonal moved into Q is Haar
        # distributed (Mezzadri 2007).
        q, r = np.linalg.qr(rng.standard_normal((dim, rank)))
        return np.asarray(tight @ (q * np.sign(np.diag(r))).T)
    frame = np.zeros((num_classes, dim))
    frame[:, :rank] = tight
    return frame


def gram(vectors: ArrayLike) -> Float:
    """Gram matrix (K, K) of the rows of a (K, d) matrix."""
    rows = np.asarray(vectors, dtype=np.float64)
    return np.asarray(rows @ rows.T)


def etf_defect(vectors: ArrayLike, energy: float | None = None) -> float:
    """Largest entrywise distance of the Gram matrix from Eq. (10), relative to the energy.

    Parameters
    ----------
    vectors
        (K, d) rows.
    energy
        E_W of the frame to compare with; the mean squared norm of the rows by default.

    Returns
    -------
    max_{k,k'} |⟨w_k, w_k'⟩ − E_W(K/(K−1)·δ − 1/(K−1))| / E_W; NaN for an all-zero matrix.

    Raises
    ------
    ValueError
        Fewer than two rows.
    """
    g = gram(vectors)
    k = g.shape[0]
    if k < 2:
        raise ValueError(f"an ETF has at least 2 vectors, got {k}")
    scale = float(np.mean(np.diag(g))) if energy is None else energy
    if scale == 0:
        return float("nan")
    target = scale * (k / (k - 1) * np.eye(k) - 1 / (k - 1))
    return float(np.max(np.abs(g - target)) / scale)
