"""Where the class means of features lie: their centre, distances and span, and what counts as 0."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.collapse_first_pass import FirstPass

DEFAULT_RCOND = 1e-12
"""Squared lengths below this share of their scale are 0 (conventions of `analysis.metrics`)."""


def check_rcond(rcond: float) -> float:
    """Return `rcond` as a float in (0, 1).

    Raises
    ------
    ValueError
        If it is outside.
    """
    if not 0.0 < rcond < 1.0:
        raise ValueError(
            f"rcond is {rcond}, expected a number in (0, 1), for example {DEFAULT_RCOND}"
        )
    return float(rcond)


class Geometry(NamedTuple):
    """What the class statistics say, on the CPU in float64, in coordinates about the origin."""

    counts: NDArray[np.int64]  # (K,)
    present: torch.Tensor  # (K',) indices
    origin: torch.Tensor  # (d,)
    means: torch.Tensor  # (K', d), about the origin
    centre: torch.Tensor  # (d,), about the origin
    centred: torch.Tensor  # (K', d)
    variances: torch.Tensor  # (K',)
    trace_within: float
    trace_between: float
    zero: float  # squared lengths up to here are zero
    axes: torch.Tensor  # (d, r) orthonormal, span of the centred means
    eigenvalues: torch.Tensor  # (r,) of Σ_B, those above rcond times the largest

    @classmethod
    def of(cls, first: FirstPass, rcond: float) -> Geometry:
        """Read it off a first pass.

        Raises
        ------
        OverflowError
            If squared features do not fit into float64.
        ValueError
            If nothing was seen.
        """
        origin = first.require_origin()
        counts = first.counts.cpu()
        present = torch.nonzero(counts)[:, 0]
        n = counts[present].to(torch.float64)
        means = first.means.cpu()[present]
        centre = means.mean(dim=0)
        centred = means - centre
        variation = first.variation.cpu()[present]
        trace_within = float(variation.sum() / n.sum())
        squared = (centred**2).sum(dim=1)
        trace_between = float(squared.mean())
        if not math.isfinite(trace_within + trace_between):
            largest = float(means.abs().max())
            raise OverflowError(
                f"squared distances of features overflow float64 (class means reach {largest:.3g} "
                f"from the first sample); divide the features by a constant, no metric changes"
            )
        zero = rcond * max(float(squared.max()), trace_within)
        # The (K', K') side of the singular value decomposition: Σ_B's eigenvectors of nonzero
        # eigenvalue without a (d, d) matrix or its pseudo-inverse.
        _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
        eigenvalues = singular**2 / len(present)
        keep = eigenvalues > rcond * eigenvalues[0]
        return cls(
            counts=counts.numpy().copy(),
            present=present,
            origin=origin.cpu(),
            means=means,
            centre=centre,
            centred=centred,
            variances=variation / n,
            trace_within=trace_within,
            trace_between=trace_between,
            zero=zero,
            axes=axes[keep].T.contiguous(),
            eigenvalues=eigenvalues[keep],
        )

    @property
    def coincide(self) -> bool:
        """Whether the class means are one point."""
        return self.trace_between <= self.zero


def norms(rows: torch.Tensor) -> torch.Tensor:
    """Length of each row."""
    lengths: torch.Tensor = torch.linalg.vector_norm(rows, dim=1)
    return lengths


def centred_rows(rows: torch.Tensor) -> torch.Tensor:
    """Subtract the mean row, leaving exact zeros where all rows are equal."""
    rows = rows - rows[0]
    return rows - rows.mean(dim=0)
