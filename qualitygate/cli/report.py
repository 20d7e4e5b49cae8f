"""``qualitygate report``: a gated set as one page for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qualitygate.cli import output
from qualitygate.cli.options import Json

NAME = "report"


def run(
    gated: Annotated[str, typer.Argument(help="A gated set: the folder; of shards, also s3://bucket/path.", show_default=False)],
    metrics: Annotated[
        Path | None, typer.Option("--metrics", help="Folder of `metrics`: set metrics, yield against quality.", show_default=False)
    ] = None,
    units: Annotated[
        Path | None, typer.Option("--units", help="Folder of `units`: rankings, and what the units draw.", show_default=False)
    ] = None,
    dynamics: Annotated[Path | None, typer.Option("--dynamics", help="Folder of `dynamics`: how it trained.", show_default=False)] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Another gated set, to be shown beside this one.", show_default=False)
    ] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="The profile, where it does not lie in the gated set.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="The page; an older one is replaced.")] = Path("report.html"),
    json: Json = False,
) -> None:
    """Write a gated set as one HTML page that needs nothing else: no network, no Python, no folder beside it.

    `gate` writes the same page into every set, of shards too. With more to show:

        qualitygate report gated --metrics metrics --units units --baseline champion --out report.html
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.produce.report import read_dynamics, read_gated, read_measured, read_units
        from qualitygate.reports.gate_report import report_page
        from qualitygate.reports.material import Material

        material = Material(
            gated=read_gated(gated, profile=profile),
            metrics=None if metrics is None else read_measured(metrics),
            units=None if units is None else read_units(units),
            dynamics=None if dynamics is None else read_dynamics(dynamics),
            baseline=None if baseline is None else read_gated(baseline),
        )
        page = report_page(material).encode()
        storage.write_bytes(out, page)
        if json:
            output.emit_json({"out": str(out), "bytes": len(page), "verdict": material.gated.verdict})
        else:
            output.emit(f"{material.gated.name}: {material.gated.verdict}. {out} ({len(page) / 1e6:.1f} MB)")
