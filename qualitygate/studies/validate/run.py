"""Hold a checkpoint's scores against whatever evidence there is, and say what to gate by and what that buys and costs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

import qualitygate
from qualitygate import names, storage
from qualitygate.errors import InputError
from qualitygate.features.images import DIGITS, digits_labels
from qualitygate.gating.profile import load_profile, setting_of, write_evidence
from qualitygate.generators.passes import Reporter
from qualitygate.metrics.estimate import Resampling, mean
from qualitygate.records.validation import Evidence, ScoreGroups, ScoreSetting, ScoreYield, ValidationReport, YieldPoint
from qualitygate.reports.study_figures import auc_figure, yield_figure
from qualitygate.studies.metrics.groups import extremes, group_row, group_size, orders, random_row
from qualitygate.studies.observation import joined
from qualitygate.studies.validate import ValidateRequest, ValidationSizes
from qualitygate.studies.validate.findings import REPORTING, SHARES, Choice, SampleEvidence, collect_evidence, rarity_findings
from qualitygate.studies.validate.samples import ValidationInputs, ValidationSamples, collect_samples
from qualitygate.units.labels import read_labels

REPORT, FINDINGS, RECOMMENDED, FIGURES = "validation.json", "findings.parquet", "recommended.yaml", "figures"
_CHANCE = 5  # random sets that a point of the yield is compared with


def run(request: ValidateRequest, reporter: Reporter | None = None) -> ValidationReport:
    """Validate a checkpoint; write the folder, and the evidence into the profile."""
    if request.out is not None:
        storage.refuse_existing(request.out)
    generator, discriminator = request.load_both(reporter)
    real = request.load_real(generator.image_shape[1])
    inputs = ValidationInputs(
        generator,
        load_profile(request.profile),
        discriminator,
        None if real is None else request.load_extractor(discriminator, request.chosen_device),
        real,
        _real_classes(request, 0 if real is None else len(real)),
        None if request.labels is None else read_labels(request.labels),
        request.label_seed,
    )
    report = validate(inputs, request, reporter)
    if request.out is not None:
        write_validation(request.out, report)
    if request.write:
        write_evidence(request.profile, report.evidence)
    return report


def _real_classes(request: ValidateRequest, count: int) -> np.ndarray | None:
    """Class of each real image; None where nobody says."""
    path = request.real_classes
    if path is None:
        return digits_labels() if request.real == DIGITS else None
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read the classes of {path}", str(error), "an .npy file of whole numbers") from error
    if not isinstance(found, np.ndarray) or found.shape != (count,) or found.dtype.kind not in "iu" or (found < 0).any():
        there = str(getattr(found, "shape", "several arrays"))
        raise InputError(f"The classes of {path} do not fit", there, f"a whole number, at least 0, for each of the {count:,} real images")
    return found.astype(np.int64)


def validate(inputs: ValidationInputs, sizes: ValidationSizes, reporter: Reporter | None = None) -> ValidationReport:
    """Hold every score against every kind of evidence there is; too little of it is an `InputError`."""
    started, reporter, profile = time.perf_counter(), reporter or Reporter(), inputs.profile
    profile.check_generator(inputs.generator)
    profile.check_seed(sizes.seed)
    samples = collect_samples(inputs, sizes, reporter)
    evidence = list(collect_evidence(inputs, sizes, samples, reporter))
    enough = [one for one in evidence if one.enough]
    remarks = [*samples.remarks, *(one.caveat for one in evidence if one.caveat is not None)]
    few = (one.source for one in evidence if not one.enough)
    remarks += [f"too few samples of one kind: {one.what} ({one.bad:,} of {one.samples:,} bad)" for one in few]
    if not enough:
        raise InputError(
            "There is no evidence to hold the scores against",
            "; ".join(remarks) or "none was given",
            "labels, real images, a discriminator or a planted defect, with bad and good samples in both halves",
            "give --labels or --real, or more --samples",
        )
    choice = Choice(enough, profile, sizes.seed)
    fitted = (choice.risk,) if choice.risk is not None and choice.main.table is samples.table else ()
    known = Evidence(
        profile_id=profile.info.profile_id,
        package_version=qualitygate.__version__,
        seed=sizes.seed,
        sources=tuple(one.source for one in enough),
        findings=choice.findings,
        rarity=tuple(rarity_findings(samples, fitted, sizes.seed)),
        recommended=choice.advice(profile.policy),
    )
    own = known.of(setting_of(profile, profile.policy, profile.policy.rules[0].score))
    shown = list({str(one.setting): one.setting for one in (choice.best, own) if one is not None}.values())
    remarks += [str(one) for setting in shown if (one := known.rarity_of(setting)) is not None]
    of_samples = next((one for one in enough if one.table is samples.table), choice.main)  # whose images are known
    yields = (score_yield(samples, of_samples, setting, sizes.seed) for setting in shown)
    origin = inputs.generator.identity()
    return ValidationReport(
        checkpoint=origin.name,
        checkpoint_sha256=origin.sha256,
        samples=sizes.samples,
        extractor=samples.evaluator.extractor,
        real=samples.measured.real and samples.measured.real.info,
        evidence=known,
        best=choice.best,
        fitted=choice.fitted,
        by_class=choice.by_class,
        policy=own,
        groups=tuple(score_groups(samples, shown)),
        yields=tuple(one for one in yields if one is not None),
        remarks=tuple(choice.in_words(remarks)),
        seconds=time.perf_counter() - started,
    )


def score_groups(samples: ValidationSamples, settings: Iterable[ScoreSetting]) -> Iterator[ScoreGroups]:
    """The papers' table, the lowest and the highest group beside random ones, on the half that is reported on, for each setting that
    enough samples have; none where nothing is known of the images."""
    if not (samples.measured.has("real") or samples.measured.has("discriminator")):
        return
    rows = np.arange(len(samples.latents))[REPORTING]
    measured = joined((samples.measured, rows))
    size = group_size(len(rows))
    chance = random_row(samples.evaluator, measured, size)
    whole = group_row(samples.evaluator, names.ALL, "all samples that are reported on", measured)
    for setting in settings:
        if (scores := samples.table.of(setting)) is None:
            continue
        values = scores[rows]
        known = np.flatnonzero(~np.isnan(values))
        if len(known) < 2 * size:
            continue
        ends = zip((names.LOWEST, names.HIGHEST), extremes(values[known], size), strict=True)
        groups = [group_row(samples.evaluator, name, f"{name} {setting}", measured, known[found]) for name, found in ends]
        table = (whole, chance, *groups)
        yield ScoreGroups(setting=setting, rows=table, order=orders(table))


def score_yield(samples: ValidationSamples, evidence: SampleEvidence, setting: ScoreSetting, seed: int) -> ScoreYield | None:
    """What is left when more and more of the highest scores are rejected, on the half that is reported on; None where the samples of the
    evidence have no such score. Evidence may be of samples of its own, of whose images nothing is known."""
    if (values := evidence.table.of(setting)) is None:
        return None
    rows = np.arange(len(evidence.bad))[REPORTING]
    rows = rows[~np.isnan(values[rows])]
    rows = rows[np.argsort(values[rows], kind="stable")]
    known = evidence.table is samples.table
    points = []
    for share in SHARES:
        accepted = rows[: len(rows) - round(share * len(rows))]
        chance = {}
        if known and share:  # as many samples at random
            chance = random_row(samples.evaluator, samples.measured, len(accepted), _CHANCE, among=rows, seed=seed).measurements
        counts = np.bincount(samples.classes[accepted]) if known and samples.classes is not None else ()
        points.append(
            YieldPoint(
                rejected=share,
                accepted=len(accepted),
                bad=mean(evidence.bad[accepted], Resampling(seed)).interval(),
                measurements=samples.evaluator.measure(samples.measured, accepted) if known else {},
                chance={name: one.value for name, one in chance.items() if one.value is not None},
                classes={k: float(count / len(accepted)) for k, count in enumerate(counts) if count},
            )
        )
    return ScoreYield(setting=setting, points=tuple(points))


def _rarity(evidence: Evidence, setting: ScoreSetting) -> float | None:
    found = evidence.rarity_of(setting)
    return None if found is None or found.correlation is None else found.correlation.value


def write_validation(path: str | Path, report: ValidationReport) -> None:
    """Write the folder, in one step: the report, its findings as Parquet, the recommended part of a policy, figures."""
    rows = [
        {
            "score": str(one.setting),
            "evidence": str(one.kind),
            "sight": str(one.sight),
            "samples": one.samples,
            "bad": one.bad,
            "auc": one.auc.value,
            "auc_low": one.auc.low,
            "auc_high": one.auc.high,
            "chosen_by": None if one.chosen_by is None else one.chosen_by.value,
            "rank_correlation": None if one.correlation is None else one.correlation.value,
            "bad_lowest": one.bad_lowest,
            "bad_highest": one.bad_highest,
            "rarity_correlation": _rarity(report.evidence, one.setting),
        }
        for one in report.evidence.findings
    ]
    with storage.new_folder(path) as folder:
        storage.write_bytes(folder / REPORT, report.model_dump_json(indent=2).encode())
        storage.write_table(folder / FINDINGS, {column: [row[column] for row in rows] for column in rows[0]})
        if report.evidence.recommended is not None:
            storage.write_bytes(folder / RECOMMENDED, report.evidence.recommended.encode())
        (folder / FIGURES).mkdir()
        for name, picture in (("auc", auc_figure(report)), ("yield", yield_figure(report))):
            if picture is not None:
                storage.write_bytes(folder / FIGURES / f"{name}.png", picture)
