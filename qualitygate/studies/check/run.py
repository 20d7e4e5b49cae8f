"""The check of a candidate: look at a sample, decide the rules that it decides, let it grow for the others, judge, and write it down.

A rule is decided once and stays so; looks end when no rule that counts is open, or when a critical one has failed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import qualitygate
from qualitygate import names, storage
from qualitygate.expectations import run_suite
from qualitygate.gating.profile import Profile
from qualitygate.generators.passes import Reporter
from qualitygate.metrics.compare import compare, tail_of
from qualitygate.metrics.estimate import Estimate, NotKnownError, Resampling
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.model import SHARES, CheckRule, Policy, needs_of, policy_yaml
from qualitygate.policy.suite import FORMAT, HIGH, LOW, column, make_check_suite, merge_suite, suite_hash
from qualitygate.records import Interval
from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState
from qualitygate.reports.check_page import Sheet, check_page
from qualitygate.reports.check_text import junit_xml, step_summary
from qualitygate.storage import to_uint8
from qualitygate.studies.check.model import (
    CheckedModel,
    CheckInputs,
    early_outcome,
    images_decide,
    incompatibility,
    same_checkpoint,
    same_latents,
)
from qualitygate.studies.check.sample import Sample, of_profile, reference_set

_NAMED, _SHOWN = 3, 12
_UNPAIRED = 1  # added to the seed of a baseline's draws where latents are not shared


def advice(metric: str, candidate: CheckedModel) -> str:
    """One sentence with the command, or the units, to look at first."""
    if metric in SHARES:
        return "the gallery of `qualitygate gate CANDIDATE --profile OUT/profile`: what was rejected and corrected, and why"
    if metric == names.DEAD_UNITS:
        return f"units that never fire: {_units(candidate, names.UNIT_DEAD)}"
    if names.is_worst_unit_cla(metric):
        return "`qualitygate units CANDIDATE`: the units with the highest CLA and what they draw"
    if (needs := needs_of(metric)) == "real":
        return "`qualitygate metrics CANDIDATE --real DIR`: the same number in groups, with its figures"
    if needs == "baseline":
        return "images of both, side by side: where they differ, for better or worse, only --real DIR tells which"
    if needs is not None:
        return "`qualitygate metrics CANDIDATE`: the samples that are worst in it"
    if names.low_rate_share_at(metric) is not None:
        return f"`qualitygate inspect CANDIDATE`; units with the least activity: {_units(candidate, names.UNIT_RATE, lowest=True)}"
    return f"units with the most low-rate activity: {_units(candidate, names.UNIT_LOW_RATE)}"


def _units(candidate: CheckedModel, column: str, *, lowest: bool = False) -> str:
    table = candidate.profile.units
    values = np.asarray(table[column], dtype=np.float64)
    order = np.argsort(values if lowest else -values, kind="stable")[:_NAMED]
    return ", ".join(table[names.UNIT_KEY][row] for row in order)


def sheets(ours: Sample, theirs: Sample | None, *, paired: bool) -> tuple[Sheet, Sheet]:
    """The first samples, taken as they come, and the candidate's worst by the first rule of the policy; below each the baseline's of the
    same id, unless there is none, or it is the candidate itself."""
    score = ours.policy.rules[0].score
    values = np.nan_to_num(ours.columns[score], nan=np.inf)
    worst = np.argsort(-values, kind="stable")[:_SHOWN]
    below = "" if theirs is None else f"; below, the baseline's of the same {'latents' if paired else 'ids, not the same latents'}"
    return (
        _sheet("As they come", f"The candidate's first samples{below}.", ours, theirs, np.arange(_SHOWN)),
        _sheet("The candidate's worst", f"By {score}, the worst first{below}.", ours, theirs, worst, score),
    )


def _sheet(title: str, caption: str, ours: Sample, theirs: Sample | None, rows: np.ndarray, score: str = "") -> Sheet:
    ids = ours.ids[rows]
    details = [f"{value:.4g}" for value in ours.columns[score][rows]] if score else [""] * len(rows)
    sides = {"candidate": ours} | ({} if theirs is None else {"baseline": theirs})
    images = {name: one.generator.images(one.stage.latents(ids)).numpy() for name, one in sides.items()}
    made = {name: [to_uint8(np.nan_to_num(image)) for image in of_side] for name, of_side in images.items()}
    captions = tuple(f"{sample}  {detail}".rstrip() for sample, detail in zip(ids, details, strict=True))
    return Sheet(title, caption, captions, made)


@dataclass(frozen=True)
class CheckResult:
    """What a check came to.

    Attributes:
        record: the verdict, and what became of every rule.
        suite: what it was judged by.
        samples: table of the candidate's samples.
        sheets: images to look at.
        policy: that was checked by.
        profile: the candidate's, ready for `qualitygate gate`.
    """

    record: CheckRecord
    suite: dict[str, Any]
    samples: dict[str, np.ndarray]
    sheets: tuple[Sheet, ...]
    policy: Policy
    profile: Profile

    def write(self, path: str | Path) -> None:
        """Write the folder, for machines and for people, in one step.

        Raises:
            OutputError: something else is there already.
            StorageError: it cannot be written.
        """
        policy = policy_yaml(self.policy)
        files = {
            "check.json": self.record.model_dump_json(indent=2).encode(),
            "junit.xml": junit_xml(self.record),
            "report.html": check_page(self.record, policy, self.sheets).encode(),
            "summary.md": step_summary(self.record).encode(),
            "suite.json": json.dumps(self.suite, indent=2).encode(),
            "policy.yaml": policy.encode(),
        }
        with storage.new_folder(path) as folder:
            for name, content in files.items():
                storage.write_bytes(folder / name, content)
            storage.write_table(folder / "samples.parquet", self.samples)
            self.profile.save(folder / "profile")


def check(candidate: CheckedModel, baseline: CheckedModel | None, policy: Policy, inputs: CheckInputs | None = None) -> CheckResult:
    """Check a candidate.

    Args:
        candidate: with its generator.
        baseline: what it is held against, if anything.
        policy: its ``check`` says how.
        inputs: real images, path distance, hand-written expectations.

    Raises:
        ProfileError: a profile does not hold what the policy needs.
        InputError: what is measured cannot be.
    """
    return _Check(candidate, baseline, policy, inputs or CheckInputs()).done()


class _Check:
    """One check, look after look."""

    def __init__(self, candidate: CheckedModel, baseline: CheckedModel | None, policy: Policy, inputs: CheckInputs) -> None:
        self.candidate, self.baseline, self.policy, self.inputs = candidate, baseline, policy, inputs
        self.incompatible = None if baseline is None else incompatibility(candidate.profile, baseline.profile)
        self.paired = baseline is not None and same_latents(candidate, baseline)
        self.settings, self.reporter = policy.check, inputs.reporter or Reporter()
        comparable = baseline is not None and self.incompatible is None
        limits_from = baseline.profile if baseline is not None and comparable else candidate.profile
        self.from_profiles = baseline is not None and baseline.generator is None
        self.looks = 1 if self.from_profiles else self.settings.looks
        self.by_images = images_decide(baseline, real=inputs.real is not None)
        self.rules, self.outcomes = policy.check_rules(real=self.by_images), {}
        self.same = same_checkpoint(candidate, baseline)
        for rule in self.rules:
            if (found := early_outcome(rule, self.rules, candidate, baseline, inputs)) is not None:
                self.outcomes[rule.id] = _outcome(rule, found[0], note=found[1])
        self.open = [rule for rule in self.rules if rule.id not in self.outcomes]
        self.tail = tail_of(self.settings.error, max(1, len(self.open)), self.looks)
        self.ours = Sample(candidate, policy, limits_from, self.reporter)
        self.theirs = None
        if baseline is not None and baseline.generator is not None and not self.same:
            self.theirs = Sample(baseline, policy, limits_from if comparable else baseline.profile, self.reporter)

    def done(self) -> CheckResult:
        started = time.perf_counter()
        look = self.asked = 0
        while look < self.looks and self._goes_on(look, time.perf_counter() - started):
            look += 1
            self._look(look)
        return self._result(look, time.perf_counter() - started)

    def _goes_on(self, look: int, seconds: float) -> bool:
        """The next look makes as many samples as all before it, and so takes about as long."""
        if look == 0:
            return bool(self.open) or self.inputs.suite is not None
        failed = any(one.state is RuleState.FAILED and one.severity == "critical" for one in self.outcomes.values())
        counts = any(self._may_come(rule) for rule in self.open)
        return counts and not failed and 2.0 * seconds <= self.settings.budget.seconds

    def _may_come(self, rule: CheckRule) -> bool:
        """Whether it matters, and a larger sample may decide it: what no sample could tell stays open."""
        open_for = self.outcomes[rule.id]
        grows = open_for.excess is not None or (open_for.note or "").startswith("too few")
        return grows and rule.severity != "info" and names.low_rate_share_at(rule.metric) is None

    def _look(self, look: int) -> None:
        growth = 2 ** (look - 1)
        self.asked = self.settings.samples * growth
        for sample in filter(None, (self.ours, self.theirs)):
            self._grow(sample, growth)
        self.outcomes |= {rule.id: self._outcome(rule, look) for rule in self.open}
        self.open = [rule for rule in self.open if self.outcomes[rule.id].state is RuleState.INCONCLUSIVE]

    def _grow(self, sample: Sample, growth: int) -> None:
        """Measure what the open rules need."""
        settings, count = self.settings, self.settings.samples * growth
        needs = {needs_of(rule.metric) for rule in self.open}
        sample.gate(count)
        if self.inputs.extractor is not None and needs & {"real", "baseline"}:
            sample.extract(self.inputs.extractor, count)
        if "discriminator" in needs:
            sample.discriminate(count)
        if self.inputs.distance is not None and "paths" in needs:
            sample.lay_paths(self.inputs.distance, settings.path_samples * growth)
        for metric in (rule.metric for rule in self.open if names.is_worst_unit_cla(rule.metric)):
            sample.walk(sample.worst_layer(metric), settings.curvature_samples * growth)

    # one rule

    def _outcome(self, rule: CheckRule, look: int) -> RuleOutcome:
        if rule.worse_by is not None and self.incompatible is not None and needs_of(rule.metric) is None:
            way_out = "their counts cannot be compared; write a policy whose check.rules are absolute or on images"
            return _outcome(rule, RuleState.INCONCLUSIVE, look=look, note=f"{self.incompatible}: {way_out}")
        how = Resampling.for_tail(self.tail, self.settings.seed)
        try:
            ours, theirs = self._estimates(rule, how)
        except NotKnownError as reason:
            return _outcome(rule, RuleState.INCONCLUSIVE, look=look, note=str(reason))
        found = compare(rule, ours, theirs, self.tail, same=self.same)
        return _outcome(
            rule,
            found.state,
            value=ours.value,
            baseline=None if theirs is None else theirs.value,
            difference=_finite(found.difference),
            excess=_finite(found.excess),
            samples=ours.samples,
            look=look,
            advice=None if found.state is RuleState.PASSED else advice(rule.metric, self.candidate),
        )

    @cached_property
    def _baseline_images(self) -> RealSet:
        """What the baseline makes elsewhere, as a reference."""
        assert self.baseline is not None
        assert self.inputs.extractor is not None
        return reference_set(self.baseline, self.inputs.extractor, self.settings.samples, self.settings.seed, self.reporter)

    def _of(self, metric: str, sample: Sample, how: Resampling) -> Estimate:
        return sample.estimate(metric, self._baseline_images if needs_of(metric) == "baseline" else self.inputs.real, how)

    def _estimates(self, rule: CheckRule, how: Resampling) -> tuple[Estimate, Estimate | None]:
        if rule.worse_by is None or self.baseline is None:
            return self._of(rule.metric, self.ours, how), None
        if self.same:
            alike = self._of(rule.metric, self.ours, how)
            return alike, alike
        other = how if self.paired else replace(how, seed=how.seed + _UNPAIRED)
        if self.theirs is not None:
            return self._of(rule.metric, self.ours, how), self._of(rule.metric, self.theirs, other)
        ours, theirs = (one.profile.columns(self.policy) for one in (self.candidate, self.baseline))
        return (of_profile(rule.metric, self.candidate.profile, ours, how), of_profile(rule.metric, self.baseline.profile, theirs, other))

    # all of them

    def _result(self, look: int, seconds: float) -> CheckResult:
        import pandas

        outcomes = tuple(self.outcomes[rule.id] for rule in self.rules)
        samples = {names.ID: self.ours.ids, **self.ours.columns}
        suite = self._suite(outcomes)
        judged = run_suite(suite, pandas.DataFrame(samples), pandas.DataFrame([self._summary(outcomes)]))
        record = CheckRecord(
            verdict=verdict_of(outcomes, passed=judged.passed),
            candidate=self.candidate.compared,
            baseline=None if self.baseline is None else self.baseline.compared,
            paired=self.paired,
            samples=len(self.ours.ids),
            looks=look,
            looks_planned=self.looks,
            seed=self.settings.seed,
            error=self.settings.error,
            tail=self.tail,
            rules=outcomes,
            suite=judged,
            policy_hash=self.policy.check_hash(real=self.by_images),
            suite_hash=suite_hash(suite),
            real=None if self.inputs.real is None else self.inputs.real.digest,
            extractor=None if self.inputs.extractor is None else self.inputs.extractor.key,
            package_version=qualitygate.__version__,
            torch_version=torch.__version__,
            device=str(self.ours.generator.device),
            seconds=seconds,
        )
        shown = sheets(self.ours, self.theirs, paired=self.paired) if len(self.ours.ids) else ()
        return CheckResult(record, suite, samples, shown, self.policy, self.candidate.profile)

    def _suite(self, outcomes: Sequence[RuleOutcome]) -> dict[str, Any]:
        known = {one.id for one in outcomes if one.excess is not None}
        rules = [rule for rule in self.rules if rule.id in known]
        scores = sorted({rule.score for rule in self.policy.rules})
        made = make_check_suite(rules, scores, self.asked)
        if (given := self.inputs.suite) is None:
            return made
        return merge_suite(made, {"format": FORMAT, "samples": given["samples"], "summary": given["summary"]})

    def _summary(self, outcomes: Sequence[RuleOutcome]) -> dict[str, float]:
        """The one row that the suite sees."""
        row: dict[str, float] = {}
        for one in outcomes:
            values = {one.metric: one.value, f"baseline/{one.metric}": one.baseline}
            row |= {name: math.nan if value is None else value for name, value in values.items()}
            if one.excess is not None:
                row |= {column(one.id, LOW): one.excess.low, column(one.id, HIGH): one.excess.high}
        return row


def verdict_of(outcomes: Sequence[RuleOutcome], *, passed: bool) -> RuleState:
    """The verdict of a check: a critical rule, or the suite, that failed fails it; a critical rule that is open, or no rule at all, leaves
    it inconclusive.

    Args:
        outcomes: of all rules.
        passed: whether the suite did.
    """
    critical = {one.state for one in outcomes if one.severity == "critical"}
    if RuleState.FAILED in critical or not passed:
        return RuleState.FAILED
    evaluated = any(one.state in (RuleState.PASSED, RuleState.FAILED) for one in outcomes)
    return RuleState.PASSED if evaluated and RuleState.INCONCLUSIVE not in critical else RuleState.INCONCLUSIVE


def _outcome(rule: CheckRule, state: RuleState, **more: Any) -> RuleOutcome:
    return RuleOutcome(id=rule.id, metric=rule.metric, severity=rule.severity, rule=rule.limit, state=state, **more)


def _finite(interval: Interval | None) -> Interval | None:
    known = interval is not None and all(map(math.isfinite, (interval.value, interval.low, interval.high)))
    return interval if known else None
