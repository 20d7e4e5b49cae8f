"""``qualitygate check``: pass or fail a new checkpoint."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.cli import GATE_FAILED, INCONCLUSIVE, PASSED, output
from qualitygate.cli.requests import command
from qualitygate.errors import InputError, QualityGateError, TrackingError
from qualitygate.policy.model import Policy
from qualitygate.records.check import CheckRecord
from qualitygate.studies.check import CheckRequest

if TYPE_CHECKING:
    from qualitygate.tracking.promotion import Version
    from qualitygate.tracking.spool import Tracking


@command(CheckRequest)
def run(request: CheckRequest) -> int:
    """Pass or fail a checkpoint: its scores, units and images against rules and, if there is one, against a baseline.

    Both are looked at on the same latents. A rule is decided by the interval of the difference; while one that is critical is open the
    sample grows, within check.budget of the policy. Exit codes: 0 passed, 1 failed, 4 inconclusive, 3 passed but not promoted.

        qualitygate check new.pt --baseline models:/faces@champion --real photos/ --policy policy.yaml --out check --promote champion
    """
    from qualitygate import storage
    from qualitygate.studies.check.model import CheckLoader
    from qualitygate.studies.check.run import check

    if request.out is not None:
        storage.refuse_existing(request.out)
    registry = Registry.of(request)
    resolved = request.model_copy(update={"tracking_uri": registry.uri})
    loader = CheckLoader(resolved, output.reporter(), (registry.candidate, registry.baseline))
    if request.dry_run:
        _show_plan(loader.policy, real=loader.images_decide)
        return PASSED
    sides = loader.sides()
    result = check(*sides, loader.policy, loader.inputs(*sides))
    with tempfile.TemporaryDirectory(prefix="qualitygate-") as temporary:
        folder = request.out or Path(temporary) / "check"
        result.write(folder)
        _tell(result.record, request.out)
        code = _exit_code(result.record, error_on_warning=request.error_on_warning)
        if request.track or registry.acts:
            registry.send(folder, result.record, good=code == PASSED)
    return PASSED if request.exit_zero else code


def _exit_code(record: CheckRecord, *, error_on_warning: bool) -> int:
    if record.verdict == "failed" or (error_on_warning and record.warned):
        return GATE_FAILED
    open_warning = any(one.state == "inconclusive" and one.severity == "warning" for one in record.rules)
    return INCONCLUSIVE if record.verdict == "inconclusive" or (error_on_warning and open_warning) else PASSED


def _show_plan(policy: Policy, *, real: bool) -> None:
    rules, settings = policy.check_rules(real=real), policy.check
    title = f"{settings.samples:,} samples, up to {settings.budget.samples:,}; error {settings.error:g} over {settings.looks} looks"
    rows = [(rule.id, rule.severity, rule.metric, rule.limit, rule.optional) for rule in rules]
    document = {**settings.model_dump(mode="json"), "rules": [rule.model_dump(mode="json") for rule in rules]}
    output.result(document, [(title, ("rule", "severity", "metric", "limit", "optional"), rows)])


def _tell(record: CheckRecord, out: Path | None) -> None:
    """The result; and where GitHub runs this, its annotations and step summary."""
    from qualitygate.reports import check_text

    rules = (check_text.headline(record), check_text.HEADER, [row for _, row in check_text.cells(record)])
    lines = (*check_text.hand_written_failures(record), *check_text.footing(record))
    output.result({"out": out, **record.model_dump(mode="json")}, (rules, *lines))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in check_text.workflow_commands(record):
            output.say(line)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("ab") as file:
                file.write(check_text.step_summary(record, check_text.SUMMARY_BYTES - file.tell()).encode())
        except OSError as error:  # the verdict has still to be tracked
            output.say(f"Warning: nothing was added to GITHUB_STEP_SUMMARY: {error}")


@dataclass(frozen=True)
class Registry:
    """What is to be done in MLflow's registry, and where its aliases stood when the check began."""

    request: CheckRequest
    uri: str | None
    candidate: Version | None = None  # of candidate and baseline, where they come from there
    baseline: Version | None = None
    model: str | None = None  # the registered model that is acted on
    expected: str | None = None  # the version that held the alias

    @property
    def acts(self) -> bool:
        """Whether the registry is to be written to: then MLflow's absence is an error."""
        return self.request.promote is not None or self.request.tag_only

    @classmethod
    def of(cls, request: CheckRequest) -> Registry:
        """Where it stands now; an `InputError` where what was asked for contradicts itself, or cannot be done with these two."""
        from qualitygate.checkpoints.sources import shown

        model, alias, candidate, baseline = request.model, request.promote, request.checkpoint, request.baseline
        acts = cls(request, None).acts
        if alias is not None and request.tag_only:
            raise InputError("--promote and --tag-only contradict each other", "both", "one of them")
        if model is not None and not acts:
            raise InputError("--model alone writes nothing", f"--model {model}", "--promote or --tag-only with it")
        if acts:
            _check_stands_alone(request)
        if not any((acts, candidate.startswith("models:"), (baseline or "").startswith("models:"))):
            return cls(request, request.tracking_uri)
        from qualitygate.mlflow_client import tracking_uri
        from qualitygate.tracking.promotion import alias_version, version_of

        uri = tracking_uri(request.tracking_uri)
        ours, theirs = version_of(candidate, uri), None if baseline is None else version_of(baseline, uri)
        name = model or (ours.name if ours else theirs.name if theirs and acts else None)
        if acts and name is None:
            needed = "--model NAME, or a candidate or baseline in models:/…"
            raise InputError("There is no registered model to act on", shown(candidate), needed)
        if ours is not None and name != ours.name:
            raise InputError("--model is for a candidate that is not registered yet", f"--model {model} for {candidate}", "one of them")
        expected = alias_version(name, alias, uri) if alias is not None and name is not None else None
        if expected is not None and (theirs is None or (theirs.name, theirs.version) != (name, expected)):
            needed = f"--baseline models:/{name}@{alias}, which is version {expected}"
            found = f"--baseline {shown(str(baseline))}"
            raise InputError(f"Only what was checked against {name}@{alias} can take its place", found, needed)
        return cls(request, uri, ours, theirs, name, expected)

    def send(self, folder: Path, record: CheckRecord, *, good: bool) -> None:
        """Log the check; where the registry is to be acted on, write the verdict onto the version, and promote one that is ``good``: that
        passed, without warnings where they count."""
        from qualitygate.mlflow_client import tracking_uri

        uri, kept = tracking_uri(self.uri), self.request.out is not None
        sent = _sent(folder, uri, self.request.experiment, kept=kept)
        if sent.error is None and self.acts:
            self._act(folder, record, str(sent.run_id), str(sent.model_id), uri, good=good)
        elif self.acts:
            what = f"The check was {record.verdict.value}, and nothing was written to the registry"
            raise TrackingError(what, sent.error, "an MLflow that keeps the record", "check again when it is there")
        elif sent.error is not None:
            later = "`qualitygate sync` sends what --out wrote" if kept else "give --out to have what can be sent later"
            output.say(f"warning: MLflow was not reached, the verdict stands; {later}: {sent.error}")

    def _act(self, folder: Path, record: CheckRecord, run_id: str, model_id: str, uri: str, *, good: bool) -> None:
        """Register a new candidate, tag its version, and move the alias to a pass."""
        from qualitygate.checkpoints.sources import resolve
        from qualitygate.tracking.promotion import promote, register, tag_version

        version, alias = self.candidate, self.request.promote
        if version is None:
            assert self.model is not None
            file = resolve(self.request.checkpoint, self.request.sha256, tracking_uri=uri)
            version = register(self.model, record, model_id, file, uri)
        tag_version(version, record, run_id, uri)
        if alias is not None and good:
            promote(version, alias, self.expected, folder, run_id, uri)
            output.say(f"{version} is now {alias}")
        elif alias is not None:
            warned = " with warnings" if record.verdict == "passed" else ""
            output.say(f"{version} is not promoted: {record.verdict.value}{warned}")


def _sent(folder: Path, uri: str, experiment: str, *, kept: bool) -> Tracking:
    """What became of the sending. Of a folder that is about to go nobody is told to send it later."""
    from qualitygate.tracking.sending import send
    from qualitygate.tracking.spool import State, Tracking, push
    from qualitygate.tracking.studies import check_parcel

    if kept:
        return push(folder, uri, experiment)
    try:
        logged = send(check_parcel(folder), uri, experiment)
    except QualityGateError as error:
        return Tracking(state=State.PENDING, error=f"{error.what}: {error.found}")
    return Tracking(state=State.SENT, run_id=logged.run_id, model_id=logged.model_id)


def _check_stands_alone(request: CheckRequest) -> None:
    """Refuse a candidate that the registry cannot hold: whoever loads a version has its file alone."""
    remedy = "check it without --model, --promote and --tag-only"
    if request.checkpoint.startswith("module:"):
        raise InputError("The registry takes checkpoint files", f"{request.checkpoint}, which is a function", "a file", remedy)
    options = [f"--set {one}" for one in request.settings or ()]
    options += [] if request.family is None else [f"--family {request.family}"]
    if options:
        what = "Registered alone, the file would be loaded as another network than the one that is checked"
        raise InputError(what, " ".join(options), "a file that shows what it is", f"`qualitygate convert` makes one, or {remedy}")
