"""The first pass over labelled features: count, mean and scatter of each class.

What it keeps is about the first feature seen, the *origin*, and is as large as the head, or (d, d)
where the scatter is kept. Passes over different data merge into one over all of them. The
arithmetic and its source (Chan et al.) are described in :mod:`analysis.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg.blas import dsyrk

from analysis.snapshot import FeatureRows

NO_SCATTER = (
    "within-class scatter was not kept (scatter=False): use scatter=True, or collapse_metrics on "
    "data in memory"
)

SUMS = ("counts", "origin", "means", "variation", "scatter")
"""Attributes of a :class:`FirstPass` that hold what it has seen."""


class Moments(NamedTuple):
    """First two moments of features, float64 on the CPU."""

    mean: torch.Tensor
    """(d,) h_G = (1/N) Σ_i h_i."""
    covariance: torch.Tensor
    """(d, d) (1/N) Σ_i (h_i − h_G)(h_i − h_G)^T."""


class FirstPass:
    """What the samples of each class add up to so far, in coordinates about the origin."""

    def __init__(
        self, num_classes: int, dim: int, *, device: torch.device | None, scatter: bool
    ) -> None:
        self._device = device
        device = device or torch.device("cpu")
        self.counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.origin: torch.Tensor | None = None
        self.means = torch.zeros((num_classes, dim), dtype=torch.float64, device=device)
        # Σ ‖h_i − h_k‖² of each class; the scatter below is the matrix whose trace they sum to,
        # valid in its upper triangle (see _add_gram).
        self.variation = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.scatter = (
            torch.zeros((dim, dim), dtype=torch.float64, device=device) if scatter else None
        )

    def _settle_on(self, device: torch.device) -> torch.device:
        """Take the device of the first data seen; later data come to it."""
        if self._device is None:
            self._device = device
            for name in SUMS:
                tensor = getattr(self, name)
                setattr(self, name, None if tensor is None else tensor.to(device))
        return self._device

    @property
    def kind(self) -> tuple[int, int, bool]:
        """What two passes must share to be merged: num_classes, dim and scatter."""
        num_classes, dim = self.means.shape
        return num_classes, dim, self.scatter is not None

    @property
    def num_samples(self) -> int:
        """N, the number of samples seen."""
        return int(self.counts.sum())

    def add(self, rows: FeatureRows, labels: torch.Tensor) -> None:
        """Add samples with their labels, an (N,) int64 tensor on any device."""
        device = self._settle_on(rows.device)
        y = labels.to(device)
        for where, chunk in rows.chunks():
            self._fold(chunk.to(device), y[where])

    def _fold(self, chunk: torch.Tensor, y: torch.Tensor) -> None:
        """Chan et al.'s update with the residuals of one chunk about its own class means."""
        if self.origin is None:
            # Any point among the data will do; a datum itself makes equal features exactly 0.
            self.origin = chunk[0].clone()
        x = chunk - self.origin
        # Only the classes in the chunk: with a thousand actions most batches hold a fraction.
        seen, local = torch.unique(y, return_inverse=True)
        counts = torch.bincount(local)
        means = x.new_zeros(len(seen), x.shape[1]).index_add_(0, local, x) / counts[:, None]
        residuals = x - means[local]
        variation = x.new_zeros(len(seen)).index_add_(0, local, (residuals**2).sum(dim=1))
        self._combine(seen, counts, means, variation, residuals)

    def _combine(
        self,
        seen: torch.Tensor,
        counts: torch.Tensor,
        means: torch.Tensor,
        variation: torch.Tensor,
        root: torch.Tensor | None,
        scatter: torch.Tensor | None = None,
    ) -> None:
        """Add another part's statistics, about the same origin, of the classes `seen` in it.

        Its scatter is given either as `scatter` or as `root`, rows R with scatter R^T R.
        """
        before = self.counts[seen]
        # To float64 first: the quotient of two integer tensors would be float32.
        share = counts.to(torch.float64) / (before + counts)
        step = means - self.means[seen]
        weight = before * share  # n_a n_b / (n_a + n_b), without the product in int64
        self.means[seen] += share[:, None] * step
        self.variation[seen] += variation + weight * (step**2).sum(dim=1)
        self.counts[seen] += counts
        if self.scatter is not None:
            between = weight.sqrt()[:, None] * step
            stacked = between if root is None else torch.cat([root, between])
            self.scatter = _add_gram(self.scatter, stacked)
            if scatter is not None:
                self.scatter += scatter

    def merge(self, other: FirstPass) -> None:
        """Add what another pass of the same kind, on any device, has seen."""
        if other.origin is None:
            return
        device = self._settle_on(other.origin.device)
        origin = other.origin.to(device)
        if self.origin is None:
            self.origin = origin.clone()
        seen = torch.nonzero(other.counts)[:, 0].to(device)
        means = other.means.to(device)[seen] + (origin - self.origin)
        self._combine(
            seen,
            other.counts.to(device)[seen],
            means,
            other.variation.to(device)[seen],
            root=None,
            scatter=None if other.scatter is None else other.scatter.to(device),
        )

    def require_origin(self) -> torch.Tensor:
        """Return the (d,) origin.

        Raises
        ------
        ValueError
            If nothing was seen.
        """
        if self.origin is None:
            raise ValueError("no samples: call update with at least one row before")
        return self.origin

    def moments(self) -> Moments:
        """Mean and covariance of all features, whatever their labels.

        Raises
        ------
        ValueError
            If nothing was seen, or the scatter was not kept.
        """
        origin = self.require_origin()
        if self.scatter is None:
            raise ValueError(NO_SCATTER)
        share = self.counts.to(torch.float64) / self.num_samples
        mean = share @ self.means
        between = share.sqrt()[:, None] * (self.means - mean)
        covariance = _mirrored(self.scatter) / self.num_samples + between.T @ between
        return Moments((mean + origin).cpu(), covariance.cpu())

    def variance_along(self, axes: torch.Tensor) -> torch.Tensor | None:
        """Within-class variance along orthonormal axes (d, r), (r,) on the CPU.

        None where the scatter was not kept.
        """
        if self.scatter is None:
            return None
        axes = axes.to(self.scatter.device)
        return ((_mirrored(self.scatter) @ axes) * axes).sum(dim=0).cpu() / self.num_samples

    def sums(self) -> dict[str, torch.Tensor | None]:
        """All that is kept, by the names in :data:`SUMS`; tensors in use, not copies of them."""
        scatter = None if self.scatter is None else _mirrored(self.scatter)
        return {name: getattr(self, name) for name in SUMS} | {"scatter": scatter}

    def replace(self, sums: Mapping[str, torch.Tensor | None]) -> None:
        """Put what another pass of the same kind has kept in the place of what this one has."""
        for name in SUMS:
            setattr(self, name, sums[name])


def _add_gram(total: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return `total` + rows^T rows, right in the upper triangle; `total` is used up."""
    if total.device.type != "cpu":
        return total.addmm_(rows.T, rows)
    # A symmetric product is half the work, and a stream spends most of its time here; torch has
    # no syrk. BLAS counts columns first: its lower triangle is our upper one.
    own = total.numpy().T
    result = dsyrk(1.0, rows.numpy().T, beta=1.0, c=own, lower=1, overwrite_c=1)
    # In place. To wrap the result anew would leave a chain of views, one a batch, in memory.
    return total if np.may_share_memory(result, own) else torch.from_numpy(result.T)


def _mirrored(upper: torch.Tensor) -> torch.Tensor:
    """Symmetric matrix with this upper triangle."""
    return upper.triu() + upper.triu(1).T
