"""What is measured on one planted checkpoint: one function for each group of columns, all JSON values."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from planted_rows import measures
from planted_rows.corrections import CORRECTIONS, Corrected
from planted_rows.heatmaps import HEATMAPS
from planted_rows.scene import Scene
from planted_rows.scores import scores
from planted_rows.units import UNIT_SCORES
from qualitygate.errors import InputError
from qualitygate.latents import Latents
from qualitygate.records.gate import Verdict

REJECTED = (0.01, 0.1)
"""Shares of all samples that are rejected when recall is measured."""
TOP = 20


def all_columns(scene: Scene) -> dict[str, Any]:
    truth = scene.planted.truth
    return {
        "layer": truth.layer,
        "units": {str(layer): list(units) for layer, units in truth.units.items()},
        "share": scene.share,
        "paints": truth.paints,
        "default_score": scene.policy.rules[0].score,
        "detection": detection(scene),
        "place": place(scene),
        "unit_recall": units(scene),
        "correction": correction(scene),
    }


def detection(scene: Scene) -> dict[str, dict[str, float]]:
    """AUC, and recall at each share rejected, of every score; of a decoy, how well its firing is told: false alarms."""
    if not scene.fires.any():
        return {}
    found = {}
    for name, score in scores(scene.layers).items():
        if (values := score(scene)) is not None:
            known = np.isfinite(values)
            values, fires = values[known], scene.fires[known]
            found[name] = {"auc": measures.auc(values, fires)} | {
                f"recall_{share:g}": measures.recall(values, fires, scene.share, share) for share in REJECTED
            }
    return found


def place(scene: Scene) -> dict[str, float]:
    """IoU of every heatmap with the planted pixels, and of chance."""
    truth = scene.planted.truth
    if not truth.paints:
        return {}
    pixels = truth.pixels
    return {"chance": measures.chance_iou(pixels)} | {name: measures.iou(heatmap(scene), pixels) for name, heatmap in HEATMAPS.items()}


def units(scene: Scene) -> dict[str, dict[str, float]]:
    """Recall of the planted units at the top of every unit ranking."""
    planted = scene.planted.truth.units
    if not planted:
        return {}
    found = {}
    for name, unit_score in UNIT_SCORES.items():
        if (ranking := unit_score(scene)) is None:
            continue
        found[name] = {"planted": measures.unit_recall(ranking, planted, None), f"top_{TOP}": measures.unit_recall(ranking, planted, TOP)}
    return found


def correction(scene: Scene) -> dict[str, dict[str, float]]:
    """What every correction does to samples whose planted units fire, and to others."""
    others = scene.samples[np.flatnonzero(~scene.fires)[: scene.sizes.corrected]]
    firing = scene.samples[scene.fires]
    found = {}
    for name, correct in CORRECTIONS.items():
        with contextlib.suppress(InputError):  # nothing to edit here: not applicable
            on_firing = _on_firing(scene, firing, correct(scene, firing)) if len(firing) else {}
            found[name] = on_firing | _on_others(scene, others, correct(scene, others))
    return found


def _on_firing(scene: Scene, latents: Latents, corrected: Corrected) -> dict[str, float]:
    truth, made = scene.planted.truth, scene.images(latents)
    found = {"moved": _mean(measures.distance(corrected.images, made)), **_verdicts("firing", corrected)}
    if truth.paints:
        best = truth.repaired(latents)
        for name, pixels in (("repaired", None), ("mark_gone", truth.pixels)):
            left, own = (measures.distance(images, best, pixels) for images in (corrected.images, made))
            found[name] = float((left < measures.REPAIRED * own).mean())
        found["pixels_repaired"] = measures.repaired_share(corrected.images, best, made, truth.pixels)
        if not truth.pixels.all():
            found["damage"] = _mean(measures.distance(corrected.images, best, ~truth.pixels))
    return found


def _on_others(scene: Scene, latents: Latents, corrected: Corrected) -> dict[str, float]:
    moved = measures.distance(corrected.images, scene.images(latents))
    return {"harm": _mean(moved), **_verdicts("others", corrected)}


def _verdicts(whose: str, corrected: Corrected) -> dict[str, float]:
    if corrected.verdict is None:
        return {}
    return {f"{whose}_{verdict}": float((corrected.verdict == verdict).mean()) for verdict in Verdict}


def _mean(values: np.ndarray) -> float:
    """Mean over the samples that were kept."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")
