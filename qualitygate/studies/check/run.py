"""The check of a candidate: look at a sample, decide the rules that it decides, let it grow for the others, judge, and write it down.

A rule is decided once and stays so; looks end when no rule that counts is open, or when a critical one has failed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
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
from qualitygate.metrics.compare import Comparison, Estimate, compare, draws_for, tail_of
from qualitygate.metrics.measured_set import RealSet
from qualitygate.policy.model import AGAINST_REAL, OF_IMAGES, SHARES, TO_BASELINE, CheckRule, Policy, policy_yaml
from qualitygate.policy.suite import FORMAT, HIGH, LOW, column, make_check_suite, merge_suite, suite_hash
from qualitygate.records import Interval
from qualitygate.records.check import CheckRecord, RuleOutcome, RuleState
from qualitygate.reports.check_page import Sheet, check_page
from qualitygate.reports.check_text import junit_xml, step_summary
from qualitygate.storage import to_uint8
from qualitygate.studies.check.model import Subject, Tools, images_decide, same_checkpoint, same_latents, settled, unlike
from qualitygate.studies.check.sample import Drawing, NotKnownError, Sample, images_of, of_profile, of_sample, reference_set, worst_layer

_NAMED = 3


def advice(metric: str, candidate: Subject) -> str:
    """One sentence with the command, or the units, to look at first."""
    if metric in SHARES:
        return "the gallery of `qualitygate gate CANDIDATE --profile OUT/profile`: what was rejected and corrected, and why"
    if metric == names.DEAD_UNITS:
        return f"units that never fire: {_units(candidate, names.UNIT_DEAD)}"
    if names.is_worst_unit_cla(metric):
        return "`qualitygate units CANDIDATE`: the units with the highest CLA and what they draw"
    if metric in AGAINST_REAL:
        return "`qualitygate metrics CANDIDATE --real DIR`: the same number in groups, with its figures"
    if metric in TO_BASELINE:
        return "images of both, side by side: where they differ, for better or worse, only --real DIR tells which"
    if metric in (names.PPL, names.DISCRIMINATOR):
        return "`qualitygate metrics CANDIDATE`: the samples that are worst in it"
    if names.low_rate_share_at(metric) is not None:
        return f"`qualitygate inspect CANDIDATE`; units with the least activity: {_units(candidate, names.UNIT_RATE, lowest=True)}"
    return f"units with the most low-rate activity: {_units(candidate, names.UNIT_LOW_RATE)}"


def _units(candidate: Subject, column: str, *, lowest: bool = False) -> str:
    table = candidate.profile.units
    values = np.asarray(table[column], dtype=np.float64)
    order = np.argsort(values if lowest else -values, kind="stable")[:_NAMED]
    return ", ".join(table[names.UNIT_KEY][row] for row in order)


COUNT = 12


def sheets(ours: Sample, theirs: Sample | None, *, paired: bool) -> tuple[Sheet, Sheet]:
    """The first samples, taken as they come, and the candidate's worst by the first rule of the policy.

    Args:
        ours: of the candidate, gated.
        theirs: of the baseline; None without one, or if it is the candidate itself.
        paired: equal ids are equal latents in both.
    """
    score = ours.policy.rules[0].score
    values = np.nan_to_num(ours.columns[score], nan=np.inf)
    worst = np.argsort(-values, kind="stable")[:COUNT]
    below = "" if theirs is None else f"; below, the baseline's of the same {'latents' if paired else 'ids, not the same latents'}"
    return (
        _sheet("As they come", f"The candidate's first samples{below}.", ours, theirs, np.arange(COUNT)),
        _sheet("The candidate's worst", f"By {score}, the worst first{below}.", ours, theirs, worst, score),
    )


def _sheet(title: str, caption: str, ours: Sample, theirs: Sample | None, rows: np.ndarray, score: str = "") -> Sheet:
    ids = ours.ids[rows]
    details = [f"{value:.4g}" for value in ours.columns[score][rows]] if score else [""] * len(rows)
    made = {"candidate": _images(ours, ids)} | ({} if theirs is None else {"baseline": _images(theirs, ids)})
    captions = tuple(f"{sample}  {detail}".rstrip() for sample, detail in zip(ids, details, strict=True))
    return Sheet(title, caption, captions, made)


def _images(sample: Sample, ids: np.ndarray) -> Sequence[np.ndarray]:
    """uint8 (height, width, channels) each."""
    batches = images_of(sample.generator, sample.stage.latents(ids), lambda _: None)
    return [to_uint8(np.nan_to_num(image.cpu().numpy())) for images, _ in batches for image in images]


_UNPAIRED = 1  # added to the seed of a baseline's draws where latents are not shared


@dataclass(frozen=True)
class Checked:
    """The record, the suite it was judged by, the table of the candidate's samples, and images to look at."""

    record: CheckRecord
    suite: dict[str, Any]
    samples: dict[str, np.ndarray]
    sheets: tuple[Sheet, ...]


def check(candidate: Subject, baseline: Subject | None, policy: Policy, tools: Tools | None = None) -> Checked:
    """Check a candidate.

    Args:
        candidate: with its generator.
        baseline: what it is held against, if anything.
        policy: its ``check`` says how.
        tools: real images, path distance, hand-written expectations.

    Raises:
        ProfileError: a profile does not hold what the policy needs.
        InputError: what is measured cannot be.
    """
    return _Check(candidate, baseline, policy, tools or Tools()).done()


class _Check:
    """One check, look after look."""

    def __init__(self, candidate: Subject, baseline: Subject | None, policy: Policy, tools: Tools) -> None:
        self.candidate, self.baseline, self.policy, self.tools = candidate, baseline, policy, tools
        self.unlike = None if baseline is None else unlike(candidate.profile, baseline.profile)
        self.alike = baseline is not None and self.unlike is None
        self.paired = baseline is not None and same_latents(candidate, baseline)
        self.settings, self.reporter = policy.check, tools.reporter or Reporter()
        ruler = baseline.profile if baseline is not None and self.alike else candidate.profile
        self.from_profiles = baseline is not None and baseline.generator is None
        self.looks = 1 if self.from_profiles else self.settings.looks
        self.by_images = images_decide(baseline, real=tools.real is not None)
        self.rules, self.outcomes = policy.check_rules(real=self.by_images), {}
        self.same = same_checkpoint(candidate, baseline)
        for rule in self.rules:
            if (found := settled(rule, self.rules, candidate, baseline, tools)) is not None:
                self.outcomes[rule.id] = _outcome(rule, found[0], note=found[1])
        self.open = [rule for rule in self.rules if rule.id not in self.outcomes]
        self.tail = tail_of(self.settings.error, max(1, len(self.open)), self.looks)
        self.ours = Sample(candidate, policy, ruler, self.reporter)
        with_samples = baseline is not None and baseline.generator is not None and not self.same
        self.theirs = (
            Sample(baseline, policy, ruler if self.alike else baseline.profile, self.reporter) if with_samples and baseline else None
        )

    def done(self) -> Checked:
        started = time.perf_counter()
        look = self.asked = 0
        while look < self.looks and self._goes_on(look, time.perf_counter() - started):
            look += 1
            self._look(look)
        return self._checked(look, time.perf_counter() - started)

    def _goes_on(self, look: int, seconds: float) -> bool:
        """The next look makes as many samples as all before it, and so takes about as long."""
        if look == 0:
            return bool(self.open) or self.tools.suite is not None
        failed = any(one.state is RuleState.FAILED and one.severity == "critical" for one in self.outcomes.values())
        counts = any(self._may_come(rule) for rule in self.open)
        return counts and not failed and 2.0 * seconds <= self.settings.budget.seconds

    def _may_come(self, rule: CheckRule) -> bool:
        """Whether it matters, and a larger sample may decide it: what no sample could tell stays open, but for FID."""
        grows = self.outcomes[rule.id].excess is not None or rule.metric == names.FID
        return grows and rule.severity != "info" and names.low_rate_share_at(rule.metric) is None

    def _look(self, look: int) -> None:
        growth = 2 ** (look - 1)
        self.asked = self.settings.samples * growth
        for subject in filter(None, (self.ours, self.theirs)):
            self._grow(subject, growth)
        still = []
        for rule in self.open:
            outcome = self.outcomes[rule.id] = self._outcome(rule, look)
            if outcome.state is RuleState.INCONCLUSIVE:
                still.append(rule)
        self.open = still

    def _grow(self, sample: Sample, growth: int) -> None:
        """Measure what the open rules need."""
        settings, count = self.settings, self.settings.samples * growth
        metrics = [rule.metric for rule in self.open]
        sample.gate(count)
        if self.tools.extractor is not None and any(one in AGAINST_REAL or one in TO_BASELINE for one in metrics):
            sample.extract(self.tools.extractor, count)
        if names.DISCRIMINATOR in metrics:
            sample.judge(count)
        if self.tools.distance is not None and names.PPL in metrics:
            sample.lay_paths(self.tools.distance, settings.path_samples * growth)
        for metric in filter(names.is_worst_unit_cla, metrics):
            sample.walk(worst_layer(metric, sample), settings.curvature_samples * growth)

    # one rule

    def _outcome(self, rule: CheckRule, look: int) -> RuleOutcome:
        if rule.worse_by is not None and self.unlike is not None and _of_layers(rule.metric):
            return _outcome(
                rule,
                RuleState.INCONCLUSIVE,
                look=look,
                note=f"{self.unlike}: their counts cannot be compared; write a policy whose check.rules are absolute or on images",
            )
        how = Drawing(draws_for(self.tail), self.settings.seed, self.tail)
        try:
            ours, theirs = self._estimates(rule, how)
        except NotKnownError as reason:
            return _outcome(rule, RuleState.INCONCLUSIVE, look=look, note=str(reason))
        found = compare(rule, ours, theirs, self.tail, same=self.same)
        return _with_numbers(rule, found, ours, theirs, look, self.candidate)

    @cached_property
    def _baseline_images(self) -> RealSet:
        """What the baseline makes elsewhere, as a reference."""
        assert self.baseline is not None
        assert self.tools.extractor is not None
        return reference_set(self.baseline, self.tools.extractor, self.settings.samples, self.settings.seed, self.reporter)

    def _of(self, metric: str, sample: Sample, how: Drawing) -> Estimate:
        return of_sample(metric, sample, self._baseline_images if metric in TO_BASELINE else self.tools.real, how)

    def _estimates(self, rule: CheckRule, how: Drawing) -> tuple[Estimate, Estimate | None]:
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

    def _checked(self, look: int, seconds: float) -> Checked:
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
            real=None if self.tools.real is None else self.tools.real.digest,
            extractor=None if self.tools.extractor is None else self.tools.extractor.key,
            package_version=qualitygate.__version__,
            torch_version=torch.__version__,
            device=str(self.ours.generator.device),
            seconds=seconds,
        )
        shown = sheets(self.ours, self.theirs, paired=self.paired) if len(self.ours.ids) else ()
        return Checked(record, suite, samples, shown)

    def _suite(self, outcomes: Sequence[RuleOutcome]) -> dict[str, Any]:
        known = {one.id for one in outcomes if one.excess is not None}
        rules = [rule for rule in self.rules if rule.id in known]
        scores = sorted({rule.score for rule in self.policy.rules})
        made = make_check_suite(rules, scores, self.asked)
        return made if self.tools.suite is None else merge_suite(made, {"format": FORMAT, **_tables(self.tools.suite)})

    def _summary(self, outcomes: Sequence[RuleOutcome]) -> dict[str, float]:
        """The one row that the suite sees."""
        row: dict[str, float] = {}
        for one in outcomes:
            row |= {one.metric: _number(one.value), f"baseline/{one.metric}": _number(one.baseline)}
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


def _with_numbers(
    rule: CheckRule, found: Comparison, ours: Estimate, theirs: Estimate | None, look: int, candidate: Subject
) -> RuleOutcome:
    good = found.state is RuleState.PASSED
    return _outcome(
        rule,
        found.state,
        value=ours.value,
        baseline=None if theirs is None else theirs.value,
        difference=_finite(found.difference),
        excess=_finite(found.excess),
        samples=ours.samples,
        look=look,
        advice=None if good else advice(rule.metric, candidate),
    )


def _finite(interval: Interval | None) -> Interval | None:
    known = interval is not None and all(map(math.isfinite, (interval.value, interval.low, interval.high)))
    return interval if known else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _of_layers(metric: str) -> bool:
    """Whether it means the same only in two checkpoints with the same layers."""
    return metric not in OF_IMAGES


def _tables(suite: Mapping[str, Any]) -> dict[str, Any]:
    return {table: suite[table] for table in ("samples", "summary")}


RECORD, JUNIT, PAGE, SUMMARY, SUITE, SAMPLES, POLICY, PROFILE = (
    "check.json",
    "junit.xml",
    "report.html",
    "summary.md",
    "suite.json",
    "samples.parquet",
    "policy.yaml",
    "profile",
)


def write_check(path: str | Path, checked: Checked, policy: Policy, profile: Profile) -> None:
    """Write the folder; ``profile`` is the candidate's, ready for `qualitygate gate`.

    Raises:
        OutputError: something else is there already.
        StorageError: it cannot be written.
    """
    record = checked.record
    with storage.new_folder(path) as folder:
        storage.write_bytes(folder / RECORD, record.model_dump_json(indent=2).encode())
        storage.write_bytes(folder / JUNIT, junit_xml(record))
        storage.write_bytes(folder / PAGE, check_page(record, policy_yaml(policy), checked.sheets).encode())
        storage.write_bytes(folder / SUMMARY, step_summary(record).encode())
        storage.write_bytes(folder / SUITE, json.dumps(checked.suite, indent=2).encode())
        storage.write_bytes(folder / POLICY, policy_yaml(policy).encode())
        storage.write_table(folder / SAMPLES, checked.samples)
        profile.save(folder / PROFILE)
