"""``qualitygate compare``: several checkpoints side by side."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.errors import InputError, public
from qualitygate.requests import Flag, WithTracking

if TYPE_CHECKING:
    from qualitygate.reports.material import Material


class CompareRequest(WithTracking):
    """Which checkpoints to put side by side, and where the page goes."""

    runs: Annotated[tuple[str, ...], Flag(argument=True)] = Field(
        description="Gated sets, the one to compare with first: ids of MLflow runs, folders, or s3://… of shards."
    )
    metrics: tuple[Path, ...] = Field(
        (), description="Folder of `metrics`, repeatable: of the checkpoint with the same SHA-256. MLflow's are found by themselves."
    )
    out: Path = Field(Path("comparison.html"), description="The page; an older one is replaced.")
    track: bool = Field(True, description="Log the page to MLflow.")


@command(CompareRequest)
def run(request: CompareRequest) -> None:
    """Compare gated checkpoints: one HTML page with metrics and intervals, units that moved up, and samples side by side.

    qualitygate compare 4f1c…e2 9a07…b1 --out comparison.html
    """
    from qualitygate import storage
    from qualitygate.reports.comparison import comparison_page, outcome_words
    from qualitygate.tracking.fetched import comparison_parcel

    with tempfile.TemporaryDirectory(prefix="qualitygate-") as folder:
        compared = [_read(one, Path(folder) / str(place), request) for place, one in enumerate(request.runs)]
    storage.write_bytes(request.out, comparison_page(compared).encode())
    words, where = outcome_words(compared), None
    if request.track:
        parcel = comparison_parcel(request.out, list(map(public, request.runs)), "\n".join(f"- {one}" for one in words))
        where = output.send(parcel, request, "the page stands")
    output.result({"out": request.out, "mlflow_run": where, "outcomes": words}, (*words, str(request.out)))


def _read(run: str, folder: Path, request: CompareRequest) -> Material:
    """A gated set and its checkpoint's metrics, from folders or from MLflow."""
    from qualitygate.produce.report import read_gated, read_measured
    from qualitygate.reports.material import Material
    from qualitygate.tracking.fetched import fetch_gated_set, fetch_metrics, is_run_id

    tracked = "://" not in run and not Path(run).is_dir()
    if tracked and not is_run_id(run):
        raise InputError(f"{run} cannot be compared", "neither a folder nor the id of a run", "a gated set, or an MLflow run")
    for name in ("gated", "metrics"):
        (folder / name).mkdir(parents=True)
    gated = read_gated(fetch_gated_set(run, folder / "gated", request.tracking_uri), run) if tracked else read_gated(run)
    sha256 = gated.summary.provenance.checkpoint_sha256
    given = [found for one in request.metrics if (found := read_measured(one)).report.checkpoint_sha256 == sha256]
    if given or not tracked:
        return Material(gated, given[0] if given else None)
    fetched = fetch_metrics(sha256, run, folder / "metrics", request.tracking_uri)
    return Material(gated, None if fetched is None else read_measured(fetched))
