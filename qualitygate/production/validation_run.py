"""Whether a checkpoint's scores mean anything, by whatever evidence there is: what `qualitygate validate` does, without its files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

import qualitygate
from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.features.cache import real_features
from qualitygate.features.extractor import Extractor
from qualitygate.features.images import ImageSet
from qualitygate.gating.calibrate import calibrate
from qualitygate.gating.class_rates import class_counts, class_rates
from qualitygate.gating.profile import Profile, detection_layers
from qualitygate.gating.validated import setting_of
from qualitygate.generators.base import Discriminator, Generator
from qualitygate.generators.execution import Reporter, sample_latents
from qualitygate.latents import Latents
from qualitygate.metrics.evidence import Estimate, Evidence, Finding, Kind, Setting, Sight
from qualitygate.metrics.groups import extremes, group_size, random_groups
from qualitygate.metrics.intervals import bootstrap_mean
from qualitygate.metrics.measures import Ruler
from qualitygate.metrics.population import Population
from qualitygate.metrics.real_set import RealSet
from qualitygate.metrics.report import Group, RealInfo, group_row, orders, random_row
from qualitygate.metrics.validation_report import ScoreGroups, ScoreYield, ValidationReport, YieldPoint
from qualitygate.policy.model import Calibration, Detection, Policy, Rule
from qualitygate.policy.parts import Limit
from qualitygate.production.observation import Observatory, joined
from qualitygate.production.validation_findings import (
    SHARES,
    Judged,
    best_of,
    finding,
    fitted_risk,
    fragment,
    rejected_share,
    reporting,
    strongest,
)
from qualitygate.production.validation_scores import Scored, count_settings, score_table
from qualitygate.records import Verdict
from qualitygate.testing.planted import Defect, plant
from qualitygate.units.labels import Labels

PLANTED_SHARE = 0.05
"""Share of the samples that the planted defect shows in."""
_PLANTED_RATES = 5000  # samples for the activation rates of the planted generator
_CHANCE = 5  # random sets that a point of the yield is compared with
_BLOCK = 2**24  # distances held at once


@dataclass(frozen=True)
class Tools:
    """What a checkpoint is validated with.

    Attributes:
        generator: the generator.
        profile: what calibration learned of it.
        discriminator: stored beside it; weak evidence.
        extractor: makes features; needed for ``real``.
        real: real images.
        real_classes: class of each of them, int64 (M,).
        labels: what people said of samples.
        label_seed: seed of those samples; by default the calibration's, as of `qualitygate label`.
    """

    generator: Generator
    profile: Profile
    discriminator: Discriminator | None = None
    extractor: Extractor | None = None
    real: ImageSet | None = None
    real_classes: np.ndarray | None = None
    labels: Labels | None = None
    label_seed: int | None = None


@dataclass(frozen=True)
class Request:
    """How much of it.

    Attributes:
        samples: images to make; half of them choose, half are reported on.
        seed: of them; not the calibration's.
        curvature: of them, how many get exact CLA.
        class_samples: other images, for the activation rates of each class.
        planted: plant a defect: None where there is neither a label nor a real image.
    """

    samples: int = 2000
    seed: int = 1
    curvature: int = 200
    class_samples: int = 2000
    planted: bool | None = None


def validate(tools: Tools, request: Request, reporter: Reporter | None = None) -> ValidationReport:
    """Hold every score against every kind of evidence there is.

    Raises:
        InputError: no evidence, or too little of it; the calibration's seed.
        ProfileError: the profile is of another checkpoint.
    """
    return _Run(tools, request, reporter or Reporter()).report()


class _Run:
    """One validation, step by step."""

    def __init__(self, tools: Tools, request: Request, reporter: Reporter) -> None:
        tools.profile.check_generator(tools.generator)
        tools.profile.check_seed(request.seed)
        if tools.real is not None and tools.extractor is None:
            raise InputError("Real images need a feature extractor", "none", "an extractor", "give --extractor")
        self.tools, self.request, self.reporter = tools, request, reporter
        self.profile, self.generator = tools.profile, tools.generator
        self.remarks: list[str] = []
        self.real_info: RealInfo | None = None

    def report(self) -> ValidationReport:
        started, seed = time.perf_counter(), self.request.seed
        self._look()
        judged = self._enough(list(self._evidence()))
        main = strongest(judged)
        findings = [one for each in judged for one in each.findings(seed)]
        best, by_class = best_of(findings, main.kind), best_of(findings, main.kind, by_class=True)
        joined_risk = fitted_risk(self.profile, main)
        fitted = None if joined_risk is None else finding(*joined_risk, main, seed)
        findings += [fitted] if fitted is not None else []
        usable = next((one for one in (best, fitted) if one is not None and one.sight is not Sight.BLIND), None)
        advice = None if usable is None else self._advice(usable, fitted, main, joined_risk)
        self._say(main, best, by_class, usable)
        evidence = Evidence(
            profile_id=self.profile.info.profile_id,
            package_version=qualitygate.__version__,
            seed=seed,
            sources=tuple(one.source for one in judged),
            findings=tuple(findings),
            recommended=advice,
        )
        own = evidence.of(setting_of(self.profile, self.profile.policy, self.profile.policy.rules[0].score))
        shown = list({str(one.setting): one.setting for one in (best, own) if one is not None}.values())
        seen = next((one for one in judged if one.table is self.table), main)  # the samples whose images were looked at
        origin, extractor = self.generator.identity(), self.ruler.extractor
        return ValidationReport(
            checkpoint=origin.name,
            checkpoint_sha256=origin.sha256,
            samples=self.request.samples,
            extractor=extractor,
            real=self.real_info,
            evidence=evidence,
            best=best,
            fitted=fitted,
            by_class=by_class,
            policy=own,
            groups=tuple(self._groups(shown)),
            yields=tuple(self._yield(setting, seen) for setting in shown if seen.table.has(setting)),
            remarks=tuple(self.remarks),
            seconds=time.perf_counter() - started,
        )

    # what there is to look at

    def _look(self) -> None:
        """Make the samples, their scores, and what their images show."""
        tools, request = self.tools, self.request
        info = self.profile.info
        self.place = Observatory(self.generator, tools.extractor if tools.real is not None else None, tools.discriminator,
                                 seed=request.seed, sampling=info.sampling, reporter=self.reporter)  # fmt: skip
        self.ruler = self._ruler()
        self.latents = self.place.latents(request.samples)
        self.table = score_table(self.generator, self.profile, self.latents, request.curvature, self.reporter)
        looks = tools.real is not None or tools.discriminator is not None
        population = self.place.again(self.latents, "images") if looks else Population(request.samples)
        self.subject = self.ruler.subject(population)
        self.classes = self._classes(self.latents, population)
        self.by_class = self._by_class() if self.classes is not None else ()

    def _ruler(self) -> Ruler:
        tools = self.tools
        if tools.real is None or tools.extractor is None:
            return Ruler(seed=self.request.seed)
        with self.reporter.phase("real images", len(tools.real)) as progress:
            features = torch.from_numpy(real_features(tools.extractor, tools.real, progress))
        images = tools.real
        self.real_info = RealInfo(
            name=images.name, digest=images.sha256, samples=len(images), preparation=images.preparation
        )
        real = RealSet(images.name, images.sha256, features.to(self.generator.device))
        key = f"{tools.extractor.key}; real images: {images.preparation}"
        return Ruler(real, key, seed=self.request.seed)

    def _classes(self, latents: Latents, population: Population) -> np.ndarray | None:
        """Class of each sample: its label, else that of the real image it is nearest to; None where there are no classes."""
        if latents.labels is not None:
            return latents.labels.numpy() if latents.labels.ndim == 1 else None
        if self.tools.real_classes is None or self.ruler.real is None or population.features is None:
            return None
        places = _nearest_rows(population.features, self.ruler.real.features)
        return self.tools.real_classes[places]

    def _by_class(self) -> tuple[Scored, ...]:
        """Low-rate counts against the rates of each sample's class, estimated on other samples: those of the calibration."""
        info, calibration = self.profile.info, self.profile.info.calibration
        ids = range(min(self.request.class_samples, calibration.rate_samples))
        latents = sample_latents(self.generator, ids, calibration.seed, sampling=info.sampling)
        population = Population(len(latents)) if latents.labels is not None else self.place.again(latents, "images of classes")  # fmt: skip
        classes = self._classes(latents, population)
        assert classes is not None
        assert self.classes is not None
        layers = info.layers
        with self.reporter.phase("rates by class", len(latents)) as progress:
            rates = class_rates(self.generator, latents, classes, layers, progress)
        columns = class_counts(self.generator, self.latents, self.classes, rates, info.rates, layers)
        sizes = np.bincount(classes)
        self.remarks.append(
            f"rates by class: {(sizes > 0).sum()} classes of {sizes[sizes > 0].min():,} to {sizes.max():,} samples"
        )
        detection = detection_layers(self.profile.policy, info.chain)
        settings = count_settings(columns, info.rates, layers, detection)
        return tuple((one.model_copy(update={"by_class": True}), values) for one, values in settings)

    # evidence

    def _evidence(self) -> Iterator[Judged]:
        if self.tools.labels is not None:
            yield self._labelled(self.tools.labels)
        if (standing := self.subject.standing) is not None:
            against = f"against {self.real_info.samples:,} of {self.real_info.name}" if self.real_info else ""
            yield Judged.by_quality(Kind.REALISM, f"the quarter of the samples with the lowest realism score {against}",
                                    standing.realism, self.table, self.by_class)  # fmt: skip
            inside = standing.inside
            yield Judged(Kind.PRECISION, f"samples outside of the real images' neighbourhoods {against}", 1.0 - inside, inside < 0.5,
                         self.table, self.by_class)  # fmt: skip
        wanted = self.request.planted
        if wanted or (wanted is None and self.tools.labels is None and self.tools.real is None):
            yield self._planted()
        if (values := self.subject.population.discriminator) is not None:
            yield Judged.by_quality(Kind.DISCRIMINATOR, "the quarter of the samples that the discriminator likes least (weak evidence)",
                                    values, self.table, self.by_class)  # fmt: skip

    def _enough(self, judged: list[Judged]) -> list[Judged]:
        kept = [one for one in judged if one.enough]
        self.remarks += [f"too few samples of one kind: {one.what} ({one.source.bad:,} of {one.source.samples:,} bad)"
                         for one in judged if not one.enough]  # fmt: skip
        if not kept:
            raise InputError("There is no evidence to hold the scores against", "; ".join(self.remarks) or "none was given",
                             "labels, real images, a discriminator or a planted defect, with bad and good samples in both halves",
                             "give --labels or --real, or more --samples")  # fmt: skip
        return kept

    def _labelled(self, labels: Labels) -> Judged:
        seed = self.profile.info.calibration.seed if self.tools.label_seed is None else self.tools.label_seed
        latents = sample_latents(self.generator, labels.ids, seed, sampling=self.profile.info.sampling)
        table = score_table(self.generator, self.profile, latents, self.request.curvature, self.reporter)
        self.remarks.append(
            "labels: if the labelled samples were chosen by a score, that score's numbers are those of the chosen ones"
        )
        return Judged(Kind.LABELS, f"samples called artifacts in {labels.source}", labels.artifact.astype(np.float64), labels.artifact,
                      table)  # fmt: skip

    def _planted(self) -> Judged:
        """The same samples of the same generator with a defect in it, calibrated anew."""
        info, policy = self.profile.info, self.profile.policy
        layers = detection_layers(policy, info.chain)
        defect = Defect(layer=layers[len(layers) // 2], units=2, share=PLANTED_SHARE, edge="soft")
        planted = plant(self.generator, defect, self.request.seed)
        calibration = Calibration(
            rate_samples=min(_PLANTED_RATES, info.calibration.rate_samples),
            score_samples=500,
            seed=info.calibration.seed,
        )
        rule = Rule(id="any", score=names.never_seen(), limit=Limit(quantile=0.9), action=Verdict.REJECT)
        detection = Detection(layers=info.layers, rates=info.rates)
        small = Policy(detection=detection, calibration=calibration, correction=None, rules=(rule,))
        learned = calibrate(planted.generator, small, sampling=info.sampling, reporter=self.reporter)
        learned = replace(learned, policy=policy)
        table = score_table(planted.generator, learned, self.latents, 0, self.reporter)
        level = planted.truth.level(self.latents).double().numpy()
        what = (
            f"a defect of {defect.units} units from layer {defect.layer}, planted into {PLANTED_SHARE:.0%} of the samples: it shows "
            "what a score can find, not what is wrong here"
        )
        return Judged(Kind.PLANTED, what, level, planted.truth.defective(self.latents).numpy(), table)

    # what follows

    def _advice(self, usable: Finding, fitted: Finding | None, main: Judged, joined_risk: Scored | None) -> str:
        if usable.setting.fitted:
            assert joined_risk is not None
            values = joined_risk[1]
        else:
            values = main.table.of(usable.setting)
        return fragment(self.profile.policy, usable, fitted, rejected_share(values, main))

    def _say(self, main: Judged, best: Finding | None, by_class: Finding | None, usable: Finding | None) -> None:
        """The answer in words."""
        if best is None:
            self.remarks.insert(0, "too few samples have a score and evidence: more --samples")
            return
        if main.kind.weak:
            self.remarks.insert(0, f"the only evidence is weak ({main.what}): whether the scores see this checkpoint's own faults is "
                                   "not known; label some samples, or give real images")  # fmt: skip
        if usable is None:
            self.remarks.insert(
                0,
                f"THE SCORES ARE BLIND HERE: the best on one half is no better than chance on the other: {best}",
            )
        else:
            self.remarks.insert(0, str(usable))
        if by_class is not None:
            self.remarks.append(f"against rates by class: {by_class}; against rates over all: {best}")

    def _groups(self, settings: list[Setting]) -> Iterator[ScoreGroups]:
        """The papers' table, on the half that is reported on."""
        if self.subject.standing is None and self.subject.population.discriminator is None:
            return
        rows = reporting(self.request.samples)
        part = joined(iter([(self.subject.population, rows)]))
        subject, size = self.ruler.subject(part), group_size(len(rows))
        everything = np.arange(len(rows))
        chance = random_row(self.ruler, subject, size, path_rows=everything, path_size=0)
        whole = group_row(self.ruler, Group(names.ALL, "all samples that are reported on", subject, everything))
        for setting in settings:
            values = self.table.of(setting)[rows]
            known = np.flatnonzero(~np.isnan(values))
            if len(known) < 2 * size:
                continue
            lowest, highest = (known[found] for found in extremes(values[known], size))
            ends = [group_row(self.ruler, Group(name, f"{name} {setting}", subject, found))
                    for name, found in ((names.LOWEST, lowest), (names.HIGHEST, highest))]  # fmt: skip
            table = [whole, chance, *ends]
            yield ScoreGroups(setting=setting, rows=tuple(table), order=orders(table))

    def _yield(self, setting: Setting, judged: Judged) -> ScoreYield:
        """Yield against quality, on the half that is reported on."""
        rows, values = reporting(len(judged.bad)), judged.table.of(setting)
        rows = rows[~np.isnan(values[rows])]
        rows = rows[np.argsort(values[rows], kind="stable")]
        points = [self._point(share, rows, judged) for share in SHARES]
        return ScoreYield(setting=setting, points=tuple(points))

    def _point(self, share: float, rows: np.ndarray, judged: Judged) -> YieldPoint:
        """What is left of rows (n,), the lowest score first."""
        accepted = rows[: len(rows) - round(share * len(rows))]
        looked_at = judged.table is self.table
        counts = np.bincount(self.classes[accepted]) if looked_at and self.classes is not None else np.empty(0)
        bad = Estimate.of(bootstrap_mean(judged.bad[accepted].astype(np.float64), seed=self.request.seed))
        return YieldPoint(
            rejected=share,
            accepted=len(accepted),
            bad=bad,
            measurements=self.ruler.measure(self.subject, accepted) if looked_at else {},
            chance=self._chance(rows, len(accepted)) if looked_at and share else {},
            classes={k: float(count / len(accepted)) for k, count in enumerate(counts) if count},
        )

    def _chance(self, rows: np.ndarray, size: int) -> dict[str, float]:
        bare = replace(self.ruler, intervals=False)
        drawn = random_groups(len(rows), size, _CHANCE, seed=self.request.seed)
        found = [bare.measure(self.subject, np.sort(rows[places])) for places in drawn]
        values = {name: [one[name].value for one in found] for name in found[0]}
        return {name: float(np.mean([v for v in of if v is not None])) for name, of in values.items() if None not in of}


def _nearest_rows(queries: Tensor, centres: Tensor) -> np.ndarray:
    """Row of the nearest centre to each query: int64 (N,)."""
    step = max(1, _BLOCK // len(centres))
    return torch.cat([torch.cdist(part, centres).argmin(dim=1) for part in queries.split(step)]).cpu().numpy()
