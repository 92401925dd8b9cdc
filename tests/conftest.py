"""Shared fixtures and the hypothesis profiles.

``pytest`` runs the ``default`` profile (derandomised, so a red run stays red);
``pytest -m theory --hypothesis-profile=thorough`` draws 10,000 examples a property.
"""

from hypothesis import HealthCheck, settings

_QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile(
    "thorough", max_examples=10_000, deadline=None, suppress_health_check=_QUIET
)
settings.load_profile("default")
