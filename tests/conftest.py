"""Shared fixtures and the hypothesis profiles.

``pytest`` runs the ``default`` profile (derandomised, so a red run stays red);
``pytest -m theory --hypothesis-profile=thorough`` draws 10,000 examples a property.
"""

import os

import pytest
import threadpoolctl
import torch
from hypothesis import HealthCheck, settings

# Small dense linear algebra is slowed down by threads, up to 80 times on a busy machine.
torch.set_num_threads(1)
_LIMITS = threadpoolctl.threadpool_limits(1)

_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile(
    "thorough", max_examples=10_000, deadline=None, suppress_health_check=_QUIET
)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="session")
def _no_litter(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every run of Stable-Baselines3 leaves a folder, in /tmp unless told otherwise."""
    os.environ["SB3_LOGDIR"] = str(tmp_path_factory.mktemp("stable-baselines3"))
