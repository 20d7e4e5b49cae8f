"""Every unit score of a checkpoint, side by side, from samples that are made once and shared; and the folder they are written to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from qualitygate import names, storage
from qualitygate.errors import InputError
from qualitygate.features.extractor import Extractor, SpatialExtractor, eight_bit, extract
from qualitygate.features.images import ImageSet
from qualitygate.gating.exhibit import made_again
from qualitygate.gating.profile import Profile
from qualitygate.generators.base import Discriminator, Generator, sample_latents
from qualitygate.generators.passes import Reporter, micro_batches, scored_pass
from qualitygate.latents import Latents
from qualitygate.reports.unit_sheets import UnitPictures, unit_sheet
from qualitygate.scores.local_activation import local_activation
from qualitygate.tracking.unit_study import COMPARISON, SHEETS, UNITS
from qualitygate.units.classifier import REAL, ArtifactClassifier, Classification, artifact_masks, train_classifier
from qualitygate.units.concepts import TOP, TopSamples, clusters, peaks, representative, top_samples, unit_heat
from qualitygate.units.contribution import contributions
from qualitygate.units.defective_score import defective_scores, unit_thresholds
from qualitygate.units.from_activations import curvature, low_rate_activity_of
from qualitygate.units.labels import ARTIFACT, NORMAL, Labels, pseudo_labels
from qualitygate.units.score import Agreement, UnitScores, compare, joined, save_unit_scores
from qualitygate.units.unit_frechet import unit_frechet


@dataclass(frozen=True)
class Sizes:
    """How much is spent.

    Attributes:
        samples: the calibration's samples that thresholds, FID units and top images are taken from; fewer where it has fewer.
        group: samples that stand in for artifacts, and for normal ones, where nobody has labelled.
        images: a unit's images whose FID is measured.
        curvature: artifacts with exact CLA, which is by far the dearest.
    """

    samples: int = 2000
    group: int = 200
    images: int = 100
    curvature: int = 16


@dataclass(frozen=True)
class UnitReport:
    """What came out.

    Attributes:
        scores: one for each source, then all of them joined.
        agreement: of each pair of sources at each layer.
        labels: which samples were taken for artifacts, and who said so.
        classification: how good the classifier behind the defective score is; None if that was not asked for.
        top: the units to look at, by layer, the most suspected first, by the joined ranking.
        clusters: number of the cluster of each of those, by join key: units of one cluster fire for the same artifacts.
    """

    scores: tuple[UnitScores, ...]
    agreement: tuple[Agreement, ...]
    labels: Labels
    classification: Classification | None
    top: Mapping[int, Sequence[int]]
    clusters: Mapping[str, int]


class UnitStudy:
    """What every source needs, each made when it is first asked for.

    Args:
        generator: the generator.
        profile: of this checkpoint; its scored samples are the ones that are looked at.
        labels: which samples are artifacts; by default the extremes of the calibration's by ``score`` stand in.
        seed: of the labelled samples; by default the calibration's.
        score: column of the calibration that chooses the stand-ins; by default the first rule's.
        extractor: features for FID and, where it has spatial ones, the classifier.
        discriminator: for contributions.
        real: real images: what FID is measured against, and the classifier's third class. Without them FID is measured against the
            generator's own images.
        sizes: how much is spent.
        reporter: shows progress.

    Raises:
        ProfileError: the profile is of another checkpoint.
        InputError: no such score, or not so many samples.
    """

    def __init__(
        self,
        generator: Generator,
        profile: Profile,
        labels: Labels | None = None,
        *,
        seed: int | None = None,
        score: str | None = None,
        extractor: Extractor | None = None,
        discriminator: Discriminator | None = None,
        real: ImageSet | None = None,
        sizes: Sizes | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        profile.check_generator(generator)
        self.generator, self.profile = generator, profile
        self.sizes, self.reporter = sizes or Sizes(), reporter or Reporter()
        self.labels = stand_ins(profile, self.sizes.group, score) if labels is None else labels
        self.seed = profile.info.calibration.seed if seed is None else seed
        self.layers = profile.info.layers
        self._extractor, self._discriminator, self._real = extractor, discriminator, real

    @cached_property
    def samples(self) -> Latents:
        """Samples as they come: the first of those that the calibration scored."""
        ids = scored_ids(self.profile)[: self.sizes.samples]
        return sample_latents(self.generator, ids, self.profile.info.calibration.seed, sampling=self.profile.info.sampling)

    def labelled(self, artifact: bool) -> Latents:
        """The samples with a label."""
        ids = self.labels.ids[self.labels.artifact == artifact]
        return sample_latents(self.generator, ids, self.seed, sampling=self.profile.info.sampling)

    def images(self, latents: Latents) -> Iterator[Tensor]:
        """Batches of images as they would be written, on the CPU."""
        for rows, batch in micro_batches(latents):
            with scored_pass():
                images = self.generator(batch)[: rows.stop - rows.start]
            yield eight_bit(images).cpu()

    @cached_property
    def classified(self) -> tuple[ArtifactClassifier, Classification]:
        """The classifier behind the masks."""
        backbone = self._features_of("the defective score")
        if not isinstance(backbone, SpatialExtractor):
            raise InputError(
                "Grad-CAM needs features that have a place in the image",
                backbone.key,
                "a spatial extractor, for example random-vgg16-128, or the discriminator",
            )
        groups = {ARTIFACT: self.labelled(True), NORMAL: self.labelled(False)}
        images: dict[str, Iterator[Tensor]] = {name: self.images(latents) for name, latents in groups.items()}
        count = sum(map(len, groups.values()))
        if self._real is not None:
            images[REAL] = _first(self._real, len(groups[NORMAL]))
            count += min(len(self._real), len(groups[NORMAL]))
        with self.reporter.phase("classifier", count) as progress:
            return train_classifier(backbone, images, progress=progress)

    @cached_property
    def masks(self) -> Tensor:
        """What is wrong in each artifact, float32 (N, height, width) in [0, 1]."""
        classifier, _ = self.classified
        artifacts = self.labelled(True)
        with self.reporter.phase("Grad-CAM", len(artifacts)) as progress:
            return artifact_masks(classifier, self.images(artifacts), progress)

    @cached_property
    def thresholds(self) -> dict[int, Tensor]:
        with self.reporter.phase("unit thresholds", len(self.samples)) as progress:
            return unit_thresholds(self.generator, self.samples, self.layers, progress=progress)

    @cached_property
    def top_images(self) -> dict[int, TopSamples]:
        """The samples that each unit is most active for."""
        count = min(self.sizes.images, len(self.samples))
        with self.reporter.phase("top images", len(self.samples)) as progress:
            return top_samples(self.generator, self.samples, self.layers, count, progress)

    def cla(self) -> UnitScores:
        artifacts = self.labelled(True)[: self.sizes.curvature]
        with self.reporter.phase("exact CLA", len(artifacts)) as progress:
            return curvature(local_activation(self.generator, artifacts, self.layers, progress=progress))

    def low_rate(self) -> UnitScores:
        artifacts, rate = self.labelled(True), self.profile.policy.headline_rate
        with self.reporter.phase("low-rate activity", len(artifacts)) as progress:
            return low_rate_activity_of(self.generator, artifacts, self.profile.rates, rate, progress=progress)

    def defective(self) -> UnitScores:
        masks, thresholds = self.masks, self.thresholds
        with self.reporter.phase("defective score", len(masks)) as progress:
            return defective_scores(self.generator, self.labelled(True), masks, thresholds, progress=progress).mean

    def frechet(self) -> UnitScores:
        extractor = self._features_of("FID of units")
        with self.reporter.phase("features", len(self.samples)) as progress:
            features = extract(extractor, self.images(self.samples), progress)
        if self._real is None:
            reference, against = features, "the generator's own samples"
        else:
            with self.reporter.phase("real images", len(self._real)) as progress:
                reference, against = extract(extractor, self._real, progress), self._real.name
        return unit_frechet(features, self.top_images, reference, extractor=extractor.key, against=against)

    def contribution(self) -> UnitScores:
        if self._discriminator is None:
            raise InputError(
                "Contributions need a discriminator",
                "a checkpoint without one",
                "one with a discriminator",
                "leave `contribution` out of --sources",
            )
        artifacts = self.labelled(True)
        with self.reporter.phase("contributions", len(artifacts)) as progress:
            return contributions(self.generator, self._discriminator, artifacts, self.layers, progress).mean

    def report(self, sources: Sequence[str] | None = None, top: int = 10) -> UnitReport:
        """Compute and compare.

        Args:
            sources: some of `SOURCES`; by default all that there is something to make from.
            top: units of each layer to look at.

        Raises:
            InputError: no such source, or one that there is nothing to make from; a classifier that is no better than chance.
        """
        chosen = self._available() if sources is None else tuple(sources)
        if not chosen or (unknown := sorted(set(chosen) - SOURCES.keys())):
            raise InputError("There is no such unit score", ", ".join(unknown) if chosen else "none", ", ".join(SOURCES))
        scores = [SOURCES[name](self) for name in chosen]
        ranking = joined(scores)
        units = {layer: ranking.top(top, layer).tolist() for layer in ranking.layers}
        return UnitReport(
            scores=(*scores, ranking),
            agreement=tuple(compare(scores)),
            labels=self.labels,
            classification=self.classified[1] if "defective" in chosen else None,
            top=units,
            clusters=self._clusters(units),
        )

    def _clusters(self, units: Mapping[int, Sequence[int]]) -> dict[str, int]:
        active = peaks(self.generator, self.labelled(True), units)
        keys = [names.unit_key(layer, unit) for layer in sorted(units) for unit in units[layer]]
        found = clusters(active) if len(active) > 1 else np.arange(len(keys))
        return dict(zip(keys, found.tolist(), strict=True))

    def _available(self) -> tuple[str, ...]:
        missing = set()
        if self._extractor is None:
            missing |= {"defective", "frechet"}
        if not isinstance(self._extractor, SpatialExtractor):
            missing.add("defective")
        if self._discriminator is None:
            missing.add("contribution")
        return tuple(name for name in SOURCES if name not in missing)

    def _features_of(self, what: str) -> Extractor:
        if self._extractor is None:
            raise InputError(f"{what[0].upper()}{what[1:]} needs features of images", "no extractor", "an extractor")
        return self._extractor


SOURCES: dict[str, Callable[[UnitStudy], UnitScores]] = {
    "cla": UnitStudy.cla,
    "low_rate": UnitStudy.low_rate,
    "defective": UnitStudy.defective,
    "frechet": UnitStudy.frechet,
    "contribution": UnitStudy.contribution,
}
"""Unit scores by the names that people ask for them."""


def scored_ids(profile: Profile) -> range:
    """Ids of the samples that the calibration scored, with the calibration's seed."""
    settings = profile.info.calibration
    return range(settings.rate_samples, settings.rate_samples + settings.score_samples)


def calibrated_score(profile: Profile, score: str | None = None) -> tuple[str, np.ndarray]:
    """Name and values of a score of the calibration's samples, by default the one of the profile's first rule.

    Raises:
        InputError: the profile has no such score.
    """
    name = score or profile.policy.rules[0].score
    columns = profile.columns(profile.policy)
    if name not in columns:
        raise InputError(f"The profile has no score {name}", f"scores {', '.join(sorted(columns))}", "one of them")
    return name, columns[name]


def stand_ins(profile: Profile, group: int, score: str | None = None) -> Labels:
    """Labels where nobody has labelled: the extremes of the calibration's samples. Raises as `calibrated_score` and `pseudo_labels`."""
    name, values = calibrated_score(profile, score)
    return pseudo_labels(np.array(scored_ids(profile)), values, group, name)


def describe(study: UnitStudy, report: UnitReport) -> dict[str, Any]:
    """What was found, and from what, as JSON values; NaN is None."""
    info = study.profile.info
    return {
        "checkpoint": info.checkpoint,
        "checkpoint_sha256": info.checkpoint_sha256,
        "family": info.family,
        "profile_id": info.profile_id,
        "labels": {
            "source": report.labels.source,
            "seed": study.seed,
            **report.labels.counts,
            "contradictions": list(report.labels.contradictions),
        },
        "classifier": report.classification and report.classification.describe(),
        "sources": {one.source: dict(one.settings) for one in report.scores},
        "agreement": [{name: _or_none(value) for name, value in vars(one).items()} for one in report.agreement],
        "top": {str(layer): list(units) for layer, units in report.top.items()},
        "clusters": dict(report.clusters),
    }


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value


def _first(images: ImageSet, count: int) -> Iterator[Tensor]:
    """The first ``count`` images of a set, in batches."""
    left = count
    for batch in islice(images, count):
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return


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
