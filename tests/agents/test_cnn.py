"""The Nature CNN against PyTorch's own layers, in float32 and bfloat16."""

import numpy as np
import pytest
import torch
from torch import nn

from agents.cnn import NatureCNN

IMAGE = (4, 84, 84)


def rngs(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, i]) for i in range(count)]


def images(population: int, batch: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (population, batch, *IMAGE), dtype=np.uint8))


def stock(cnn: NatureCNN, member: int) -> nn.Sequential:
    """The same network from stock layers: pixels are divided, weights are not."""
    layers = [
        nn.Conv2d(4, 32, 8, 4),
        nn.Conv2d(32, 64, 4, 2),
        nn.Conv2d(64, 64, 3, 1),
        nn.Linear(64 * 7 * 7, cnn.weights[-1].shape[1]),
    ]
    for layer, weight, bias in zip(layers, cnn.weights, cnn.biases, strict=True):
        with torch.no_grad():
            layer.weight.copy_(weight[member])
            layer.bias.copy_(bias[member])
    first, second, third, last = layers
    return nn.Sequential(
        first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), nn.Flatten(), last, nn.ReLU()
    )


def test_features_and_gradients_are_those_of_stock_layers() -> None:
    cnn = NatureCNN(IMAGE, 32, rngs(2))
    batch = images(2, 3)
    features = cnn(batch)
    assert features.shape == (2, 3, 32)
    for member in range(2):
        reference = stock(cnn, member)
        expected = reference(batch[member].float() / 255)
        torch.testing.assert_close(features[member], expected, rtol=1e-4, atol=1e-5)
        expected.square().sum().backward()
        cnn.zero_grad()
        cnn(batch)[member].square().sum().backward()
        own = cnn.weights[0].grad
        assert own is not None
        torch.testing.assert_close(own[member], reference[0].weight.grad, rtol=1e-3, atol=1e-5)
        assert own[1 - member].abs().max() == 0


def test_bf16_agrees_with_float32_to_its_precision() -> None:
    """8 bits of mantissa: features and gradients within about 1 % of their length."""
    exact, rounded = (NatureCNN(IMAGE, 64, rngs(1), gain=2**0.5, bf16=b) for b in (False, True))
    batch = images(1, 16)
    target = torch.ones(1, 16, 64)
    gradients = []
    for cnn in (exact, rounded):
        loss = (cnn(batch) - target).square().mean()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in cnn.parameters()]))
    features = rounded(batch)
    assert features.dtype == torch.float32
    error = (features - exact(batch)).norm() / exact(batch).norm()
    assert 0 < error < 0.01
    cosine = torch.cosine_similarity(*gradients, dim=0)
    assert cosine > 0.999


@pytest.mark.parametrize(("feature", "smallest"), [("rectified", 0.0), ("linear", -np.inf)])
def test_feature_kind_and_ball(feature: str, smallest: float) -> None:
    cnn = NatureCNN(IMAGE, 16, rngs(1), feature=feature, feature_energy=0.01)
    features = cnn(images(1, 8))
    assert (features >= smallest).all()
    assert (features < 0).any() == (feature == "linear")
    assert features.square().sum(-1).max() <= 0.01 * (1 + 1e-5)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="84×84"):
        NatureCNN((4, 20, 20), 16, rngs(1))
