"""Compiled losses and captured updates are the plain ones, and no randomness is frozen."""

from dataclasses import fields, replace
from io import BytesIO

import numpy as np
import pytest
import torch

from agents.a2c import A2C
from agents.capture import descent
from agents.config import EnvConfig, HeadConfig, TrainConfig
from agents.ppo import PPO
from agents.samples import Samples
from agents.training import Trainer

CONFIG = TrainConfig(
    algorithm=PPO(rollout_steps=16, passes=3, minibatches=2, learning_rate=1e-3),
    heads=(HeadConfig("etf"),),
    num_envs=4,
    steps=512,
    epoch_steps=256,
    eval_episodes=1,
)
PONG = replace(
    CONFIG,
    env=EnvConfig("Pong", "image"),
    network="cnn",
    hidden=(32,),
    critic="shared",
    precision="float32",
)
ALGORITHMS = (
    CONFIG.algorithm,
    A2C(rollout_steps=16, anneal=True),
    A2C(rollout_steps=16, anneal=True, optimizer="adam"),
)


def minibatch(config: TrainConfig, run: Trainer) -> Samples:
    rng = np.random.default_rng(0)
    shape = (config.population, 32)
    seen = run._collector.environments.observation_shape
    if config.network == "cnn":
        observations = torch.from_numpy(rng.integers(0, 256, (*shape, *seen), dtype=np.uint8))
    else:
        observations = torch.from_numpy(rng.normal(size=(*shape, *seen))).float()
    numbers = (torch.from_numpy(rng.normal(size=shape)).float() for _ in range(2))
    return Samples(
        observations,
        torch.from_numpy(rng.integers(0, 2, shape)),
        torch.full(shape, -0.7),
        *numbers,
    )


@pytest.mark.slow
# Of PyTorch's compiler itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, heads=(HeadConfig(), HeadConfig("etf")), feature_energy=25.0),
        replace(CONFIG, algorithm=A2C(rollout_steps=16)),
        PONG,
    ],
)
def test_compiled_losses_are_the_plain_ones(config) -> None:
    """What `compiled` asks for on a GPU, here by the CPU's compiler: loss, measures, gradients."""
    run = Trainer(config, "cpu")
    try:
        batch, plain = minibatch(config, run), run._learner._loss
        results = []
        for loss_of in (plain, torch.compile(plain, dynamic=False, fullgraph=True)):
            run._learner._optimizer.zero_grad()
            loss, measured = loss_of(batch)
            loss.backward()
            gradients = [parameter.grad.clone() for parameter in run.policy.parameters()]
            results.append((loss.detach(), measured, gradients))
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)
    finally:
        run.close()


ON_GPU = [
    *(replace(CONFIG, algorithm=algorithm) for algorithm in ALGORITHMS),
    replace(CONFIG, heads=(HeadConfig(), HeadConfig("etf")), seeds=(0, 1)),
    PONG,
    replace(PONG, precision="bf16"),
]


def trained(config: TrainConfig, captured: bool) -> Trainer:
    run = Trainer(config, "cuda")
    if not captured:
        learner = run._learner
        learner._step = descent(
            learner._loss,
            learner._parameters,
            learner._optimizer,
            learner.config.max_gradient_norm,
            plain=True,
        )
    run.train_epoch()
    return run


@pytest.mark.gpu
@pytest.mark.parametrize("config", ON_GPU)
def test_captured_updates_are_the_plain_ones(config) -> None:
    one, other = trained(config, captured=True), trained(config, captured=False)
    # Kernels that are fused round bf16 elsewhere than those that are not.
    near = {"rtol": 1e-2, "atol": 1e-3} if one.bf16 else {"rtol": 1e-4, "atol": 1e-5}
    for captured, plain in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(captured, plain, **near)


@pytest.mark.gpu
@pytest.mark.parametrize("config", ON_GPU)
def test_learning_does_not_wait_for_the_device(config) -> None:
    run = trained(config, captured=True)
    learner, drawn = run._learner, minibatch(config, run)
    batch = Samples(*(getattr(drawn, field.name).to(run.device) for field in fields(Samples)))
    learner._step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner._step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_replays_see_new_minibatches_and_learning_rates(algorithm) -> None:
    run = trained(replace(CONFIG, algorithm=algorithm, steps=256), captured=True)
    learner = run._learner
    before = [p.detach().clone() for p in run.policy.parameters()]
    learner.iterate(run._collector, 1.0)
    for old, new in zip(before, run.policy.parameters(), strict=True):
        assert torch.equal(old, new), "annealed to zero, nothing may move"
    learner.iterate(run._collector, 0.0)
    assert any((old != new).any() for old, new in zip(before, run.policy.parameters(), strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_resumed_run_is_annealed_as_one_that_went_on(algorithm) -> None:
    config = replace(CONFIG, algorithm=algorithm)
    through = trained(config, captured=True)
    resumed = Trainer(config, "cuda")
    state = through.state_dict()
    saved = BytesIO()
    torch.save(state, saved)
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved, map_location="cpu", weights_only=True))
    for run in (through, resumed):
        run.train_epoch()
    for one, other in zip(through.policy.parameters(), resumed.policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_bf16_convolutions_agree_with_float32_on_the_gpu() -> None:
    from agents.cnn import NatureCNN

    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (1, 8, 4, 84, 84), dtype=np.uint8)).cuda()
    exact, rounded = (
        NatureCNN((4, 84, 84), 64, [np.random.default_rng(1)], bf16=bf16).cuda()
        for bf16 in (False, True)
    )
    error = (rounded(images) - exact(images)).norm() / exact(images).norm()
    assert error < 0.01
