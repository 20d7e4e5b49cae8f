"""Hold a checkpoint's scores against whatever evidence there is: what `qualitygate validate` does, without its files."""

from __future__ import annotations

import time

import qualitygate
from qualitygate.gating.validated import setting_of
from qualitygate.generators.passes import Reporter
from qualitygate.records.evidence import Evidence
from qualitygate.records.validation import ValidationReport
from qualitygate.studies.validate.choice import Choice
from qualitygate.studies.validate.evidence import enough_of, evidence, remarks_on
from qualitygate.studies.validate.groups import score_groups
from qualitygate.studies.validate.look import look
from qualitygate.studies.validate.request import Request, Tools
from qualitygate.studies.validate.yields import Yields


def validate(tools: Tools, request: Request, reporter: Reporter | None = None) -> ValidationReport:
    """Hold every score against every kind of evidence there is.

    Raises:
        InputError: no evidence, or too little of it; real images without an extractor; the calibration's seed.
        ProfileError: the profile is of another checkpoint.
    """
    started, reporter, profile = time.perf_counter(), reporter or Reporter(), tools.profile
    profile.check_generator(tools.generator)
    profile.check_seed(request.seed)
    looked = look(tools, request, reporter)
    found = list(evidence(tools, request, looked, reporter))
    remarks = [*looked.by_class.remarks, *remarks_on(found)]
    judged = enough_of(found, remarks)
    choice = Choice.of(judged, profile, request.seed)
    known = Evidence(
        profile_id=profile.info.profile_id,
        package_version=qualitygate.__version__,
        seed=request.seed,
        sources=tuple(one.source for one in judged),
        findings=choice.findings,
        recommended=choice.advice(profile.policy),
    )
    own = known.of(setting_of(profile, profile.policy, profile.policy.rules[0].score))
    shown = list({str(one.setting): one.setting for one in (choice.best, own) if one is not None}.values())
    seen = next((one for one in judged if one.table is looked.table), choice.main)  # whose images were looked at
    yields, origin = Yields(looked, seen, request.seed), tools.generator.identity()
    return ValidationReport(
        checkpoint=origin.name,
        checkpoint_sha256=origin.sha256,
        samples=request.samples,
        extractor=looked.ruler.extractor,
        real=looked.real,
        evidence=known,
        best=choice.best,
        fitted=choice.fitted,
        by_class=choice.by_class,
        policy=own,
        groups=tuple(score_groups(looked, shown)),
        yields=tuple(yields.by(setting) for setting in shown if seen.table.has(setting)),
        remarks=tuple(choice.in_words(remarks)),
        seconds=time.perf_counter() - started,
    )
