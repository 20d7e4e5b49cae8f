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
from qualitygate.studies.check.model import CheckedModel, CheckInputs, early_outcome, images_decide
from qualitygate.studies.check.sample import Sample, of_profile, reference_set

_NAMED, _SHOWN = 3, 12


def advice(metric: str, candidate: CheckedModel) -> str:
    """One sentence with the command, or the units, to look at first."""
    if metric in SHARES:
        return "the gallery of `qualitygate gate CANDIDATE --profile OUT/profile`: what was rejected and corrected, and why"
    if metric == names.DEAD_UNITS:
        return f"units that never fire: {_units(candidate, names.UNIT_DEAD)}"
    if names.is_worst_unit_cla(metric):
        return "`qualitygate units CANDIDATE`: the units with the highest CLA and what they draw"
    if metric == names.COPIES:
        return "`qualitygate metrics CANDIDATE --real DIR`: which samples are copies, and which real images are there twice"
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
    values, sides = ours.columns[score], {"candidate": ours} | ({} if theirs is None else {"baseline": theirs})
    below = "" if theirs is None else f"; below, the baseline's of the same {'latents' if paired else 'ids, not the same latents'}"

    def sheet(title: str, caption: str, rows: np.ndarray, details: list[str]) -> Sheet:
        ids = ours.ids[rows]
        images = {name: one.generator.images(one.stage.latents(ids)).numpy() for name, one in sides.items()}
        made = {name: [to_uint8(np.nan_to_num(image)) for image in of_side] for name, of_side in images.items()}
        captions = tuple(f"{sample}  {detail}".rstrip() for sample, detail in zip(ids, details, strict=True))
        return Sheet(title, f"{caption}{below}.", captions, made)

    worst = np.argsort(-np.nan_to_num(values, nan=np.inf), kind="stable")[:_SHOWN]
    return (
        sheet("As they come", "The candidate's first samples", np.arange(_SHOWN), [""] * _SHOWN),
        sheet("The candidate's worst", f"By {score}, the worst first", worst, [f"{value:.4g}" for value in values[worst]]),
    )


@dataclass(frozen=True)
class CheckResult:
    """What a check came to: the record, the suite that the candidate was judged by, the table of its samples, images to look at, the
    policy, and the candidate's profile, ready for `qualitygate gate`."""

    record: CheckRecord
    suite: dict[str, Any]
    samples: dict[str, np.ndarray]
    sheets: tuple[Sheet, ...]
    policy: Policy
    profile: Profile

    def write(self, path: str | Path) -> None:
        """Write the folder, for machines and for people, in one step. Errors as of `storage.new_folder`."""
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
    """Check a candidate, which has its generator, against a baseline if there is any, as the policy's ``check`` says."""
    return _Check(candidate, baseline, policy, inputs or CheckInputs()).done()


class _Check:
    """One check, look after look."""

    def __init__(self, candidate: CheckedModel, baseline: CheckedModel | None, policy: Policy, inputs: CheckInputs) -> None:
        self.candidate, self.baseline, self.policy, self.inputs, self.settings = candidate, baseline, policy, inputs, policy.check
        self.incompatible = candidate.incompatibility(baseline)
        self.paired, self.same = candidate.same_latents(baseline), candidate.same_checkpoint(baseline)
        self.looks = 1 if baseline is not None and baseline.generator is None else self.settings.looks
        self.by_images = images_decide(baseline, real=inputs.real is not None)
        self.rules, self.outcomes = policy.check_rules(real=self.by_images), {}
        for rule in self.rules:
            if (found := early_outcome(rule, self.rules, candidate, baseline, inputs)) is not None:
                self.outcomes[rule.id] = _outcome(rule, found[0], note=found[1])
        self.open = [rule for rule in self.rules if rule.id not in self.outcomes]
        self.tail = tail_of(self.settings.error, max(1, len(self.open)), self.looks)
        limits_from = candidate if baseline is None or self.incompatible is not None else baseline
        self.ours, self.theirs = Sample(candidate, policy, limits_from.profile, inputs), None
        if baseline is not None and baseline.generator is not None and not self.same:
            self.theirs = Sample(baseline, policy, baseline.profile, inputs)

    def done(self) -> CheckResult:
        started, seconds, look = time.perf_counter(), 0.0, 0
        goes_on = bool(self.open) or self.inputs.suite is not None
        while goes_on:
            look += 1
            for sample in filter(None, (self.ours, self.theirs)):
                sample.grow([rule.metric for rule in self.open], 2 ** (look - 1))
            self.outcomes |= {rule.id: self._outcome(rule, look) for rule in self.open}
            self.open = [rule for rule in self.open if self.outcomes[rule.id].state is RuleState.INCONCLUSIVE]
            seconds = time.perf_counter() - started
            goes_on = look < self.looks and self._goes_on(seconds)
        return self._result(look, seconds)

    def _goes_on(self, seconds: float) -> bool:
        """Whether a rule that matters may be decided by a larger sample: what no sample could tell stays open. The next look makes as many
        samples as all before it, and so takes about as long."""
        failed = any(one.state is RuleState.FAILED and one.severity == "critical" for one in self.outcomes.values())
        grow = (rule for rule in self.open if rule.severity != "info" and names.low_rate_share_at(rule.metric) is None)
        waiting = (self.outcomes[rule.id] for rule in grow)
        may_come = any(one.excess is not None or (one.note or "").startswith("too few") for one in waiting)
        return may_come and not failed and 2.0 * seconds <= self.settings.budget.seconds

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
        return reference_set(self.baseline, self.inputs.extractor, self.settings.samples, self.settings.seed, self.ours.reporter)

    def _estimates(self, rule: CheckRule, how: Resampling) -> tuple[Estimate, Estimate | None]:
        metric, other = rule.metric, how
        reference = self._baseline_images if needs_of(metric) == "baseline" else self.inputs.real
        if rule.worse_by is None or self.baseline is None:
            return self.ours.estimate(metric, reference, how), None
        if self.same:
            alike = self.ours.estimate(metric, reference, how)
            return alike, alike
        if not self.paired:  # draws of its own where latents are not shared
            other = replace(how, seed=how.seed + 1)
        if self.theirs is not None:
            return self.ours.estimate(metric, reference, how), self.theirs.estimate(metric, reference, other)
        ours, theirs = (one.profile.columns(self.policy) for one in (self.candidate, self.baseline))
        return of_profile(metric, self.candidate.profile, ours, how), of_profile(metric, self.baseline.profile, theirs, other)

    def _result(self, look: int, seconds: float) -> CheckResult:
        import pandas

        outcomes = tuple(self.outcomes[rule.id] for rule in self.rules)
        samples = {names.ID: self.ours.ids, **self.ours.columns}
        evaluated = {one.id: one.excess for one in outcomes if one.excess is not None}
        rules = [rule for rule in self.rules if rule.id in evaluated]
        asked = self.settings.samples * 2 ** (look - 1) if look else 0
        suite = make_check_suite(rules, sorted({rule.score for rule in self.policy.rules}), asked)
        if (given := self.inputs.suite) is not None:
            suite = merge_suite(suite, {"format": FORMAT, "samples": given["samples"], "summary": given["summary"]})
        summary = {one.metric: one.value for one in outcomes} | {f"baseline/{one.metric}": one.baseline for one in outcomes}
        summary = {name: math.nan if value is None else value for name, value in summary.items()}
        for name, excess in evaluated.items():
            summary |= {column(name, LOW): excess.low, column(name, HIGH): excess.high}
        judged = run_suite(suite, pandas.DataFrame(samples), pandas.DataFrame([summary]))
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


def verdict_of(outcomes: Sequence[RuleOutcome], *, passed: bool) -> RuleState:
    """The verdict of a check: a critical rule, or the suite, that failed fails it; a critical rule that is open, or no rule at all, leaves
    it inconclusive. ``passed``: whether the suite did."""
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
