"""Twenty seeds as one tensor axis against the same trainer one seed at a time."""

from dataclasses import replace
from typing import Any

from agents import TabularConfig, TabularTrainer
from benchmarks.harness import interleaved

SEEDS = tuple(range(20))


def _train(config: TabularConfig, seeds: tuple[int, ...]) -> None:
    trainer = TabularTrainer(config, seeds)
    for _ in range(config.epochs):
        trainer.train_epoch()


def run() -> dict[str, Any]:
    """Ideal Cliff Walking, REINFORCE and the surrogate of Eq. (2), 5 epochs of 32 updates."""
    reinforce = TabularConfig(epochs=5, baseline="leave-one-out")
    result: dict[str, Any] = {
        "question": "20 seeds at once against one by one, 160 updates each",
        "peer": "the same trainer with a population of one, in a loop",
    }
    for config in (reinforce, replace(reinforce, objective="surrogate")):

        def together(config: TabularConfig = config) -> None:
            _train(config, SEEDS)

        def one_by_one(config: TabularConfig = config) -> None:
            for seed in SEEDS:
                _train(config, (seed,))

        result[config.objective] = interleaved(together, one_by_one, rounds=3)
    return result
