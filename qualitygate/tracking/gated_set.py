"""A gated set as it lies on disk, and what of it is sent to MLflow: all that MLflow knows, and nothing but that."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from qualitygate import names
from qualitygate.errors import InputError
from qualitygate.policy.corrections import Limit
from qualitygate.policy.model import Policy, load_policy
from qualitygate.records.gate import GateSummary
from qualitygate.tracking.sending import Parcel, TrackedCheckpoint, finite, software_tags

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

SUMMARY = "summary.json"
POLICY = "policy.yaml"
UNITS = "units.parquet"
REPORT = "report.html"
FILES = (REPORT, SUMMARY, "samples.parquet", "manifest.parquet", "survey.parquet", "exhibit.parquet", UNITS, POLICY, "suite.json")
FOLDERS = ("gallery", "figures")  # bounded; the images themselves stay
RANKING_ROWS = 200
CHAMPION = "champion"

_LISTED, _LONGEST = 20, 100
"""Entries of a list in a tag or note, which MLflow limits to 8,000 characters, and characters of each; all of it is in the artifacts."""
_FIRST = 3  # expectations on the first line


@dataclass(frozen=True)
class GatedSet:
    """The parts of a gated folder that tracking needs."""

    folder: Path
    summary: GateSummary
    policy: Policy
    gate_id: str  # SHA-256 of ``summary.json``, provenance and all: the same set is recognised wherever it was sent

    @cached_property
    def metrics(self) -> dict[str, float]:
        return finite(self.summary.metrics)

    @property
    def sheets(self) -> dict[str, Path]:
        """The contact sheets that are there, by image key."""
        return {key: path for key in names.SHEET_KEYS if (path := self.folder / f"{key}.png").is_file()}

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()


@dataclass(frozen=True)
class Champion:
    """The checkpoint that stands now: the version of a registered model with the alias ``champion``, and what its last gate measured."""

    name: str
    version: str
    metrics: Mapping[str, float]


def read_gated_set(folder: str | Path) -> GatedSet:
    """Read what the gate wrote."""
    folder = Path(folder)
    if not (folder / SUMMARY).is_file():
        raise InputError(f"{folder} is not a gated set", f"no {SUMMARY} in it", "a folder written by `qualitygate gate`")
    content = (folder / SUMMARY).read_bytes()
    try:
        document = json.loads(content)
        # JSON has no number that is not finite: writers put null in its place
        document["metrics"] = {name: math.nan if value is None else value for name, value in document["metrics"].items()}
        summary = GateSummary.model_validate(document)
    except (ValueError, LookupError, TypeError, AttributeError, ValidationError) as error:
        raise InputError(f"Cannot read {folder / SUMMARY}", str(error), "the summary of a gated set", "gate the set again") from error
    return GatedSet(folder, summary, load_policy(folder / POLICY), hashlib.sha256(content).hexdigest())


def gated_parcel(folder: str | Path) -> Parcel:
    """What is sent of a gated set; the folder is only read."""
    gated = read_gated_set(folder)
    origin = gated.summary.provenance
    shown = {
        names.TAG_CHECKPOINT: origin.checkpoint_sha256,
        names.TAG_VERDICT: gated.summary.verdict,
        names.TAG_POLICY: origin.policy_hash,
        names.TAG_PROFILE: origin.profile_id,
    }
    checkpoint = TrackedCheckpoint(origin.checkpoint, origin.checkpoint_sha256, origin.family, shown, gated.metrics)
    left_out = sorted(gated.summary.metrics.keys() - gated.metrics.keys())
    return Parcel(
        what=gated.folder,
        identity=(names.TAG_GATE, gated.gate_id),
        run_name=f"{checkpoint.name}, seed {origin.seed}",
        checkpoints=(checkpoint,),
        params=run_params(gated),
        tags=shown
        | {names.TAG_SUITE: origin.suite_hash}
        | software_tags(origin)
        | ({names.TAG_NOT_FINITE: ", ".join(_at_most(left_out))} if left_out else {}),
        note=lambda client: note(gated, find_champion(client, origin.family, origin.checkpoint_sha256)),
        files=[gated.folder / name for name in FILES if gated.has(name)],
        folders={name: gated.folder / name for name in FOLDERS if (gated.folder / name).is_dir()},
        table=(names.RANKING_TABLE, ranking(gated.folder / UNITS, names.UNIT_CLA, names.UNIT_LOW_RATE)) if gated.has(UNITS) else None,
        images=gated.sheets,
    )


def ranking(table: Path, *by: str) -> pd.DataFrame:
    """The units of a table to look at first: those with the highest values of the first column that has any, then of the next."""
    import pandas as pd

    units = pd.read_parquet(table)
    units = units[[names.UNIT_KEY, *units.columns.drop(names.UNIT_KEY)]]
    return units.sort_values(list(by), ascending=False, na_position="last", kind="stable").head(RANKING_ROWS)


def run_params(gated: GatedSet) -> dict[str, str]:
    """What decided: the policy's detection, rules and correction, and the limits as they were applied."""
    policy, correction = gated.policy, gated.policy.correction
    params = {
        "family": gated.summary.provenance.family,
        "seed": str(gated.summary.provenance.seed),
        "detection.layers": _setting("layers", policy.detection.layers),
        "detection.rates": _setting("rates", policy.detection.rates),
        "correction": "none" if correction is None else correction.method,
    }
    if gated.summary.image_encoding is not None:
        params["images"] = str(gated.summary.image_encoding)
    for rule in policy.rules:
        params[f"rule.{rule.id}.score"] = rule.score
        params[f"rule.{rule.id}.limit"] = _limit(rule.limit)
        params[f"rule.{rule.id}.action"] = rule.action.value
    if correction is not None:
        params |= {f"correction.{name}": _setting(name, value) for name, value in correction if name not in ("method", "limit")}
        params["correction.limit"] = _limit(correction.limit)
    return params | {f"limit.{limit.rule}/{limit.score}": f"{limit.limit:g}" for limit in gated.summary.limits}


def find_champion(client: MlflowClient, family: str, sha256: str) -> Champion | None:
    """The champion of this family, if there is exactly one and it is another checkpoint; anything else would be a guess."""
    found = []
    for model in client.search_registered_models():
        if (version := model.aliases.get(CHAMPION)) is None:
            continue
        source = client.get_model_version(model.name, str(version)).source or ""
        if source.startswith("models:/m-"):  # else it was made from a file
            logged = client.get_logged_model(source.removeprefix("models:/"))
            if logged.params.get("family") == family:
                found.append((model.name, str(version), logged))
    if len(found) != 1 or found[0][2].tags.get(names.TAG_CHECKPOINT) == sha256:
        return None
    name, version, logged = found[0]
    newest = sorted(logged.metrics or [], key=lambda metric: metric.timestamp)
    return Champion(name, version, {metric.key: metric.value for metric in newest})


def note(gated: GatedSet, against: Champion | None = None) -> str:
    """A few sentences in Markdown: verdict, shares, the expectations that failed, what changed against the champion, what to look at."""
    summary, suite = gated.summary, gated.summary.suite
    # what decided is on the first line: MLflow folds the rest away
    decisive = [f"`{_short(one.id)}`" for one in (suite.failures if suite else ()) if one.severity == "critical"]
    more = f" and {len(decisive) - _FIRST} more" if len(decisive) > _FIRST else ""
    why = f"; failed {', '.join(decisive[:_FIRST])}{more}" if decisive else ""
    said = [f"**{summary.verdict.capitalize()}**: {summary.samples:,} samples of `{_short(summary.provenance.checkpoint)}`{why}"]
    parts = {"accepted": summary.accepted, "corrected": summary.corrected, "rejected": summary.rejected}
    shares = (f"{count / max(summary.samples, 1):.1%} {name}" for name, count in parts.items())
    said.append(f"{', '.join(shares)}; {summary.borderline:,} within tolerance of a limit.")
    if suite is None:
        said.append("No expectations were evaluated.")
    elif not suite.failures:
        said.append(f"All {suite.evaluated} expectations were met.")
    else:
        failures = [f"`{_short(one.id)}` ({one.severity}): observed {_short(str(one.observed))}" for one in suite.failures]
        said.append(f"{len(failures)} of {suite.evaluated} expectations failed:")
        said.append("\n".join(f"- {failure}" for failure in _at_most(failures)))
    if summary.reasons:
        often = sorted(summary.reasons.items(), key=lambda item: (-item[1], item[0]))[:5]
        said.append("Most frequent reasons: " + ", ".join(f"`{_short(reason)}` ({count:,})" for reason, count in often) + ".")
    if against is not None:
        said.append(_changes(gated, against))
    places = [f"`{REPORT}`, under Artifacts (everything on one page)"] if gated.has(REPORT) else []
    places += [f"`{key}`" for key in gated.sheets]
    if gated.has(UNITS):
        places.append(f"`{names.RANKING_TABLE}` (the units to suspect)")
    if places:
        said.append(f"Look at {', '.join(places)}.")
    return "\n\n".join(said)


def _changes(gated: GatedSet, against: Champion) -> str:
    """How the shares stand to the champion's. Score quantiles are relative to each checkpoint's own rates: they do not compare."""
    who = f"the champion, `{_short(against.name)}` version {against.version}"
    shares = (names.YIELD, names.ACCEPTED_SHARE, names.CORRECTED_SHARE, names.REJECTED_SHARE)
    known = [name for name in shares if name in against.metrics and name in gated.metrics]
    if not known:
        return f"Nothing is known of {who}, that could be compared."
    changes = (f"{name} {against.metrics[name]:.1%} → {gated.metrics[name]:.1%}" for name in known)
    return f"Against {who}: {', '.join(changes)}. `qualitygate compare` tells what of it is chance."


def _setting(name: str, value: Any) -> str:
    if value is None:
        return "preset" if name == "layers" else "default"
    if isinstance(value, tuple):
        return ", ".join(f"{one:g}" for one in value)
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _limit(limit: Limit) -> str:
    return f"quantile {limit.quantile:g}" if limit.quantile is not None else f"{limit.value:g}"


def _at_most(entries: Sequence[str]) -> list[str]:
    more = len(entries) - _LISTED
    return [*entries[:_LISTED], f"and {more} more"] if more > 0 else list(entries)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
