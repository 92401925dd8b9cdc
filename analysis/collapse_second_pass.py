"""The second pass: how often the network decides for the action whose class mean is nearest.

The means are fixed by then, and so is the head. Scores closer than rounding are ties, which count
as :mod:`analysis.metrics` says.
"""

from __future__ import annotations

import torch

from analysis.collapse_geometry import Geometry, centred_rows, norms

# Scores closer than this, relative to the magnitudes they are made of, are tied: above what
# float64 dot products round (about sqrt(d) * 1e-16), below any margin of float32 features.
_TIE = 1e-13


class SecondPass:
    """Frozen class means and head, and what the samples said of them so far."""

    def __init__(
        self,
        geometry: Geometry,
        head: torch.Tensor,
        bias: torch.Tensor | None,
        device: torch.device,
    ) -> None:
        self.head, self.bias = head, bias
        self.seen = 0
        self.agreeing = torch.zeros(2, dtype=torch.float64, device=device)
        rows = centred_rows(head[geometry.present])
        shift = torch.zeros(len(rows), dtype=torch.float64)
        if bias is not None:
            shift = centred_rows(bias[geometry.present])
        self.undecided_centred = not bool(rows.any())
        self.undecided = self.undecided_centred and not bool(shift.any())
        # Scores of u = h − h_c: u·w_k + const for the network, u·w_k for the centred decision,
        # u·m_k − |m_k|²/2 for the nearest mean, which is −|h − h_k|²/2 + |u|²/2.
        centre = geometry.origin + geometry.centre
        network = shift + rows @ centre
        nearest = -0.5 * (geometry.centred**2).sum(dim=1)
        self._centre = geometry.centre.to(device)
        self._directions = torch.cat([rows, geometry.centred]).T.contiguous().to(device)
        self._network, self._nearest = network.to(device), nearest.to(device)
        self._lengths = (float(norms(rows).max()), float(norms(geometry.centred).max()))
        self._levels = (
            self._lengths[0] * float(centre.norm()) + float(shift.abs().max()),
            float(nearest.abs().max()),
        )

    def add(self, shifted: torch.Tensor) -> None:
        """Add samples, given as h minus the origin."""
        u = shifted - self._centre
        size = norms(u)
        decision, distance = (u @ self._directions).chunk(2, dim=1)
        nearest = _best(distance + self._nearest, size * self._lengths[1] + self._levels[1])
        network = _best(decision + self._network, size * self._lengths[0] + self._levels[0])
        centred = _best(decision, size * self._lengths[0])
        self.agreeing += torch.stack([_agree(network, nearest), _agree(centred, nearest)])
        self.seen += len(shifted)

    def merge(self, other: SecondPass) -> None:
        """Add what another pass with the same means and head, on any device, has seen.

        Raises
        ------
        ValueError
            If its head or bias is another one.
        """
        self.require_same_head(other.head, other.bias)
        self.agreeing += other.agreeing.to(self.agreeing.device)
        self.seen += other.seen

    def require_same_head(self, head: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Refuse another head or bias than the one this pass began with.

        Raises
        ------
        ValueError
            If either differs.
        """
        same_bias = (bias is None and self.bias is None) or (
            bias is not None and self.bias is not None and torch.equal(bias, self.bias)
        )
        if not torch.equal(head, self.head) or not same_bias:
            raise ValueError(
                f"the second pass saw {self.seen} samples with another head or bias; call "
                f"reset_agreement() to begin it anew with this one"
            )


def _best(scores: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Mark, in each row, the scores that reach the largest to within rounding."""
    return scores >= scores.amax(dim=1, keepdim=True) - _TIE * magnitude[:, None]


def _agree(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Sum over rows the probability that fair draws from two sets of actions are equal."""
    a, b = one.to(torch.float64), other.to(torch.float64)
    return ((a * b).sum(dim=1) / (a.sum(dim=1) * b.sum(dim=1))).sum()
