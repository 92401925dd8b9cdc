"""What every algorithm must do: leave frozen heads alone, keep members apart, resume, anneal."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.a2c import A2C
from agents.config import Algorithm, EnvConfig, HeadConfig, TrainConfig
from agents.ppo import PPO
from agents.reinforce import Reinforce
from agents.training import Trainer
from agents.trpo import TRPO

LEARNED, ETF = HeadConfig(), HeadConfig("etf")
ALGORITHMS: dict[str, Algorithm] = {
    "ppo": PPO(rollout_steps=16, passes=2, minibatches=2, learning_rate=1e-3),
    "trpo": TRPO(rollout_steps=16, value_passes=2, minibatches=2),
    "a2c": A2C(learning_rate=1e-3),
    "reinforce": Reinforce(batch_size=16),
}
"""A3C is tested in a file of its own: one member, and processes."""


def trainer(name: str, **options: object) -> Trainer:
    config = TrainConfig(
        algorithm=ALGORITHMS[name],
        heads=(LEARNED, ETF),
        seeds=(0, 1),
        hidden=(16, 16),
        num_envs=2,
        steps=240,
        epoch_steps=80,
        eval_episodes=2,
    )
    return Trainer(replace(config, **options), "cpu")


def history(run: Trainer) -> list[np.ndarray]:
    """Everything that a run reports, and the networks that it ends with, as arrays over members."""
    seen = []
    while not run.done:
        seen.extend([*run.train_epoch().metrics.values(), run.evaluate().returns])
    run.close()
    networks = [*run.policy.backbone.parameters(), *run.policy.critic_parameters()]
    return [*seen, *(parameter.detach().numpy() for parameter in networks)]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", ["etf", "orthogonal", "gaussian"])
@pytest.mark.parametrize("critic", ["separate", "shared"])
def test_a_frozen_head_stays_and_the_backbone_moves(algorithm, kind, critic) -> None:
    run = trainer(algorithm, heads=(HeadConfig(kind),), critic=critic)
    before = {name: value.clone() for name, value in run.policy.state_dict().items()}
    run.train_epoch()
    after = run.policy.state_dict()
    assert torch.equal(after["head.weight"], before["head.weight"])
    for layer in range(2):
        name = f"backbone.weights.{layer}"
        assert (after[name] != before[name]).flatten(1).any(1).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_frozen_members_of_a_mixed_population_keep_their_heads(algorithm) -> None:
    run = trainer(algorithm)
    before = run.policy.head.weight.detach().clone()
    run.train_epoch()
    after = run.policy.head.weight.detach()
    assert torch.equal(after[2:], before[2:])
    assert (after[:2] != before[:2]).flatten(1).any(1).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_member_trains_the_same_in_any_company(algorithm) -> None:
    together = history(trainer(algorithm))
    for member, (head, seed) in enumerate([(LEARNED, 0), (LEARNED, 1), (ETF, 0), (ETF, 1)]):
        alone = history(trainer(algorithm, heads=(head,), seeds=(seed,)))
        for all_members, own in zip(together, alone, strict=True):
            np.testing.assert_allclose(all_members[member], own[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_resuming_continues_exactly(algorithm) -> None:
    whole, first = trainer(algorithm), trainer(algorithm)
    whole.train_epoch()
    first.train_epoch()
    rest = trainer(algorithm)
    rest.load_state_dict(first.state_dict())
    for one, other in zip(history(whole), history(rest), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "reinforce"])
def test_nothing_moves_once_the_learning_rate_is_annealed(algorithm) -> None:
    run = trainer(algorithm, algorithm=replace(ALGORITHMS[algorithm], anneal=True))
    run._collector.restart(range(4))
    run._learner.iterate(run._collector, 0.0)
    before = [parameter.detach().clone() for parameter in run.policy.parameters()]
    run._learner.iterate(run._collector, 1.0)
    for parameter, old in zip(run.policy.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


def test_the_critic_of_trpo_rests_once_the_learning_rate_is_annealed() -> None:
    run = trainer("trpo", algorithm=replace(ALGORITHMS["trpo"], anneal=True))
    run._collector.restart(range(4))
    run._learner.iterate(run._collector, 0.0)
    before = [parameter.detach().clone() for parameter in run.policy.critic_parameters()]
    run._learner.iterate(run._collector, 1.0)
    for parameter, old in zip(run.policy.critic_parameters(), before, strict=True):
        assert torch.equal(parameter, old)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_cliff_is_walked(algorithm) -> None:
    run = trainer(algorithm, env=EnvConfig("IdealCliffWalking-v0"), steps=80)
    assert all(np.isfinite(values).all() for values in history(run))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_greedy_admixture_while_acting_changes_the_run(algorithm) -> None:
    plain = history(trainer(algorithm, steps=80))
    mixed = history(
        trainer(algorithm, steps=80, algorithm=replace(ALGORITHMS[algorithm], epsilon=0.5))
    )
    assert any((one != other).any() for one, other in zip(plain, mixed, strict=True))
