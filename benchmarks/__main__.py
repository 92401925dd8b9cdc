"""Run benchmarks by name, or all of them: ``python -m benchmarks ball population``."""

import importlib
import json
import os
import sys
import tempfile

import threadpoolctl
import torch

from analysis import figures
from analysis.storage import write_atomically
from benchmarks.harness import store

NAMES = ("ball", "population", "free_head", "metrics", "agents", "trpo", "learning_curves", "gpu")
FIGURES = {
    "free_head": figures.figure_free_head_benchmark,
    "learning_curves": figures.figure_learning_curves,
}


def main(names: tuple[str, ...]) -> None:
    unknown = set(names) - set(NAMES)
    if unknown:
        sys.exit(f"unknown benchmarks {sorted(unknown)}: choose from {', '.join(NAMES)}")
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1), tempfile.TemporaryDirectory() as scratch:
        os.environ["SB3_LOGDIR"] = scratch  # each of its runs leaves a folder
        possible = [name for name in NAMES if name != "gpu" or torch.cuda.is_available()]
        for name in names or possible:
            print(f"{name} …", flush=True)
            path = store(name, importlib.import_module(f"benchmarks.{name}").run())
            print(f"{name}: {path}")
            if name in FIGURES:
                figure = FIGURES[name](json.loads(path.read_text()))
                write_atomically(path.with_suffix(".png"), figures.encode(figure, "png"))


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
