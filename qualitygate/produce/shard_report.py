"""The report of a set of shards: once the set is finished, what people look at is made from its records, and the shown samples by id."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from qualitygate import names
from qualitygate.gating import exhibit
from qualitygate.gating.stage import GateStage
from qualitygate.generators.passes import Reporter
from qualitygate.produce.gated_set import REPORT, recorded_block
from qualitygate.produce.run import finished
from qualitygate.produce.showing import write_exhibit, write_figures
from qualitygate.produce.store import Store, open_store
from qualitygate.produce.survey import SURVEY, Surveyor
from qualitygate.produce.worker import Job
from qualitygate.records.gate import ExhibitRole, GateSummary


def ensure_report(job: Job, device: str, reporter: Reporter | None = None) -> None:
    """Write exhibit, figures and page of a finished set, unless they are there: the page comes last.

    The work is bounded whatever the size of the set, but for one pass over a few columns of its records.

    Args:
        job: what was made, and where.
        device: where the shown samples are made again.
        reporter: shows progress.

    Raises:
        StorageError: the store does not take it; started again, the run makes it.
    """
    from qualitygate.produce.reading import read_gated
    from qualitygate.reports.gate_report import report_page
    from qualitygate.reports.material import Material

    store = open_store(job.place)
    summary = finished(store)
    if summary is None or REPORT in store.names(""):
        return
    with (reporter or Reporter()).phase("report", 2) as progress:
        _show(store, summary, job.source.open(device))
        progress(1)
        store.put(REPORT, report_page(Material(read_gated(job.place))).encode())
        store.sweep()
        progress(1)


def _show(store: Store, summary: GateSummary, stage: GateStage) -> None:
    surveyor = Surveyor(store, summary.limits)
    surveyed, chosen = surveyor.walk()
    with tempfile.TemporaryDirectory(prefix="qualitygate-") as place:
        folder = Path(place)
        surveyed.write(folder / SURVEY)
        _write_chosen(stage, surveyor, chosen, folder)
        write_figures(stage, surveyed.columns, surveyed.columns[names.VERDICT], folder)
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())


def _write_chosen(stage: GateStage, surveyor: Surveyor, chosen: dict[ExhibitRole, np.ndarray], folder: Path) -> None:
    """The exhibit of these ids, from their records."""
    ids = np.concatenate(list(chosen.values()))
    block = recorded_block(stage, surveyor.rows(ids))
    rows = np.searchsorted(block.latents.ids, ids)
    records = [stage.record(block, int(row)) for row in rows]
    write_exhibit(stage, block.latents[rows], records, exhibit.roles(chosen), folder)
