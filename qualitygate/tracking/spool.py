"""The gated folder is the spool: the verdict is on disk first, MLflow is told afterwards, and what it did not hear stays pending."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from qualitygate import storage
from qualitygate.errors import InputError, QualityGateError
from qualitygate.tracking.check import is_check, log_check, read_check
from qualitygate.tracking.gated_set import is_gated_set, read_gated_set
from qualitygate.tracking.logging import log_gated_set
from qualitygate.tracking.metrics_logging import log_metrics_set
from qualitygate.tracking.metrics_set import is_metrics_set, read_metrics_set
from qualitygate.tracking.sending import EXPERIMENT, Logged
from qualitygate.tracking.store import public, tracking_uri

TRACKING = "tracking.json"


class State(StrEnum):
    """How far a gated set got."""

    PENDING = "pending"
    SENT = "sent"
    OFF = "off"
    """Gated with tracking off: sent only when asked for."""


class Tracking(BaseModel):
    """``tracking.json``. ``uri`` is without passwords."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: State
    uri: str | None = None
    experiment: str = EXPERIMENT
    run_id: str | None = None
    model_id: str | None = None
    error: str | None = None


def push(folder: str | Path, uri: str | None = None, experiment: str = EXPERIMENT) -> Tracking:
    """Send a gated set or a folder of metrics now. What fails stays pending, is told in ``error`` and not raised: an outage never
    touches a verdict.

    Raises:
        InputError: the folder holds neither.
        StorageError: the outcome cannot be written into the folder.
    """
    folder = Path(folder)
    kind = _kind(folder)
    kind.read(folder)
    uri = tracking_uri(uri)
    pending = Tracking(state=State.PENDING, uri=public(uri), experiment=experiment)
    _write(folder, pending)  # before anything is sent: a process that is killed leaves it pending
    try:
        logged = kind.log(folder, uri, experiment)
    except QualityGateError as error:
        outcome = pending.model_copy(update={"error": str(error)})
    else:
        outcome = pending.model_copy(update={"state": State.SENT, "run_id": logged.run_id, "model_id": logged.model_id})
    _write(folder, outcome)
    return outcome


def tracking_state(folder: str | Path) -> Tracking:
    """What is known of a gated set's sending; `State.OFF` where tracking was off.

    Raises:
        InputError: ``tracking.json`` cannot be read.
    """
    path = Path(folder) / TRACKING
    if not path.is_file():
        return Tracking(state=State.OFF)
    try:
        return Tracking.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(
            f"Cannot read {path}",
            str(error),
            "what the gate wrote there",
            "delete the file and send the set as one that was gated with tracking off",
        ) from error


def pending(root: str | Path) -> list[Path]:
    """Gated sets at or below ``root`` that are to be sent, in order of their names."""
    return [folder for folder in gated_sets(root) if tracking_state(folder).state is State.PENDING]


def gated_sets(root: str | Path) -> Iterator[Path]:
    """Gated sets and folders of metrics at or below ``root``, in order of their names. Their images are not walked through."""
    for folder, below, _ in os.walk(root):
        if any(kind.here(Path(folder)) for kind in _KINDS):
            below.clear()
            yield Path(folder)
        below.sort()


def sync(
    paths: Iterable[str | Path], uri: str | None = None, experiment: str | None = None, *, untracked: bool = False
) -> dict[Path, Tracking]:
    """Send what is pending at or below each of the paths, to where it was meant to go.

    Args:
        paths: gated sets and folders of metrics, or folders above them.
        uri: another place to send to. Default: the one written down, or, where that had a password, ``MLFLOW_TRACKING_URI``.
        experiment: another experiment than the one written down.
        untracked: also send sets that were gated with tracking off.

    Returns:
        Every gated set that was found and its state now: sent (now or before), pending with the error, or off.

    Raises:
        InputError: a path holds neither.
    """
    outcome: dict[Path, Tracking] = {}
    for path in paths:
        found = list(gated_sets(path))
        if not found:
            raise InputError(
                f"Nothing to send at {path}",
                "no gated set there or below, no metrics and no check",
                "folders written by `qualitygate gate`, `metrics` or `check`",
            )
        outcome |= {folder: _sync_one(folder, uri, experiment, untracked) for folder in found}
    return outcome


def _sync_one(folder: Path, uri: str | None, experiment: str | None, untracked: bool) -> Tracking:
    known = tracking_state(folder)
    if known.state is State.SENT or (known.state is State.OFF and not untracked):
        return known
    written = known.uri if known.uri and "***" not in known.uri else None
    return push(folder, uri or written, experiment or known.experiment)


class _Kind(NamedTuple):
    """A kind of folder that can be sent."""

    here: Callable[[Path], bool]
    read: Callable[[Path], object]
    log: Callable[[Path, str, str], Logged]


_KINDS = (
    _Kind(is_check, read_check, log_check),
    _Kind(is_metrics_set, read_metrics_set, log_metrics_set),
    _Kind(is_gated_set, read_gated_set, log_gated_set),
)


def _kind(folder: Path) -> _Kind:
    """What lies in the folder; a gated set's reader says what is wrong with one that is nothing."""
    return next((kind for kind in _KINDS if kind.here(folder)), _KINDS[-1])


def _write(folder: Path, tracking: Tracking) -> None:
    storage.write_bytes(folder / TRACKING, (tracking.model_dump_json(indent=2) + "\n").encode())
