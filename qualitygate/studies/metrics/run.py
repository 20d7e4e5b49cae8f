"""Measure a checkpoint in groups: what `qualitygate metrics` does, without its files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qualitygate
from qualitygate import names, storage
from qualitygate.errors import LatentsError
from qualitygate.features.extractor import Extractor, PerceptualDistance
from qualitygate.features.images import ImageSet
from qualitygate.features.inception import InceptionExtractor
from qualitygate.gating.stage import GateStage
from qualitygate.generators.base import Discriminator, EditsOfRows, Generator
from qualitygate.generators.passes import Reporter
from qualitygate.latents import Latents, Sampling
from qualitygate.metrics.measured_set import Population, RealImages
from qualitygate.metrics.metric import Ruler, Subject, inception_measurement
from qualitygate.metrics.path_length import PER_SAMPLE, PathSettings, path_lengths
from qualitygate.records.gate import Verdict
from qualitygate.records.metrics import METRICS, GroupRow, Measurement, MetricsReport, RealInfo, metric
from qualitygate.reports.metric_figures import discriminator_figure, group_figure, trade_figure
from qualitygate.studies.metrics.groups import RANDOM_GROUPS, SHARE, Group, extremes, group_row, group_size, histogram, orders, random_row
from qualitygate.studies.observation import Observatory, Seen, joined, score_of

TRUNCATIONS = (0.3, 0.5, 0.7)
"""ψ of the papers' baseline."""
PATHS_OF_ALL = 5
"""Samples of the whole set whose paths are measured, in groups of the size to be compared: what chance is drawn from."""
PATH_KINDS = {
    names.PPL_Z_END: PathSettings("z", "end"),
    names.PPL_Z_FULL: PathSettings("z", "full"),
    names.PPL_W_END: PathSettings("w", "end"),
    names.PPL_W_FULL: PathSettings("w", "full"),
}


@dataclass(frozen=True)
class Tools:
    """What a checkpoint is measured with; every part but the generator may be missing.

    Attributes:
        generator: the generator.
        discriminator: stored beside it.
        extractor: makes features; needed for ``real``.
        distance: for path lengths.
        real: real images.
        stage: the gate: for groups by its scores and verdicts.
    """

    generator: Generator
    discriminator: Discriminator | None = None
    extractor: Extractor | None = None
    distance: PerceptualDistance | None = None
    real: ImageSet | None = None
    stage: GateStage | None = None


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        samples: images of the whole set.
        seed: of the samples.
        score: that ranks them; None for no lowest and highest group.
        share: of the samples in a group.
        path_samples: samples of each group whose paths are measured.
        truncations: ψ of the truncated groups.
        path_kinds: other path lengths of the whole set: keys of `PATH_KINDS`.
        extrapolate: FID of the whole set as its size goes to infinity.
        sampling: how latents are drawn where there is no gate.
    """

    samples: int = 5000
    seed: int = 1
    score: str | None = None
    share: float = SHARE
    path_samples: int = 100
    truncations: tuple[float, ...] = TRUNCATIONS
    path_kinds: tuple[str, ...] = ()
    extrapolate: bool = False
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Measured:
    """The report, and the table of samples it is made of."""

    report: MetricsReport
    samples: dict[str, Any]


def measure(tools: Tools, request: Request, reporter: Reporter | None = None) -> Measured:
    """Measure a checkpoint.

    Raises:
        InputError: groups without samples, a score that there is not, real images that cannot be read.
    """
    return _Run(tools, request, reporter or Reporter()).done()


class _Run:
    """One measurement, step by step."""

    def __init__(self, tools: Tools, request: Request, reporter: Reporter) -> None:
        self.tools, self.request, self.reporter = tools, request, reporter
        self.size = group_size(request.samples, request.share)
        self.sampling = tools.stage.profile.info.sampling if tools.stage is not None else request.sampling
        self.left_out: list[str] = []

    def done(self) -> Measured:
        started = time.perf_counter()
        tools, request = self.tools, self.request
        # without real images, features are good for the inception score alone
        inception = tools.extractor if isinstance(tools.extractor, InceptionExtractor) else None
        extractor = inception if tools.real is None else tools.extractor
        self.place = Observatory(
            tools.generator, extractor, tools.discriminator, seed=request.seed, sampling=self.sampling, reporter=self.reporter
        )
        self.ruler = self._ruler()
        self.seen = self.place.look(request.samples, tools.stage)
        self.score = None if request.score is None else score_of(self.seen, tools.generator, request.score, self.reporter)
        untouched = dict(self._untouched_groups())
        self.path_rows = self._path_rows(untouched)
        self.seen = self._with_paths(self.seen, untouched)
        whole = self.ruler.subject(self.seen.untouched)
        rows = self._rows(whole, untouched)
        return Measured(self._report(rows, whole, untouched, time.perf_counter() - started), self._samples(whole))

    # what there is to measure

    def _untouched_groups(self) -> Iterator[tuple[str, tuple[str, np.ndarray]]]:
        """Groups of untouched images: name to what they are, and rows."""
        yield names.ALL, ("all samples", np.arange(self.request.samples))
        if self.score is not None:
            lowest, highest = extremes(self.score, self.size)
            yield names.LOWEST, (f"lowest {self.request.score}", lowest)
            yield names.HIGHEST, (f"highest {self.request.score}", highest)
        if self.tools.stage is not None:
            verdicts = {names.ACCEPTED: Verdict.ACCEPT, names.TO_CORRECT: Verdict.CORRECT, names.REJECTED: Verdict.REJECT}
            words = {names.TO_CORRECT: "corrected, before the correction"}
            for name, verdict in verdicts.items():
                if len(rows := self.seen.rows(verdict)):
                    yield name, (words.get(name, name), rows)

    def _rows(self, whole: Subject, untouched: dict[str, tuple[str, np.ndarray]]) -> list[GroupRow]:
        """The table: groups of untouched images, chance, and images that are not as the generator makes them."""
        groups = [Group(name, what, whole, rows) for name, (what, rows) in untouched.items()]
        groups += self._other_groups(untouched)
        rows = []
        with self.reporter.phase("groups", len(groups) + RANDOM_GROUPS) as progress:
            for group in groups:
                rows.append(group_row(self.ruler, group))
                progress(1)
            chance = random_row(self.ruler, whole, self.size, path_rows=self.path_rows, path_size=self._path_size(), progress=progress)
        rows[0] = rows[0].model_copy(update={"measurements": rows[0].measurements | self._of_the_whole(whole)})
        return [rows[0], chance, *rows[1:]]

    def _other_groups(self, untouched: dict[str, tuple[str, np.ndarray]]) -> Iterator[Group]:
        """Corrected and truncated images."""
        stage = self.tools.stage
        if stage is not None and stage.correcting is not None and names.HIGHEST in untouched:
            latents, strength = self.seen.latents[untouched[names.HIGHEST][1]], stage.limits.strengths[-1]
            correction = stage.correcting.method(latents)
            what = f"highest, each corrected at strength {names.rate(strength)}"
            yield self._made_group(names.HIGHEST_CORRECTED, what, latents, lambda rows: correction.edits(strength, rows))
        corrected = self.seen.corrected
        if corrected is not None and corrected.count:
            yield self._whole_group(names.CORRECTED, "corrected, as kept", corrected)
            accepted = self.seen.rows(Verdict.ACCEPT)
            kept = joined(iter([(self.seen.untouched, accepted), (corrected, np.arange(corrected.count))]))
            yield self._whole_group(names.KEPT, "accepted and corrected: what the gate lets out", kept)
        for psi in self.request.truncations:
            try:
                latents = self.place.latents(self.size, self.sampling.model_copy(update={"psi": psi}))
                yield self._made_group(names.truncated(psi), f"other samples, truncated at ψ = {psi:g}", latents)
            except LatentsError as error:
                self.left_out.append(f"truncation at {psi:g}: {error.what}")

    def _made_group(self, name: str, what: str, latents: Latents, edits: EditsOfRows | None = None) -> Group:
        """A group of images that are made for it, with the path lengths of some."""
        made = self.place.again(latents, name, edits)
        if self.tools.distance is not None and self._path_size():
            lengths = self._path_lengths(latents, np.arange(self._path_size()), edits)
            made = replace(made, lengths=lengths)
        return self._whole_group(name, what, made)

    def _whole_group(self, name: str, what: str, population: Population) -> Group:
        return Group(name, what, self.ruler.subject(population), np.arange(population.count))

    # what it is measured with

    def _ruler(self) -> Ruler:
        tools = self.tools
        distance = tools.distance.key if tools.distance is not None else None
        self.real: RealInfo | None = None
        if tools.real is None:
            self.left_out.append("everything that compares with real images: none were given")
            return Ruler(distance=distance, path_samples=self._path_size(), seed=self.request.seed)
        real = RealImages.of(tools.real, tools.extractor, tools.generator.device, self.reporter)
        self.real = real.info
        return Ruler(real.reference, real.key, distance, path_samples=self._path_size(), seed=self.request.seed)

    # path lengths

    def _path_size(self) -> int:
        return min(self.request.path_samples, self.size)

    def _path_rows(self, untouched: dict[str, tuple[str, np.ndarray]]) -> np.ndarray:
        """Rows that stand for the whole set: the first ones, as ids are drawn at random anyway."""
        return untouched[names.ALL][1][: PATHS_OF_ALL * self._path_size()]

    def _with_paths(self, seen: Seen, untouched: dict[str, tuple[str, np.ndarray]]) -> Seen:
        """The same samples, the paths of some of each group measured."""
        distance, size = self.tools.distance, self._path_size()
        if distance is None or not size:
            self.left_out.append("path lengths: " + ("no distance was given" if distance is None else "asked for none"))
            return seen
        others = [rows[:size] for name, (_, rows) in untouched.items() if name != names.ALL]
        chosen = np.unique(np.concatenate([self.path_rows, *others]))
        return replace(seen, untouched=replace(seen.untouched, lengths=self._path_lengths(seen.latents, chosen)))

    def _path_lengths(self, latents: Latents, rows: np.ndarray, edits: EditsOfRows | None = None) -> torch.Tensor:
        """Lengths of the paths of all latents, NaN but in these rows. Edits are asked for by rows of the latents."""
        assert self.tools.distance is not None
        lengths = torch.full((len(latents), PER_SAMPLE.paths), torch.nan, dtype=torch.float64)
        own = None if edits is None else lambda places: edits(rows[places])
        with self.reporter.phase("path lengths", len(rows)) as progress:
            measured = path_lengths(self.tools.generator, latents[rows], self.tools.distance, edits=own, progress=progress)
        lengths[torch.from_numpy(rows)] = measured
        return lengths

    def _of_the_whole(self, whole: Subject) -> dict[str, Measurement]:
        """What is measured of the whole set alone. Its path length is that of the rows that stand for it, not of the groups as well."""
        found: dict[str, Measurement] = {}
        if whole.population.lengths is not None:
            found[names.PPL] = self.ruler.path_length(whole.population.lengths[self.path_rows])
        if self.request.extrapolate and whole.population.features is not None:
            found[names.FID_INFINITY] = self.ruler.extrapolated_fid(whole.population.features)
        if isinstance(self.tools.extractor, InceptionExtractor) and whole.population.features is not None:
            probabilities = self.tools.extractor.probabilities(whole.population.features)
            found[names.INCEPTION_SCORE] = inception_measurement(probabilities, self.tools.extractor.key)
        if self.tools.distance is not None:
            for name in self.request.path_kinds:
                settings = PATH_KINDS[name]
                with self.reporter.phase(name, len(self.path_rows)) as progress:
                    lengths = path_lengths(
                        self.tools.generator, self.seen.latents[self.path_rows], self.tools.distance, settings, progress=progress
                    )
                found[name] = replace(self.ruler, paths=settings).path_length(lengths, name)
        return found

    # what comes out

    def _report(self, rows: list[GroupRow], whole: Subject, untouched: dict[str, tuple[str, np.ndarray]], seconds: float) -> MetricsReport:
        tools, stage, origin = self.tools, self.tools.stage, self.tools.generator.identity()
        values = whole.population.discriminator
        by_group = {} if values is None else {name: values[chosen] for name, (_, chosen) in untouched.items()}
        return MetricsReport(
            checkpoint=origin.name,
            checkpoint_sha256=origin.sha256,
            family=tools.generator.family,
            profile_id=None if stage is None else stage.profile.info.profile_id,
            policy_hash=None if stage is None else stage.policy.hash,
            package_version=qualitygate.__version__,
            torch_version=torch.__version__,
            device=str(tools.generator.device),
            seed=self.request.seed,
            samples=self.request.samples,
            sampling=self.sampling.model_dump(mode="json"),
            score=self.request.score,
            group_share=self.request.share,
            extractor=self.ruler.extractor,
            distance=self.ruler.distance,
            real=self.real,
            groups=tuple(rows),
            order=orders(rows),
            histogram=histogram(by_group),
            left_out=tuple(self.left_out),
            seconds=seconds,
        )

    def _samples(self, whole: Subject) -> dict[str, Any]:
        """The columns of ``samples.parquet``: one row a sample of the whole set; NaN where a path was not measured."""
        seen, population, standing = self.seen, whole.population, whole.standing
        columns: dict[str, Any] = {names.ID: seen.latents.ids, names.SEED: [self.request.seed] * len(seen.latents)}
        if seen.latents.labels is not None:
            columns[names.LABEL] = seen.latents.labels.numpy()
        if seen.verdict is not None:
            columns[names.VERDICT] = [str(one) for one in seen.verdict]
        if self.request.score is not None:
            columns[self.request.score] = self.score
        if standing is not None:
            columns |= {names.PRECISION: standing.inside, names.DENSITY: standing.density, names.REALISM: standing.realism}
        if population.lengths is not None:
            columns[names.PPL] = population.lengths.mean(dim=1).numpy()
        if population.discriminator is not None:
            columns[names.DISCRIMINATOR] = population.discriminator
        return columns


REPORT, GROUPS, SAMPLES, FIGURES = "metrics.json", "groups.parquet", "samples.parquet", "figures"


def write_metrics(path: str | Path, measured: Measured) -> None:
    """Write the folder, in one step.

    Raises:
        OutputError: something else is there already.
        StorageError: it cannot be written.
    """
    report = measured.report
    with storage.new_folder(path) as folder:
        storage.write_bytes(folder / REPORT, report.model_dump_json(indent=2).encode())
        storage.write_table(folder / GROUPS, group_table(report))
        storage.write_table(folder / SAMPLES, measured.samples)
        (folder / FIGURES).mkdir()
        for name, draw in (("precision_recall", trade_figure), ("groups", group_figure), ("discriminator", discriminator_figure)):
            if (picture := draw(report)) is not None:
                storage.write_bytes(folder / FIGURES / f"{name}.png", picture)


def group_table(report: MetricsReport) -> dict[str, list[Any]]:
    """One row a group and metric: everything that is known of the number."""
    rows = [
        {
            "group": row.group,
            "metric": name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "spread": row.spread.get(name),
            "higher_is_better": metric(name).higher_is_better,
            "samples": one.samples,
            "real_samples": one.real_samples,
            "extractor": one.extractor,
            "note": one.note,
        }
        for row in report.groups
        for name, one in row.measurements.items()
    ]
    columns = list(rows[0]) if rows else ["group", "metric", "value"]
    return {column: [row[column] for row in rows] for column in columns}


def shown_metrics(report: MetricsReport) -> list[str]:
    """Metrics that some group has, in the order of the table of metrics."""
    return [name for name in METRICS if any(name in row.measurements for row in report.groups)]
