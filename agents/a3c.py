"""A3C: asynchronous advantage actor-critic (Mnih et al. 2016), on shared memory.

Several processes learn at once. Each copies the shared parameters, acts for a few steps in
environments of its own, and applies the gradients of its copy to the shared parameters *without a
lock*, so that updates of others may fall in between. Details that matter, and where:

* the gradients are A2C's (`a2c.actor_critic_loss`), with the conventions said there;
* the moments of the optimizer are shared as well ("Shared RMSProp");
* a frozen head is a buffer in shared memory, the same one for every worker, and each epoch's end
  asserts that nobody has changed it;
* **one worker is deterministic, several are not**: who comes first is up to the operating system,
  and the same seed gives different rows each time;
* an iteration is an epoch: workers begin fresh episodes with it and share its steps out among
  them, chunk by chunk.

Workers are spawned, so a script that trains with A3C must protect its main part with
``if __name__ == "__main__":``. They end with the learner, and when the process that started them
is killed.
"""

import copy
import hashlib
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, multiprocessing

from agents.a2c import AdvantageActorCritic, actor_critic_loss
from agents.collect import Collector, Finished
from agents.errors import ConfigurationError, WorkerError
from agents.learner import Iteration
from agents.limits import Count, NonNegative
from agents.optimisation import Schedule, clip_gradients, make_optimizer, set_learning_rate
from agents.policy import Policy
from agents.samples import Samples
from agents.workers import obey_parent

if TYPE_CHECKING:
    from agents.config import TrainConfig

_PATIENCE = 10.0
"""Seconds that a worker is given to end by itself."""


@dataclass(frozen=True)
class A3C(AdvantageActorCritic):
    """Hyper-parameters of A3C; ``TrainConfig.num_envs`` is the number of environments a *worker*.

    Those without a comment are A2C's.
    """

    name: ClassVar[str] = "a3c"

    workers: Count = 4
    rollout_steps: Count = 20
    """t_max, steps an environment between updates."""
    anneal: bool = True
    value_coefficient: NonNegative = 0.5
    entropy_coefficient: NonNegative = 0.01

    def learner(
        self, config: "TrainConfig", policy: Policy, rngs: Sequence[np.random.Generator]
    ) -> "A3CLearner":
        """Build the learner of a policy; the one generator seeds the workers in every epoch.

        Raises
        ------
        ValueError
            The policy is not on the CPU.
        """
        return A3CLearner(self, config, policy, rngs[0])


@dataclass(frozen=True)
class Order:
    """What the workers are to do in one epoch."""

    seed: int
    """Of this worker's episodes and actions."""
    done: int
    """Steps of the run before this epoch."""
    budget: int
    """Steps that all workers together take in it."""


@dataclass(frozen=True)
class Report:
    """What a worker did in one epoch."""

    updates: int
    sums: dict[str, Tensor]
    """(1,) measurements, summed over the updates."""
    returns: list[float]
    head: str
    """Digest of the head that it acted with."""


class A3CLearner:
    """The shared parameters and moments, and the processes that work on them."""

    def __init__(
        self, config: A3C, train: "TrainConfig", policy: Policy, rng: np.random.Generator
    ) -> None:
        if policy.head.weight.device.type != "cpu":
            raise ConfigurationError(
                "a3c's workers share the CPU's memory: train with --device cpu"
            )
        self.config, self.train, self.policy, self.rng = config, train, policy, rng
        policy.share_memory()
        self._optimizer = shared_optimizer(config, policy)
        self._context = multiprocessing.get_context("spawn")
        self._taken = self._context.Value("q", 0)
        self._workers: list[tuple[Any, Connection]] = []

    def iterate(self, collector: Collector, progress: float) -> Iteration:
        """Train for the rest of the epoch, ``progress`` (0…1) through the run.

        ``collector`` takes no step; the returns of games that ended are added to its account.

        Raises
        ------
        RuntimeError
            A worker failed or died, or a frozen head has changed.
        """
        if not self._workers:
            self._start()
        train, chunk = self.train, self.config.rollout_steps * self.train.num_envs
        done = round(progress * train.steps)
        end = min((done // train.epoch_steps + 1) * train.epoch_steps, train.steps)
        # What is played too much in one epoch may be all that a short last one has.
        end = max(end, done + 1)
        self._taken.value = 0
        digest = _digest(self.policy)
        for _, connection in self._workers:
            order = Order(int(self.rng.integers(2**31)), done, end - done)
            with suppress(OSError):  # a worker that has died is noticed below
                connection.send(order)
        reports = self._reports()
        if not isinstance(self.policy.head.weight, torch.nn.Parameter):
            # A frozen head is one memory: all see a change, and see it against what it was before.
            after = {_digest(self.policy), *(report.head for report in reports)}
            if after != {digest}:
                raise WorkerError("the frozen head has changed during an epoch of a3c")
        for report in reports:
            collector.finished.returns[0].extend(report.returns)
        updates = sum(report.updates for report in reports)
        working = [report.sums for report in reports if report.updates]
        metrics = {
            name: torch.stack([sums[name] for sums in working]).sum(0) / updates
            for name in working[0]
        }
        return Iteration(updates * chunk, metrics)

    def state_dict(self) -> dict[str, Any]:
        """The shared moments; the policy holds the parameters, and workers remember nothing."""
        return {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        saved = state["optimizer"]["state"]
        # In place: what `Optimizer.load_state_dict` makes would be this process's own.
        for i, parameter in enumerate(self.policy.parameters()):
            for name, moment in self._optimizer.state[parameter].items():
                moment.copy_(saved[i][name])

    def close(self) -> None:
        """End the workers, in the middle of an epoch if need be."""
        # No steps are left. Past the lock, which a worker may have died with.
        self._taken.get_obj().value = 2**62
        for _, connection in self._workers:
            with suppress(OSError):  # it has ended already
                connection.send(None)
        for process, connection in self._workers:
            process.join(_PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()
        self._workers = []

    def _start(self) -> None:
        for _ in range(self.config.workers):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_work,
                args=(theirs, self.train, self.policy, self._optimizer, self._taken),
                daemon=True,
            )
            process.start()
            theirs.close()  # so that the end of the worker is the end of the pipe
            self._workers.append((process, ours))

    def _reports(self) -> list[Report]:
        """One report of every worker, in their order."""
        reports: dict[Connection, Report] = {}
        pending = {connection: process for process, connection in self._workers}
        while pending:
            for ready in wait(list(pending)):
                assert isinstance(ready, Connection)
                process = pending.pop(ready)
                try:
                    report = ready.recv()
                except (EOFError, ConnectionResetError):
                    process.join(_PATIENCE)
                    raise WorkerError(
                        f"an a3c worker died (exit code {process.exitcode}; killed, or out of "
                        "memory): resume from the last checkpoint, with fewer workers if memory is "
                        "short"
                    ) from None
                if isinstance(report, str):
                    raise WorkerError(f"an a3c worker failed:\n{report}")
                reports[ready] = report
        return [reports[connection] for _, connection in self._workers]


def shared_optimizer(config: A3C, policy: Policy) -> torch.optim.Optimizer:
    """An optimizer whose moments exist from the start, in shared memory."""
    parameters = list(policy.parameters())
    optimizer = make_optimizer(
        parameters, config.optimizer, config.learning_rate, config.optimizer_eps
    )
    # PyTorch makes moments in the first step. A step along zero moves nothing and makes zeros; only
    # the count has to be taken back.
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for state in optimizer.state.values():
        for moment in state.values():
            moment.zero_().share_memory_()
    return optimizer


def local_copy(shared: Policy) -> Policy:
    """Copy a policy's parameters; its buffers, a frozen head among them, stay the shared ones."""
    kept = {id(buffer): buffer for buffer in shared.buffers()}
    return copy.deepcopy(shared, kept)


def _digest(policy: Policy) -> str:
    return hashlib.sha256(policy.head.weight.detach().numpy().tobytes()).hexdigest()


# --- inside a worker ------------------------------------------------------------------------------


def _work(
    connection: Connection,
    train: "TrainConfig",
    shared: Policy,
    optimizer: torch.optim.Optimizer,
    taken: Any,
) -> None:
    """Carry out orders until there are no more."""
    obey_parent()
    torch.set_num_threads(1)
    try:
        worker = Worker(train, shared, optimizer, taken)
        while (order := connection.recv()) is not None:
            connection.send(worker.carry_out(order))
    except (EOFError, ConnectionError):
        pass  # the parent has gone
    except Exception:
        connection.send(traceback.format_exc())


class Worker:
    """One process's environments, its copy of the parameters, and its view of the shared ones."""

    def __init__(
        self, train: "TrainConfig", shared: Policy, optimizer: torch.optim.Optimizer, taken: Any
    ) -> None:
        from agents.envs import make_environments  # it reads agents.config, which names A3C

        assert isinstance(train.algorithm, A3C)
        self.config, self.train = train.algorithm, train
        self.shared, self.optimizer, self.taken = shared, optimizer, taken
        self.local = local_copy(shared)
        self.collector = Collector(
            self.local,
            make_environments(train.env, 1, train.num_envs),
            [np.random.default_rng()],
            torch.device("cpu"),
            clip_rewards=train.env.clips_rewards,
            epsilon=self.config.epsilon,
        )

    def carry_out(self, order: Order) -> Report:
        """Take part in an epoch until its steps are given away."""
        rng = np.random.default_rng(order.seed)
        self.collector.rngs, self.collector.finished = [rng], Finished.none(1)
        self.collector.restart([int(rng.integers(2**31))])
        schedule = Schedule(self.config.learning_rate, self.config.anneal)
        chunk = self.config.rollout_steps * self.train.num_envs
        updates, sums = 0, dict[str, Tensor]()
        while (before := self._take(chunk, order.budget)) is not None:
            set_learning_rate(self.optimizer, schedule.at((order.done + before) / self.train.steps))
            for name, value in self._update().items():
                sums[name] = sums.get(name, 0) + value
            updates += 1
        return Report(updates, sums, self.collector.finished.returns[0], _digest(self.local))

    def _take(self, chunk: int, budget: int) -> int | None:
        """Steps given away before this worker's next chunk; None if none are left."""
        with self.taken.get_lock():
            before: int = self.taken.value
            if before >= budget:
                return None
            self.taken.value = before + chunk
            return before

    def _update(self) -> dict[str, Tensor]:
        """Copy, act, and apply the copy's gradients to the shared parameters."""
        config = self.config
        with torch.no_grad():
            for own, shared in zip(self.local.parameters(), self.shared.parameters(), strict=True):
                own.copy_(shared)
                own.grad = None
        rollout = self.collector.collect(config.rollout_steps)
        batch = Samples.of(rollout, config.discount, config.trace)
        loss, metrics = actor_critic_loss(
            self.local, batch, config.value_coefficient, config.entropy_coefficient
        )
        torch.autograd.backward(loss)
        metrics["gradient_norm"] = clip_gradients(self.local.parameters(), config.max_gradient_norm)
        for own, shared in zip(self.local.parameters(), self.shared.parameters(), strict=True):
            shared.grad = own.grad
        self.optimizer.step()
        return metrics
