"""The exhibit: a bounded, chosen set of samples made again by id, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qualitygate.corrections.method import corrected_images
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Edits, Generator
from qualitygate.latents import Latents
from qualitygate.records.gate import ExhibitItem, ExhibitRole, SampleRecord, Verdict
from qualitygate.scores.low_rate import low_rate_heatmap
from qualitygate.storage import to_uint8


def choose(scores: np.ndarray, verdict: np.ndarray, borderline: np.ndarray, size: int = 24) -> dict[ExhibitRole, np.ndarray]:
    """Rows to show for each role, at most ``size`` each, by the deciding score (N,), higher = worse."""
    order = np.argsort(np.where(np.isfinite(scores), scores, np.inf), kind="stable")

    def of(mask: np.ndarray, worst_first: bool) -> np.ndarray:
        rows = order[mask[order]]
        return (rows[::-1] if worst_first else rows)[:size]

    return {
        ExhibitRole.BEST: of(verdict == Verdict.ACCEPT, worst_first=False),
        ExhibitRole.WORST: of(np.ones(len(scores), dtype=bool), worst_first=True),
        ExhibitRole.CORRECTED: of(verdict == Verdict.CORRECT, worst_first=True),
        ExhibitRole.REJECTED: of(verdict == Verdict.REJECT, worst_first=True),
        ExhibitRole.BORDERLINE: of(borderline.astype(bool), worst_first=False),
    }


def exhibit_items(
    stage: GateStage, latents: Latents, records: Sequence[SampleRecord], chosen: Mapping[ExhibitRole, Sequence[int] | np.ndarray]
) -> list[ExhibitItem]:
    """Make samples again, with the gate they went through: role after role, as many as were chosen (n,) for each. One that was chosen twice
    stands there twice."""
    if not len(latents):
        return []
    images = render(stage.generator, latents)
    corrected = _corrected(stage, latents, records)
    heat = low_rate_heatmap(stage.generator, latents, stage.profile.rates, stage.policy.headline_rate, stage.detection).numpy()
    roles = [role for role, of_role in chosen.items() for _ in of_role]
    return [
        ExhibitItem(role, record, images[row], corrected.get(row), heat[row])
        for row, (role, record) in enumerate(zip(roles, records, strict=True))
    ]


def _corrected(stage: GateStage, latents: Latents, records: Sequence[SampleRecord]) -> dict[int, np.ndarray]:
    """Corrected images by row: at the strength that was kept, or the last that was tried."""
    if stage.corrector is None:
        return {}
    strengths = [record.trials[-1].strength if record.strength is None and record.trials else record.strength for record in records]
    made: dict[int, np.ndarray] = {}
    for strength in sorted({one for one in strengths if one is not None}):
        rows = np.flatnonzero([one == strength for one in strengths])
        images = corrected_images(stage.generator, latents[rows], stage.corrector.method, strength)
        made.update(zip(rows.tolist(), map(to_uint8, images.numpy()), strict=True))
    return made


def render(generator: Generator, latents: Latents, edits: Edits | None = None) -> list[np.ndarray]:
    """Images of the samples as uint8 (height, width, channels), edited or not."""
    return [to_uint8(image) for image in generator.images(latents, edits).numpy()]
