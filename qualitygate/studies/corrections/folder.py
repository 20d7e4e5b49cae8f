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
from qualitygate.gating.exhibit import made_again
from qualitygate.generators.base import Generator
from qualitygate.latents import Latents
from qualitygate.reports.contact_sheet import comparison_sheet
from qualitygate.reports.correction_figures import layer_figure, strength_figure, trade_figure
from qualitygate.reports.pictures import blend_heat
from qualitygate.scores.low_rate import ActivationRates, low_rate_heatmap
from qualitygate.storage import image_name
from qualitygate.studies.corrections.run import COLUMNS, CorrectionStudy, Outcome, document

_SIDE = 128


def steps_sheet(generator: Generator, latents: Latents, rates: ActivationRates, rate: float, layers: Sequence[int]) -> Image.Image:
    """The samples side by side; below each other the untouched image and its heat at every layer, then, after the ablation of the first
    layer, of the first two, …, the image and the heat at every layer that follows. Heat is scaled to the hottest place of its layer.

    Args:
        generator: the generator.
        latents: the samples.
        rates: activation rates of the untouched generator.
        rate: R.
        layers: layers to ablate, in order.

    Raises:
        InputError: no layer has a low-rate neuron.
    """
    rows: dict[str, list[np.ndarray]] = {}
    hottest: dict[int, float] = {}
    for done in range(len(layers) + 1):
        edits = low_rate_ablation(rates, layers[:done], rate, generator.device) if done else None
        images = made_again(generator, latents, edits)
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


DOCUMENT, ROWS, SHEET, TABLE, STEPS, KEPT = ("corrections.json", "corrections.parquet", "sheet.png", "table.md", "steps.png", "kept.json")
BEFORE, AFTER = "before", "after"
FIGURES = {"trade.png": trade_figure, "strengths.png": strength_figure, "layers.png": layer_figure}


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


def write_study(folder: str | Path, generator: Generator, made: CorrectionStudy, steps: bytes | None = None) -> None:
    """Write the study into a new folder, in one step.

    Args:
        folder: where to.
        generator: makes the untouched images again.
        made: the study.
        steps: the sheet of sequential steps, if there is one.

    Raises:
        OutputError: something is there already.
        StorageError: it cannot be written.
    """
    with storage.new_folder(folder) as place:
        content = document(made)
        _write_json(place / DOCUMENT, content)
        storage.write_bytes(place / TABLE, markdown(content["rows"]).encode())
        for name, figure in FIGURES.items():
            if (png := figure(content["rows"])) is not None:
                storage.write_bytes(place / name, png)
        if steps is not None:
            storage.write_bytes(place / STEPS, steps)
        if made.outcomes:
            storage.write_table(place / ROWS, _samples(made))
            _sheet(generator, made).save(place / SHEET)


def write_kept(folder: str | Path, generator: Generator, made: CorrectionStudy, name: str) -> None:
    """Write images before and after one correction beside a study, for `qualitygate label --corrected`.

    After least correction; where no strength passes, after the strongest.
    """
    (outcome,) = (one for one in made.outcomes if one.name == name)
    ids = made.samples.latents.ids.tolist()
    before = made_again(generator, made.samples.latents)
    place = Path(folder)
    for where, images in ((BEFORE, before), (AFTER, outcome.shown)):
        (place / where).mkdir()
        for sample, image in zip(ids, images, strict=True):
            storage.write_bytes(place / where / image_name(sample), storage.png(image))
    passed = tuple(sample for sample, kept in zip(ids, outcome.kept.tolist(), strict=True) if kept >= 0)
    _write_json(place / KEPT, vars(KeptImages(name, made.samples.chosen, tuple(ids), passed)))


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, with the columns that any row knows."""
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    lines = [("correction", "layers", "strength", *columns), ("---",) * (3 + len(columns))]
    for row in rows:
        strength = "least" if row["strength"] is None and row["method"] else _number(row["strength"])
        layers = ", ".join(map(str, row["layers"])) or "–"
        lines.append((row["correction"], layers, strength, *(_number(row.get(column)) for column in columns)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _samples(made: CorrectionStudy) -> dict[str, Any]:
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
    flat = [name for name, values in runs[0][1].seen.items() if values.ndim == 1]
    return table | {name: np.concatenate([at.seen[name] for _, at in runs]) for name in flat}


def _sheet(generator: Generator, made: CorrectionStudy) -> Any:
    shown = min(len(one.shown) for one in made.outcomes)
    images = {"generated": made_again(generator, made.samples.latents[:shown])}
    images |= {f"{one.name}: {one.passed_share:.0%} pass": _first(one, shown) for one in made.outcomes}
    return comparison_sheet(
        list(map(str, made.samples.latents.ids[:shown])),
        images,
        f"{shown} of {made.samples.chosen}, and what each correction makes of them",
        "Each as the least strength leaves it that passes, or as the strongest does where none passes.",
        columns=shown,
    )


def _first(outcome: Outcome, shown: int) -> list[np.ndarray]:
    return outcome.shown[:shown]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    storage.write_bytes(path, json.dumps(content, indent=2, allow_nan=False).encode())
