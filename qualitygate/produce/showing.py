"""What people look at of a gated set: samples made again, contact sheets, figures. The same for a set of any kind and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qualitygate import storage
from qualitygate.gating import exhibit
from qualitygate.gating.stage import GateStage
from qualitygate.latents import Latents
from qualitygate.records.gate import ExhibitRole, SampleRecord
from qualitygate.reports.gate_figures import score_figure, trade_off_figure
from qualitygate.reports.material import EXHIBIT, exhibit_columns
from qualitygate.reports.sheets import exhibit_sheets

GALLERY, FIGURES = "gallery", "figures"


def write_exhibit(stage: GateStage, latents: Latents, records: Sequence[SampleRecord], roles: Sequence[ExhibitRole], folder: Path) -> None:
    """``exhibit.parquet`` and a contact sheet for each role; the samples are made again.

    Args:
        stage: the gate they went through.
        latents: latents of the N samples.
        records: their records.
        roles: why each was chosen.
        folder: of the gated set.
    """
    items = exhibit.exhibit_items(stage, latents, records, roles)
    storage.write_table(folder / EXHIBIT, exhibit_columns(items))
    (folder / GALLERY).mkdir()
    for key, sheet in exhibit_sheets(items, limits=stage.limits.rules).items():
        sheet.save(folder / f"{key}.png")


def write_figures(stage: GateStage, columns: Mapping[str, np.ndarray], verdicts: np.ndarray, folder: Path) -> None:
    """Scores of N samples with their limits, and what other limits would keep.

    Args:
        stage: the gate they went through.
        columns: every score that a rule names, each (N,).
        verdicts: `Verdict` values (N,).
        folder: of the gated set.
    """
    (folder / FIGURES).mkdir()
    rules = stage.limits.rules
    scores = {rule.score: columns[rule.score] for rule in rules}
    storage.write_bytes(folder / FIGURES / "scores.png", score_figure(scores, rules, verdicts))
    calibration = stage.profile.columns(stage.policy)
    known = [rule for rule in rules if np.isfinite(calibration.get(rule.score, np.nan)).any()]
    if known:  # a rule with an absolute limit may be on a score that was not calibrated
        storage.write_bytes(folder / FIGURES / "trade_off.png", trade_off_figure(scores, calibration, known))
