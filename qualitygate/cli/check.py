"""``qualitygate check``: pass or fail a new checkpoint."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qualitygate.cli import GATE_FAILED, INCONCLUSIVE, output
from qualitygate.cli.options import Device, Experiment, Json, PolicyFile, Tracking, chosen_device, load_policy_or_none
from qualitygate.cli.source import Source, reads_generator

if TYPE_CHECKING:
    from qualitygate.policy.model import Policy
    from qualitygate.production.check.needs import Tools
    from qualitygate.production.check.subject import Subject
    from qualitygate.records import CheckRecord
    from qualitygate.tracking.promotion import Version

NAME = "check"


@reads_generator
def run(
    source: Source,
    baseline: Annotated[str | None, typer.Option(help="What to hold it against: a file, models:/name@champion, or a profile's folder.",
                                                 show_default=False)] = None,
    real: Annotated[str | None, typer.Option(help="Real images: a folder, archive, .npz or .parquet.", show_default=False)] = None,
    policy: PolicyFile = None,
    suite: Annotated[Path | None, typer.Option(help="Hand-written expectations, in a suite.json.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for record and reports; must not exist yet.", show_default=False)] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of check.extractor.", show_default=False)] = None,
    distance_weights: Annotated[str | None, typer.Option(help="Weights of check.distance.", show_default=False)] = None,
    track: Annotated[bool, typer.Option(help="Log to MLflow. Never changes a verdict.")] = True,
    model: Annotated[str | None, typer.Option(help="Registered model to upload a candidate file to.", show_default=False)] = None,
    tag_only: Annotated[bool, typer.Option("--tag-only", help="Write the verdict onto the registered version, move no alias.")] = False,
    promote: Annotated[str | None, typer.Option(help="Alias that a pass moves here, e.g. champion.", show_default=False)] = None,
    tracking_uri: Tracking = None,
    experiment: Experiment = "qualitygate",
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit with 0 whatever the verdict.")] = False,
    error_on_warning: Annotated[bool, typer.Option("--error-on-warning", help="Warnings count like critical rules.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the rules as they would be applied, and stop.")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:  # fmt: skip
    """Pass or fail a checkpoint: its scores, units and images against rules and, if there is one, against a baseline.

    Both are looked at on the same latents. A rule is decided by the interval of the difference; while one that is critical is open the
    sample grows, within check.budget of the policy. Exit codes: 0 passed, 1 failed, 4 inconclusive.

        qualitygate check new.pt --baseline models:/faces@champion --real photos/ --policy policy.yaml --out check --promote champion
    """
    with output.only_result_on_stdout():
        from qualitygate import storage
        from qualitygate.production.check.folder import write_check
        from qualitygate.production.check.needs import needs_reference
        from qualitygate.production.check.run import check

        if out is not None:
            storage.refuse_existing(out)
        registry = _Registry.of(source.checkpoint, baseline, model, promote, tag_only=tag_only, given=tracking_uri)
        ours, theirs, rules = _subjects(source, baseline, registry, load_policy_or_none(policy), device, dry=dry_run)
        if dry_run:
            _show_plan(rules, json)
            return
        assert ours is not None
        reference = needs_reference(rules.check_rules(), ours, theirs, real=real is not None)
        tools = _tools(rules, real, suite, weights, distance_weights, device, reference=reference)
        checked = check(ours, theirs, rules, tools)
        with tempfile.TemporaryDirectory(prefix="qualitygate-") as temporary:
            folder = out or Path(temporary) / "check"
            write_check(folder, checked, rules, ours.profile)
            _tell(checked.record, out, json)
            if track or registry.acts:
                registry.send(folder, checked.record, source, experiment)
        raise typer.Exit(exit_code(checked.record, error_on_warning=error_on_warning, exit_zero=exit_zero))


def exit_code(record: CheckRecord, *, error_on_warning: bool, exit_zero: bool) -> int:
    """0 passed, 1 failed, 4 inconclusive."""
    from qualitygate.records import RuleState

    if exit_zero:
        return 0
    open_warning = any(one.state is RuleState.INCONCLUSIVE and one.severity == "warning" for one in record.rules)
    if record.verdict is RuleState.FAILED or (error_on_warning and record.warned):
        return GATE_FAILED
    return INCONCLUSIVE if record.verdict is RuleState.INCONCLUSIVE or (error_on_warning and open_warning) else 0


@dataclass(frozen=True)
class _Registry:
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
        cls,
        source: str,
        baseline: str | None,
        model: str | None,
        alias: str | None,
        *,
        tag_only: bool,
        given: str | None,
    ) -> _Registry:
        from qualitygate.errors import InputError

        if alias is not None and tag_only:
            raise InputError("--promote and --tag-only contradict each other", "both", "one of them")
        if not any((alias, tag_only, model, source.startswith("models:"), (baseline or "").startswith("models:"))):
            return cls(given, None, None, None, None, None, False)
        from qualitygate.tracking.promotion import alias_version, version_of
        from qualitygate.tracking.store import tracking_uri

        uri = tracking_uri(given)
        ours, theirs = version_of(source, uri), None if baseline is None else version_of(baseline, uri)
        name = model or (ours.name if ours else theirs.name if theirs and (alias or tag_only) else None)
        if (alias is not None or tag_only) and name is None:
            raise InputError(
                "There is no registered model to act on",
                source,
                "--model NAME, or a candidate or baseline in models:/…",
            )
        expected = alias_version(name, alias, uri) if alias is not None and name is not None else None
        if expected is not None and (theirs is None or (theirs.name, theirs.version) != (name, expected)):
            raise InputError(f"Only what was checked against {name}@{alias} can take its place", f"--baseline {baseline}",
                             f"--baseline models:/{name}@{alias}, which is version {expected}")  # fmt: skip
        return cls(uri, ours, theirs, name, alias, expected, tag_only)

    def send(self, folder: Path, record: CheckRecord, source: Source, experiment: str) -> None:
        """Log the check; write the verdict onto the version; promote."""
        from qualitygate.records import RuleState
        from qualitygate.tracking.check import log_check
        from qualitygate.tracking.promotion import promote, register, tag_version
        from qualitygate.tracking.spool import push
        from qualitygate.tracking.store import tracking_uri

        uri = tracking_uri(self.uri)
        if not self.acts:
            if error := push(folder, uri, experiment).error:
                output.say(
                    f"warning: MLflow was not reached, the verdict stands; `qualitygate sync` sends what --out wrote: {error}"
                )
            return
        logged = log_check(folder, uri, experiment)
        version = self.candidate
        if version is None and self.model is not None:
            from qualitygate.checkpoints.sources import resolve

            version = register(
                self.model, record, logged, resolve(source.checkpoint, source.sha256, tracking_uri=uri), uri
            )
        if version is None:
            return
        tag_version(version, record, logged.run_id, uri)
        if self.alias is None:
            return
        if record.verdict is RuleState.PASSED:
            promote(version, self.alias, self.expected, folder, logged.run_id, uri)
            output.say(f"{version} is now {self.alias}")
        else:
            output.say(f"{version} is not promoted: {record.verdict.value}")


def _subjects(
    source: Source, baseline: str | None, registry: _Registry, given: Policy | None, device: str, *, dry: bool
) -> tuple[Subject | None, Subject | None, Policy]:
    """Candidate, baseline, and the policy; profiles from the cache where they are known."""
    from dataclasses import replace

    from qualitygate.gating.profile import load_profile
    from qualitygate.generators.base import Generator
    from qualitygate.policy.model import default_policy
    from qualitygate.production.check.subject import Subject, check_covers, kept_profile

    learned = load_profile(baseline) if baseline is not None and (Path(baseline) / "profile.json").is_file() else None
    pinned = (
        replace(source, checkpoint=registry.candidate.source)
        if registry.candidate and "@" in source.checkpoint
        else source
    )
    loaded = pinned.load(chosen_device(device), registry.uri)
    generator, discriminator = (
        (loaded, None) if isinstance(loaded, Generator) else (loaded.generator, loaded.discriminator)
    )
    policy = given or (learned.policy if learned else default_policy(generator.family))
    if learned is not None:  # the same latents as in the profile
        policy = policy.model_copy(update={"calibration": learned.info.calibration})
        check_covers(learned, policy)
    if dry:
        return None, None, policy
    other = None
    if learned is not None:
        other = Subject(str(baseline), learned)
    elif baseline is not None:
        address = registry.baseline.source if registry.baseline and "@" in baseline else baseline
        held = Source(address).load(chosen_device(device), registry.uri)
        assert not isinstance(held, Generator)
        other = Subject(baseline, kept_profile(held.generator, policy, reporter=output.reporter()), held.generator, held.discriminator,
                        str(registry.baseline) if registry.baseline else None)  # fmt: skip
    sampling = learned.info.sampling if learned else None
    profile = kept_profile(generator, policy, sampling, output.reporter())
    ours = Subject(
        source.checkpoint, profile, generator, discriminator, str(registry.candidate) if registry.candidate else None
    )
    return ours, other, policy


def _tools(
    policy: Policy, real: str | None, suite: Path | None, weights: str | None, distance_weights: str | None, device: str,
    *, reference: bool,
) -> Tools:  # fmt: skip
    """What the check may use; ``reference`` is whether images of the baseline stand in for real ones."""
    from qualitygate.features.cache import real_features
    from qualitygate.features.images import open_images
    from qualitygate.features.registry import make_distance, make_extractor, reads_weights
    from qualitygate.metrics.real_set import RealSet
    from qualitygate.production.check.needs import Tools

    at, settings, reporter = chosen_device(device), policy.check, output.reporter()
    parts: dict[str, Any] = {"reporter": reporter, "suite": None if suite is None else _suite(suite)}
    if real is not None or (reference and (weights is not None or not reads_weights(settings.extractor))):
        parts["extractor"] = make_extractor(settings.extractor, weights=weights, device=at)
    if real is not None:
        import torch

        images = open_images(real)
        features = torch.from_numpy(real_features(parts["extractor"], images)).to(at)
        parts["real"] = RealSet(Path(real).name, images.sha256, features)
    if any(rule.metric == "ppl" for rule in policy.check_rules()):
        parts["distance"] = make_distance(settings.distance, weights=distance_weights, device=at)
    return Tools(**parts)


def _suite(path: Path) -> dict[str, Any]:
    import json as json_

    from qualitygate.errors import PolicyError
    from qualitygate.policy.suite import check_suite

    try:
        document = json_.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"Cannot read the suite {path}", str(error), "a JSON file as `suite.json` of a check"
        ) from error
    return check_suite(document, str(path))


def _show_plan(policy: Policy, json: bool) -> None:
    rules, settings = policy.check_rules(), policy.check
    if json:
        output.emit_json(
            {**settings.model_dump(mode="json"), "rules": [rule.model_dump(mode="json") for rule in rules]}
        )
        return
    output.table(f"{settings.samples:,} samples, up to {settings.budget.samples:,}; error {settings.error:g} over {settings.looks} looks",
                 ("rule", "severity", "metric", "limit", "optional"),
                 [(rule.id, rule.severity, rule.metric, rule.limit, rule.optional) for rule in rules])  # fmt: skip


def _tell(record: CheckRecord, out: Path | None, json: bool) -> None:
    """The result; and where GitHub runs this, its annotations and step summary."""
    from qualitygate.reports.check_text import HEADER, cells, footing, hand_written_failures, headline
    from qualitygate.reports.github import SUMMARY_BYTES, step_summary, workflow_commands

    if json:
        output.emit_json({"out": None if out is None else str(out), **record.model_dump(mode="json")})
    else:
        output.table(headline(record), HEADER, [row for _, row in cells(record)])
        for line in (*hand_written_failures(record), *footing(record)):
            output.emit(line)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in workflow_commands(record):
            output.say(line)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("ab") as file:
            file.write(step_summary(record, SUMMARY_BYTES - file.tell()).encode())
