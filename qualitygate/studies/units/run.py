"""Every unit score of a checkpoint, side by side, from samples that are made once and shared; and the folder they are written to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qualitygate import names, storage
from qualitygate.errors import InputError
from qualitygate.gating.exhibit import render
from qualitygate.gating.profile import Profile, load_profile
from qualitygate.generators.base import sample_latents
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents
from qualitygate.reports.sheets import UnitPictures, unit_sheet
from qualitygate.studies.units import UnitsRequest
from qualitygate.tracking.studies import COMPARISON, SHEETS, UNITS
from qualitygate.units.classifier import Classification
from qualitygate.units.concepts import TOP, clusters, peaks, representative, unit_heat
from qualitygate.units.labels import Labels, pseudo_labels, read_labels
from qualitygate.units.score import Agreement, UnitScores, compare, joined, save_unit_scores
from qualitygate.units.table import UNIT_SCORES, UnitInputs

SHOWN = 4
"""Top images of a unit on its sheet."""


@dataclass(frozen=True)
class UnitsResult:
    """What came out."""

    scores: tuple[UnitScores, ...]  # one for each source, then all of them joined
    agreement: tuple[Agreement, ...]
    labels: Labels
    label_seed: int
    classification: Classification | None  # how good the classifier behind the masks is, where a score asked for one
    top: Mapping[int, Sequence[int]]  # the units to look at, by layer, the most suspected first, by the joined ranking
    clusters: Mapping[str, int]  # of each of those, by join key: units of one cluster fire for the same artifacts
    profile: Profile

    def document(self) -> dict[str, Any]:
        """What was found, and from what, as JSON values; NaN is None."""
        info = self.profile.info
        return {
            "checkpoint": info.checkpoint,
            "checkpoint_sha256": info.checkpoint_sha256,
            "family": info.family,
            "profile_id": info.profile_id,
            "labels": {
                "source": self.labels.source,
                "seed": self.label_seed,
                **self.labels.counts,
                "contradictions": list(self.labels.contradictions),
            },
            "classifier": self.classification and self.classification.describe(),
            "sources": {one.source: dict(one.settings) for one in self.scores},
            "agreement": [{name: None if value != value else value for name, value in vars(one).items()} for one in self.agreement],
            "top": {str(layer): list(units) for layer, units in self.top.items()},
            "clusters": dict(self.clusters),
        }


def run(request: UnitsRequest, reporter: Reporter | None = None) -> UnitsResult:
    """Score the units of a checkpoint, and write ``units.parquet``, ``comparison.json`` and, for the top units of every layer,
    ``sheets/layer_N.png`` where ``out`` is given. A classifier of artifacts that is no better than chance is an `InputError`."""
    if request.out is not None:
        storage.refuse_existing(request.out)
    asked = [*UNIT_SCORES] if request.sources is None else request.sources.split(",")
    if unknown := sorted({*asked} - {*UNIT_SCORES}):
        raise InputError("There is no such unit score", ", ".join(unknown), ", ".join(UNIT_SCORES))
    chosen = [UNIT_SCORES[name] for name in asked]
    profile = load_profile(request.profile)
    generator, discriminator = request.load_both(reporter)
    profile.check_generator(generator)
    wants_features = any({"extractor", "backbone"} & {*one.needs} for one in chosen)
    labels = pseudo_labelled(profile, request.group, request.score) if request.labels is None else read_labels(request.labels)
    seed = profile.info.calibration.seed if request.label_seed is None else request.label_seed

    def latents(ids: Sequence[int] | np.ndarray, seed: int) -> Latents:
        return sample_latents(generator, ids, seed, sampling=profile.info.sampling)

    inputs = UnitInputs(
        generator,
        profile.rates,
        profile.policy.headline_rate,
        profile.info.layers,
        latents(scored_ids(profile)[: request.samples], profile.info.calibration.seed),
        latents(labels.ids[labels.artifact], seed),
        latents(labels.ids[~labels.artifact], seed),
        given_extractor=request.load_extractor(discriminator, generator.device) if wants_features else None,
        given_discriminator=discriminator,
        real=request.load_real(generator.image_shape[1]),
        unit_images=request.images,
        curvature=request.curvature,
        reporter=reporter or Reporter(),
    )
    if request.sources is None:
        chosen = [one for one in chosen if inputs.has(one.needs)]
    scores = [one.compute(inputs) for one in chosen]
    ranking = joined(scores)
    top = {layer: ranking.top(request.top, layer).tolist() for layer in ranking.layers}
    active = peaks(generator, inputs.artifacts, top)
    keys = [names.unit_key(layer, unit) for layer, units in top.items() for unit in units]
    found = clusters(active) if len(active) > 1 else np.arange(len(keys))
    result = UnitsResult(
        scores=(*scores, ranking),
        agreement=tuple(compare(scores)),
        labels=labels,
        label_seed=seed,
        classification=inputs.classification,
        top=top,
        clusters=dict(zip(keys, found.tolist(), strict=True)),
        profile=profile,
    )
    if request.out is not None:
        _write(request.out, inputs, result)
    return result


def scored_ids(profile: Profile) -> range:
    """Ids of the samples that the calibration scored, with the calibration's seed."""
    settings = profile.info.calibration
    return range(settings.rate_samples, settings.rate_samples + settings.score_samples)


def calibrated_score(profile: Profile, score: str | None = None) -> tuple[str, np.ndarray]:
    """Name and values of a score of the calibration's samples, by default the one of the profile's first rule."""
    name = score or profile.policy.rules[0].score
    columns = profile.columns(profile.policy)
    if name not in columns:
        raise InputError(f"The profile has no score {name}", f"scores {', '.join(sorted(columns))}", "one of them")
    return name, columns[name]


def pseudo_labelled(profile: Profile, group: int, score: str | None = None) -> Labels:
    """Labels where nobody has labelled: the extremes of the calibration's samples."""
    name, values = calibrated_score(profile, score)
    return pseudo_labels(np.array(scored_ids(profile)), values, group, name)


def _write(out: Path, inputs: UnitInputs, result: UnitsResult) -> None:
    generator, samples = inputs.generator, inputs.samples
    subtitle = (
        f"By the mean rank in the layer over {', '.join(one.source for one in result.scores[:-1])}. Labels: {result.labels.source}. "
        f"Top images of {len(samples):,} samples; units with one cluster number fire for the same artifacts."
    )
    with storage.new_folder(out) as folder:
        save_unit_scores(folder / UNITS, result.scores)
        storage.write_bytes(folder / COMPARISON, json.dumps(result.document(), indent=2, allow_nan=False).encode())
        (folder / SHEETS).mkdir()
        for layer, units in result.top.items():
            pictures = []
            for unit in units:
                rows, key = inputs.top_samples[layer].rows[unit].numpy(), names.unit_key(layer, unit)
                mean = representative(generator, samples[rows[:TOP]], layer).numpy()
                shown = samples[rows[:SHOWN]]
                heat = unit_heat(generator, shown, layer, unit).numpy()
                title = f"{key}, cluster {result.clusters[key]}"
                pictures.append(UnitPictures(title, storage.to_uint8(mean), render(generator, shown), list(heat)))
            title = f"Layer {layer}: the units to suspect first ({len(units)})"
            unit_sheet(pictures, title, subtitle).save(folder / SHEETS / f"layer_{layer}.png")
