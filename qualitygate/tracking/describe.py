"""A gated set in MLflow's words: parameters, tags and a note. Nothing here talks to a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qualitygate import names
from qualitygate.policy.corrections import Correction
from qualitygate.records.gate import ExpectationResult, SuiteResult
from qualitygate.tracking.gated_set import REPORT, GatedSet

if TYPE_CHECKING:
    from qualitygate.tracking.champion import Champion

GATE_ID = "qualitygate.gate_id"
CHECKPOINT = "qualitygate.checkpoint_sha256"
VERDICT = "qualitygate.verdict"
POLICY_HASH = "qualitygate.policy_hash"
PROFILE_ID = "qualitygate.profile_id"
SUITE_HASH = "qualitygate.suite_hash"
NOT_FINITE = "qualitygate.metrics_not_finite"
NOTE = "mlflow.note.content"

LISTED = 20
"""Entries of a list in a tag or note, which MLflow limits to 8,000 characters; all of them are in the artifacts."""
_FIRST = 3  # expectations on the first line
LONGEST = 100
"""Characters of one such entry."""


def model_tags(gated: GatedSet) -> dict[str, str]:
    """What the checkpoint's model shows: its last verdict and by which rules."""
    provenance = gated.summary.provenance
    return {
        CHECKPOINT: provenance.checkpoint_sha256,
        VERDICT: gated.verdict,
        POLICY_HASH: provenance.policy_hash,
        PROFILE_ID: provenance.profile_id,
    }


def run_tags(gated: GatedSet, against: Champion | None = None) -> dict[str, str]:
    """The tags of the gate's run, the note among them; ``against`` is the champion it is held against."""
    provenance = gated.summary.provenance
    tags = model_tags(gated) | {
        GATE_ID: gated.gate_id,
        SUITE_HASH: provenance.suite_hash,
        "qualitygate.version": provenance.package_version,
        "qualitygate.torch_version": provenance.torch_version,
        "qualitygate.device": provenance.device,
        "qualitygate.precision": provenance.precision,
        NOTE: note(gated, against),
    }
    if gated.not_finite:
        tags[NOT_FINITE] = ", ".join(_at_most(gated.not_finite))
    return tags


def run_params(gated: GatedSet) -> dict[str, str]:
    """What decided: the policy's detection, rules and correction, and the limits as they were applied."""
    policy = gated.policy
    params = {
        "family": gated.summary.provenance.family,
        "seed": str(gated.summary.provenance.seed),
        "detection.layers": _listed(policy.detection.layers),
        "detection.rates": _listed(policy.detection.rates),
    }
    for rule in policy.rules:
        params |= {
            f"rule.{rule.id}.score": rule.score,
            f"rule.{rule.id}.limit": _limit(rule.limit.quantile, rule.limit.value),
            f"rule.{rule.id}.action": rule.action.value,
        }
    params |= _correction(policy.correction)
    return params | {f"limit.{limit.rule}/{limit.score}": f"{limit.limit:g}" for limit in gated.summary.limits}


def note(gated: GatedSet, against: Champion | None = None) -> str:
    """A few sentences in Markdown: verdict, shares, the expectations that failed, what changed against the champion, what to look at."""
    return "\n\n".join(_paragraphs(gated, against))


def _paragraphs(gated: GatedSet, against: Champion | None) -> Iterator[str]:
    summary, suite = gated.summary, gated.summary.suite
    yield f"**{gated.verdict.capitalize()}**: {summary.samples:,} samples of `{_short(summary.provenance.checkpoint)}`{_why(suite)}"
    parts = {"accepted": summary.accepted, "corrected": summary.corrected, "rejected": summary.rejected}
    shares = (f"{count / max(summary.samples, 1):.1%} {name}" for name, count in parts.items())
    yield f"{', '.join(shares)}; {summary.borderline:,} within tolerance of a limit."
    if suite is None:
        yield "No expectations were evaluated."
    elif not suite.failures:
        yield f"All {suite.evaluated} expectations were met."
    else:
        failures = _at_most([_failure(result) for result in suite.failures])
        yield f"{len(suite.failures)} of {suite.evaluated} expectations failed:"
        yield "\n".join(f"- {failure}" for failure in failures)
    if summary.reasons:
        often = sorted(summary.reasons.items(), key=lambda item: (-item[1], item[0]))[:5]
        yield "Most frequent reasons: " + ", ".join(f"`{_short(reason)}` ({count:,})" for reason, count in often) + "."
    if against is not None:
        yield from _changes(gated, against)
    places = [f"`{REPORT}`, under Artifacts (everything on one page)"] if gated.has_report else []
    places += [f"`{key}`" for key in gated.sheets]
    if gated.has_units:
        places.append(f"`{names.RANKING_TABLE}` (the units to suspect)")
    if places:
        yield f"Look at {', '.join(places)}."


def _why(suite: SuiteResult | None) -> str:
    """The expectations that decided, on the first line: MLflow folds the rest away."""
    decisive = [] if suite is None else [one.id for one in suite.failures if one.severity == "critical"]
    more = f" and {len(decisive) - _FIRST} more" if len(decisive) > _FIRST else ""
    return f"; failed {', '.join(f'`{_short(one)}`' for one in decisive[:_FIRST])}{more}" if decisive else ""


def _changes(gated: GatedSet, against: Champion) -> Iterator[str]:
    """How the shares stand to the champion's. Score quantiles are relative to each checkpoint's own rates: they do not compare."""
    who = f"the champion, `{_short(against.name)}` version {against.version}"
    shares = (names.YIELD, names.ACCEPTED_SHARE, names.CORRECTED_SHARE, names.REJECTED_SHARE)
    known = [name for name in shares if name in against.metrics and name in gated.metrics]
    if not known:
        yield f"Nothing is known of {who}, that could be compared."
        return
    changes = (f"{name} {against.metrics[name]:.1%} → {gated.metrics[name]:.1%}" for name in known)
    yield f"Against {who}: {', '.join(changes)}. `qualitygate compare` tells what of it is chance."


def _failure(result: ExpectationResult) -> str:
    return f"`{_short(result.id)}` ({result.severity}): observed {_short(str(result.observed))}"


def _correction(correction: Correction | None) -> dict[str, str]:
    if correction is None:
        return {"correction": "none"}
    settings = {name: value for name, value in correction if name not in ("method", "limit")}
    return {
        "correction": correction.method,
        **{f"correction.{name}": _setting(name, value) for name, value in settings.items()},
        "correction.limit": _limit(correction.limit.quantile, correction.limit.value),
    }


def _setting(name: str, value: Any) -> str:
    if value is None:
        return "preset" if name == "layers" else "default"
    if isinstance(value, tuple):
        return _listed(value)
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _limit(quantile: float | None, value: float | None) -> str:
    return f"quantile {quantile:g}" if quantile is not None else f"{value:g}"


def _listed(values: Sequence[float] | None) -> str:
    return "preset" if values is None else ", ".join(f"{value:g}" for value in values)


def _at_most(entries: Sequence[str]) -> list[str]:
    more = len(entries) - LISTED
    return [*entries[:LISTED], f"and {more} more"] if more > 0 else list(entries)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
