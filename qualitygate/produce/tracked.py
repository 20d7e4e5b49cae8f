"""Production sets and MLflow: what is sent of a set is copied from its store first, where that is over the network; images never are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qualitygate.produce.local import local
from qualitygate.produce.store import LocalStore, open_store
from qualitygate.tracking.spool import TRACKING, Tracking, push, sync


def push_stored(place: str, uri: str | None, experiment: str) -> Tracking:
    """Send a set now; what fails stays pending there. See `tracking.spool.push`."""
    with _local(place) as folder:
        return push(folder, uri, experiment)


def sync_stored(place: str, uri: str | None, experiment: str | None, *, untracked: bool = False) -> Tracking:
    """Send a set if it is pending. See `tracking.spool.sync`."""
    with _local(place) as folder:
        return sync([folder], uri, experiment, untracked=untracked)[folder]


@contextmanager
def _local(place: str) -> Iterator[Path]:
    """The set's folder, or a local copy of what is sent, from which the outcome goes back."""
    with local(place) as folder:
        try:
            yield folder
        finally:
            store = open_store(place)
            if not isinstance(store, LocalStore) and (folder / TRACKING).is_file():
                store.put(TRACKING, (folder / TRACKING).read_bytes())
