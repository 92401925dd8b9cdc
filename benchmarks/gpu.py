"""PPO on Pong from images on a GPU, beside Stable-Baselines3 on the same one."""

import sys
from typing import Any

import torch

from benchmarks.agents import pong

TARGET = 13_600
"""Agent steps a second, end to end, twice what LeanRL publishes for an H100."""


def run() -> dict[str, Any]:
    """Training steps a second, environments included, with few and with many environments."""
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a CUDA device, and PyTorch sees none: leave gpu out")
    return {
        "question": "agent steps a second of PPO on Pong from images, on a GPU, end to end",
        "peer": "Stable-Baselines3 on the same GPU",
        "device": torch.cuda.get_device_name(),
        "target_steps_per_s": TARGET,
        **{
            f"pong_{envs}_environments": pong("bf16", "cuda", envs, 128 * envs * rollouts)
            for envs, rollouts in ((8, 16), (64, 4), (128, 4))
        },
    }
