"""Measure a checkpoint in groups."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qualitygate
from qualitygate import names, storage
from qualitygate.errors import InputError, LatentsError
from qualitygate.features import registry
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.features.images import ImageSet
from qualitygate.features.inception import InceptionExtractor
from qualitygate.gating.curvature import exact_curvature
from qualitygate.gating.profile import load_profile
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Discriminator, EditsOfRows, Generator
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents, Sampling
from qualitygate.metrics.measured_set import MeasuredSet, RealSet
from qualitygate.metrics.metric import Evaluator
from qualitygate.metrics.path_length import KINDS, PER_SAMPLE, path_lengths
from qualitygate.policy.scores import cla_layer
from qualitygate.records.gate import Verdict
from qualitygate.records.metrics import MOST_NAMED, GroupRow, Measurement, MetricsReport
from qualitygate.reports.study_figures import discriminator_figure, group_figure, precision_recall_figure
from qualitygate.studies.metrics import MetricsRequest
from qualitygate.studies.metrics.groups import RANDOM_GROUPS, extremes, group_row, group_size, group_table, histogram, orders, random_row
from qualitygate.studies.observation import CollectedSamples, SampleSource, joined

TRUNCATIONS = (0.3, 0.5, 0.7)
"""ψ of the papers' baseline."""
PATHS_OF_ALL = 5
"""Samples of the whole set whose paths are measured, in groups of the size to be compared: what chance is drawn from."""
REPORT, GROUPS, SAMPLES, FIGURES = "metrics.json", "groups.parquet", "samples.parquet", "figures"
_FIGURES = {"precision_recall": precision_recall_figure, "groups": group_figure, "discriminator": discriminator_figure}


@dataclass(frozen=True)
class MetricsInputs:
    """What a checkpoint is measured with; every part but the generator may be missing. Real images need an extractor; path lengths a
    distance; groups by scores and verdicts the gate."""

    generator: Generator
    discriminator: Discriminator | None = None
    extractor: Extractor | None = None
    distance: PerceptualDistance | None = None
    real: ImageSet | None = None
    stage: GateStage | None = None


@dataclass(frozen=True)
class MetricsResult:
    """The report, and the table of samples it is made of."""

    report: MetricsReport
    samples: dict[str, Any]

    def write(self, path: str | Path) -> None:
        """Write the folder, in one step: the report, its table as Parquet, the samples, figures. Errors as of `storage.new_folder`."""
        with storage.new_folder(path) as folder:
            storage.write_bytes(folder / REPORT, self.report.model_dump_json(indent=2).encode())
            storage.write_table(folder / GROUPS, group_table(self.report))
            storage.write_table(folder / SAMPLES, self.samples)
            (folder / FIGURES).mkdir()
            for name, draw in _FIGURES.items():
                if (picture := draw(self.report)) is not None:
                    storage.write_bytes(folder / FIGURES / f"{name}.png", picture)


def run(request: MetricsRequest, reporter: Reporter | None = None) -> MetricsResult:
    """Load what was asked for, measure it, and write the folder if there is to be one."""
    if request.out is not None:
        storage.refuse_existing(request.out)
    elif request.track:
        raise InputError("What is logged has to lie on disk first", "--track without --out", "both", "give --out FOLDER")
    if request.gated is not None:
        request = _as_gated(request, request.gated)
    if unknown := sorted(set(request.path) - KINDS.keys()):
        raise InputError("There are no such paths", ", ".join(unknown), f"some of {', '.join(KINDS)}")
    generator, discriminator = request.load_both(reporter)
    device, distance, stage = request.chosen_device, None, None
    # features are made only where there are real images, or where they are class probabilities
    features = request.real is not None or request.extractor == "inception"
    extractor = request.load_extractor(discriminator, device) if features else None
    if request.distance != "none":
        distance = registry.make_distance(request.distance, weights=request.distance_weights, device=device)
    real = request.load_real(generator.image_shape[1])
    if request.profile is not None:
        learned = load_profile(request.profile)
        stage = GateStage(generator, learned, request.load_policy() or learned.policy, seed=request.seed)
    result = measure(MetricsInputs(generator, discriminator, extractor, distance, real, stage), request, reporter)
    if request.out is not None:
        result.write(request.out)
    return result


def _as_gated(request: MetricsRequest, gated: Path) -> MetricsRequest:
    """With profile, policy, seed and number of samples of a gated set, so that the same samples are made and judged again."""
    from qualitygate.produce.records import POLICY, PROFILE, SAMPLES, read_samples

    if (other := request.profile or request.policy) is not None:
        raise InputError("A gated set has a profile and a policy of its own", f"{other} as well", "--gated alone")
    columns, provenance = read_samples(gated / SAMPLES)
    count = len(columns[names.ID])
    if provenance.seed is None or not np.array_equal(columns[names.ID], np.arange(count)):
        raise InputError(
            f"The samples of {gated} cannot be made again from a number",
            "other ids, or latents of your own",
            "ids 0 … N − 1 and a seed",
            "give --profile, --seed and --samples instead",
        )
    own = {"profile": gated / PROFILE, "policy": gated / POLICY, "seed": provenance.seed, "samples": count}
    return request.model_copy(update=own)


def measure(
    inputs: MetricsInputs, request: MetricsRequest, reporter: Reporter | None = None, *, truncations: tuple[float, ...] = TRUNCATIONS
) -> MetricsResult:
    """Measure a checkpoint that is loaded, as `run`; what the request says of files is not looked at. ``truncations``: ψ of the truncated
    groups."""
    return _Run(inputs, request, reporter or Reporter()).done(truncations)


class _Run:
    """One measurement, step by step."""

    def __init__(self, inputs: MetricsInputs, request: MetricsRequest, reporter: Reporter) -> None:
        self.inputs, self.request, self.reporter, self.generator = inputs, request, reporter, inputs.generator
        self.started = time.perf_counter()
        self.size = group_size(request.samples, request.group_share)
        self.path_size = min(request.path_samples, self.size)
        self.path_rows = np.arange(min(request.samples, PATHS_OF_ALL * self.path_size))
        """Rows whose paths stand for the whole set: the first ones, as ids are drawn at random anyway."""
        self.sampling = Sampling() if inputs.stage is None else inputs.stage.profile.info.sampling
        self.ranked_by = request.score or (None if inputs.stage is None else inputs.stage.policy.rules[0].score)
        self.left_out: list[str] = []
        self.real = None
        if inputs.real is None:
            self.left_out.append("everything that compares with real images: none were given")
        else:
            self.real = RealSet.of(inputs.real, inputs.extractor, self.generator.device, reporter)
        self.evaluator = Evaluator(
            None if self.real is None else self.real.key,
            None if inputs.distance is None else inputs.distance.key,
            path_samples=self.path_size,
            seed=request.seed,
        )
        # without real images, features are good for the inception score alone
        self.inception = inputs.extractor if isinstance(inputs.extractor, InceptionExtractor) else None
        extractor = self.inception if inputs.real is None else inputs.extractor
        self.source = SampleSource(self.generator, extractor, inputs.discriminator, request.seed, self.sampling, reporter, self.real)

    def done(self, truncations: tuple[float, ...]) -> MetricsResult:
        seen = self.source.collect(self.request.samples, self.inputs.stage)
        self.score = None if self.ranked_by is None else self._score(seen, self.ranked_by)
        chosen = {name: (what, rows) for name, what, rows in self._chosen(seen)}
        whole = self._with_paths(seen, [rows for _, rows in chosen.values()])
        first = self._row(names.ALL, "all samples", whole)
        first = first.model_copy(update={"measurements": first.measurements | self._of_the_whole(whole, seen.latents)})
        groups = [self._row(name, what, whole, rows) for name, (what, rows) in chosen.items()]
        groups += self._made_groups(seen, chosen.get(names.HIGHEST, (None, None))[1], truncations)
        with self.reporter.phase("random groups", RANDOM_GROUPS) as progress:
            chance = random_row(self.evaluator, whole, self.size, path_rows=self.path_rows, path_size=self.path_size, progress=progress)
        values = whole.discriminator
        by_group = {} if values is None else {names.ALL: values, **{name: values[rows] for name, (_, rows) in chosen.items()}}
        copies = seen.latents.ids[whole.copied > 0.0][:MOST_NAMED].tolist() if whole.has("real") else ()
        report = self._report([first, chance, *groups], by_group, tuple(copies), time.perf_counter() - self.started)
        return MetricsResult(report, self._samples(seen, whole))

    def _score(self, samples: CollectedSamples, score: str) -> np.ndarray:
        """The score of every sample that ranks them, float64 (N,): as the gate measured it, or exact CLA."""
        if score in samples.columns:
            return samples.columns[score]
        layer = cla_layer(score)
        if layer is None:
            known = ", ".join(samples.columns) or "none: there is no profile"
            raise InputError(
                f"There is no score {score}",
                f"scores {known}",
                "one of them, or cla/layer_N",
                "give --profile, calibrated with a policy that counts it",
            )
        layers = (self.generator.layer(layer).index,)
        with self.reporter.phase("exact CLA", len(samples.latents)) as progress:
            return exact_curvature(self.generator, samples.latents, layers, progress=progress)[score]

    def _chosen(self, seen: CollectedSamples) -> Iterator[tuple[str, str, np.ndarray]]:
        """Groups of untouched images: name, what they are, and rows."""
        if self.score is not None:
            lowest, highest = extremes(self.score, self.size)
            yield names.LOWEST, f"lowest {self.ranked_by}", lowest
            yield names.HIGHEST, f"highest {self.ranked_by}", highest
        if self.inputs.stage is not None:
            for name, verdict, what in (
                (names.ACCEPTED, Verdict.ACCEPT, "accepted"),
                (names.TO_CORRECT, Verdict.CORRECT, "corrected, before the correction"),
                (names.REJECTED, Verdict.REJECT, "rejected"),
            ):
                if len(rows := seen.rows(verdict)):
                    yield name, what, rows

    def _made_groups(self, seen: CollectedSamples, highest: np.ndarray | None, truncations: tuple[float, ...]) -> Iterator[GroupRow]:
        """Corrected and truncated images."""
        stage = self.inputs.stage
        if stage is not None and stage.corrector is not None and highest is not None:
            latents, strength = seen.latents[highest], stage.limits.strengths[-1]
            correction = stage.corrector.method(latents)
            what = f"highest, each corrected at strength {names.rate(strength)}"
            yield self._made(names.HIGHEST_CORRECTED, what, latents, lambda rows: correction.edits(strength, rows))
        if (corrected := seen.corrected) is not None and corrected.count:
            yield self._row(names.CORRECTED, "corrected, as kept", corrected)
            kept = joined((seen.untouched, seen.rows(Verdict.ACCEPT)), (corrected, np.arange(corrected.count)))
            yield self._row(names.KEPT, "accepted and corrected: what the gate lets out", kept)
        for psi in truncations:
            try:
                latents = self.source.latents(self.size, self.sampling.model_copy(update={"psi": psi}))
                yield self._made(names.truncated(psi), f"other samples, truncated at ψ = {psi:g}", latents)
            except LatentsError as error:
                self.left_out.append(f"truncation at {psi:g}: {error.what}")

    def _made(self, name: str, what: str, latents: Latents, edits: EditsOfRows | None = None) -> GroupRow:
        """A group of images that are made for it, with the path lengths of some."""
        made = self.source.regenerate(latents, name, edits)
        if self.inputs.distance is not None and self.path_size:
            made = replace(made, lengths=self._lengths(latents, np.arange(self.path_size), edits))
        return self._row(name, what, made)

    def _row(self, name: str, what: str, measured: MeasuredSet, rows: np.ndarray | None = None) -> GroupRow:
        with self.reporter.phase(f"numbers of {name}", 1) as progress:
            row = group_row(self.evaluator, name, what, measured, rows)
            progress(1)
        return row

    def _with_paths(self, seen: CollectedSamples, groups: list[np.ndarray]) -> MeasuredSet:
        """The whole set, the paths of some samples of each group measured."""
        if self.inputs.distance is None or not self.path_size:
            self.left_out.append("path lengths: " + ("no distance was given" if self.inputs.distance is None else "asked for none"))
            return seen.untouched
        chosen = np.unique(np.concatenate([self.path_rows, *(rows[: self.path_size] for rows in groups)]))
        return replace(seen.untouched, lengths=self._lengths(seen.latents, chosen))

    def _lengths(self, latents: Latents, rows: np.ndarray, edits: EditsOfRows | None = None, kind: str = "path lengths") -> torch.Tensor:
        """Lengths of the paths of all latents, float64 (N, paths), NaN but in these rows. Edits are asked for by rows of the latents."""
        distance, how = self.inputs.distance, KINDS.get(kind, PER_SAMPLE)
        assert distance is not None
        lengths = torch.full((len(latents), how.paths), torch.nan, dtype=torch.float64)
        own = None if edits is None else lambda places: edits(rows[places])
        with self.reporter.phase(kind, len(rows)) as progress:
            found = path_lengths(self.generator, latents[rows], distance, how, edits=own, progress=progress)
        lengths[torch.from_numpy(rows)] = found
        return lengths

    def _of_the_whole(self, whole: MeasuredSet, latents: Latents) -> dict[str, Measurement]:
        """What is measured of the whole set alone. Its path length is that of the rows that stand for it, not of the groups as well."""
        found: dict[str, Measurement] = {}
        if whole.lengths is not None:
            found[names.PPL] = self.evaluator.measurement(names.PPL, whole.group(self.path_rows))
        if self.request.fid_infinity and whole.has("real"):
            found[names.FID_INFINITY] = self.evaluator.measurement(names.FID_INFINITY, whole.group())
        if self.inception is not None and whole.features is not None:
            of_classes = replace(whole, classes=self.inception.probabilities(whole.features))
            evaluator = replace(self.evaluator, extractor=self.inception.key)
            found[names.INCEPTION_SCORE] = evaluator.measurement(names.INCEPTION_SCORE, of_classes.group())
        for name in self.request.path if self.inputs.distance is not None else ():
            lengths = self._lengths(latents, self.path_rows, kind=name)
            found[name] = self.evaluator.measurement(name, replace(whole, lengths=lengths).group(self.path_rows))
        return found

    def _report(self, rows: list[GroupRow], discriminator: dict[str, np.ndarray], copies: tuple[int, ...], seconds: float) -> MetricsReport:
        generator, stage = self.generator, self.inputs.stage
        origin = generator.identity()
        return MetricsReport(
            checkpoint=origin.name,
            checkpoint_sha256=origin.sha256,
            family=generator.family,
            precision=generator.precision,
            profile_id=None if stage is None else stage.profile.info.profile_id,
            policy_hash=None if stage is None else stage.policy.hash,
            package_version=qualitygate.__version__,
            torch_version=torch.__version__,
            device=str(generator.device),
            seed=self.request.seed,
            samples=self.request.samples,
            sampling=self.sampling.model_dump(mode="json"),
            score=self.ranked_by,
            group_share=self.request.group_share,
            extractor=self.evaluator.extractor,
            distance=self.evaluator.distance,
            real=None if self.real is None else self.real.info,
            groups=tuple(rows),
            order=orders(rows),
            histogram=histogram(discriminator),
            copies=copies,
            left_out=tuple(self.left_out),
            remarks=() if self.inputs.real is None else self.inputs.real.remarks(self.generator.image_shape[0]),
            seconds=seconds,
        )

    def _samples(self, seen: CollectedSamples, whole: MeasuredSet) -> dict[str, Any]:
        """The columns of ``samples.parquet``: one row a sample of the whole set; NaN where a path was not measured."""
        columns: dict[str, Any] = {names.ID: seen.latents.ids, names.SEED: [self.request.seed] * len(seen.latents)}
        if seen.latents.labels is not None:
            columns[names.LABEL] = seen.latents.labels.numpy()
        if seen.verdict is not None:
            columns[names.VERDICT] = [str(one) for one in seen.verdict]
        if self.ranked_by is not None:
            columns[self.ranked_by] = self.score
        if whole.has("real"):
            columns |= {names.PRECISION: whole.inside, names.DENSITY: whole.density, names.REALISM: whole.realism}
            columns |= {names.RARITY: whole.rarity, names.COPIES: whole.copied}
        if whole.lengths is not None:
            columns[names.PPL] = whole.lengths.mean(dim=1).numpy()
        if whole.discriminator is not None:
            columns[names.DISCRIMINATOR] = whole.discriminator
        return columns
