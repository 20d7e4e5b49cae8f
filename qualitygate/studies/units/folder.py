"""A study of units on disk: the scores, what they agree on, and what the top units draw. One folder, written in one step."""

from __future__ import annotations

import json
from pathlib import Path

from qualitygate import names, storage
from qualitygate.gating.exhibit import made_again
from qualitygate.reports.unit_sheets import UnitPictures, unit_sheet
from qualitygate.studies.units.run import UnitReport, UnitStudy, describe
from qualitygate.tracking.unit_study import COMPARISON, SHEETS, UNITS
from qualitygate.units.concepts import TOP, representative, unit_heat
from qualitygate.units.score import save_unit_scores

SHOWN = 4
"""Top images of a unit on its sheet."""


def write_units(out: str | Path, study: UnitStudy, report: UnitReport) -> None:
    """Write ``units.parquet``, ``comparison.json`` and, for the top units of every layer, ``sheets/layer_N.png``.

    Raises:
        OutputError: the folder holds something already.
        StorageError: it cannot be written.
    """
    with storage.new_folder(out) as folder:
        save_unit_scores(folder / UNITS, report.scores)
        document = json.dumps(describe(study, report), indent=2, allow_nan=False)
        storage.write_bytes(folder / COMPARISON, document.encode())
        (folder / SHEETS).mkdir()
        for layer, units in report.top.items():
            pictures = [_pictures(study, report, layer, unit) for unit in units]
            title = f"Layer {layer}: the units to suspect first ({len(units)})"
            unit_sheet(pictures, title, _subtitle(study, report)).save(folder / SHEETS / f"layer_{layer}.png")


def _subtitle(study: UnitStudy, report: UnitReport) -> str:
    sources = ", ".join(one.source for one in report.scores[:-1])
    return (
        f"By the mean rank in the layer over {sources}. Labels: {report.labels.source}. Top images of {len(study.samples):,} "
        "samples; units with one cluster number fire for the same artifacts."
    )


def _pictures(study: UnitStudy, report: UnitReport, layer: int, unit: int) -> UnitPictures:
    rows = study.top_images[layer].rows[unit].numpy()
    shown = study.samples[rows[:SHOWN]]
    key = names.unit_key(layer, unit)
    mean = representative(study.generator, study.samples[rows[:TOP]], layer).numpy()
    heat = unit_heat(study.generator, shown, layer, unit).numpy()
    images = made_again(study.generator, shown)
    return UnitPictures(f"{key}, cluster {report.clusters[key]}", storage.to_uint8(mean), images, list(heat))
