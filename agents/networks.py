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

from agents import initialisation

FeatureKind = Literal["rectified", "linear"]
FeatureNorm = Literal["ball", "sphere"]


def project_to_ball(features: Tensor, energy: float) -> Tensor:
    """Project features (…, d) onto ‖h‖² ≤ energy, differentiably.

    The norm constraint of Eq. (9) for every state, as a layer: inside the ball the identity, on
    and beyond its surface the radial projection, whose gradient is tangential.
    """
    norm: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    projected: Tensor = features / (norm / energy**0.5).clamp(min=1.0)
    return projected


def normalise_to_sphere(features: Tensor, energy: float) -> Tensor:
    """Scale features (…, d) to ‖h‖² = energy, differentiably.

    The norm bound of Eq. (9) held active for every state, as it is at Theorem 1's optimum. NaN
    for the zero vector, which has no direction.
    """
    norm: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    normalised: Tensor = features * (energy**0.5 / norm)
    return normalised


class PopulationMLP(nn.Module):
    """P multilayer perceptrons with ReLU, one for each generator.

    Parameters
    ----------
    sizes
        (input, hidden, …, feature) dimensions.
    rngs
        One generator for each member, used for the initial weights.
    feature
        ``"rectified"`` ends in a ReLU like the paper's network: features are then non-negative
        and cannot reach Theorem 1's optimum for a generic ETF. ``"linear"`` leaves it out.
    feature_energy
        E_H: features are projected onto ‖h‖² ≤ E_H; None for no bound.
    feature_norm
        ``"ball"`` for that bound, ``"sphere"`` for ‖h‖² = E_H.
    gain
        None for PyTorch's default initialisation U(±1/√fan_in); otherwise orthogonal weights of
        this gain and zero biases.
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
        feature_norm: FeatureNorm = "ball",
        gain: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes must be (input, …, feature), each >= 1, got {tuple(sizes)}")
        if feature_energy is not None and not feature_energy > 0:
            raise ValueError(f"feature_energy must be > 0 or None, got {feature_energy}")
        if feature_norm == "sphere" and feature_energy is None:
            raise ValueError("feature_norm='sphere' needs a radius: give feature_energy")
        self.feature: FeatureKind = feature
        self.feature_energy = feature_energy
        self.feature_norm: FeatureNorm = feature_norm
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            weight, bias = initialisation.layer(rngs, (fan_out, fan_in), gain)
            self.weights.append(weight.to(dtype))
            self.biases.append(bias.unsqueeze(1).to(dtype))

    def forward(self, observations: Tensor) -> Tensor:
        """Features (P, n, d) of observations (P, n, input); a byte x is seen as (x − 128)/64."""
        h = observations
        if h.dtype == torch.uint8:
            # A byte of a console's memory that changes has a standard deviation of about 64. In
            # [0, 1], as images are, it is small beside the constant bytes, and PPO learns Pong
            # several times slower.
            h = (h.to(self.weights[0].dtype) - 128) / 64
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight.mT)
            if layer < last or self.feature == "rectified":
                h = torch.relu(h)
        if self.feature_energy is None:
            return h
        bound = normalise_to_sphere if self.feature_norm == "sphere" else project_to_ball
        return bound(h, self.feature_energy)
