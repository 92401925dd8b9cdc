"""Errors that a run can end with and that its user can do something about."""


class ConfigurationError(ValueError):
    """A configuration cannot be trained, or not on this machine; the message says what can."""


class WorkerError(RuntimeError):
    """A worker process died or failed; the message says how."""
