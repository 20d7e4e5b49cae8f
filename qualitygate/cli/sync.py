"""``qualitygate sync``: send to MLflow what could not be sent before."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qualitygate.cli import BROKEN, PASSED, output
from qualitygate.cli.requests import command
from qualitygate.requests import Flag, Request


class SyncRequest(Request):
    """What is sent, and where."""

    folders: Annotated[tuple[str, ...], Flag(argument=True)] = Field(
        description="Gated sets, or folders that hold some; one set in a store: s3://bucket/path."
    )
    tracking_uri: str | None = Field(None, description="MLflow tracking URI; default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db.")
    experiment: str | None = Field(None, description="Another experiment than the one asked for.")
    untracked: bool = Field(False, description="Also send sets that were gated with --no-track.")


@command(SyncRequest)
def run(request: SyncRequest) -> int:
    """Log gated sets to MLflow that were made while it was down. What was sent already is not sent twice."""
    from qualitygate.produce.report import local
    from qualitygate.tracking.spool import State, sync

    where = (request.tracking_uri, request.experiment)
    here, stored = ([place for place in request.folders if ("://" in place) is there] for there in (False, True))
    outcome = {str(folder): one for folder, one in sync(here, *where, untracked=request.untracked).items()}
    for place in stored:
        with local(place) as folder:
            outcome[place] = sync([folder], *where, untracked=request.untracked)[folder]
    rows = [(folder, one.state, one.run_id, one.error) for folder, one in outcome.items()]
    document = {folder: one.model_dump(mode="json") for folder, one in outcome.items()}
    output.result(document, [("Gated sets", ("folder", "state", "run", "error"), rows)])
    return BROKEN if any(one.state is State.PENDING for one in outcome.values()) else PASSED
