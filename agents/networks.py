"""Backbones: from observations to features.

Populations are a leading axis P: the P networks of P seeds are trained at once, as stacked
matrix products, and never mix.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from agents.heads import uniform_init

FeatureKind = Literal["rectified", "linear"]


def project_to_ball(features: Tensor, energy: float) -> Tensor:
    """Project features (…, d) onto ‖h‖² ≤ energy, differentiably.

    The norm constraint of Eq. (9) for every state, as a layer: inside the ball the identity, on
    and beyond its surface the radial projection, whose gradient is tangential.
    """
    norm: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    projected: Tensor = features / (norm / energy**0.5).clamp(min=1.0)
    return projected


class PopulationMLP(nn.Module):
    """P multilayer perceptrons with ReLU, one for each generator.

    Parameters
    ----------
    sizes
        (input, hidden, …, feature) dimensions.
    rngs
        One generator for each member, used for PyTorch's default U(±1/√fan_in).
    feature
        ``"rectified"`` ends in a ReLU like the paper's network: features are then non-negative
        and cannot reach Theorem 1's optimum for a generic ETF. ``"linear"`` leaves it out.
    feature_energy
        E_H: features are projected onto ‖h‖² ≤ E_H; None for no bound.
    dtype
        Of the parameters.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        rngs: Sequence[np.random.Generator],
        *,
        feature: FeatureKind = "rectified",
        feature_energy: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes must be (input, …, feature), each >= 1, got {tuple(sizes)}")
        if feature_energy is not None and not feature_energy > 0:
            raise ValueError(f"feature_energy must be > 0 or None, got {feature_energy}")
        self.feature: FeatureKind = feature
        self.feature_energy = feature_energy
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            bound = fan_in**-0.5
            self.weights.append(uniform_init(rngs, (fan_out, fan_in), bound).to(dtype))
            self.biases.append(uniform_init(rngs, (1, fan_out), bound).to(dtype))

    def forward(self, observations: Tensor) -> Tensor:
        """Features (P, n, d) of observations (P, n, input)."""
        h = observations
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight.mT)
            if layer < last or self.feature == "rectified":
                h = torch.relu(h)
        return h if self.feature_energy is None else project_to_ball(h, self.feature_energy)
