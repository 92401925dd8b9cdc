"""Heads and backbones: shapes, initialisation, and that nothing touches a frozen ETF."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lpm
from agents import (
    ETFHead,
    FrozenGaussianHead,
    FrozenOrthogonalHead,
    LinearHead,
    PopulationMLP,
    project_to_ball,
)

F64 = torch.float64


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(count)]


def test_etf_head_is_an_etf_for_every_member() -> None:
    head = ETFHead(16, 5, rngs(3), energy=4.0, dtype=F64)
    assert head.weight.shape == (3, 5, 16)
    for weight in head.weight.numpy():
        assert lpm.etf_defect(weight, 4.0) < 1e-13
    assert (head.weight[0] - head.weight[1]).abs().max() > 0.1


def test_etf_head_is_a_buffer() -> None:
    head = ETFHead(8, 4, rngs(2))
    assert list(head.parameters()) == []
    assert set(head.state_dict()) == {"weight"}
    assert not head.weight.requires_grad
    assert head.bias is None


def test_etf_head_survives_what_touches_parameters() -> None:
    """Orthogonal init, optimizer with weight decay and gradient clipping over all parameters."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Unflatten(0, (1, -1)))
    model.append(ETFHead(8, 4, rngs(1)))
    before = model[2].weight.clone()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1:
                torch.nn.init.orthogonal_(parameter)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 6, generator=torch.Generator().manual_seed(0))).logsumexp(
            -1
        ).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    assert torch.equal(model[2].weight, before)


def test_etf_head_saves_and_loads_its_orientation() -> None:
    saved, other = ETFHead(8, 4, rngs(2, seed=1)), ETFHead(8, 4, rngs(2, seed=2))
    other.load_state_dict(saved.state_dict())
    assert torch.equal(saved.weight, other.weight)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_head_is_a_linear_layer(bias) -> None:
    head = LinearHead(6, 3, rngs(2), bias=bias, dtype=F64)
    features = torch.randn(2, 7, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    for member in range(2):
        reference = torch.nn.functional.linear(
            features[member], head.weight[member], head.bias[member] if bias else None
        )
        torch.testing.assert_close(head(features)[member], reference)
    assert len(list(head.parameters())) == (2 if bias else 1)
    assert head.weight.abs().max() <= 6**-0.5


@pytest.mark.parametrize("feature", ["rectified", "linear"])
def test_population_mlp_is_a_stack_of_mlps(feature) -> None:
    network = PopulationMLP((5, 4, 3), rngs(2), feature=feature, dtype=F64)
    x = torch.randn(2, 9, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    for member in range(2):
        h = torch.relu(x[member] @ network.weights[0][member].T + network.biases[0][member])
        h = h @ network.weights[1][member].T + network.biases[1][member]
        reference = torch.relu(h) if feature == "rectified" else h
        torch.testing.assert_close(network(x)[member], reference)


def test_population_mlp_centres_bytes() -> None:
    network = PopulationMLP((3, 4), rngs(2), dtype=F64)
    memory = torch.tensor([[[0, 128, 255]]] * 2, dtype=torch.uint8)
    seen = torch.tensor([[[-2.0, 0.0, 127 / 64]]] * 2, dtype=F64)
    assert torch.equal(network(memory), network(seen))


def test_initial_weights_belong_to_the_seed() -> None:
    alone = PopulationMLP((5, 4), [np.random.default_rng(7)])
    together = PopulationMLP((5, 4), [np.random.default_rng(s) for s in (3, 7)])
    assert torch.equal(alone.weights[0][0], together.weights[0][1])


@pytest.mark.theory
@given(st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_projection_onto_the_ball(seed, log10_energy) -> None:
    """Feasible, idempotent, the nearest point, with a gradient tangential on the surface."""
    rng = np.random.default_rng(seed)
    energy = 10.0**log10_energy
    h = torch.from_numpy(rng.standard_normal((6, 5)) * rng.uniform(0, 3, (6, 1)) * energy**0.5)
    h.requires_grad_()
    projected = project_to_ball(h, energy)
    norms = projected.norm(dim=1)
    assert (norms <= energy**0.5 * (1 + 1e-12)).all()
    torch.testing.assert_close(project_to_ball(projected, energy), projected)
    inside = h.norm(dim=1) <= energy**0.5
    assert torch.equal(projected[inside], h[inside])
    direction = torch.from_numpy(rng.standard_normal((6, 5)))
    (gradient,) = torch.autograd.grad((projected * direction).sum(), h)
    outside = ~inside
    radial = (gradient * h).sum(1) / h.norm(dim=1)
    assert (radial[outside].abs() <= 1e-12 * direction[outside].norm(dim=1)).all()
    torch.testing.assert_close(gradient[inside], direction[inside])


def test_zero_feature_stays_zero() -> None:
    h = torch.zeros(1, 4, requires_grad=True)
    project_to_ball(h, 25.0).sum().backward()
    assert torch.equal(h.grad, torch.ones(1, 4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ETFHead(2, 4, rngs(1)), r"4 vectors .* dim=2: use dim >= 3"),
        (lambda: LinearHead(0, 4, rngs(1)), "dim >= 1 and num_actions >= 2, got 0 and 4"),
        (lambda: PopulationMLP((5,), rngs(1)), r"sizes must be .*got \(5,\)"),
        (lambda: PopulationMLP((5, 3), rngs(1), feature_energy=0.0), "feature_energy must be > 0"),
    ],
)
def test_refused(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_orthogonal_control_has_orthogonal_rows_of_its_energy() -> None:
    head = FrozenOrthogonalHead(16, 5, rngs(2), energy=4.0, dtype=F64)
    gram = head.weight @ head.weight.mT
    torch.testing.assert_close(gram, 4 * torch.eye(5, dtype=F64).expand(2, -1, -1))
    assert (head.weight[0] - head.weight[1]).abs().max() > 0.1
    with pytest.raises(ValueError, match="5 orthogonal rows need dim >= 5, got 4"):
        FrozenOrthogonalHead(4, 5, rngs(1))


def test_gaussian_control_has_its_energy_on_average() -> None:
    head = FrozenGaussianHead(400, 5, rngs(50), energy=4.0, dtype=F64)
    assert abs(float(head.weight.square().sum(-1).mean()) - 4) < 0.1
    assert abs(float(head.weight.mean())) < 0.005
    assert abs(float((head.weight**4).mean() / head.weight.square().mean() ** 2) - 3) < 0.1


@pytest.mark.parametrize("kind", [ETFHead, FrozenOrthogonalHead, FrozenGaussianHead])
def test_every_frozen_head_is_a_buffer_and_computes_w_h(kind: type) -> None:
    head = kind(8, 3, rngs(2), dtype=F64)
    assert list(head.parameters()) == []
    features = torch.randn(2, 6, 8, dtype=F64, generator=torch.Generator().manual_seed(0))
    for member in range(2):
        torch.testing.assert_close(head(features)[member], features[member] @ head.weight[member].T)
    with pytest.raises(ValueError, match="energy"):
        kind(8, 3, rngs(1), energy=0.0)
