"""The Nature CNN (Mnih et al. 2015): from stacked greyscale frames to features."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from agents import initialisation
from agents.networks import FeatureKind, project_to_ball

_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""(channels, kernel, stride) of the three convolutions."""


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (otherwise it is emulated, slower)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    ask = getattr(torch.cpu, "get_capabilities", None)  # of newer versions of PyTorch
    capabilities = {} if ask is None else ask()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class NatureCNN(nn.Module):
    """P Nature CNNs, one for each generator; P = 1 is what images are trained with.

    Parameters
    ----------
    image
        (channels, height, width) of an observation.
    dim
        d, the feature dimension (512 in the original).
    rngs
        One generator for each member, used for the initial weights.
    feature, feature_energy, gain
        As for `agents.networks.PopulationMLP`.
    bf16
        Multiply in bfloat16 (accumulating in float32); features come out in float32.
    """

    def __init__(
        self,
        image: tuple[int, int, int],
        dim: int,
        rngs: Sequence[np.random.Generator],
        *,
        feature: FeatureKind = "rectified",
        feature_energy: float | None = None,
        gain: float | None = None,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.feature: FeatureKind = feature
        self.feature_energy = feature_energy
        self.bf16 = bf16
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        channels, height, width = image
        shapes: list[tuple[int, ...]] = []
        for out, kernel, stride in _LAYERS:
            shapes.append((out, channels, kernel, kernel))
            channels, height, width = (
                out,
                (height - kernel) // stride + 1,
                (width - kernel) // stride + 1,
            )
        if min(height, width) < 1:
            raise ValueError(f"images of {image} are too small for the convolutions: use 84×84")
        shapes.append((dim, channels * height * width))
        for shape in shapes:
            weight, bias = initialisation.layer(rngs, shape, gain)
            self.weights.append(weight.float())
            self.biases.append(bias.float())

    def forward(self, observations: Tensor) -> Tensor:
        """Features (P, n, d) float32 of uint8 images (P, n, channels, height, width)."""
        kind = observations.device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.bf16):
            h = torch.stack([self._member(p, images) for p, images in enumerate(observations)])
        h = h.float()
        return h if self.feature_energy is None else project_to_ball(h, self.feature_energy)

    def _member(self, member: int, images: Tensor) -> Tensor:
        # 0…255 are exact in bfloat16. Channels-last is what CPU and GPU kernels are fastest in, and
        # to stack bytes into it takes a quarter of the time of one conversion of order and type.
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        h = torch.stack(images.unbind(1), -1).to(dtype).permute(0, 3, 1, 2)
        for layer, (_, _, stride) in enumerate(_LAYERS):
            weight = _of(self.weights[layer], member)
            if layer == 0:
                # conv(x/255, w) = conv(x, w/255): scales 8 k weights instead of every pixel.
                weight = weight / 255
            weight = weight.to(memory_format=torch.channels_last)
            h = functional.conv2d(h, weight, _of(self.biases[layer], member), stride).relu_()
        h = functional.linear(
            h.flatten(1), _of(self.weights[-1], member), _of(self.biases[-1], member)
        )
        return torch.relu(h) if self.feature == "rectified" else h


def _of(parameter: Tensor, member: int) -> Tensor:
    """A member's weight; of the only member it is a view, whose gradient is not copied."""
    return parameter.squeeze(0) if len(parameter) == 1 else parameter[member]
