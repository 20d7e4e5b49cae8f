"""What a correction study found, and how it stands on disk: the table, a row for each sample and strength, figures, sheets, kept images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from qualitygate import names, storage
from qualitygate.corrections.ablation import low_rate_ablation
from qualitygate.errors import InputError
from qualitygate.gating.exhibit import render
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.generators.base import Generator
from qualitygate.latents import Latents
from qualitygate.metrics.estimate import Resampling
from qualitygate.metrics.measured_set import MeasuredSet, RealSet
from qualitygate.metrics.metric import set_metric
from qualitygate.policy.corrections import Correction
from qualitygate.policy.model import Policy
from qualitygate.reports.pictures import blend_heat, picture
from qualitygate.reports.sheets import comparison_sheet
from qualitygate.reports.study_figures import correction_figure, layer_figure, strength_figure
from qualitygate.scores.low_rate import low_rate_heatmap

LEAST, UNTOUCHED, NORMAL = "least", "untouched", "normal samples"
PASSED, FEATURES, LEFT, MARK_LEFT, DAMAGE = "passed", "features", "left", "mark_left", "damage"
"""What is measured of an image; `against_truth` says what the last three are."""
REPAIRED_BELOW = 0.5
"""Share of a defect that may be left in an image that counts as repaired."""
COLUMNS = (
    PASSED,
    names.MOVED,
    "diversity",
    "early_passes",
    names.FID,
    names.REALISM,
    names.PRECISION,
    "repaired",
    "mark_gone",
    DAMAGE,
    "harm",
)
"""Numbers of a row of the table, in order; a row has those that are known."""
KEPT, BEFORE, AFTER = "kept.json", "before", "after"
_SIDE = 128


@dataclass(frozen=True)
class StudySamples:
    """The N samples of a study, the worst first where a score chose them; normal samples to hold them against; who chose either, in words;
    and the score that chose, if one did, with its values float64 (N,)."""

    latents: Latents
    chosen: str
    normal: Latents
    normal_chosen: str
    score: str | None = None
    scores: np.ndarray | None = None


@dataclass(frozen=True)
class AtStrength:
    """All samples corrected at one strength: whether the gate would let each pass now, bool (N,); how far each was ``moved``, float64 (N,),
    the mean absolute change of the image as a share of the range of its values; the first images, uint8 (height, width, channels); and what
    was measured of each, by name, (N, …). ``diversity`` is the spread of the corrected images over that of the untouched ones (root mean
    square distance from their mean): 1 where nothing is lost, near 0 where everything becomes one image."""

    strength: float
    passed: np.ndarray
    moved: np.ndarray
    diversity: float
    shown: list[np.ndarray] = field(repr=False)
    measured: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Outcome:
    """What a correction does to the samples at each strength, from the least to the most; the layers that it edits, and that corrected
    samples are judged on; and the early passes a sample that it costs to look at the sample first."""

    name: str
    correction: Correction
    edited: tuple[int, ...]
    judged: tuple[int, ...]
    look_passes: int
    at: tuple[AtStrength, ...]

    @cached_property
    def least(self) -> np.ndarray:
        """Index of the strength that least correction takes for each sample (N,), -1 where none passes."""
        passed = np.stack([one.passed for one in self.at])
        return np.where(passed.any(axis=0), passed.argmax(axis=0), -1)

    @property
    def passed_share(self) -> float:
        """Share of the samples that some strength repairs."""
        return float((self.least >= 0).mean())

    @property
    def moved(self) -> float:
        """How far least correction moves the samples that it repairs, on average; NaN if there are none."""
        rows = np.flatnonzero(self.least >= 0)
        moved = np.stack([one.moved for one in self.at])[self.least[rows], rows]
        return float(moved.mean()) if len(rows) else float("nan")

    @property
    def early_passes(self) -> float:
        """Early passes that least correction costs a sample, on average: one a strength that is tried, and the look."""
        return float(np.where(self.least >= 0, self.least + 1, len(self.at)).mean()) + self.look_passes

    @property
    def shown(self) -> list[np.ndarray]:
        """The first images as least correction leaves them; where no strength passes, at the strongest."""
        return [self.at[index].shown[row] for row, index in enumerate(self.least[: len(self.at[0].shown)].tolist())]

    def measured(self, untouched: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What was measured of every sample as least correction leaves it; where no strength passes, as it was (N, …)."""
        rows = np.arange(len(self.least))
        return {name: np.stack([*(one.measured[name] for one in self.at), was])[self.least, rows] for name, was in untouched.items()}


@dataclass(frozen=True)
class Reference:
    """What sets of images are held against: real images, or what stands in for them, under the extractor of this key. Numbers of one
    reference and one number of samples can be compared, no others."""

    extractor: str
    images: RealSet
    real: bool

    def __call__(self, features: np.ndarray) -> dict[str, float]:
        """FID, mean realism (where there is one) and precision of a set, by name, from the features (N, F) of its images."""
        of_set = torch.from_numpy(features).to(self.images.features.device)
        measured = MeasuredSet(len(of_set), of_set, real=self.images)
        no_copy = measured.copied == 0.0  # the others' score is as high as one likes
        return {
            names.FID: set_metric(names.FID).compute(measured.group(), None).value,
            names.PRECISION: float(measured.inside.mean()),
            **({names.REALISM: float(measured.realism[no_copy].mean())} if no_copy.any() and self.images.has_realism else {}),
        }

    def fid_note(self, features: np.ndarray) -> str | None:
        """What there is to say of the FID of a set of so many, from its features (N, F)."""
        of_set = torch.from_numpy(features).to(self.images.features.device)
        return set_metric(names.FID).compute(MeasuredSet(len(of_set), of_set, real=self.images).group(), Resampling()).note


@dataclass(frozen=True)
class Comparison:
    """What corrections do to some samples, and why some cannot be used; what was measured of the samples as they are, by name, (N, …), and
    the first of their images, uint8 (height, width, channels)."""

    outcomes: tuple[Outcome, ...]
    left_out: Mapping[str, str]
    untouched: Mapping[str, np.ndarray]
    shown: list[np.ndarray]


@dataclass(frozen=True)
class CorrectionsResult(Comparison):
    """What came out, with what images were held against (None without an extractor, or where there was nothing), the features of as many
    normal samples, float32 (N, F), and the mean distance that normal samples move, by correction and strength."""

    samples: StudySamples
    reference: Reference | None
    normal: np.ndarray | None
    harm: Mapping[tuple[str, float], float]

    @cached_property
    def fid_note(self) -> str | None:
        """By how much FID is too large at this number of samples, in words; None without FID."""
        if self.reference is None or FEATURES not in self.untouched:
            return None
        return self.reference.fid_note(self.untouched[FEATURES])

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The table: the samples as they were, normal ones, then every correction at every strength and as least correction. A row has
        ``correction``, ``method``, ``layers``, ``strength`` (null: least correction, or none) and those of `COLUMNS` that are known."""

        def row(name: str, numbers: Mapping[str, float], one: Outcome | None = None, strength: float | None = None) -> dict[str, Any]:
            known = {column: numbers[column] for column in COLUMNS if math.isfinite(numbers.get(column, math.nan))}
            method, layers = (one.correction.method, list(one.edited)) if one else (None, [])
            return {"correction": name, "method": method, "layers": layers, "strength": strength, **known}

        rows = [row(UNTOUCHED, self._of_set(self.untouched))]
        if self.reference is not None and self.normal is not None:
            rows.append(row(NORMAL, self.reference(self.normal)))
        for one in self.outcomes:
            for at in one.at:
                numbers = {"passed": float(at.passed.mean()), names.MOVED: float(at.moved.mean()), "diversity": at.diversity}
                harm = self.harm.get((one.name, at.strength), math.nan)
                rows.append(row(one.name, {**numbers, "harm": harm, **self._of_set(at.measured)}, one, at.strength))
            least = {"passed": one.passed_share, names.MOVED: one.moved, "early_passes": one.early_passes}
            rows.append(row(one.name, {**least, **self._of_set(one.measured(self.untouched))}, one))
        return rows

    def _of_set(self, measured: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = {} if self.reference is None else self.reference(measured[FEATURES])
        shares = {"repaired": LEFT, "mark_gone": MARK_LEFT}
        found |= {name: float((measured[of] < REPAIRED_BELOW).mean()) for name, of in shares.items() if of in measured}
        return found | ({DAMAGE: float(measured[DAMAGE].mean())} if DAMAGE in measured else {})

    def document(self) -> dict[str, Any]:
        """The study as plain data; what is not known is absent."""
        against = self.reference
        return {
            "samples": len(self.samples.latents),
            "chosen": self.samples.chosen,
            "score": self.samples.score,
            "against": against
            and {"name": against.images.name, "images": len(against.images.features), "real": against.real, "extractor": against.extractor},
            "corrections": [
                {
                    "name": one.name,
                    "settings": one.correction.model_dump(mode="json"),
                    "edited_layers": list(one.edited),
                    "judged_layers": list(one.judged),
                }
                for one in self.outcomes
            ],
            "rows": self.rows,
            "fid_note": self.fid_note,
            "left_out": dict(self.left_out),
        }


@dataclass(frozen=True)
class KeptImages:
    """Which images before and after a ``correction`` lie beside a study: ``ids`` of the samples, and those that would pass after it."""

    correction: str
    chosen: str
    ids: tuple[int, ...]
    passed: tuple[int, ...]


def write_study(
    folder: str | Path, made: CorrectionsResult, generator: Generator, profile: Profile, policy: Policy, show: int, keep: str | None
) -> None:
    """Write a study into a new folder, in one step, with ``show`` samples on the sheets. Of the correction to keep, the images before and
    after it are written too, for `qualitygate label --corrected`: after least correction; where no strength passes, after the strongest."""
    shown = min(show, len(made.shown))
    with storage.new_folder(folder) as place:
        _write_json(place / "corrections.json", made.document())
        storage.write_bytes(place / "table.md", _markdown(made.rows).encode())
        for name, figure in (("trade.png", correction_figure), ("strengths.png", strength_figure), ("layers.png", layer_figure)):
            if (png := figure(made.rows)) is not None:
                storage.write_bytes(place / name, png)
        with suppress(InputError):  # where no neuron is low-rate at this R
            layers, latents = detection_layers(policy, profile.info.chain), made.samples.latents[:shown]
            steps_sheet(generator, latents, made.shown[:shown], profile, policy.headline_rate, layers).save(place / "steps.png")
        if made.outcomes:
            storage.write_table(place / "corrections.parquet", _samples(made))
            _sheet(made, shown).save(place / "sheet.png")
        for outcome in (one for one in made.outcomes if one.name == keep):
            ids = tuple(made.samples.latents.ids.tolist())
            for where, images in ((BEFORE, made.shown), (AFTER, outcome.shown)):
                (place / where).mkdir()
                for sample, image in zip(ids, images, strict=True):
                    storage.write_bytes(place / where / storage.image_name(sample), storage.encode(image))
            passed = tuple(sample for sample, index in zip(ids, outcome.least.tolist(), strict=True) if index >= 0)
            _write_json(place / KEPT, vars(KeptImages(outcome.name, made.samples.chosen, ids, passed)))


def _markdown(rows: list[dict[str, Any]]) -> str:
    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3g}"

    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    lines = [("correction", "layers", "strength", *columns), ("---",) * (3 + len(columns))]
    for row in rows:
        strength = LEAST if row["strength"] is None and row["method"] else number(row["strength"])
        layers = ", ".join(map(str, row["layers"])) or "–"
        lines.append((row["correction"], layers, strength, *(number(row.get(column)) for column in columns)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def steps_sheet(
    generator: Generator, latents: Latents, untouched: Sequence[np.ndarray], profile: Profile, rate: float, layers: Sequence[int]
) -> Image.Image:
    """Sequential ablation step by step: where low-rate neurons fire in each layer before and after each step (IJCAI 2022, figure 4).
    The samples side by side; below each other the ``untouched`` image and its heat at every layer, then, after the ablation of the first
    layer, of the first two, …, the image and the heat at every layer that follows. Heat is scaled to the hottest place of its layer. Raises
    `InputError` if no layer has a low-rate neuron."""
    rows: dict[str, Sequence[np.ndarray]] = {}
    hottest: dict[int, float] = {}
    for done in range(len(layers) + 1):
        edits = low_rate_ablation(profile.rates, layers[:done], rate, generator.device) if done else None
        after = f"after layers {', '.join(map(str, layers[:done]))}" if done else "generated"
        rows[after] = render(generator, latents, edits) if done else untouched
        for layer in layers[done:]:
            heat = low_rate_heatmap(generator, latents, profile.rates, rate, [layer], edits).numpy()
            scale = hottest.setdefault(layer, max(float(heat.max()), 1e-6))
            below = [picture(image, _SIDE) for image in rows[after]]
            rows[f"{after}: heat of layer {layer}"] = [np.asarray(blend_heat(*both, scale)) for both in zip(below, heat, strict=True)]
    return comparison_sheet(
        list(map(str, latents.ids)),
        rows,
        f"Sequential ablation of low-rate neurons at R = {rate:g}, step by step",
        "Heat is the share of units whose low-rate neuron fires there, scaled to the hottest place of its layer before any step.",
        columns=len(latents),
        scale_to=_SIDE,
    )


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
