"""A3C: shared parameters and moments, one head for all, and processes that always end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import multiprocessing

from agents.a3c import A3C, A3CLearner, Order, Worker, _digest, local_copy, shared_optimizer
from agents.config import ACTIONS, EnvConfig, HeadConfig, TrainConfig
from agents.errors import WorkerError
from agents.population import build_policy
from agents.presets import preset
from agents.samples import Samples
from agents.training import Trainer

CONFIG = TrainConfig(
    algorithm=A3C(workers=1, rollout_steps=5, anneal=False),
    heads=(HeadConfig("etf"),),
    hidden=(16, 16),
    num_envs=2,
    steps=400,
    epoch_steps=100,
    eval_episodes=2,
)


class Inside:
    """A worker in this process."""

    def __init__(self, base: TrainConfig = CONFIG, **options: object) -> None:
        config = replace(base, algorithm=replace(base.algorithm, **options))
        shape = (128,) if base.env.observations == "ram" else (4,)
        self.policy = build_policy(config, shape, ACTIONS[base.env.id], critic=True)
        self.policy.share_memory()
        self.optimizer = shared_optimizer(config.algorithm, self.policy)
        self.taken = multiprocessing.get_context("spawn").Value("q", 0)
        self.worker = Worker(config, self.policy, self.optimizer, self.taken)

    def parameters(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.policy.parameters()]


def test_a_copy_has_parameters_of_its_own_and_the_one_head() -> None:
    policy = Inside().policy
    copy = local_copy(policy)
    assert copy.head.weight.data_ptr() == policy.head.weight.data_ptr()
    assert policy.head.weight.is_shared()
    for own, shared in zip(copy.parameters(), policy.parameters(), strict=True):
        assert torch.equal(own, shared)
        assert own.data_ptr() != shared.data_ptr()
        assert shared.is_shared()


@pytest.mark.parametrize("kind", ["rmsprop", "adam"])
def test_moments_are_shared_and_begin_at_zero(kind) -> None:
    inside = Inside(optimizer=kind)
    before = inside.parameters()
    moments = [m for state in inside.optimizer.state.values() for m in state.values()]
    assert len(moments) == {"rmsprop": 2, "adam": 3}[kind] * len(before)
    assert all(moment.is_shared() and not moment.any() for moment in moments)
    fresh = build_policy(CONFIG, (4,), 2, critic=True)
    for own, initial in zip(before, fresh.parameters(), strict=True):
        assert torch.equal(own, initial)


def test_a_worker_moves_the_shared_parameters_and_not_the_head() -> None:
    inside = Inside()
    before, head = inside.parameters(), inside.policy.head.weight.clone()
    report = inside.worker.carry_out(Order(seed=3, done=0, budget=100))
    assert report.updates == 10
    assert all((a != b).any() for a, b in zip(inside.parameters(), before, strict=True))
    assert torch.equal(inside.policy.head.weight, head)


@pytest.mark.parametrize(
    ("kind", "value", "entropy"), [("rmsprop", 0.5, 0.01), ("adam", 0.5, 0.01), ("adam", 1.4, 0.3)]
)
def test_one_update_is_a2cs_step_on_the_shared_parameters(kind, value, entropy) -> None:
    """Two updates, so that moments matter: against PyTorch's optimizer on a policy of its own."""
    coefficients = {"value_coefficient": value, "entropy_coefficient": entropy}
    inside, twin = Inside(optimizer=kind, **coefficients), Inside()
    worker, other = inside.worker, twin.worker
    config = worker.config
    reference = list(twin.policy.parameters())
    optimizer = (
        torch.optim.RMSprop(reference, lr=config.learning_rate, alpha=0.99, eps=1e-5)
        if kind == "rmsprop"
        else torch.optim.Adam(reference, lr=config.learning_rate, eps=1e-5)
    )
    for both in (worker, other):
        both.collector.rngs = [np.random.default_rng(1)]
        both.collector.restart([1])
    other.collector.policy = twin.policy
    for _ in range(2):
        worker._update()
        batch = Samples.of(other.collector.collect(5), 0.99, 1.0)
        logits, _, values = twin.policy(batch.observations)
        log_policy = logits.log_softmax(-1)
        log_probs = log_policy.gather(-1, batch.actions[..., None])[..., 0]
        loss = (
            -(log_probs * batch.advantages).mean()
            + 0.5 * value * (values - batch.returns).square().mean()
            + entropy * (log_policy.exp() * log_policy).sum(-1).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference, 0.5)
        optimizer.step()
    for own, expected in zip(inside.policy.parameters(), reference, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


def test_a_worker_learns_from_clipped_rewards() -> None:
    """Qbert pays 25 a cube."""
    worker = Inside(replace(CONFIG, env=EnvConfig("Qbert", "ram"))).worker
    worker.collector.rngs = [np.random.default_rng(0)]
    worker.collector.restart([0])
    assert set(np.unique(worker.collector.collect(200).rewards)) == {0.0, 1.0}


def test_a_worker_acts_with_the_admixture() -> None:
    actions = []
    for epsilon in (0.0, 1.0):
        sharp = replace(CONFIG, heads=(HeadConfig("etf", energy=1e12),))
        worker = Inside(sharp, epsilon=epsilon).worker
        worker.collector.rngs = [np.random.default_rng(0)]
        worker.collector.restart([0])
        actions.append(worker.collector.collect(100).actions)
    uniforms = np.random.default_rng(0).random((100, 2)).astype(np.float32)
    np.testing.assert_array_equal(actions[1][0], uniforms >= 0.5)
    assert (actions[0] != actions[1]).any()


def test_the_learning_rate_is_annealed_to_zero_over_the_run() -> None:
    inside = Inside(anneal=True)
    rates = []
    step = inside.optimizer.step
    inside.optimizer.step = lambda: (rates.append(inside.optimizer.param_groups[0]["lr"]), step())
    inside.worker.carry_out(Order(seed=3, done=300, budget=100))
    np.testing.assert_allclose(rates, 7e-4 * (1 - (300 + 10 * np.arange(10)) / 400))
    before = inside.parameters()
    inside.worker.carry_out(Order(seed=3, done=400, budget=10))
    assert all(torch.equal(a, b) for a, b in zip(inside.parameters(), before, strict=True))


def test_a_worker_without_steps_left_reports_nothing() -> None:
    report = Inside().worker.carry_out(Order(seed=3, done=0, budget=0))
    assert (report.updates, report.sums, report.returns) == (0, {}, [])


def test_restored_moments_stay_shared() -> None:
    inside = Inside(optimizer="adam")
    inside.worker.carry_out(Order(seed=3, done=0, budget=50))
    state = {"optimizer": inside.optimizer.state_dict()}
    config = replace(CONFIG, algorithm=replace(CONFIG.algorithm, optimizer="adam"))
    policy = build_policy(config, (4,), 2, critic=True)
    learner = A3CLearner(config.algorithm, config, policy, np.random.default_rng(0))
    learner.load_state_dict(state)
    for parameter, own in zip(policy.parameters(), inside.policy.parameters(), strict=True):
        for name, moment in learner._optimizer.state[parameter].items():
            assert moment.is_shared()
            assert torch.equal(moment, inside.optimizer.state[own][name])


def test_more_than_one_member_is_refused() -> None:
    with pytest.raises(ValueError, match="a3c trains one member a run, got 2"):
        replace(CONFIG, seeds=(0, 1))


# --- processes: seconds each, to import PyTorch ---------------------------------------------------


def history(run: Trainer) -> list[np.ndarray]:
    seen = []
    while not run.done:
        epoch = run.train_epoch()
        seen.extend([*epoch.metrics.values(), run.evaluate().returns, np.array(epoch.returns[0])])
        assert epoch.steps == run.epoch * 100
    return seen


def test_a_frozen_head_that_changes_is_noticed(monkeypatch) -> None:
    """Its memory is one for all processes: what they see afterwards is alike, and not as before."""
    run = Trainer(CONFIG, "cpu")
    reports = A3CLearner._reports

    def tampering(learner: A3CLearner):
        found = reports(learner)
        learner.policy.head.weight.mul_(2.0)
        return [replace(report, head=_digest(learner.policy)) for report in found]

    with closing(run):
        run.train_epoch()
        monkeypatch.setattr(A3CLearner, "_reports", tampering)
        with pytest.raises(WorkerError, match="the frozen head has changed"):
            run.train_epoch()


@pytest.mark.slow
def test_one_worker_is_deterministic_and_resumes_exactly() -> None:
    whole, first, rest = (Trainer(CONFIG, "cpu") for _ in range(3))
    try:
        seen = history(whole)
        first.train_epoch()
        rest.load_state_dict(first.state_dict())
        again = history(rest)
        for one, other in zip(seen[len(seen) // 4 :], again, strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        for run in (whole, first, rest):
            run.close()


@pytest.mark.slow
def test_a_failure_and_a_death_are_reported() -> None:
    run = Trainer(replace(CONFIG, algorithm=replace(CONFIG.algorithm, workers=2)), "cpu")
    try:
        run.train_epoch()
        os.kill(run._learner._workers[1][0].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"worker died \(exit code -9.*fewer workers"):
            run.train_epoch()
    finally:
        run.close()
    assert multiprocessing.active_children() == []


SCRIPT = """
import torch
from agents.config import TrainConfig
from agents.a3c import A3C
from agents.training import Trainer

if __name__ == "__main__":
    config = TrainConfig(algorithm=A3C(workers=4), num_envs=1, steps=10**9, epoch_steps=200)
    run = Trainer(config, "cpu")
    run.train_epoch()
    print(*[process.pid for process, _ in run._learner._workers], flush=True)
    while True:
        run.train_epoch()
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_is_left_when_the_parent_is_killed(tmp_path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 4
        assert all(map(alive, workers))
        parent.kill()
    deadline = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, workers))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["linear", "etf"])
def test_four_workers_learn_cartpole_and_end(head) -> None:
    """In some epoch within the budget the mean return over 5 seeds is 475."""
    algorithm, options = preset("a3c", "CartPole-v1")
    assert algorithm.workers == 4
    curves = []
    for seed in range(5):
        config = TrainConfig(
            algorithm=algorithm, heads=(HeadConfig(head),), seeds=(seed,), **options
        )
        run, curve = Trainer(config, "cpu"), []
        try:
            while not run.done:
                run.train_epoch()
                curve.append(run.evaluate().returns.mean())
        finally:
            run.close()
        assert multiprocessing.active_children() == []
        curves.append(curve)
    assert np.mean(curves, axis=0).max() >= 475, curves
