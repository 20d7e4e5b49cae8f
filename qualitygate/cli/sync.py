"""``qualitygate sync``: send to MLflow what could not be sent before."""

from __future__ import annotations

from typing import Annotated

import typer

from qualitygate.cli import BROKEN, output
from qualitygate.cli.options import Json, Tracking

NAME = "sync"


def run(
    folders: Annotated[
        list[str], typer.Argument(help="Gated sets, or folders that hold some; one set in a store: s3://bucket/path.", show_default=False)
    ],
    tracking_uri: Tracking = None,
    experiment: Annotated[str | None, typer.Option(help="Another experiment than the one asked for.", show_default=False)] = None,
    untracked: Annotated[bool, typer.Option("--untracked", help="Also send sets that were gated with --no-track.")] = False,
    json: Json = False,
) -> None:
    """Log gated sets to MLflow that were made while it was down. What was sent already is not sent twice."""
    with output.only_result_on_stdout():
        from qualitygate.produce.report import sync_stored
        from qualitygate.tracking.spool import State, sync

        stored = [place for place in folders if "://" in place]
        outcome = {
            str(folder): one
            for folder, one in sync([one for one in folders if one not in stored], tracking_uri, experiment, untracked=untracked).items()
        }
        outcome |= {place: sync_stored(place, tracking_uri, experiment, untracked=untracked) for place in stored}
        if json:
            output.emit_json({folder: one.model_dump(mode="json") for folder, one in outcome.items()})
        else:
            rows = [(folder, one.state, one.run_id, one.error) for folder, one in outcome.items()]
            output.table("Gated sets", ("folder", "state", "run", "error"), rows)
        if any(one.state is State.PENDING for one in outcome.values()):
            raise typer.Exit(BROKEN)
