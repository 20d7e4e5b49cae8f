"""The policy: rules on scores, what follows from them, and what a new checkpoint is checked for. YAML; unknown keys are errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from qualitygate import names
from qualitygate.errors import PolicyError
from qualitygate.policy.corrections import AnyCorrection, Correction, Limit, Part, Rate, SequentialAblation, check_strengths
from qualitygate.policy.scores import CLA, LOW_RATE, SCORES, Score, ScoreColumn, cla_layer, parse, score_of
from qualitygate.records import canonical_hash
from qualitygate.records.gate import Verdict
from qualitygate.records.metrics import Metric, Need, all_metrics

Severity = Literal["critical", "warning", "info"]
RuleId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]

TO_BASELINE: Mapping[str, str] = {
    names.PRECISION_TO_BASELINE: names.PRECISION,
    names.RECALL_TO_BASELINE: names.RECALL,
    names.COVERAGE_TO_BASELINE: names.COVERAGE,
    names.REALISM_TO_BASELINE: names.REALISM,
}
"""Metrics against other images of the baseline, and what each of them is called against real images."""
MOST_COPIES = 0.01
"""Share of a checkpoint's images that may be copies of real ones, or nearly: what 1,024 samples without any can rule out."""
SHARES = (names.ACCEPTED_SHARE, names.CORRECTED_SHARE, names.REJECTED_SHARE, names.YIELD, names.BORDERLINE_SHARE)


def of_images() -> dict[str, Metric]:
    """Set metrics of images that a rule of a check may name: ours, and those of other packages, that say which way is better."""
    return {name: one for name, one in all_metrics().items() if one.of_groups and one.higher_is_better is not None}


def needs_of(metric: str) -> Need | Literal["baseline"] | None:
    """What a metric of images needs besides the candidate: ``baseline`` is other images of the baseline. None of any other metric."""
    if metric in TO_BASELINE:
        return "baseline"
    return found.needs if (found := of_images().get(metric)) is not None else None


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric of a check is better."""
    if (found := of_images().get(TO_BASELINE.get(metric, metric))) is not None:
        return bool(found.higher_is_better)
    if (quantile := score_quantile(metric)) is not None:
        return not score_of(quantile[0]).higher_is_worse
    return metric in (names.ACCEPTED_SHARE, names.YIELD)


def _check_ids(where: str, rules: Sequence[CheckRule | Rule | BatchRule]) -> None:
    if len({rule.id for rule in rules}) != len(rules):
        raise ValueError(f"the ids of {where} must differ")


class Margin(Part):
    """How much worse than the baseline is still fine: a share of the baseline's value, an absolute amount, or both added."""

    relative: float = Field(0.0, ge=0.0, allow_inf_nan=False, description="share of the baseline's value: 0.05 is 5 %")
    absolute: float = Field(0.0, ge=0.0, allow_inf_nan=False, description="amount in the metric's own units")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("give relative, absolute or both; {absolute: 0} allows nothing")
        return self

    def __str__(self) -> str:
        parts = [f"{self.relative:.3g} of it"] * bool(self.relative) + [f"{self.absolute:.3g}"] * bool(self.absolute)
        return " + ".join(parts) or "nothing"


class CheckRule(Part):
    """A rule on one metric of the candidate: `max` or `min`, or not `worse_by` more than a margin than the baseline."""

    id: RuleId
    metric: str = Field(
        description="e.g. low_rate_0.1/q0.9, yield, low_rate_share_0.1, dead_units, worst_unit_cla, precision, precision_to_baseline, ppl"
    )
    max: float | None = Field(None, allow_inf_nan=False)
    min: float | None = Field(None, allow_inf_nan=False)
    worse_by: Margin | None = Field(None, description="relative to the baseline")
    severity: Severity = "critical"
    optional: bool = Field(False, description="left out where no baseline, real images or distance were given")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(limit is not None for limit in (self.max, self.min, self.worse_by)) != 1:
            raise ValueError("give exactly one of max, min and worse_by")
        metric = self.metric
        if (found := all_metrics().get(metric)) is not None and found.higher_is_better is None:
            raise ValueError(f"neither more nor less {metric} is better, so no rule goes by it; name {names.PRECISION} or {names.COVERAGE}")
        by_name = metric in (*SHARES, names.DEAD_UNITS) or needs_of(metric) is not None or names.is_worst_unit_cla(metric)
        if not by_name and names.low_rate_share_at(metric) is None and score_quantile(metric) is None:
            raise ValueError(
                f"there is no metric {metric!r}: name a share ({', '.join(SHARES)}), a quantile of a score (low_rate_0.1/q0.9), "
                f"low_rate_share_R, {names.DEAD_UNITS}, {names.WORST_UNIT_CLA}, or one of {', '.join((*of_images(), *TO_BASELINE))}"
            )
        return self

    @property
    def higher_is_better(self) -> bool:
        return higher_is_better(self.metric)

    @property
    def limit(self) -> str:
        """The rule in words."""
        if self.worse_by is not None:
            return f"worse by at most {self.worse_by}"
        return f"at most {self.max:g}" if self.max is not None else f"at least {self.min:g}"


class Budget(Part):
    """How far the sample may grow while a rule is undecided."""

    samples: int = Field(8192, ge=64)
    seconds: float = Field(900.0, gt=0.0, description="no look is begun that would likely end later than this")


class Check(Part):
    """How a new checkpoint is checked. `rules: null` is the default rules; with real images those decide, and counts only warn."""

    rules: tuple[CheckRule, ...] | None = Field(None, min_length=1)
    samples: int = Field(1024, ge=64, description="of the first look; every look doubles it")
    budget: Budget = Budget()
    seed: int = Field(1, ge=0, lt=2**64, description="of the samples; not the calibration's")
    error: float = Field(0.05, gt=0.0, lt=0.5, description="chance that any rule is decided wrongly, over all looks")
    curvature_samples: int = Field(16, ge=16, description="exact CLA for so many samples at the first look")
    path_samples: int = Field(64, ge=16, description="path lengths of so many samples at the first look")
    extractor: str = Field("random-vgg16-32", description="features for metrics against real images; module:… only as --extractor")
    distance: str = Field("random-vgg16-32", description="perceptual distance for PPL")

    @field_validator("extractor", "distance")
    @classmethod
    def _no_code(cls, name: str) -> str:
        """A policy may come from anybody, and an import path would run what stands there."""
        if name.strip().startswith("module:"):
            raise ValueError(f"a policy names no code; give {name} as an option of `qualitygate check`")
        return name

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.budget.samples < self.samples:
            raise ValueError(f"budget.samples {self.budget.samples} is below samples {self.samples}")
        _check_ids("check.rules", self.rules or ())
        return self

    @property
    def looks(self) -> int:
        """How often the sample may be looked at: the first time, and after every doubling within the budget."""
        return 1 + int(math.log2(self.budget.samples / self.samples))


def default_rules(rate: float, *, real: bool = False) -> tuple[CheckRule, ...]:
    """Rules that fit every family, at R = ``rate`` of the low-rate score; what needs more than the checkpoint is optional.

    The best evidence decides. With ``real`` images, and a baseline whose images are held against them too, it is the images, and what is
    counted inside warns: between snapshots of one training low-rate and dead units grow while the images improve. Without, the counts
    decide, as there is nothing else. Images that are memorised fail with any real images, whatever the baseline does.
    """
    counted: Severity = "warning" if real else "critical"

    def rule(name: str, metric: str, severity: Severity, **margin: float) -> CheckRule:
        return CheckRule(id=name, metric=metric, worse_by=Margin(**margin), severity=severity, optional=True)

    return (
        CheckRule(id="yield", metric=names.YIELD, min=0.8, severity=counted),
        rule("low_rate_tail", names.quantile(names.low_rate(rate), 0.9), counted, relative=0.05),
        rule("low_rate_middle", names.quantile(names.low_rate(rate), 0.5), "warning", relative=0.05),
        rule("rejected", names.REJECTED_SHARE, counted, absolute=0.02),
        rule("corrected", names.CORRECTED_SHARE, "warning", absolute=0.03),
        rule("low_rate_neurons", names.low_rate_share(rate), "warning", relative=0.05),
        rule("dead_units", names.DEAD_UNITS, counted, absolute=0.005),
        rule("worst_units", names.WORST_UNIT_CLA, "warning", relative=0.25),
        rule("precision", names.PRECISION, "critical", absolute=0.05),
        rule("recall", names.RECALL, "critical", absolute=0.05),
        rule("realism", names.REALISM, "warning", relative=0.05),
        CheckRule(id="copies", metric=names.COPIES, max=MOST_COPIES, optional=True),
        # without real images; no more than a warning, as a better checkpoint is as unlike its baseline as a damaged one
        rule("precision_to_baseline", names.PRECISION_TO_BASELINE, "warning", absolute=0.15),
        rule("recall_to_baseline", names.RECALL_TO_BASELINE, "warning", absolute=0.15),
        rule("coverage_to_baseline", names.COVERAGE_TO_BASELINE, "warning", absolute=0.15),
    )


def score_quantile(metric: str) -> tuple[str, float] | None:
    """Score and q of a metric ``<score>/q<q>``, or None."""
    score, _, digits = metric.rpartition("/q")
    q = names.number(digits)
    return (score, q) if parse(score) is not None and q is not None and 0.0 < q < 1.0 else None


class Detection(Part):
    """What is measured of every sample."""

    layers: tuple[int, ...] | None = Field(None, description="layers whose low-rate neurons are counted; default: the family's preset")
    rates: tuple[Rate, ...] = Field((0.02, 0.05, 0.1, 0.2, 0.3), min_length=1, description="values of R, all counted in one pass")
    curvature: Literal["screened", "exact"] = Field(
        "screened", description="CLA of every sample as far as its verdict needs it, from a pilot of exact scores; or exact CLA of all"
    )
    curvature_precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32", description="numbers in which the passes of CLA run; bfloat16 changes scores by less than a thousandth"
    )
    curvature_layers: tuple[int, ...] = Field((), description="layers whose CLA is scored, besides those that rules name; part of the risk")
    curvature_error: float = Field(
        0.01, gt=0.0, lt=0.5, description="share of verdicts that screening may change against exact CLA, at each limit"
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        check_strengths(self.rates, "rates")
        return self

    @property
    def smallest_pilot(self) -> int:
        """Exact scores without which the stated error cannot be shown: even a flawless half of n says no more than 1 / (n + 1)."""
        return 2 * max(10, math.ceil(1.0 / self.curvature_error - 1.0))


class JoinedRisk(Part):
    """How the scores of a sample are joined into one risk: the weighted sum of −ln(how rare each is in the calibration)."""

    weights: dict[str, float] | None = Field(
        None, description="weight of each score; default: 1 for each detection layer's count, never-seen neurons and each CLA"
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        values = [1.0] if self.weights is None else list(self.weights.values())
        if not all(math.isfinite(value) and value >= 0 for value in values) or not sum(values) > 0:
            raise ValueError("weights must be at least 0, and one of them more")
        return self


class Rule(Part):
    """A sample whose score lies over the limit is corrected if possible, or rejected at once."""

    id: RuleId
    score: str = Field(description="name of the score, e.g. low_rate_0.1, low_rate_0.1/layer_2, never_seen_active, cla/layer_1, risk")
    limit: Limit
    action: Literal[Verdict.CORRECT, Verdict.REJECT] = Verdict.CORRECT


class Calibration(Part):
    """How a checkpoint is learned before it is gated."""

    rate_samples: int = Field(30_000, ge=100, description="latents for the activation rates; the paper's 30,000")
    score_samples: int = Field(10_000, ge=100, description="other latents, for the quantiles of the scores")
    curvature_samples: int = Field(0, ge=0, description="how many of those get exact CLA; needed by rules on cla and corrections by it")
    seed: int = Field(0, ge=0, lt=2**64, description="seed of the calibration; gating with it is refused")


class BatchRule(Part):
    """An expectation on the summary of a gated set."""

    id: RuleId
    metric: str = Field(description="name of a metric of the summary, e.g. accepted_share")
    min: float | None = Field(None, allow_inf_nan=False)
    max: float | None = Field(None, allow_inf_nan=False)
    severity: Severity = "critical"

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is over max {self.max:g}: nothing can pass")
        return self


class Policy(Part):
    """Everything that decides. Only the parts `detection` and `calibration` need a new calibration when they change."""

    format: Literal[1] = 1
    detection: Detection = Detection()
    calibration: Calibration = Calibration()
    risk: JoinedRisk = JoinedRisk()
    rules: tuple[Rule, ...] = Field((Rule(id="low_rate", score=names.low_rate(0.1), limit=Limit(quantile=0.9)),), min_length=1)
    correction: AnyCorrection | None = SequentialAblation()
    batch: tuple[BatchRule, ...] = (
        BatchRule(id="yield", metric=names.YIELD, min=0.8),
        BatchRule(id="accepted", metric=names.ACCEPTED_SHARE, min=0.75, severity="warning"),
    )
    require_validated: bool = Field(
        False, description="refuse to gate by a score that `qualitygate validate` has not found to see what is bad; not part of the hash"
    )
    check: Check = Check()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_ids("rules", self.rules)
        _check_ids("batch", self.batch)
        for rule in self.rules:
            self._check_score(rule)
        for checked in self.check.rules or ():
            self._check_rule(checked)
        if self.check.seed == self.calibration.seed:
            raise ValueError("check.seed must not be calibration.seed: samples that set the limits must not be judged by them")
        if self.correction is not None and self.correction.judged_at not in self.detection.rates:
            raise ValueError(f"correction.judged_at is {self.correction.judged_at:g}, which is not one of detection.rates")
        if self.screens and self.calibration.curvature_samples < self.detection.smallest_pilot:
            raise ValueError(
                f"screening CLA with an error of {self.detection.curvature_error:g} needs calibration.curvature_samples of at least "
                f"{self.detection.smallest_pilot}, better 1,000; or set detection.curvature: exact"
            )
        if self.calibration.curvature_samples > self.calibration.score_samples:
            raise ValueError("calibration.curvature_samples are some of the score_samples: there cannot be more of them")
        if self.profile_curvature and not self.calibration.curvature_samples:
            raise ValueError("correction.score cla with ranking: profile needs the CLA of the units: set calibration.curvature_samples")
        return self

    def _check_score(self, rule: Rule) -> None:
        found = parse(rule.score)
        if found is None:
            raise ValueError(f"rule {rule.id} names an unknown score {rule.score!r}")
        if found.rate is not None and found.rate not in self.detection.rates:
            raise ValueError(f"rule {rule.id} needs {rule.score}, but detection.rates has only {list(self.detection.rates)}")
        if found.score is CLA and rule.limit.quantile is not None and not self.calibration.curvature_samples:
            raise ValueError(f"rule {rule.id} needs quantiles of {rule.score}: set calibration.curvature_samples")
        if rule.action is Verdict.CORRECT and self.correction is None:
            raise ValueError(f"rule {rule.id} asks for a correction, but there is no correction section; use action: reject")

    def _check_rule(self, rule: CheckRule) -> None:
        quantile, at = score_quantile(rule.metric), names.low_rate_share_at(rule.metric)
        if quantile is not None and (found := parse(quantile[0])) is not None:
            at = found.rate
            if found.score is CLA and found.layer not in self.curvature_layers():
                raise ValueError(f"check rule {rule.id} needs {quantile[0]}: add {found.layer} to detection.curvature_layers")
        if at is not None and at not in self.detection.rates:
            raise ValueError(f"check rule {rule.id} needs R = {at:g}, but detection.rates has only {list(self.detection.rates)}")

    @property
    def hash(self) -> str:
        """SHA-256 of the policy by which samples are judged; thresholds included, the check of checkpoints not."""
        return canonical_hash(self.model_dump(mode="json", exclude={"check", "require_validated"}))

    def check_hash(self, *, real: bool = False) -> str:
        """SHA-256 of all that a check of a checkpoint goes by: the whole policy, its default rules written out."""
        rules = [rule.model_dump(mode="json") for rule in self.check_rules(real=real)]
        return canonical_hash({**self.model_dump(mode="json"), "rules_of_the_check": rules})

    @property
    def headline_rate(self) -> float:
        """R of the first rule on low-rate counts: the one that rankings, heatmaps and pictures use. The paper's 0.3 if there is none."""
        return next((found.rate for found in self._judged if found.score is LOW_RATE and found.rate is not None), 0.3)

    @property
    def profile_curvature(self) -> bool:
        """Whether the correction needs the CLA of the units in the profile."""
        return self.correction is not None and self.correction.profile_score in (names.UNIT_CLA, names.UNIT_CLA_PLAIN)

    def with_correction(self, correction: Correction) -> Policy:
        """The same policy with another correction; a `PolicyError` where they do not go together."""
        return parse_policy({**dict(self), "correction": correction}, f"with {correction.method}")

    def check_rules(self, *, real: bool = False) -> tuple[CheckRule, ...]:
        """With real images or without: see `default_rules`."""
        return self.check.rules or default_rules(self.headline_rate, real=real)

    def counted_layers(self) -> tuple[int, ...]:
        """Layers whose counts a rule needs by themselves, whether or not they are summed for detection."""
        return tuple(sorted({found.layer for found in self._judged if found.score.read_by is not None and found.layer is not None}))

    def curvature_layers(self) -> tuple[int, ...]:
        """Layers whose CLA is scored: for a rule, for the risk, or because the detection asks for it."""
        named = {layer for score in self._scores if (layer := cla_layer(score)) is not None}
        return tuple(sorted(named | set(self.detection.curvature_layers)))

    @property
    def read_scores(self) -> tuple[Score, ...]:
        """Scores that are read in the early pass: those that always are, and others that a rule, the risk or the check names."""
        checked = [quantile[0] for rule in self.check.rules or () if (quantile := score_quantile(rule.metric)) is not None]
        named = {found.score.name for column in (*self._scores, *checked) if (found := parse(column)) is not None}
        return tuple(one for one in SCORES.values() if one.read_by is not None and (one.always or one.name in named))

    @property
    def _scores(self) -> tuple[str, ...]:
        """What rules and the risk name."""
        return (*(rule.score for rule in self.rules), *(self.risk.weights or ()))

    @property
    def _judged(self) -> list[ScoreColumn]:
        return [found for rule in self.rules if (found := parse(rule.score)) is not None]

    @property
    def screens(self) -> bool:
        """Whether CLA is screened."""
        return bool(self.curvature_layers()) and self.detection.curvature == "screened"


def load_policy(path: str | Path) -> Policy:
    """Read a policy from YAML.

    Raises:
        PolicyError: no such file, not YAML, unknown keys or impossible values; all of them are listed.
    """
    path = Path(path)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise PolicyError(f"No policy at {path}", "no such file", "a YAML file", "`qualitygate schema --example` prints one") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"Cannot read the policy {path}", str(error), "a YAML file") from error
    return parse_policy({} if document is None else document, str(path))


def parse_policy(document: Any, where: str) -> Policy:
    """A policy from plain data; ``where`` names it in errors."""
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        needed = "keys and values as in `qualitygate schema policy`"
        raise PolicyError(f"The policy {where} cannot be used", problems(error, "policy"), needed) from error


def problems(error: ValidationError, whole: str) -> str:
    """All that is wrong with a document, each with its place; ``whole`` names the document itself."""
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or whole}: {one['msg']}" for one in error.errors())


def policy_yaml(policy: Policy) -> str:
    """The policy as a YAML document with every value written out."""
    return yaml.safe_dump(json.loads(policy.model_dump_json()), sort_keys=False, allow_unicode=True)
