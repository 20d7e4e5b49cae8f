"""What `qualitygate check` does in MLflow's registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qualitygate.cli import output

if TYPE_CHECKING:
    from qualitygate.cli.source import Source
    from qualitygate.records.check import CheckRecord
    from qualitygate.tracking.promotion import Version
    from qualitygate.tracking.spool import Tracking


@dataclass(frozen=True)
class Registry:
    """What is to be done in MLflow's registry, and where its aliases stood when the check began."""

    uri: str | None
    candidate: Version | None
    baseline: Version | None
    model: str | None
    alias: str | None
    expected: str | None
    tag_only: bool

    @property
    def acts(self) -> bool:
        """Whether the registry is to be written to: then MLflow's absence is an error."""
        return self.alias is not None or self.tag_only

    @classmethod
    def of(
        cls, source: Source, baseline: str | None, model: str | None, alias: str | None, *, tag_only: bool, given: str | None
    ) -> Registry:
        from qualitygate.checkpoints.sources import shown
        from qualitygate.errors import InputError

        if alias is not None and tag_only:
            raise InputError("--promote and --tag-only contradict each other", "both", "one of them")
        if model is not None and alias is None and not tag_only:
            raise InputError("--model alone writes nothing", f"--model {model}", "--promote or --tag-only with it")
        if alias is not None or tag_only:
            _check_stands_alone(source)
        candidate = source.checkpoint
        if not any((alias, tag_only, model, candidate.startswith("models:"), (baseline or "").startswith("models:"))):
            return cls(given, None, None, None, None, None, False)
        from qualitygate.tracking.promotion import alias_version, version_of
        from qualitygate.tracking.store import tracking_uri

        uri = tracking_uri(given)
        ours, theirs = version_of(candidate, uri), None if baseline is None else version_of(baseline, uri)
        name = model or (ours.name if ours else theirs.name if theirs and (alias or tag_only) else None)
        if (alias is not None or tag_only) and name is None:
            raise InputError(
                "There is no registered model to act on", shown(candidate), "--model NAME, or a candidate or baseline in models:/…"
            )
        if ours is not None and name != ours.name:
            raise InputError("--model is for a candidate that is not registered yet", f"--model {model} for {candidate}", "one of them")
        expected = alias_version(name, alias, uri) if alias is not None and name is not None else None
        if expected is not None and (theirs is None or (theirs.name, theirs.version) != (name, expected)):
            raise InputError(
                f"Only what was checked against {name}@{alias} can take its place",
                f"--baseline {shown(str(baseline))}",
                f"--baseline models:/{name}@{alias}, which is version {expected}",
            )
        return cls(uri, ours, theirs, name, alias, expected, tag_only)

    def send(self, folder: Path, record: CheckRecord, source: Source, experiment: str, *, good: bool, kept: bool) -> None:
        """Log the check; where the registry is to be acted on, write the verdict onto the version, and promote one that is ``good``: that
        passed, without warnings where they count. Only a folder that is ``kept`` can be sent later."""
        from qualitygate.errors import TrackingError
        from qualitygate.tracking.store import tracking_uri

        uri = tracking_uri(self.uri)
        sent = _sent(folder, uri, experiment, kept=kept)
        if sent.error is None and self.acts:
            self._act(folder, record, source, (str(sent.run_id), str(sent.model_id)), uri, good=good)
        elif self.acts:
            raise TrackingError(
                f"The check was {record.verdict.value}, and nothing was written to the registry",
                sent.error,
                "an MLflow that keeps the record",
                "check again when it is there",
            )
        elif sent.error is not None:
            later = "`qualitygate sync` sends what --out wrote" if kept else "give --out to have what can be sent later"
            output.say(f"warning: MLflow was not reached, the verdict stands; {later}: {sent.error}")

    def _act(self, folder: Path, record: CheckRecord, source: Source, sent: tuple[str, str], uri: str, *, good: bool) -> None:
        """Register a new candidate, tag its version, and move the alias to a pass."""
        from qualitygate.checkpoints.sources import resolve
        from qualitygate.tracking.promotion import promote, register, tag_version

        (run_id, model_id), version = sent, self.candidate
        if version is None:
            assert self.model is not None
            file = resolve(source.checkpoint, source.sha256, tracking_uri=uri)
            version = register(self.model, record, model_id, file, uri)
        tag_version(version, record, run_id, uri)
        if self.alias is not None and good:
            promote(version, self.alias, self.expected, folder, run_id, uri)
            output.say(f"{version} is now {self.alias}")
        elif self.alias is not None:
            warned = " with warnings" if record.verdict == "passed" else ""
            output.say(f"{version} is not promoted: {record.verdict.value}{warned}")


def _sent(folder: Path, uri: str, experiment: str, *, kept: bool) -> Tracking:
    """What became of the sending. Of a folder that is about to go nobody is told to send it later."""
    from qualitygate.errors import QualityGateError
    from qualitygate.tracking.check import log_check
    from qualitygate.tracking.spool import State, Tracking, push

    if kept:
        return push(folder, uri, experiment)
    try:
        logged = log_check(folder, uri, experiment)
    except QualityGateError as error:
        return Tracking(state=State.PENDING, error=f"{error.what}: {error.found}")
    return Tracking(state=State.SENT, run_id=logged.run_id, model_id=logged.model_id)


def _check_stands_alone(source: Source) -> None:
    """Refuse a candidate that the registry cannot hold: whoever loads a version has its file alone."""
    from qualitygate.errors import InputError

    remedy = "check it without --model, --promote and --tag-only"
    if source.checkpoint.startswith("module:"):
        raise InputError("The registry takes checkpoint files", f"{source.checkpoint}, which is a function", "a file", remedy)
    options = [f"--set {one}" for one in source.settings or ()]
    options += [] if source.family is None else [f"--family {source.family}"]
    if options:
        raise InputError(
            "Registered alone, the file would be loaded as another network than the one that is checked",
            " ".join(options),
            "a file that shows what it is",
            f"`qualitygate convert` makes one, or {remedy}",
        )
