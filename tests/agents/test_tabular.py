"""The tabular trainer: independence of seeds, exact resumption, unbiased sampling, learning."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gridworld
from agents import TabularConfig, TabularTrainer
from agents.networks import normalise_to_sphere
from agents.rollout import rollout

SMALL = TabularConfig(hidden=(16, 16), epochs=3, updates_per_epoch=8)
VARIANTS = {
    "paper": SMALL,
    "leave-one-out": replace(SMALL, baseline="leave-one-out", weight_decay=5e-4, cosine=True),
    "etf-ball": replace(SMALL, head="etf", feature="linear", feature_energy=25.0),
    "all-action": replace(SMALL, objective="all-action"),
    "surrogate": replace(SMALL, objective="surrogate", bias=True),
    "on-policy": replace(SMALL, scheme="outer"),
    "weighted-sphere": replace(
        SMALL,
        objective="surrogate",
        state_weights=(0.0, 1.0, 1.0, 1.0, 0.1, 1.0, 1.0, 1.0),
        feature="linear",
        feature_energy=25.0,
        feature_norm="sphere",
    ),
}


def trained(config: TabularConfig, seeds: tuple[int, ...], epochs: int = 3) -> TabularTrainer:
    trainer = TabularTrainer(config, seeds)
    for _ in range(epochs):
        trainer.train_epoch()
    return trainer


@pytest.mark.parametrize("name", VARIANTS)
def test_a_seed_does_not_depend_on_its_company(name) -> None:
    together = trained(VARIANTS[name], (4, 0, 9, 2))
    alone = trained(VARIANTS[name], (9,))
    torch.testing.assert_close(
        together.output().logits[2], alone.output().logits[0], rtol=0, atol=1e-10
    )
    pair = trained(VARIANTS[name], (2, 4))
    torch.testing.assert_close(
        together.output().features[[3, 0]], pair.output().features, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_resumed_equals_uninterrupted(name, tmp_path) -> None:
    whole = trained(VARIANTS[name], (0, 1), epochs=4)
    first = trained(VARIANTS[name], (0, 1), epochs=2)
    torch.save(first.state_dict(), tmp_path / "checkpoint.pt")
    second = TabularTrainer(VARIANTS[name], (0, 1))
    second.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert second.epoch == 2
    second.train_epoch()
    second.train_epoch()
    assert torch.equal(whole.output().logits, second.output().logits)


def test_resuming_other_seeds_is_refused() -> None:
    state = TabularTrainer(SMALL, (0, 1)).state_dict()
    with pytest.raises(ValueError, match=r"checkpoint has seeds \[0, 1\], this run \[0, 2\]"):
        TabularTrainer(SMALL, (0, 2)).load_state_dict(state)


def test_seeds_differ() -> None:
    trainer = trained(SMALL, (0, 1))
    assert (trainer.output().logits[0] - trainer.output().logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["leave-one-out", "all-action", "surrogate", "etf-ball"])
def test_optimal_policy_is_found(name) -> None:
    config = replace(VARIANTS[name], epochs=60, updates_per_epoch=32, hidden=(64, 64))
    trainer = trained(config, (0, 1, 2), epochs=60)
    np.testing.assert_array_equal(trainer.greedy_accuracy(), 1.0)
    best = trainer.mdp.optimal_value()[trainer.mdp.decision_states].mean()
    assert (trainer.expected_returns() > best - 0.2).all()


def test_features_stay_in_the_ball_and_the_frozen_head_stays() -> None:
    trainer = TabularTrainer(VARIANTS["etf-ball"], (0, 1))
    before = trainer.policy.head.weight.clone()
    for _ in range(3):
        trainer.train_epoch()
    assert (trainer.output().features.norm(dim=-1) <= 5 * (1 + 1e-12)).all()
    assert torch.equal(trainer.policy.head.weight, before)


def test_sphere_is_the_radial_projection() -> None:
    """Norm exact, direction kept, gradient tangential, and no direction for the zero vector."""
    rng = np.random.default_rng(0)
    h = torch.from_numpy(rng.standard_normal((6, 5)) * 10.0 ** rng.uniform(-3, 3, (6, 1)))
    h.requires_grad_()
    mapped = normalise_to_sphere(h, 25.0)
    torch.testing.assert_close(mapped.norm(dim=1), torch.full((6,), 5.0, dtype=torch.float64))
    cosines = torch.nn.functional.cosine_similarity(mapped, h, dim=1)
    torch.testing.assert_close(cosines, torch.ones(6, dtype=torch.float64))
    direction = torch.from_numpy(rng.standard_normal((6, 5)))
    (gradient,) = torch.autograd.grad((mapped * direction).sum(), h)
    radial = (gradient * h).sum(1) / (gradient.norm(dim=1) * h.norm(dim=1))
    assert radial.abs().max() < 1e-12
    assert normalise_to_sphere(torch.zeros(2), 25.0).isnan().all()


def test_sphere_keeps_the_norm_while_training() -> None:
    features = trained(VARIANTS["weighted-sphere"], (0, 1)).output().features
    norms = features.norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, 5.0), rtol=1e-12, atol=0)


WEIGHTS = (0.0, 1.0, 3.0, 0.5, 2.0, 0.01, 1.0, 1.0)


def test_weighted_surrogate_against_a_loop() -> None:
    """Eq. (2) summed cell by cell, stepped by an optimiser of its own."""
    config = replace(SMALL, objective="surrogate", state_weights=WEIGHTS, updates_per_epoch=6)
    trainer = TabularTrainer(config, (5,))
    reference = TabularTrainer(config, (5,))
    trainer.train_epoch()
    optimiser = torch.optim.Adam(reference.policy.parameters(), lr=config.learning_rate)
    cells = reference.mdp.decision_states
    inputs = torch.eye(reference.mdp.num_states, dtype=torch.float64)
    labels = reference.mdp.optimal_actions()[cells].argmax(axis=1)
    for _ in range(6):
        optimiser.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for cell, label, weight in zip(cells, labels, WEIGHTS, strict=True):
            logits = reference.policy(inputs[cell][None, None]).logits[0, 0]
            loss = loss - weight / sum(WEIGHTS) * logits.log_softmax(-1)[int(label)]
        torch.autograd.backward(loss)
        optimiser.step()
    torch.testing.assert_close(
        trainer.output().logits, reference.output().logits, rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("objective", ["surrogate", "all-action"])
def test_a_cell_of_weight_zero_is_never_trained_on(objective) -> None:
    """Inputs are one-hot: only a sample of a cell moves the weights that read its input."""
    config = replace(SMALL, objective=objective, state_weights=WEIGHTS)
    trainer = TabularTrainer(config, (0, 1))
    before = trainer.policy.backbone.weights[0].detach().clone()
    trainer.train_epoch()
    moved = (trainer.policy.backbone.weights[0].detach() - before).abs().amax(dim=(0, 1)) > 0
    cells = trainer.mdp.decision_states.tolist()
    assert moved[cells].tolist() == [weight > 0 for weight in WEIGHTS]


def test_sampling_is_what_the_conditions_are_about() -> None:
    mdp = SMALL.mdp()
    optimal = mdp.optimal_policy()
    uniform = SMALL.sampling().distribution(mdp, optimal)[mdp.decision_states]
    np.testing.assert_allclose(uniform, 1 / 8)
    weighted = replace(SMALL, objective="surrogate", state_weights=WEIGHTS).sampling()
    np.testing.assert_allclose(
        weighted.distribution(mdp, optimal)[mdp.decision_states], np.array(WEIGHTS) / sum(WEIGHTS)
    )
    on_policy = replace(SMALL, scheme="inner")
    d = on_policy.sampling().distribution(on_policy.mdp(), optimal)
    # Four inner cells, then one exit each.
    np.testing.assert_allclose(d, np.array([0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1, 1]) / 8)


def test_rectified_features_are_nonnegative() -> None:
    assert TabularTrainer(SMALL, (0,)).output().features.min() >= 0
    linear = TabularTrainer(replace(SMALL, feature="linear"), (0,))
    assert linear.output().features.min() < 0


def test_cosine_rate_ends_at_zero() -> None:
    """After the last epoch's last update the rate is nearly 0 and the policy hardly moves."""
    config = replace(SMALL, objective="surrogate", cosine=True, epochs=4)
    trainer = trained(config, (0,), epochs=3)
    steps = []
    for _ in range(1):
        before = trainer.output().logits.clone()
        trainer.train_epoch()
        steps.append((trainer.output().logits - before).abs().max().item())
    constant = trained(replace(config, cosine=False), (0,), epochs=3)
    before = constant.output().logits.clone()
    constant.train_epoch()
    assert steps[0] < 0.3 * (constant.output().logits - before).abs().max().item()


def test_rollout_follows_the_tables_and_ends_at_exits() -> None:
    mdp = gridworld.ideal_cliff_walking()
    policies = np.full((2, mdp.num_states, mdp.num_actions), 0.25)
    starts = np.tile(mdp.decision_states, (2, 1))
    rngs = [np.random.default_rng(s) for s in (0, 1)]
    episodes = rollout(mdp, policies, starts, rngs, horizon=400)
    assert not episodes.truncated.any()
    for p in range(2):
        for b in range(starts.shape[1]):
            s = int(starts[p, b])
            for t in range(episodes.states.shape[2]):
                assert episodes.alive[p, b, t] == (not mdp.terminal[s])
                if mdp.terminal[s]:
                    assert episodes.rewards[p, b, t] == 0
                    continue
                a = int(episodes.actions[p, b, t])
                assert episodes.states[p, b, t] == s
                assert episodes.rewards[p, b, t] == mdp.rewards[s, a]
                s = int(mdp.successors[s, a])
            assert mdp.terminal[s]


@pytest.mark.theory
def test_sampled_returns_have_the_exact_mean() -> None:
    """Monte-Carlo returns of the sweep against V^π of the linear solve, 5 standard errors."""
    mdp = gridworld.ideal_cliff_walking()
    rng = np.random.default_rng(0)
    policy = rng.dirichlet(np.ones(4) * 2, size=mdp.num_states)
    starts = np.repeat(mdp.decision_states, 3000)[None]
    episodes = rollout(mdp, policy[None], starts, [rng], horizon=1000)
    discounts = mdp.discount ** np.arange(episodes.rewards.shape[-1])
    returns = (episodes.rewards[0] @ discounts).reshape(len(mdp.decision_states), -1)
    error = returns.mean(axis=1) - mdp.policy_value(policy)[mdp.decision_states]
    assert (np.abs(error) <= 5 * returns.std(axis=1) / np.sqrt(returns.shape[1])).all()


@pytest.mark.theory
def test_first_actions_follow_the_policy() -> None:
    mdp = gridworld.ideal_cliff_walking()
    policy = np.tile([0.1, 0.2, 0.3, 0.4], (mdp.num_states, 1))
    starts = np.full((1, 20_000), mdp.decision_states[0])
    episodes = rollout(mdp, policy[None], starts, [np.random.default_rng(0)], horizon=1)
    frequency = np.bincount(episodes.actions[0, :, 0], minlength=4) / 20_000
    np.testing.assert_allclose(frequency, policy[0], atol=0.02)
    assert episodes.rewards.shape[-1] == 1
    assert episodes.truncated.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "outer", "baseline": "leave-one-out"}, "needs several returns from each state"),
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"objective": "exact"}, "objective must be one of reinforce, all-action, surrogate, got"),
        ({"feature_energy": np.nan}, "feature_energy must be a finite number > 0 or None, got nan"),
        ({"updates_per_epoch": 7}, "updates_per_epoch=7 must be a multiple of passes=2"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number >= 0, got -1.0"),
        ({"objective": "surrogate", "scheme": "inner"}, "got scheme='inner', use scheme='sweep'"),
        ({"state_weights": (1.0,) * 8}, "got objective='reinforce' and scheme='sweep'"),
        (
            {"objective": "all-action", "scheme": "outer", "state_weights": (1.0,) * 8},
            "got objective='all-action' and scheme='outer'",
        ),
        (
            {"objective": "surrogate", "state_weights": (1.0,) * 7},
            "must be 8 numbers, one for",
        ),
        ({"objective": "surrogate", "state_weights": (0.0,) * 8}, "at width=4, not all 0"),
        ({"objective": "surrogate", "state_weights": (-1.0,) + (1.0,) * 7}, "number >= 0"),
        ({"objective": "surrogate", "state_weights": (np.inf,) + (1.0,) * 7}, "finite number"),
    ],
)
def test_configurations_without_meaning_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        TabularConfig(**changes)


def test_a_sphere_without_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a radius: give feature_energy"):
        TabularTrainer(replace(SMALL, feature_norm="sphere"), (0,))


@pytest.mark.parametrize("seeds", [(), (-1,)])
def test_seeds_are_checked(seeds) -> None:
    with pytest.raises(ValueError, match="non-negative integers"):
        TabularTrainer(SMALL, seeds)
