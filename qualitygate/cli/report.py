"""``qualitygate report``: a gated set as one page for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from qualitygate.cli import output
from qualitygate.cli.requests import command
from qualitygate.requests import Flag, Request


class ReportRequest(Request):
    """What the page shows."""

    gated: Annotated[str, Flag(argument=True)] = Field(description="A gated set: the folder; of shards, also s3://bucket/path.")
    metrics: Path | None = Field(None, description="Folder of `metrics`: set metrics, yield against quality.")
    units: Path | None = Field(None, description="Folder of `units`: rankings, and what the units draw.")
    dynamics: Path | None = Field(None, description="Folder of `dynamics`: how it trained.")
    baseline: str | None = Field(None, description="Another gated set, to be shown beside this one.")
    profile: Path | None = Field(None, description="The profile, where it does not lie in the gated set.")
    out: Path = Field(Path("report.html"), description="The page; an older one is replaced.")


@command(ReportRequest)
def run(request: ReportRequest) -> None:
    """Write a gated set as one HTML page that needs nothing else: no network, no Python, no folder beside it.

    `gate` writes the same page into every set, of shards too. With more to show:

        qualitygate report gated --metrics metrics --units units --baseline champion --out report.html
    """
    from qualitygate import storage
    from qualitygate.produce.report import read_dynamics, read_gated, read_measured, read_units
    from qualitygate.reports.gate_report import report_page
    from qualitygate.reports.material import Material

    material = Material(
        gated=read_gated(request.gated, profile=request.profile),
        metrics=None if request.metrics is None else read_measured(request.metrics),
        units=None if request.units is None else read_units(request.units),
        dynamics=None if request.dynamics is None else read_dynamics(request.dynamics),
        baseline=None if request.baseline is None else read_gated(request.baseline),
    )
    page = report_page(material).encode()
    storage.write_bytes(request.out, page)
    verdict = material.gated.summary.verdict
    line = f"{material.gated.name}: {verdict}. {request.out} ({len(page) / 1e6:.1f} MB)"
    output.result({"out": request.out, "bytes": len(page), "verdict": verdict}, [line])
