"""What a page or MLflow needs of a gated set, in a local folder, wherever the set is kept. Images and records never are copied."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qualitygate.gating.profile import SCORES
from qualitygate.produce.manifest import TABLE
from qualitygate.produce.store import LocalStore, Store, open_store
from qualitygate.tracking.gated_set import FILES, FOLDERS
from qualitygate.tracking.spool import TRACKING

PROFILE = "profile"


@contextmanager
def local(place: str | Path) -> Iterator[Path]:
    """The set's own folder, or a local copy of what is small in it, which is gone afterwards."""
    store = open_store(place)
    if isinstance(store, LocalStore):
        yield store.root
        return
    with tempfile.TemporaryDirectory(prefix="qualitygate-") as name:
        for file in _small(store):
            if (data := store.read(file)) is not None:
                path = Path(name, file)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
        yield Path(name)


def _small(store: Store) -> Iterator[str]:
    """Names of what is copied, there or not."""
    yield from (*FILES, TRACKING, f"{PROFILE}/{SCORES}")
    for folder in FOLDERS:
        yield from (f"{folder}/{one}" for one in store.names(folder))


def is_sharded(folder: Path) -> bool:
    """Whether a set's folder, or the copy of it, is that of a set of shards."""
    return (folder / TABLE).is_file()
