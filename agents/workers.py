"""Processes that work for a parent, and end with it."""

import os
import signal
import threading
from multiprocessing import parent_process


def obey_parent() -> None:
    """Leave Ctrl-C to the parent, and end when it is gone; to be called first in a worker.

    Ctrl-C reaches the whole process group, and only the parent decides what it means. Without a
    parent (killed) nobody would collect a worker's results, or stop it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "to be called in a process that multiprocessing started"
    parent.join()
    os._exit(1)
