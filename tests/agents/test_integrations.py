"""What the integrations share, and that the optional packages stay optional."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from agents import ETFHead, project_to_ball
from agents.heads import FrozenGaussianHead, FrozenOrthogonalHead
from agents.integrations.common import BallProjection, SingleHead, record


@pytest.mark.parametrize(
    ("kind", "population"),
    [("etf", ETFHead), ("orthogonal", FrozenOrthogonalHead), ("gaussian", FrozenGaussianHead)],
)
def test_single_head_is_a_population_of_one(kind, population) -> None:
    head = SingleHead(8, 4, np.random.default_rng(3), kind=kind, energy=2.0, dtype=torch.float64)
    reference = population(8, 4, [np.random.default_rng(3)], energy=2.0, dtype=torch.float64)
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 8)))
    assert torch.equal(head.weight, reference.weight[0])
    torch.testing.assert_close(head(features), reference(features[None])[0])
    assert list(head.parameters()) == []
    assert set(head.state_dict()) == {"weight"}
    assert head.bias is None


def test_ball_projection_is_the_function() -> None:
    features = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 8)))
    projected = BallProjection(4.0)(features)
    assert torch.equal(projected, project_to_ball(features, 4.0))
    assert (projected.norm(dim=1) <= 2 + 1e-12).all()
    assert not torch.equal(projected, features)


def test_record_leaves_every_mode_gradient_and_hook_as_it_was() -> None:
    head = nn.Linear(6, 3)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), head)
    network.train()
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)

    def forward(batch: np.ndarray) -> None:
        assert not network(torch.from_numpy(batch)).requires_grad

    whole = record(network, head, forward, x, 100)
    parts = record(network, head, forward, x, 3)
    np.testing.assert_allclose(whole.features, parts.features, atol=1e-6)
    np.testing.assert_allclose(whole.logits, parts.logits, atol=1e-6)
    assert whole.features.shape == (7, 6)
    assert [module.training for module in network] == [True, True, False, True, True]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not head._forward_hooks


def test_record_takes_its_hook_off_after_a_failure() -> None:
    head = nn.Linear(6, 3)
    with pytest.raises(RuntimeError, match="shapes"):
        record(head, head, lambda batch: head(torch.ones(2, 5)), np.ones((2, 6)), 10)
    assert not head._forward_hooks
    assert head.training


def test_record_copies() -> None:
    head = nn.Linear(6, 3)
    x = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    batch = record(head, head, lambda rows: head(torch.from_numpy(rows)), x, 10)
    weight, bias, seen = head.weight.detach().numpy().copy(), head.bias.tolist(), x.copy()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    x[:] = 0
    np.testing.assert_array_equal(batch.head, weight)
    np.testing.assert_array_equal(batch.features, seen)
    assert batch.bias is not None
    assert batch.bias.tolist() == bias


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: SingleHead(8, 4, np.random.default_rng(0), kind="frame"), ValueError, "'frame'"),
        (
            lambda: SingleHead(8, 4, np.random.default_rng(0), kind="gaussian", energy=-1.0),
            ValueError,
            "energy must be > 0, got -1.0",
        ),
        (lambda: SingleHead(2, 4, np.random.default_rng(0)), ValueError, "use dim >= 3"),
        (lambda: BallProjection(0.0), ValueError, "feature_energy must be > 0 or None, got 0.0"),
        (
            lambda: record(nn.ReLU(), nn.ReLU(), print, np.ones((1, 2)), 1),
            TypeError,
            "linear layer, got a ReLU",
        ),
        (
            lambda: record(nn.Linear(2, 2), nn.Linear(2, 2), print, np.ones((0, 2)), 1),
            ValueError,
            r"at least one, got shape \(0, 2\)",
        ),
    ],
)
def test_refused(build, error, message) -> None:
    with pytest.raises(error, match=message):
        build()


def test_agents_do_not_import_the_optional_packages() -> None:
    code = (
        "import sys, agents, agents.integrations\n"
        "print([name for name in ('stable_baselines3', 'tianshou') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("package", "extra"), [("stable_baselines3", "sb3"), ("tianshou", "tianshou")]
)
def test_missing_package_names_the_extra(monkeypatch, package, extra) -> None:
    module = f"agents.integrations.{package}"
    for name in [*sys.modules, package]:
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'action-collapse\[{extra}\]'"):
        importlib.import_module(module)
