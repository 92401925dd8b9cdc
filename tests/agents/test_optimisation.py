"""Gradient steps of a population: every member by itself, as PyTorch would treat it alone."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from agents.member_adam import MemberAdam
from agents.optimisation import (
    OptimizerKind,
    Schedule,
    clip_gradients,
    make_optimizer,
    permutations,
    restore_optimizer,
    set_learning_rate,
    take,
)


def parameters(population: int = 3) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((population, 4, 2), (population, 1, 4), (population, 5))
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def set_gradients(own: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in own:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def rngs(population: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(population)]


def test_the_learning_rate_is_annealed_linearly_to_zero() -> None:
    schedule = Schedule(0.4, anneal=True)
    assert [schedule.at(x) for x in (0.0, 0.25, 1.0, 1.1)] == [0.4, pytest.approx(0.3), 0.0, 0.0]
    assert Schedule(0.4, anneal=False).at(1.0) == 0.4


def test_the_learning_rate_of_every_group_is_set() -> None:
    first, second, _ = parameters()
    optimizer = torch.optim.Adam([{"params": [first]}, {"params": [second], "lr": 1.0}])
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_optimizers_are_those_of_the_literature() -> None:
    adam = make_optimizer(parameters(), "adam", 0.1, 1e-5)
    rmsprop = make_optimizer(parameters(), "rmsprop", 0.1, 1e-4)
    assert isinstance(adam, torch.optim.Adam)
    assert isinstance(rmsprop, torch.optim.RMSprop)
    assert adam.defaults["eps"] == 1e-5
    assert adam.defaults["betas"] == (0.9, 0.999)
    assert rmsprop.defaults["eps"] == 1e-4
    assert rmsprop.defaults["alpha"] == 0.99
    assert adam.defaults["weight_decay"] == rmsprop.defaults["weight_decay"] == 0


@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_an_optimizer_goes_on_from_what_another_device_saved(kind: OptimizerKind) -> None:
    """As saved on a GPU: the rate a tensor, the step capturable, the count a tensor."""
    own = parameters()
    optimizer = make_optimizer(own, kind, 0.1, 1e-5)
    for seed in range(3):
        set_gradients(own, seed)
        optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        group.update(lr=torch.tensor(0.7), capturable=True)
    resumed = [nn.Parameter(parameter.detach().clone()) for parameter in own]
    other = make_optimizer(resumed, kind, 0.1, 1e-5)
    restore_optimizer(other, state)
    for run, values in ((optimizer, own), (other, resumed)):
        set_learning_rate(run, 0.05)
        set_gradients(values, 3)
        run.step()
    for expected, found in zip(own, resumed, strict=True):
        assert torch.equal(expected, found)


def test_a_rate_that_a_graph_reads_stays_the_same_tensor() -> None:
    own = parameters()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam(own, lr=rate, foreach=False, capturable=False)
    restore_optimizer(optimizer, make_optimizer(parameters(), "adam", 0.2, 1e-5).state_dict())
    assert optimizer.param_groups[0]["lr"] is rate
    set_learning_rate(optimizer, 0.3)
    assert rate == torch.tensor(0.3)


def test_gradients_are_clipped_by_each_members_own_norm() -> None:
    together, max_norm = parameters(), 4.0
    set_gradients(together, 1)
    for parameter in together:
        parameter.grad[1] *= 10
        parameter.grad[2] *= 0.1
    alone = [[nn.Parameter(p[m].detach().clone()) for p in together] for m in range(3)]
    for member, own in enumerate(alone):
        for parameter, shared in zip(own, together, strict=True):
            parameter.grad = shared.grad[member].clone()
    norms = clip_gradients(together, max_norm)
    for member, own in enumerate(alone):
        norm = nn.utils.clip_grad_norm_(own, max_norm)
        torch.testing.assert_close(norms[member], norm)
        for parameter, shared in zip(own, together, strict=True):
            torch.testing.assert_close(shared.grad[member], parameter.grad)
    assert norms[2] < max_norm < norms[1]


@pytest.mark.parametrize(("samples", "minibatches"), [(12, 4), (13, 4), (5, 5), (7, 1)])
def test_a_pass_meets_every_sample_once(samples, minibatches) -> None:
    parts = permutations(rngs(3), samples, minibatches)
    assert len(parts) == minibatches
    assert {part.shape[1] for part in parts} <= {samples // minibatches, samples // minibatches + 1}
    order = torch.cat(parts, dim=1)
    assert torch.equal(order.sort(dim=1).values, torch.arange(samples).expand(3, -1))


def test_every_pass_has_an_order_of_its_own() -> None:
    together = permutations(rngs(2), 13, 4, passes=3)
    one_by_one = rngs(2)
    alone = [part for _ in range(3) for part in permutations(one_by_one, 13, 4)]
    assert len(together) == len(alone)
    assert all(map(torch.equal, together, alone))
    assert not torch.equal(torch.cat(together[:4], dim=1), torch.cat(together[4:8], dim=1))


def test_the_order_is_the_members_own() -> None:
    together = torch.cat(permutations(rngs(3), 20, 4), dim=1)
    alone = torch.cat(permutations(rngs(3)[2:], 20, 4), dim=1)
    assert torch.equal(together[2], alone[0])
    assert not torch.equal(together[0], together[1])


def test_take_picks_rows_of_every_member() -> None:
    values = torch.arange(2 * 5 * 3).view(2, 5, 3)
    index = torch.tensor([[4, 0], [1, 1]])
    found = take(values, index)
    for member, position in np.ndindex(2, 2):
        assert torch.equal(found[member, position], values[member, index[member, position]])


def test_member_adam_is_adam_when_all_move() -> None:
    own, reference = parameters(), parameters()
    adam, torch_adam = MemberAdam(own, 1e-8), torch.optim.Adam(reference, lr=0.01, eps=1e-8)
    for step in range(20):
        set_gradients(own, step)
        set_gradients(reference, step)
        adam.step(0.01, torch.ones(3, dtype=torch.bool))
        torch_adam.step()
    for one, other in zip(own, reference, strict=True):
        torch.testing.assert_close(one, other)


def test_a_member_that_sits_out_is_untouched_and_ends_where_it_would_alone() -> None:
    """Member 0 moves in every other step, member 1 always, member 2 never."""
    own, alone = parameters(), parameters()
    start = [parameter.detach().clone() for parameter in own]
    adam, lonely = MemberAdam(own, 1e-8), torch.optim.Adam(alone, lr=0.01, eps=1e-8)
    for step in range(10):
        set_gradients(own, step)
        before = [parameter[0].detach().clone() for parameter in own]
        adam.step(0.01, torch.tensor([step % 2 == 0, True, False]))
        if step % 2 == 0:
            set_gradients(alone, step)
            lonely.step()
        else:
            assert all(torch.equal(p[0], b) for p, b in zip(own, before, strict=True))
    for one, other, initial in zip(own, alone, start, strict=True):
        torch.testing.assert_close(one[0], other[0])
        assert not torch.equal(one[1], initial[1])
        assert torch.equal(one[2], initial[2])


def test_member_adam_continues_where_it_was_saved() -> None:
    first, second = parameters(), parameters()
    adam, resumed = MemberAdam(first, 1e-8), MemberAdam(second, 1e-8)
    moving = torch.tensor([True, False, True])
    for step in range(3):
        set_gradients(first, step)
        adam.step(0.01, moving)
    for one, other in zip(first, second, strict=True):
        other.data.copy_(one)
    resumed.load_state_dict(adam.state_dict())
    for own, optimizer in ((first, adam), (second, resumed)):
        set_gradients(own, 3)
        optimizer.step(0.01, torch.ones(3, dtype=torch.bool))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
