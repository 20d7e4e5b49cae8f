"""``qualitygate sync``: send to MLflow what could not be sent before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qualitygate.cli import BROKEN, PASSED, output
from qualitygate.cli.options import Experiment, Json, Tracking

NAME = "sync"


def run(
    folders: Annotated[list[Path], typer.Argument(help="Gated sets, or folders that hold some.", show_default=False)],
    tracking_uri: Tracking = None,
    experiment: Experiment = "qualitygate",
    as_json: Json = False,
) -> int:
    """Log gated sets to MLflow that were made while it was down, or with --no-track. What was sent already is not sent twice."""
    with output.only_result_on_stdout():
        raise NotImplementedError
    return PASSED if as_json else BROKEN
