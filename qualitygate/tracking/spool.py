"""The written folder is the spool: the verdict is on disk first, MLflow is told afterwards, and what it did not hear stays pending."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from qualitygate import storage
from qualitygate.errors import InputError, QualityGateError, public
from qualitygate.mlflow_client import tracking_uri
from qualitygate.tracking.gated_set import SUMMARY, gated_parcel
from qualitygate.tracking.sending import EXPERIMENT, Parcel, send
from qualitygate.tracking.studies import CHECK_RECORD, METRICS_REPORT, check_parcel, metrics_parcel

TRACKING = "tracking.json"
_PARCELS: Mapping[str, Callable[[Path], Parcel]] = {CHECK_RECORD: check_parcel, METRICS_REPORT: metrics_parcel, SUMMARY: gated_parcel}
"""What is sent of a folder, by the file that tells what it is."""


class State(StrEnum):
    """How far a folder got."""

    PENDING = "pending"
    SENT = "sent"
    OFF = "off"
    """Written with tracking off: sent only when asked for."""


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
    """Send a gated set, a folder of metrics or a check now. What fails stays pending, is told in ``error`` and not raised: an outage
    never touches a verdict. Errors are those of the folder: it holds none of them, or cannot be written to."""
    folder = Path(folder)
    parcel = next((parcel for name, parcel in _PARCELS.items() if (folder / name).is_file()), gated_parcel)(folder)
    uri = tracking_uri(uri)
    pending = Tracking(state=State.PENDING, uri=public(uri), experiment=experiment)
    _write(folder, pending)  # before anything is sent: a process that is killed leaves it pending
    try:
        logged = send(parcel, uri, experiment)
    except QualityGateError as error:
        outcome = pending.model_copy(update={"error": str(error)})
    else:
        outcome = pending.model_copy(update={"state": State.SENT, "run_id": logged.run_id, "model_id": logged.model_id})
    _write(folder, outcome)
    return outcome


def tracking_state(folder: str | Path) -> Tracking:
    """What is known of a folder's sending; `State.OFF` where tracking was off."""
    path = Path(folder) / TRACKING
    if not path.is_file():
        return Tracking(state=State.OFF)
    try:
        return Tracking.model_validate_json(path.read_bytes())
    except ValidationError as error:
        remedy = "delete the file and send the set as one that was gated with tracking off"
        raise InputError(f"Cannot read {path}", str(error), "what the gate wrote there", remedy) from error


def sendable(root: str | Path) -> Iterator[Path]:
    """Gated sets, folders of metrics and checks at or below ``root``, in order of their names. Their images are not walked through."""
    for folder, below, files in os.walk(root):
        if not _PARCELS.keys().isdisjoint(files):
            below.clear()
            yield Path(folder)
        below.sort()


def sync(
    paths: Iterable[str | Path], uri: str | None = None, experiment: str | None = None, *, untracked: bool = False
) -> dict[Path, Tracking]:
    """Send what is pending at or below each of the paths, to where it was meant to go.

    Args:
        paths: gated sets, folders of metrics and checks, or folders above them.
        uri: another place to send to. Default: the one written down, or, where that had a password, ``MLFLOW_TRACKING_URI``.
        experiment: another experiment than the one written down.
        untracked: also send sets that were gated with tracking off.

    Returns:
        Every folder that was found and its state now: sent (now or before), pending with the error, or off.
    """
    outcome: dict[Path, Tracking] = {}
    for path in paths:
        found = list(sendable(path))
        if not found:
            needed = "folders written by `qualitygate gate`, `metrics` or `check`"
            raise InputError(f"Nothing to send at {path}", "no gated set there or below, no metrics and no check", needed)
        for folder in found:
            known = tracking_state(folder)
            if known.state is State.PENDING or (known.state is State.OFF and untracked):
                written = known.uri if known.uri and "***" not in known.uri else None
                known = push(folder, uri or written, experiment or known.experiment)
            outcome[folder] = known
    return outcome


def _write(folder: Path, tracking: Tracking) -> None:
    storage.write_bytes(folder / TRACKING, (tracking.model_dump_json(indent=2) + "\n").encode())
