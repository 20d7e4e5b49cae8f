"""A correction study on disk: the table, one row for each sample and strength, figures, sheets, and images for people to label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qualitygate import names, storage
from qualitygate.corrections.ablation import low_rate_ablation
from qualitygate.errors import InputError
from qualitygate.gating.exhibit import render
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.generators.base import Generator
from qualitygate.latents import Latents
from qualitygate.policy.model import Policy
from qualitygate.reports.pictures import blend_heat
from qualitygate.reports.sheets import comparison_sheet
from qualitygate.reports.study_figures import correction_figure, layer_figure, strength_figure
from qualitygate.scores.low_rate import ActivationRates, low_rate_heatmap
from qualitygate.studies.corrections.run import COLUMNS, CorrectionsResult

DOCUMENT, ROWS, SHEET, TABLE, STEPS, KEPT = ("corrections.json", "corrections.parquet", "sheet.png", "table.md", "steps.png", "kept.json")
BEFORE, AFTER = "before", "after"
FIGURES = {"trade.png": correction_figure, "strengths.png": strength_figure, "layers.png": layer_figure}
_SIDE = 128


@dataclass(frozen=True)
class KeptImages:
    """Which images before and after a correction lie beside a study.

    Attributes:
        correction: its name.
        chosen: who chose the samples, in words.
        ids: of the samples.
        passed: ids of those that the gate would let pass after it.
    """

    correction: str
    chosen: str
    ids: tuple[int, ...]
    passed: tuple[int, ...]


def write_study(
    folder: str | Path, generator: Generator, profile: Profile, policy: Policy, made: CorrectionsResult, show: int, keep: str | None = None
) -> None:
    """Write a study into a new folder, in one step.

    Args:
        folder: where to.
        generator: makes the steps of sequential ablation.
        profile: what calibration learned of it.
        policy: says R and the layers of those steps.
        made: the study.
        show: samples on the sheets.
        keep: correction whose images before and after it are written too, for `qualitygate label --corrected`: after least correction;
            where no strength passes, after the strongest.

    Raises:
        OutputError: something is there already.
        StorageError: it cannot be written.
    """
    shown = min(show, len(made.shown))
    with storage.new_folder(folder) as place:
        content = made.document()
        _write_json(place / DOCUMENT, content)
        storage.write_bytes(place / TABLE, markdown(content["rows"]).encode())
        for name, figure in FIGURES.items():
            if (png := figure(content["rows"])) is not None:
                storage.write_bytes(place / name, png)
        try:
            layers = detection_layers(policy, profile.info.chain)
            latents = made.samples.latents[:shown]
            steps_sheet(generator, latents, made.shown[:shown], profile.rates, policy.headline_rate, layers).save(place / STEPS)
        except InputError:
            pass  # no neuron is low-rate at this R
        if made.outcomes:
            storage.write_table(place / ROWS, _samples(made))
            _sheet(made, shown).save(place / SHEET)
        for outcome in (one for one in made.outcomes if one.name == keep):
            ids = tuple(made.samples.latents.ids.tolist())
            for where, images in ((BEFORE, made.shown), (AFTER, outcome.shown)):
                (place / where).mkdir()
                for sample, image in zip(ids, images, strict=True):
                    storage.write_bytes(place / where / storage.image_name(sample), storage.png(image))
            passed = tuple(sample for sample, index in zip(ids, outcome.least.tolist(), strict=True) if index >= 0)
            _write_json(place / KEPT, vars(KeptImages(outcome.name, made.samples.chosen, ids, passed)))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, with the columns that any row knows."""
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    lines = [("correction", "layers", "strength", *columns), ("---",) * (3 + len(columns))]
    for row in rows:
        strength = "least" if row["strength"] is None and row["method"] else _number(row["strength"])
        layers = ", ".join(map(str, row["layers"])) or "–"
        lines.append((row["correction"], layers, strength, *(_number(row.get(column)) for column in columns)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def steps_sheet(
    generator: Generator, latents: Latents, untouched: Sequence[np.ndarray], rates: ActivationRates, rate: float, layers: Sequence[int]
) -> Image.Image:
    """Sequential ablation step by step: where low-rate neurons fire in each layer before and after each step (IJCAI 2022, figure 4).

    The samples side by side; below each other the untouched image and its heat at every layer, then, after the ablation of the first
    layer, of the first two, …, the image and the heat at every layer that follows. Heat is scaled to the hottest place of its layer.

    Args:
        generator: the generator.
        latents: the samples.
        untouched: their images, uint8 (height, width, channels).
        rates: activation rates of the untouched generator.
        rate: R.
        layers: layers to ablate, in order.

    Raises:
        InputError: no layer has a low-rate neuron.
    """
    rows: dict[str, Sequence[np.ndarray]] = {}
    hottest: dict[int, float] = {}
    for done in range(len(layers) + 1):
        edits = low_rate_ablation(rates, layers[:done], rate, generator.device) if done else None
        images = render(generator, latents, edits) if done else untouched
        after = f"after layers {', '.join(map(str, layers[:done]))}" if done else "generated"
        rows[after] = images
        for layer in layers[done:]:
            heat = low_rate_heatmap(generator, latents, rates, rate, [layer], edits).numpy()
            scale = hottest.setdefault(layer, max(float(heat.max()), 1e-6))
            rows[f"{after}: heat of layer {layer}"] = [_over(*pair, scale) for pair in zip(images, heat, strict=True)]
    return comparison_sheet(
        list(map(str, latents.ids)),
        rows,
        f"Sequential ablation of low-rate neurons at R = {rate:g}, step by step",
        "Heat is the share of units whose low-rate neuron fires there, scaled to the hottest place of its layer before any step.",
        columns=len(latents),
        scale_to=_SIDE,
    )


def _over(image: np.ndarray, heat: np.ndarray, hottest: float) -> np.ndarray:
    whole = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB").resize((_SIDE, _SIDE))
    return np.asarray(blend_heat(whole, heat, hottest))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _samples(made: CorrectionsResult) -> dict[str, Any]:
    """One row for each correction, strength and sample."""
    count = len(made.samples.latents)
    runs = [(one, at) for one in made.outcomes for at in one.at]
    table: dict[str, Any] = {
        "correction": [one.name for one, _ in runs for _ in range(count)],
        "method": [one.correction.method for one, _ in runs for _ in range(count)],
        names.STRENGTH: np.repeat([at.strength for _, at in runs], count),
        names.ID: np.tile(made.samples.latents.ids, len(runs)),
        "passed": np.concatenate([at.passed for _, at in runs]),
        names.MOVED: np.concatenate([at.moved for _, at in runs]),
    }
    if made.samples.score is not None and made.samples.scores is not None:
        table[made.samples.score] = np.tile(made.samples.scores, len(runs))
    flat = [name for name, values in runs[0][1].measured.items() if values.ndim == 1]
    return table | {name: np.concatenate([at.measured[name] for _, at in runs]) for name in flat}


def _sheet(made: CorrectionsResult, shown: int) -> Image.Image:
    images = {"generated": made.shown[:shown]}
    images |= {f"{one.name}: {one.passed_share:.0%} pass": one.shown[:shown] for one in made.outcomes}
    return comparison_sheet(
        list(map(str, made.samples.latents.ids[:shown])),
        images,
        f"{shown} of {made.samples.chosen}, and what each correction makes of them",
        "Each as the least strength leaves it that passes, or as the strongest does where none passes.",
        columns=shown,
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    storage.write_bytes(path, json.dumps(content, indent=2, allow_nan=False).encode())
