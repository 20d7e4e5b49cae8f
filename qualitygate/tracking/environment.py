"""MLflow takes its manners from environment variables, read at every call. Ours hold only while we talk to it."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

MANNERS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",  # a value that is too long is an error, never cut in silence
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",  # asynchronous logging loses errors
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default a server that is down blocks every call for minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
FIRST_CONTACT = MANNERS | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""A server that is there answers a small question at once."""
TRANSFER = MANNERS | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}
"""An upload is answered when the server has stored it."""

_holders: Counter[str] = Counter()
_lock = threading.Lock()


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that nobody set, and take them back in the end.

    What the user set stays as it is. Threads may overlap: a variable goes when its last holder leaves.
    """
    with _lock:
        held = [name for name in settings if name in _holders or name not in os.environ]
        os.environ.update({name: settings[name] for name in held if name not in _holders})
        _holders.update(held)
    try:
        yield
    finally:
        with _lock:
            for name in held:
                _holders[name] -= 1
                if not _holders[name]:
                    del _holders[name]
                    os.environ.pop(name, None)
