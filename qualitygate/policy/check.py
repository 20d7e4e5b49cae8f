"""What a new checkpoint is checked for: rules on the numbers of a checkpoint, absolute or against a baseline."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from qualitygate import names
from qualitygate.policy.parts import Part

Severity = Literal["critical", "warning", "info"]

TO_BASELINE: Mapping[str, str] = {
    names.PRECISION_TO_BASELINE: names.PRECISION,
    names.RECALL_TO_BASELINE: names.RECALL,
    names.COVERAGE_TO_BASELINE: names.COVERAGE,
    names.REALISM_TO_BASELINE: names.REALISM,
}
"""Metrics against other images of the baseline, and what each of them is called against real images."""
HIGHER_IS_BETTER = frozenset(
    {
        names.ACCEPTED_SHARE,
        names.YIELD,
        names.PRECISION,
        names.RECALL,
        names.DENSITY,
        names.COVERAGE,
        names.REALISM,
        names.DISCRIMINATOR,
        *TO_BASELINE,
    }
)
"""Metrics of a check of which more is better; less of any other is."""
SHARES = (names.ACCEPTED_SHARE, names.CORRECTED_SHARE, names.REJECTED_SHARE, names.YIELD, names.BORDERLINE_SHARE)
AGAINST_REAL = (names.PRECISION, names.RECALL, names.DENSITY, names.COVERAGE, names.REALISM, names.FID, names.KID)
"""Metrics that need real images."""
OF_IMAGES = (*AGAINST_REAL, *TO_BASELINE, names.PPL, names.DISCRIMINATOR)


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

    id: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
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
        check_metric(self.metric)
        return self

    @property
    def higher_is_better(self) -> bool:
        return self.metric in HIGHER_IS_BETTER

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
        ids = [rule.id for rule in self.rules or ()]
        if len(set(ids)) != len(ids):
            raise ValueError("the ids of check.rules must differ")
        return self

    @property
    def looks(self) -> int:
        """How often the sample may be looked at: the first time, and after every doubling within the budget."""
        return 1 + int(math.log2(self.budget.samples / self.samples))


def default_rules(rate: float, *, real: bool = False) -> tuple[CheckRule, ...]:
    """Rules that fit every family; what needs more than the checkpoint is optional.

    The best evidence decides. With real images it is the images, and what is counted inside warns: between snapshots of one training
    low-rate and dead units grow while the images improve. Without, the counts decide, as there is nothing else.

    Args:
        rate: R of the low-rate score.
        real: there are real images, and a baseline whose images are held against them too.
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
        # without real images; no more than a warning, as a better checkpoint is as unlike its baseline as a damaged one
        rule("precision_to_baseline", names.PRECISION_TO_BASELINE, "warning", absolute=0.15),
        rule("recall_to_baseline", names.RECALL_TO_BASELINE, "warning", absolute=0.15),
        rule("coverage_to_baseline", names.COVERAGE_TO_BASELINE, "warning", absolute=0.15),
    )


def score_quantile(metric: str) -> tuple[str, float] | None:
    """Score and q of a metric ``<score>/q<q>``, or None."""
    found = re.fullmatch(r"(.+)/q(0\.[0-9]+)", metric)
    if found is None or names.quantile(found[1], float(found[2])) != metric:
        return None
    return found[1], float(found[2])


def check_metric(metric: str) -> None:
    """Raises `ValueError` if no check knows this metric."""
    if metric in (*SHARES, *OF_IMAGES, names.DEAD_UNITS) or names.is_worst_unit_cla(metric):
        return
    if names.low_rate_share_at(metric) is not None:
        return
    found = score_quantile(metric)
    if found is None or not is_score(found[0]):
        raise ValueError(
            f"there is no metric {metric!r}: name a share ({', '.join(SHARES)}), a quantile of a score (low_rate_0.1/q0.9), "
            f"low_rate_share_R, {names.DEAD_UNITS}, {names.WORST_UNIT_CLA}, or one of {', '.join(OF_IMAGES)}"
        )


def is_score(name: str) -> bool:
    """Whether this is the name of a sample score that a gate can compute."""
    known = names.low_rate_at(name) is not None or names.cla_layer(name) is not None
    return known or names.is_never_seen(name) or name == names.RISK
