"""TRPO's parts against dense matrices, and what its line search guarantees."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from agents.config import HeadConfig, TrainConfig
from agents.losses import categorical_kl, entropy
from agents.networks import PopulationMLP
from agents.samples import Samples
from agents.training import Trainer
from agents.trpo import TRPO, conjugate_gradients, fisher_vector_product, flatten, write

F64 = torch.float64
CONFIG = TrainConfig(
    algorithm=TRPO(rollout_steps=32, value_passes=2, minibatches=2),
    heads=(HeadConfig(), HeadConfig("etf")),
    seeds=(0, 1),
    hidden=(16, 16),
    num_envs=4,
    steps=1280,
    epoch_steps=128,
)


def trainer(**options: object) -> Trainer:
    return Trainer(replace(CONFIG, algorithm=replace(CONFIG.algorithm, **options)), "cpu")


def samples(run: Trainer, seed: int = 5) -> Samples:
    run._collector.restart([seed] * 4)
    rollout = run._collector.collect(32)
    return Samples.of(rollout, 0.99, 0.95)


def log_policy(run: Trainer, batch: Samples) -> Tensor:
    return run.policy(batch.observations).logits.log_softmax(-1).detach()


def network(population: int = 2) -> tuple[PopulationMLP, Tensor]:
    """Populations of small networks whose features are the logits of 3 actions."""
    rngs = [np.random.default_rng(seed) for seed in range(population)]
    states = torch.from_numpy(np.random.default_rng(9).standard_normal((population, 6, 4)))
    return PopulationMLP((4, 5, 3), rngs, feature="linear", dtype=F64), states


def dense_fisher(model: PopulationMLP, states: Tensor, member: int) -> Tensor:
    """E_s E_a [∇log π ∇log πᵀ] of one member from the Jacobian of its log-probabilities."""
    named = dict(model.named_parameters())
    sizes = [p[0].numel() for p in named.values()]

    def log_probs(vector: Tensor) -> Tensor:
        own = {
            name: part.view(1, *p.shape[1:])
            for (name, p), part in zip(named.items(), vector.split(sizes), strict=True)
        }
        alone = PopulationMLP((4, 5, 3), [np.random.default_rng(0)], feature="linear", dtype=F64)
        logits = functional_call(alone, own, (states[member : member + 1],))
        return logits[0].log_softmax(-1)

    at = flatten(list(named.values()))[member]
    jacobian = torch.autograd.functional.jacobian(log_probs, at)  # (states, actions, D)
    return torch.einsum("sa,sad,sae->de", log_probs(at).exp(), jacobian, jacobian) / len(states[0])


def products(model: PopulationMLP, states: Tensor, damping: float):
    new = model(states).log_softmax(-1)
    kl = categorical_kl(new.detach(), new).mean(-1)
    return fisher_vector_product(kl, list(model.parameters()), damping)


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_fisher_vector_products_are_those_of_the_dense_matrix(damping) -> None:
    model, states = network()
    product = products(model, states, damping)
    dim = flatten(list(model.parameters())).shape[1]
    vectors = torch.from_numpy(np.random.default_rng(1).standard_normal((2, dim)))
    found = product(vectors)
    for member in range(2):
        fisher = dense_fisher(model, states, member)
        torch.testing.assert_close(
            found[member], fisher @ vectors[member] + damping * vectors[member]
        )


def test_conjugate_gradients_solve_the_damped_system() -> None:
    model, states = network()
    dim = flatten(list(model.parameters())).shape[1]
    target = torch.from_numpy(np.random.default_rng(2).standard_normal((2, dim)))
    found = conjugate_gradients(products(model, states, 0.1), target, dim, 1e-24)
    for member in range(2):
        matrix = dense_fisher(model, states, member) + 0.1 * torch.eye(dim, dtype=F64)
        torch.testing.assert_close(found[member], torch.linalg.solve(matrix, target[member]))


def test_a_member_that_has_converged_waits_for_the_others() -> None:
    matrices = torch.stack([torch.eye(4, dtype=F64), torch.diag(torch.arange(1.0, 5, dtype=F64))])
    target = torch.ones(2, 4, dtype=F64)
    target = torch.cat([target, torch.zeros(1, 4, dtype=F64)])
    matrices = torch.cat([matrices, torch.eye(4, dtype=F64)[None]])

    def product(x: Tensor) -> Tensor:
        return (matrices @ x.unsqueeze(-1)).squeeze(-1)

    found = conjugate_gradients(product, target, 10)
    torch.testing.assert_close(found[0], target[0])
    torch.testing.assert_close(found[1], 1 / torch.arange(1.0, 5, dtype=F64))
    assert torch.equal(found[2], target[2])


def test_writing_undoes_flattening() -> None:
    shapes = ((2, 3, 4), (2, 1, 5), (2, 6))
    originals = [
        nn.Parameter(torch.randn(s, generator=torch.Generator().manual_seed(0))) for s in shapes
    ]
    others = [nn.Parameter(torch.zeros(s)) for s in shapes]
    write(others, flatten(originals))
    for one, other in zip(originals, others, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("seed", range(3))
def test_a_step_stays_in_the_trust_region_and_improves_the_surrogate(seed) -> None:
    run = trainer(max_kl=0.02)
    batch = samples(run, seed)
    old = log_policy(run, batch)
    metrics = run._learner.improve(batch)
    new = log_policy(run, batch)
    kl = categorical_kl(old, new).mean(-1)
    torch.testing.assert_close(kl, metrics["kl"], rtol=1e-4, atol=1e-7)
    assert metrics["accepted"].all()
    assert (kl <= 0.02).all()
    assert (kl > 0.002).all()
    log_ratio = (new - old).gather(-1, batch.actions[..., None]).squeeze(-1)
    standard = (batch.advantages - batch.advantages.mean(1, keepdim=True)) / batch.advantages.std(
        1, keepdim=True
    )
    assert ((log_ratio.exp() - 1) * standard).mean(-1).gt(0).all()


def test_the_entropy_bonus_is_part_of_the_surrogate() -> None:
    gained = []
    for coefficient in (0.0, 1e3):
        run = trainer(entropy_coefficient=coefficient)
        batch = samples(run)
        before = entropy(log_policy(run, batch)).mean(-1)
        assert run._learner.improve(batch)["accepted"].all()
        gained.append(entropy(log_policy(run, batch)).mean(-1) - before)
    assert (gained[1] > gained[0]).all()
    assert (gained[1] > 0).all()


def test_the_direction_is_the_natural_gradient() -> None:
    """For small steps the change of parameters is parallel to (F + damping)⁻¹g, not to g."""
    run = trainer(max_kl=1e-6, cg_iterations=100)
    batch = samples(run)
    actor = run.policy.actor_parameters()
    start = flatten(actor)
    new = run.policy(batch.observations).logits.log_softmax(-1)
    standard = (batch.advantages - batch.advantages.mean(1, keepdim=True)) / batch.advantages.std(
        1, keepdim=True
    )
    gain = (new.gather(-1, batch.actions[..., None]).squeeze(-1) * standard).mean(-1)
    gradient = flatten(torch.autograd.grad(gain.sum(), actor, retain_graph=True))
    run._learner.improve(batch)
    change = flatten(actor) - start
    write(actor, start)
    new = run.policy(batch.observations).logits.log_softmax(-1)
    product = fisher_vector_product(categorical_kl(new.detach(), new).mean(-1), actor, 0.1)
    image = product(change)
    assert (torch.cosine_similarity(image, gradient) > 0.999).all()
    assert (torch.cosine_similarity(change, gradient) < 0.99).all()


def test_members_that_fail_the_line_search_keep_their_parameters_bit_for_bit() -> None:
    """Members 0 and 2 are told a KL or a surrogate that is never good enough, member 3 a NaN."""
    run = trainer()
    learner, actor = run._learner, run.policy.actor_parameters()
    start = flatten(actor)
    step = torch.full_like(start, 0.1)
    step[3, 0] = torch.nan
    tried = 0

    def measure() -> tuple[Tensor, Tensor]:
        nonlocal tried
        tried += 1
        worse = flatten(actor).isnan().any(-1)
        kl = torch.tensor([1.0, 0.0 if tried == 3 else 1.0, 0.0, 0.0])
        return torch.tensor([1.0, 1.0, 0.0, 1.0]).masked_fill(worse, torch.nan), kl

    _, accepted = learner._search(step, torch.zeros(4), measure)
    assert accepted.tolist() == [False, True, False, False]
    assert tried == CONFIG.algorithm.backtracks
    end = flatten(actor)
    for member in (0, 2, 3):
        assert torch.equal(end[member], start[member])
    torch.testing.assert_close(end[1], start[1] + 0.8**2 * 0.1)


def test_a_hopeless_update_leaves_every_actor_as_it_was() -> None:
    """With all advantages equal the standardised surrogate is flat: there is no way up."""
    run = trainer()
    batch = samples(run)
    before = flatten(run.policy.actor_parameters())
    flat = replace(batch, advantages=torch.ones_like(batch.advantages))
    metrics = run._learner.improve(flat)
    assert not metrics["accepted"].any()
    assert not metrics["kl"].any()
    assert torch.equal(flatten(run.policy.actor_parameters()), before)


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_fitting_the_value_does_not_move_the_policy(critic) -> None:
    run = Trainer(replace(CONFIG, critic=critic), "cpu")
    batch = samples(run)
    actor = flatten(run.policy.actor_parameters())
    value = flatten(run.policy.critic_parameters())
    run._learner._fit_value(batch)
    assert torch.equal(flatten(run.policy.actor_parameters()), actor)
    assert (flatten(run.policy.critic_parameters()) != value).any(1).all()


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_the_value_function_fits_its_targets(critic) -> None:
    algorithm = replace(CONFIG.algorithm, value_passes=40, learning_rate=0.03)
    config = replace(CONFIG, critic=critic, algorithm=algorithm)
    run = Trainer(config, "cpu")
    batch = samples(run)

    def error() -> Tensor:
        with torch.no_grad():
            return (run.policy(batch.observations).value - batch.returns).square().mean(-1)

    before = error()
    run._learner._fit_value(batch)
    assert (error() < 0.7 * before).all()
